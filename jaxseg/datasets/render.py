"""Synthetic photographs of concrete with cracks and exact masks.

Layer after layer is painted on a canvas (see `surfaces`); then a camera makes uint8 of
it. Cracks come as the share of each pixel that they cover; a pixel is crack in the mask
where that share is at least `COVERED`. Sizes are in pixels. Everything is a pure
function of the generator passed in. Our own design.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from jaxseg.datasets.surfaces import (
    SURFACES,
    Canvas,
    Generator,
    draw_lines,
    multiply,
    noise,
    paint_ground,
    paint_pores,
)

VERSION = 1  # of the pixels: to be raised with every change of the look
COVERED = 0.4  # of a pixel; below 1/2 so that hairlines keep an unbroken mask
LOOK_ALIKE = 0.5  # share of the photographs in which each look-alike of a surface is
GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill 0..1 evenly
SLIVER = 24  # pixels; crops with fewer crack pixels than this, but some, are not used


@dataclasses.dataclass(frozen=True)
class Crop:
    """A tile of a synthetic photograph.

    Attributes:
      photo: number of the photograph, from 0.
      tile: number of the tile in it, from 0.
      surface: 'deck', 'pavement' or 'wall'.
      image: [S, S, 3] uint8.
      mask: [S, S] bool, True on crack.
      quality: of the JPEG file, 60 to 95.
    """

    photo: int
    tile: int
    surface: str
    image: np.ndarray
    mask: np.ndarray
    quality: int


def render_crops(
    num_photos: int,
    seed: int,
    *,
    size: int,
    cracked_photos: float,
    cracked_crops: float,
) -> Iterator[Crop]:
    """Renders photographs and cuts four to eight tiles out of each.

    Fewer where too few of its tiles are without a crack.

    Args:
      size: side of a tile; photographs have 320 to 640 pixels a side, or two to four
        tiles where that is more.
      cracked_photos: share of the photographs that have cracks.
      cracked_crops: share of the tiles of those photographs that show one.

    Yields:
      Tiles in the order of their photographs; photograph k depends on (seed, k) only.
    """
    for photo in range(num_photos):
        rng = np.random.default_rng([seed, photo])
        surface = list(SURFACES)[photo % len(SURFACES)]
        cracked = (photo // len(SURFACES)) * GOLDEN % 1 < cracked_photos
        height, width = rng.integers(max(320, 2 * size), max(641, 4 * size + 1), 2)
        image, mask = render_photo(rng, surface, height, width, cracked=cracked)
        quality = int(rng.integers(60, 96))
        share = cracked_crops if cracked else 0.0
        for tile, rows, columns in _choose_tiles(rng, mask, size, share):
            crop = image[rows, columns], mask[rows, columns]
            yield Crop(photo, tile, surface, *crop, quality)


def render_photo(
    rng: Generator, surface: str, height: int, width: int, *, cracked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Renders one photograph.

    Args:
      surface: a key of `SURFACES`.

    Returns:
      Image [height, width, 3] uint8 and mask [height, width] bool.
    """
    kind = SURFACES[surface]
    canvas = paint_ground(rng, kind, (height, width))
    paint_pores(rng, canvas, kind.pores)
    for paint in kind.look_alikes:
        if rng.random() < LOOK_ALIKE:
            paint(rng, canvas)
    covered = np.zeros((height, width), np.float32)
    if cracked:
        covered = _draw_cracks(rng, (height, width))
        _paint_cracks(rng, canvas, covered)
    _paint_light(rng, canvas)
    return _expose(rng, canvas), covered >= COVERED


