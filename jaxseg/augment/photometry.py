"""Random changes of the colours of one sample; the mask stays as it is.

Every function is `name(key, image, *, <config keys>) -> image` on [H, W, C] float32 in
[0, 255]; the caller clips the result to that range. (low, high) is drawn from
uniformly. Where nothing else is said, values at the border go on as their mirror image.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.augment.jpeg import jpeg
from jaxseg.types import Array

# https://www.itu.int/rec/R-REC-BT.601 and NTSC: rows give luma and two chroma axes.
YIQ = np.float32(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
)


def brightness(key: Array, image: Array, *, shift: float) -> Array:
    """image + 255 * uniform(-shift, shift)."""
    return image + 255 * _draw(key, (-shift, shift))


def contrast(key: Array, image: Array, *, factor: tuple[float, float]) -> Array:
    """mean + factor * (image - mean), the mean over all pixels and channels."""
    mean = image.mean()
    return mean + _draw(key, factor) * (image - mean)


def gamma(key: Array, image: Array, *, exponent: tuple[float, float]) -> Array:
    """255 * (image / 255) ** exponent; above 1 darkens."""
    return 255 * (image / 255) ** _draw(key, exponent)


def gain(
    key: Array, image: Array, *, factor: tuple[float, float], per_channel: float
) -> Array:
    """image * factor; with probability `per_channel` a factor for each channel."""
    coin, *numbers = jax.random.uniform(key, (1 + image.shape[-1],))
    numbers = jnp.where(coin < per_channel, jnp.stack(numbers), numbers[0])
    return image * (factor[0] + (factor[1] - factor[0]) * numbers)[None, None]


def color(
    key: Array, image: Array, *, hue: float, saturation: tuple[float, float]
) -> Array:
    """Turns the hue by up to so many degrees either way and scales the saturation.

    Chroma is turned and scaled in YIQ, so luma stays (up to the clipping) and grey
    stays grey. Three channels only. Differs: many libraries turn in HSV, which changes
    the luma and has a jump at grey.
    """
    low, high = np.float32([[-hue, saturation[0]], [hue, saturation[1]]])
    angle, factor = jax.random.uniform(key, (2,), minval=low, maxval=high)
    angle = jnp.deg2rad(angle)
    cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
    # As a change of the chroma, so that no turn and no scaling is exactly nothing.
    change = jnp.stack([jnp.stack([cos - 1, -sin]), jnp.stack([sin, cos - 1])])
    back = np.linalg.inv(YIQ.astype(np.float64))[:, 1:].astype(np.float32)
    matrix = jnp.einsum("di,ij,jc->dc", back, change, YIQ[1:], precision="highest")
    return image + jnp.einsum("hwc,dc->hwd", image, matrix, precision="highest")


def blur(key: Array, image: Array, *, sigma: tuple[float, float]) -> Array:
    """Gaussian blur of deviation sigma in pixels, cut off at 3 of the largest."""
    radius = math.ceil(3 * sigma[1])
    deviation = jnp.maximum(_draw(key, sigma), 1e-3)
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = jnp.exp(-((offsets / deviation) ** 2) / 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        pads = [(radius * (axis == a), radius * (axis == a)) for a in range(3)]
        padded = jnp.pad(image, pads, mode="reflect")
        length = image.shape[axis]
        image = sum(
            weights[k] * jax.lax.slice_in_dim(padded, k, k + length, axis=axis)
            for k in range(2 * radius + 1)
        )
    return image


def noise(key: Array, image: Array, *, std: tuple[float, float]) -> Array:
    """Normal noise of deviation `std` in grey levels, each channel its own."""
    std_key, noise_key = jax.random.split(key)
    return image + _draw(std_key, std) * jax.random.normal(noise_key, image.shape)


def dropout(
    key: Array, image: Array, *, holes: int, share: tuple[float, float]
) -> Array:
    """Rectangles in the mean colour of the image.

    The mask keeps what they hide: the network learns to go on from what is around.
    Source: https://arxiv.org/abs/1708.04552. Differs: several rectangles, whole inside.

    Args:
      share: of the height and of the width that a hole takes, drawn for each.
    """
    size = np.float32(image.shape[:2])[None]
    numbers = jax.random.uniform(key, (2, holes, 2))
    side = jnp.round((share[0] + (share[1] - share[0]) * numbers[0]) * size)
    corner = jnp.floor(numbers[1] * (size - side + 1))  # [holes, 2]
    inside = [
        (corner[:, axis, None] <= np.arange(length)[None])
        & (np.arange(length)[None] < (corner + side)[:, axis, None])
        for axis, length in enumerate(image.shape[:2])
    ]  # [holes, H], [holes, W]
    hidden = (inside[0][:, :, None] & inside[1][:, None, :]).any(axis=0)
    return jnp.where(hidden[..., None], image.mean(axis=(0, 1), keepdims=True), image)


def _draw(key: Array, bounds: tuple[float, float], shape=()) -> Array:
    low, high = bounds
    return jax.random.uniform(key, shape, minval=low, maxval=high)


PHOTOMETRY = {
    "brightness": brightness,
    "contrast": contrast,
    "gamma": gamma,
    "gain": gain,
    "color": color,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "dropout": dropout,
}
