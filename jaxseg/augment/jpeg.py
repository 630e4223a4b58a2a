"""The loss of quality of a JPEG file, on the device: block DCT, rounding, and back.

Source: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annexes A.3 and K.1; JFIF for the
colours; the tables for a quality are those of libjpeg. Differs: colour is not stored at
half the resolution, and what the file does without loss is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array

LUMA = np.float32(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA = np.full((8, 8), 99, np.float32)
CHROMA[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]
YCBCR = np.float32(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ]
)


def _cosines() -> np.ndarray:
    """[8, 8] float32: the orthonormal DCT-II; row u is the u-th frequency."""
    u, x = np.arange(8)[:, None], np.arange(8)[None, :]
    basis = np.cos((2 * x + 1) * u * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


COSINES = _cosines()


def jpeg(key: Array, image: Array, *, quality: tuple[float, float]) -> Array:
    """The image as a JPEG file of a quality drawn from (lowest, highest) gives it back.

    Args:
      image: [H, W, C] float32 in [0, 255], C = 1 or 3. Sides that are no multiple of 8
        are filled up with the edge.
      quality: in [1, 100] of libjpeg.
    """
    low, high = quality
    drawn = jax.random.uniform(key, (), minval=low, maxval=high)
    height, width, channels = image.shape
    is_color = channels == 3
    turn = YCBCR if is_color else np.ones((1, 1), np.float32)
    tables = np.stack([LUMA, CHROMA, CHROMA] if is_color else [LUMA])
    middle = np.float32([128, 0, 0])[None, None, :channels]
    filled = jnp.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    planes = _turn(filled, turn) - middle
    rows, columns = planes.shape[0] // 8, planes.shape[1] // 8
    blocks = planes.reshape(rows, 8, columns, 8, channels)
    step = quantisation(tables, drawn).transpose(1, 2, 0)[
        None, :, None
    ]  # [1, 8, 1, 8, C]
    frequencies = jnp.round(_transform(blocks, COSINES) / step) * step
    planes = _transform(frequencies, COSINES.T).reshape(planes.shape) + middle
    return _turn(planes, np.linalg.inv(turn))[:height, :width]


def quantisation(tables: np.ndarray, quality: Array) -> Array:
    """The tables [..., 8, 8] for a quality in [1, 100], entries in 1..255."""
    percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)


def _turn(planes: Array, matrix: np.ndarray) -> Array:
    return jnp.einsum("hwc,dc->hwd", planes, matrix, precision="highest")


def _transform(blocks: Array, basis: np.ndarray) -> Array:
    """basis B basis^T of every block B, [rows, 8, columns, 8, C]."""
    half = jnp.einsum("ui,ricjk->rucjk", basis, blocks, precision="highest")
    return jnp.einsum("vj,rucjk->rucvk", basis, half, precision="highest")