def _choose_tiles(rng: Generator, mask: np.ndarray, size: int, share: float):
    """Number and slices of four to eight tiles, a share of them with cracks."""
    height, width = mask.shape
    top, left = rng.integers(0, height % size + 1), rng.integers(0, width % size + 1)
    columns = width // size
    cracked, intact = [], []
    for tile in range(height // size * columns):
        row, column = divmod(tile, columns)
        y, x = top + row * size, left + column * size
        place = slice(y, y + size), slice(x, x + size)
        pixels = np.count_nonzero(mask[place])
        if pixels == 0 or pixels >= SLIVER:
            (cracked if pixels else intact).append((tile, *place))
    number = min(rng.integers(4, 9), len(cracked) + len(intact))
    wanted = min(int(number * share + rng.random()) if share else 0, len(cracked))
    chosen = [cracked[i] for i in rng.permutation(len(cracked))[:wanted]]
    chosen += [intact[i] for i in rng.permutation(len(intact))[: number - wanted]]
    return sorted(chosen, key=lambda tile: tile[0])


def _walk(
    rng: Generator, start, heading: float, length: float, width: float, depth: int
):
    """A crack and its branches: a random walk with momentum that tapers off.

    Yields:
      points [T, 2] as (y, x) and widths [T], in pixels.
    """
    step = 2.5
    number = max(int(length / step), 4)
    wander = ndimage.gaussian_filter1d(rng.normal(0, 1, number), 10) * rng.uniform(1, 3)
    turns = heading + wander + rng.normal(0, rng.uniform(0.3, 0.6), number)
    points = start + step * np.cumsum(np.stack([np.sin(turns), np.cos(turns)], 1), 0)
    taper = 1 - 0.8 * np.linspace(0, 1, number) ** 2
    swell = 1 + 0.8 * ndimage.gaussian_filter1d(rng.normal(0, 1, number), 4)
    yield points, np.maximum(width * taper * swell, 1.2)
    if depth == 0:
        return
    for _ in range(rng.poisson(1.2)):
        at = int(rng.uniform(0.1, 0.8) * number)
        side = heading + wander[at] + rng.choice((-1, 1)) * rng.uniform(0.4, 1.2)
        shorter = length * rng.uniform(0.2, 0.6)
        thinner = max(width * taper[at] * rng.uniform(0.4, 0.8), 1.2)
        yield from _walk(rng, points[at], side, shorter, thinner, depth - 1)


def _draw_cracks(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Covered share [H, W] of one or two branching cracks that start at a border."""
    size = np.array(shape)
    lines = []
    for _ in range(rng.integers(1, 3)):
        side = rng.uniform(0, 2 * np.pi)
        outward = np.array([np.sin(side), np.cos(side)])
        start = size * (0.5 + 0.5 * outward / np.abs(outward).max())
        start += rng.uniform(-0.2, 0.2, 2) * size
        inward = np.arctan2(*(size * rng.uniform(0.35, 0.65, 2) - start))
        width = np.exp(rng.uniform(np.log(1.6), np.log(6)))
        length = size.mean() * rng.uniform(0.7, 1.5)
        lines += _walk(rng, start, inward, length, width, depth=2)
    return draw_lines(shape, lines)


def _paint_cracks(rng: Generator, canvas: Canvas, covered: np.ndarray) -> None:
    """Darkens the cracks unevenly and lights one of their lips."""
    shape = covered.shape
    depth = rng.uniform(0.35, 0.75) * (1 + 0.15 * noise(rng, shape, 25)).clip(0.5, 1.2)
    lip = np.roll(covered, rng.integers(-1, 2, 2), (0, 1)) * (1 - covered)
    canvas *= (1 + rng.uniform(0, 0.15) * lip)[..., None]
    multiply(canvas, covered * depth, (0.0, 0.02, 0.04))


def _paint_light(rng: Generator, canvas: Canvas) -> None:
    """Uneven light, vignetting and exposure."""
    height, width = canvas.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    across = rng.normal(0, 0.1) * y + rng.normal(0, 0.1) * x
    across = across + 0.04 * noise(rng, (height, width), 200)
    vignette = 1 - rng.uniform(0, 0.2) * (x**2 + y**2)
    canvas *= (rng.uniform(0.7, 1.1) * np.exp(across) * vignette)[..., None]


def _expose(rng: Generator, canvas: Canvas) -> np.ndarray:
    """The camera: focus, sensor noise, 8 bits; [H, W, 3] uint8."""
    sharp = Image.fromarray((canvas.clip(0, 1) * 255).astype(np.uint8))
    seen = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    shape = canvas.shape[:2]
    grey = rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(1, 5))
    colour = noise(rng, shape, 2.5) * np.float32(rng.uniform(0, 2))
    grain = np.stack([grey + colour, grey, grey - colour], -1)
    return (np.asarray(seen) + grain).clip(0, 255).astype(np.uint8)
