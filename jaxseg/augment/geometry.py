"""Random moves of one sample, as maps from places in the new image to the old one.

Moves and linear maps give a [3, 3] float32 matrix on (row, column, 1), distortions the
rows and columns to add to a place, each broadcasting to [H, W]. Units are pixels, the
origin is the middle of the image (see `resample`). A strength of zero is exactly the
identity. The keyword-only parameters are the keys of the config.

Sources: https://github.com/albumentations-team/albumentations and
https://github.com/aleju/imgaug for the parameters, which many published trainings use;
the formulas stand at each function. Differs: all maps of a sample are composed and the
image is interpolated once, there once per map.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array

Size = tuple[int, int]
Shift = tuple[Array, Array]


def hflip(key: Array, size: Size) -> Array:
    """Left and right change places."""
    return _matrix(((1, 0), (0, -1)))


def vflip(key: Array, size: Size) -> Array:
    """Top and bottom change places."""
    return _matrix(((-1, 0), (0, 1)))


def rot90(key: Array, size: Size) -> Array:
    """0, 1, 2 or 3 quarter turns, each as likely; square images."""
    turns = jnp.floor(_uniform(key, (0, 4))).astype(jnp.int32)
    cos, sin = jnp.array([1, 0, -1, 0])[turns], jnp.array([0, 1, 0, -1])[turns]
    return _matrix(((cos, sin), (-sin, cos)))


def transpose(key: Array, size: Size) -> Array:
    """Rows become columns; square images."""
    return _matrix(((0, 1), (1, 0)))


def crop(key: Array, size: Size, *, share: tuple[float, float]) -> Array:
    """A random part, enlarged to the whole image.

    Args:
      share: (lowest, highest) share of the height and of the width that is kept.
    """
    number, *place = jax.random.uniform(key, (3,))
    kept = share[0] + (share[1] - share[0]) * number
    shift = (1 - kept) * (jnp.stack(place) - 0.5) * np.float32(size)
    return _matrix(((kept, 0), (0, kept)), shift)


def scale(key: Array, size: Size, *, factor: tuple[float, float]) -> Array:
    """Enlarges by factors drawn for the height and the width each; below 1 shrinks."""
    y, x = _uniform(key, factor, (2,))
    return _matrix(((1 / y, 0), (0, 1 / x)))


def shear(key: Array, size: Size, *, degrees: float) -> Array:
    """Rows slide along: upright edges lean by up to so many degrees either way."""
    angle = _uniform(key, (-degrees, degrees))
    return _matrix(((1, 0), (jnp.tan(jnp.deg2rad(angle)), 1)))


def rotate(key: Array, size: Size, *, degrees: float) -> Array:
    """Turns about the middle by up to so many degrees either way."""
    angle = jnp.deg2rad(_uniform(key, (-degrees, degrees)))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix(((cos, sin), (-sin, cos)))


def translate(key: Array, size: Size, *, share: float) -> Array:
    """Shifts by up to this share of the height and of the width, either way."""
    shift = _uniform(key, (-share, share), (2,))
    return _matrix(((1, 0), (0, 1)), shift * np.float32(size))


def elastic(key: Array, size: Size, *, alpha: float, sigma: float) -> Shift:
    """Every place moves by smooth noise.

    The noise has the deviation alpha / (sigma sqrt(12 pi)) in pixels and the
    correlation exp(-d^2 / (4 sigma^2)) at distance d, like white noise in [-1, 1] that
    is blurred by a Gaussian of deviation sigma and multiplied by alpha.

    Source: P. Simard et al., Best practices for convolutional neural networks, 2003.
    Differs: the noise is drawn on a lattice of spacing sigma, so two small matrix
    products do the blur; no random affine map is added (`scale`, `shear` and
    `rotate` do that).
    """
    over_y, over_x = (_gaussians(length, sigma) for length in size)
    noise = _uniform(key, (-1, 1), (2, over_y.shape[1], over_x.shape[1]))
    smooth = jnp.matmul(over_y, noise, precision="highest")
    smooth = jnp.matmul(smooth, over_x.T, precision="highest")  # [2, H, W]
    strength = alpha / (2 * sigma * math.sqrt(math.pi))  # uniform noise: var 1/3
    return strength * smooth[0], strength * smooth[1]


def grid(key: Array, size: Size, *, steps: int, limit: float) -> Shift:
    """Columns and rows of a grid of steps x steps cells become wider or narrower.

    Widths are proportional to 1 + uniform(-limit, limit); the edges of the image stay.
    Source: GridDistortion of albumentations. Differs: there the widths are not brought
    to the size of the image, so that its far edges move.
    """
    change = _uniform(key, (-limit, limit), (2, steps))
    shift_y, shift_x = map(_follow_cells, change, size)
    return shift_y[:, None], shift_x[None, :]


def optical(key: Array, size: Size, *, limit: float, shift: float) -> Shift:
    """Barrel and pincushion distortion of a lens: places move by (k r^2 + k r^4).

    r is the distance from the lens's middle in widths of the image, k is uniform in
    +-limit; that middle lies up to `shift` pixels from the middle of the image.
    Source: OpticalDistortion of albumentations with cv2.initUndistortRectifyMap.
    """
    strength, *middle = _uniform(key, (-1, 1), (3,))
    k, middle = limit * strength, shift * jnp.stack(middle)
    height, width = size
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2 - middle[0]
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2 - middle[1]
    squared = (y / width) ** 2 + (x / width) ** 2
    bend = k * squared + k * squared**2
    return y * bend, x * bend


MOVES = {"hflip": hflip, "vflip": vflip, "rot90": rot90, "transpose": transpose}
LINEAR = {
    "crop": crop,
    "scale": scale,
    "shear": shear,
    "rotate": rotate,
    "translate": translate,
}
DISTORTIONS = {"elastic": elastic, "grid": grid, "optical": optical}


def compose(matrices: list[Array]) -> Array:
    """[3, 3] of maps that are done to the image one after the other."""
    total = jnp.eye(3)
    for matrix in matrices:
        total = jnp.matmul(total, matrix, precision="highest")
    return total


def _matrix(linear, shift=(0, 0)) -> Array:
    (a, b), (c, d), (e, f) = *linear, shift
    rows = ((a, b, e), (c, d, f), (0, 0, 1))
    return jnp.stack(
        [jnp.stack([jnp.asarray(v, jnp.float32) for v in row]) for row in rows]
    )


def _uniform(key: Array, bounds: tuple[float, float], shape=()) -> Array:
    low, high = bounds
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def _gaussians(length: int, sigma: float) -> np.ndarray:
    """[length, n] float32: n Gaussians a sigma apart; every row has the norm 1."""
    middles = np.arange(-3.0, (length - 1) / sigma + 3.0)  # in sigmas
    distance = np.arange(length)[:, None] / sigma - middles[None, :]
    weights = np.exp(-(distance**2) / 2)
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    return (weights / norm).astype(np.float32)


def _follow_cells(change: Array, length: int) -> Array:
    """[length]: what to add to each pixel, cells having the widths 1 + change."""
    steps = len(change)
    before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(change)])  # [steps + 1]
    total = before[-1]
    even = np.arange(steps + 1, dtype=np.float32)
    # (j + before_j) / (steps + total) - j / steps; exactly 0 without changes
    moved = (steps * before - even * total) / (steps * (steps + total)) * length
    place = (np.arange(length) + 0.5) * steps / length  # in cells
    tents = np.maximum(0, 1 - np.abs(place[:, None] - even[None, :]))
    return jnp.matmul(tents.astype(np.float32), moved, precision="highest")
