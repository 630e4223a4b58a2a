"""Moves pixels: by symmetries of the grid exactly, else one sample per output pixel.

For one sample; `jax.vmap` makes it a batch. Coordinates are pixels (row, column) with
the origin in the middle of the image, so the same map fits any even or odd size. A map
is a [3, 3] float32 matrix on (row, column, 1) that gives, for a place in the new image,
the place in the old one that is seen there.

The four neighbours of a place are read as one 32-bit word each, which holds up to three
channels and the mask: four reads per pixel, and image and mask cannot part. Outside the
image lies its mirror image without the edge row repeated ('mirror' of SciPy,
BORDER_REFLECT_101 of OpenCV), in the mask as well: every pixel keeps its true class.

Where places lie s > 1 pixels apart, the picture shrinks and plain interpolation would
step over thin lines. The weights of the neighbours then lean to the plain mean of them
(all of it at s = 2), and a background pixel of the mask takes the class of the nearest
foreground neighbour within s/2 rows and s/2 columns: a line one pixel wide stays a line
one pixel wide. From s = 2 on, pixels are stepped over after all.
"""

import jax
import jax.numpy as jnp

from jaxseg.types import IGNORE, Array

Pixels = dict[str, Array]  # `image` [H, W, C] and perhaps `mask` [H, W], both uint8


def move(pixels: Pixels, matrix: Array, *, names: frozenset[str]) -> Pixels:
    """A symmetry of the grid; pixels only change place.

    Args:
      matrix: signed permutation of rows and columns.
      names: of the moves that it may be made of; the others cost nothing.
    """
    rows_turn = matrix[0, 0] + matrix[0, 1] < 0
    columns_turn = matrix[1, 0] + matrix[1, 1] < 0
    steps = (
        ({"vflip", "rot90"}, rows_turn, lambda x: x[::-1]),
        ({"hflip", "rot90"}, columns_turn, lambda x: x[:, ::-1]),
        ({"transpose", "rot90"}, matrix[0, 1] != 0, lambda x: x.swapaxes(0, 1)),
    )
    for movers, chosen, step in steps:
        if movers & names:
            pixels = {k: jnp.where(chosen, step(x), x) for k, x in pixels.items()}
    return pixels


def places(matrix: Array, shift: tuple[Array, Array], size: tuple[int, int]):
    """Where every pixel of the new image lies in the old one.

    Args:
      shift: rows and columns added before the matrix, broadcast to [H, W].

    Returns:
      rows and columns [H, W] float32, counted from the upper left pixel.
    """
    (height, width), (shift_y, shift_x) = size, shift
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - middle_y + shift_y
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - middle_x + shift_x
    rows = matrix[0, 0] * y + matrix[0, 1] * x + (matrix[0, 2] + middle_y)
    columns = matrix[1, 0] * y + matrix[1, 1] * x + (matrix[1, 2] + middle_x)
    return rows, columns


def resample(pixels: Pixels, rows: Array, columns: Array) -> dict[str, Array]:
    """The old image seen at these places.

    Args:
      rows, columns: [H, W] float32 from `places`.

    Returns:
      `image` [H, W, C] float32 in [0, 255], not rounded; `mask` [H, W] uint8.
    """
    image = pixels["image"]
    height, width, channels = image.shape
    # Else the compiler works the places out anew for each neighbour: twice the time.
    rows, columns = jax.lax.optimization_barrier((rows, columns))
    packed = _pack(pixels)
    top, bottom, y = _neighbours(rows, height)
    left, right, x = _neighbours(columns, width)
    taps = [
        packed.at[row * width + column].get(mode="promise_in_bounds")
        for row in (top, bottom)
        for column in (left, right)
    ]
    step_y, step_x = _spacing(rows), _spacing(columns)
    lean_y = y + (0.5 - y) * jnp.clip(step_y - 1, 0, 1)
    lean_x = x + (0.5 - x) * jnp.clip(step_x - 1, 0, 1)
    weights = [v * h for v in (1 - lean_y, lean_y) for h in (1 - lean_x, lean_x)]
    planes = [
        sum(w * _lane(tap, lane) for w, tap in zip(weights, taps, strict=True))
        for lane in range(channels)
    ]
    seen = {"image": jnp.stack(planes, axis=-1)}
    if "mask" in pixels:
        classes = [_lane(tap, channels) for tap in taps]
        seen["mask"] = _choose_class(classes, (y, x), (step_y, step_x))
    return seen


def _pack(pixels: Pixels) -> Array:
    """[H * W] uint32: the channels and the mask, eight bits each."""
    image = pixels["image"].astype(jnp.uint32)
    lanes = [image[..., channel] for channel in range(image.shape[-1])]
    if "mask" in pixels:
        lanes.append(pixels["mask"].astype(jnp.uint32))
    return sum(lane << (8 * number) for number, lane in enumerate(lanes)).reshape(-1)


def _lane(packed: Array, lane: int) -> Array:
    """[H, W] float32 of one lane; int32 first, since uint32 -> float is slow on CPU."""
    return ((packed >> (8 * lane)) & 255).astype(jnp.int32).astype(jnp.float32)


def _neighbours(places: Array, length: int) -> tuple[Array, Array, Array]:
    """(first, second, share of the second) after mirroring into [0, length - 1]."""
    period = max(2 * (length - 1), 1)
    inside = places - period * jnp.floor(places / period)
    inside = jnp.minimum(inside, period - inside)
    first = jnp.clip(jnp.floor(inside), 0, length - 1)
    index = first.astype(jnp.int32)
    return index, jnp.minimum(index + 1, length - 1), inside - first


def _spacing(places: Array) -> Array:
    """[H, W]: how far the places of neighbouring pixels lie apart along this axis."""
    down = jnp.diff(places, axis=0, append=2 * places[-1:] - places[-2:-1])
    across = jnp.diff(places, axis=1, append=2 * places[:, -1:] - places[:, -2:-1])
    return jnp.sqrt(down**2 + across**2)


def _choose_class(classes: list[Array], share, spacing) -> Array:
    """[H, W] uint8: the nearest neighbour; near foreground wins over background."""
    (y, x), (step_y, step_x) = share, spacing
    nearest = jnp.where(
        y < 0.5,
        jnp.where(x < 0.5, classes[0], classes[1]),
        jnp.where(x < 0.5, classes[2], classes[3]),
    )
    found, found_at = jnp.zeros_like(y), jnp.full_like(y, jnp.inf)
    far = [(v, h) for v in (y, 1 - y) for h in (x, 1 - x)]
    for label, (v, h) in zip(classes, far, strict=True):
        inside = (v <= step_y / 2) & (h <= step_x / 2)
        is_foreground = (label > 0) & (label < IGNORE)
        distance = v * v + h * h
        better = inside & is_foreground & (distance < found_at)
        found = jnp.where(better, label, found)
        found_at = jnp.where(better, distance, found_at)
    return jnp.where(nearest == 0, found, nearest).astype(jnp.uint8)
