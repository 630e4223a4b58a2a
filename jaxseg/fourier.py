"""Convolution with a large kernel as a product of spectra, tile by tile.

A product of matrices per frequency takes the place of a product per tap. Its cost per
pixel is a tenth of that of 15 x 15 taps, but the spectrum of the kernel is made anew in
every step, so it pays only with many pixels; `ops.conv` decides. The transforms are
matrix products, too: they are short, and their gradients come for free.

Source: https://arxiv.org/abs/1312.5851, with tiles (overlap-save) that share the
spectrum of the kernel.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.types import Array

TILE = 18
"""Pixels of the result per side of a tile, at most. Of 8 to 30 the fastest for one
image; for eight, 30 gains little and needs twice the memory."""


def fourier_conv(
    image: Array, kernel: Array, padding: tuple[tuple[int, int], tuple[int, int]]
) -> Array:
    """`ops.conv` with stride 1, computed in float32 whatever the dtype.

    Args:
      image: [N, H, W, C].
      kernel: [kh, kw, C, D], same dtype.
      padding: zeros around the image.

    Returns:
      [N, h, w, D], equal to the sum over taps to rounding.
    """
    n, kh, kw = len(image), *kernel.shape[:2]
    h, w = (
        size + sum(border) - taps + 1
        for size, border, taps in zip(image.shape[1:3], padding, (kh, kw), strict=True)
    )
    rows, columns = -(-h // TILE), -(-w // TILE)  # of tiles
    high, wide = -(-h // rows), -(-w // columns)  # pixels of the result in a tile
    tall, broad = high + kh - 1, wide + kw - 1  # pixels of the image that it sees
    tiles = _cut(image, padding, (rows, columns), (high, wide), (tall, broad))
    # i, j: pixels or taps; u, v: their frequencies; t: tiles; n: images.
    along_rows, along_columns = _waves(tall), _waves(broad)[: broad // 2 + 1]
    seen = jnp.einsum("vj,tnijc->vtnic", along_columns, tiles)
    seen = jnp.einsum("ui,vtnic->uvtnc", along_rows, seen)
    # A cross-correlation: the spectrum of the kernel is conjugate.
    taps = kernel.astype(jnp.float32)
    taps = jnp.einsum("vj,ijcd->vicd", along_columns[:, :kw].conj(), taps)
    taps = jnp.einsum("ui,vicd->uvcd", along_rows[:, :kh].conj(), taps)
    product = jnp.einsum("uvtnc,uvcd->uvtnd", seen, taps)
    back = along_rows[:, :high].conj().T / tall
    product = jnp.einsum("iu,uvtnd->ivtnd", back, product)
    # Of a real signal, frequencies between 0 and the highest stand for two.
    twice = np.where(2 * np.arange(broad // 2 + 1) % broad, 2, 1).astype(np.float32)
    back = twice * along_columns[:, :wide].conj().T / broad
    result = jnp.einsum("jv,ivtnd->tnijd", back, product).real
    result = result.reshape(rows, columns, *result.shape[1:]).transpose(
        2, 0, 3, 1, 4, 5
    )
    result = result.reshape(n, rows * high, columns * wide, -1)[:, :h, :w]
    return result.astype(image.dtype)


def _cut(image: Array, padding, count, step, size) -> Array:
    """[tiles, N, *size, C] float32: overlapping tiles, `step` apart."""
    borders = [(0, 0, 0)]
    for length, (before, _), tiles, apart, seen in zip(
        image.shape[1:3], padding, count, step, size, strict=True
    ):
        borders.append((before, (tiles - 1) * apart + seen - length - before, 0))
    image = image.astype(jnp.float32)
    image = lax.pad(image, jnp.zeros((), image.dtype), [*borders, (0, 0, 0)])
    n, channels = len(image), image.shape[-1]
    return jnp.stack(
        [
            lax.slice(image, (0, y, x, 0), (n, y + size[0], x + size[1], channels))
            for y in range(0, count[0] * step[0], step[0])
            for x in range(0, count[1] * step[1], step[1])
        ]
    )


def _waves(length: int) -> np.ndarray:
    """[length, length] complex64: exp(-2 pi i u k / length)."""
    turns = np.outer(np.arange(length), np.arange(length)) % length / length
    return np.exp(-2j * np.pi * turns).astype(np.complex64)
