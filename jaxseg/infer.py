"""Probabilities of images larger than the network or the memory, tile by tile.

Tiles start at multiples of the network's stride, so every tile sees the grid of
max-pools that the whole image would have. All have one size and go through one compiled
batch; where the image ends inside a tile, or is smaller than one, the tile is filled by
reflection. A tile row is added up in one strip of the image's width; rows that no later
tile reaches are handed on, so never more than a strip is held as float32.

Overlapping tiles are blended with Gaussian weights that sum to one at every pixel. A
tile has weight 0 in the outer three eighths of its overlap, where it lacks context: if
the receptive field reaches no further than `3 * overlap // 8` pixels from its centre,
the result is that of the whole image.

Source: Gaussian weights as in nnU-Net, https://github.com/MIC-DKFZ/nnUNet. Differs: the
three eighths without weight; strips instead of a volume.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from jaxseg.errors import InputError

Predict = Callable[[np.ndarray], np.ndarray]
Strip = tuple[int, np.ndarray]

STRIP_PIXELS = 2**22  # of enlarged probabilities at a time

SIGMA = 1 / 8
"""Standard deviation of the weights in tile sides, as in nnU-Net."""


def predict_strips(
    predict: Predict,
    image: np.ndarray,
    *,
    tile: tuple[int, int],
    overlap: int,
    batch_size: int,
    stride: int,
) -> Iterator[Strip]:
    """The probabilities of a whole image, from top to bottom.

    Args:
      predict: `[batch_size, *tile, C] uint8 -> [batch_size, *tile, K] float32`, always
        called with this one shape.
      image: [H, W, C] uint8; a memory map is read tile by tile.
      tile: (H, W) of a tile, pixels; multiples of `stride`.
      overlap: pixels that neighbouring tiles share at least, from 0 to a tile less one
        stride.
      stride: of the network, pixels: 2^(levels - 1) of a U-Net.

    Yields:
      `(first row, [h, W, K] float32)`, h <= tile[0]. The caller owns the strips;
      together they are the image, each row once.

    Raises:
      InputError: tile or overlap do not fit the network.
    """
    refuse_misfits(tile, overlap, stride)
    tops = _starts(image.shape[0], tile[0], overlap, stride)
    lefts = _starts(image.shape[1], tile[1], overlap, stride)
    weights = _weights(tile[0], overlap, tops), _weights(tile[1], overlap, lefts)
    return _blend(predict, image, tile, batch_size, tops, lefts, weights)


def predict_tiles(
    predict: Predict,
    image: np.ndarray,
    *,
    tile: tuple[int, int],
    overlap: int,
    batch_size: int,
    stride: int,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(top, left, what `predict` says) of every tile, row by row, for classifiers.

    Args:
      predict: `[batch_size, *tile, C] uint8 -> [batch_size, ...]`.
    """
    refuse_misfits(tile, overlap, stride)
    tops = _starts(image.shape[0], tile[0], overlap, stride)
    lefts = _starts(image.shape[1], tile[1], overlap, stride)
    for i, j, said in _predicted(predict, image, tile, batch_size, tops, lefts):
        yield tops[i], lefts[j], said


def enlarge(probs: np.ndarray, size: tuple[int, int]) -> Iterator[Strip]:
    """[h, w, K] float32 resized bilinearly to a size, from top to bottom.

    Yields:
      `(first row, [rows, W, K] float32)`, at most `STRIP_PIXELS` at a time.
    """
    if probs.shape[:2] == size:
        yield 0, probs
        return
    yield from enlarge_strips(iter([(0, probs)]), len(probs), size)


def enlarge_strips(
    strips: Iterator[Strip], height: int, size: tuple[int, int]
) -> Iterator[Strip]:
    """The same of [height, w, K] that comes in strips, from top to bottom.

    Never more is held than what the next strip is made of.
    """
    ratio = height / size[0]
    # A pixel is made of those around its centre; two more do not change it.
    reach = math.ceil(max(ratio, 1.0)) + 2
    rows = max(STRIP_PIXELS // size[1], 1)
    first, held = next(strips)
    for top in range(0, size[0], rows):
        stop = min(top + rows, size[0])
        low = max(math.floor(top * ratio) - reach, 0)
        high = min(math.ceil(stop * ratio) + reach, height)
        while first + len(held) < high:
            held = np.concatenate([held, next(strips)[1]])
        first, held = low, held[low - first :]
        box = (0, top * ratio - low, held.shape[1], stop * ratio - low)
        yield top, _resize(held[: high - low], (stop - top, size[1]), box)


def _resize(probs: np.ndarray, size: tuple[int, int], box) -> np.ndarray:
    """[H, W, K] float32 of a box (left, top, right, bottom) of [h, w, K]."""
    channels = [
        Image.fromarray(np.ascontiguousarray(c)).resize(
            size[::-1], Image.Resampling.BILINEAR, box
        )
        for c in np.moveaxis(probs, -1, 0)
    ]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


def _blend(predict, image, tile, batch_size, tops, lefts, weights) -> Iterator[Strip]:
    """Adds tiles to the strip of their row; hands on what the next row leaves alone."""
    height, width = image.shape[:2]
    ends = [*tops[1:], height]
    strip, row = None, 0
    for i, j, probs in _predicted(predict, image, tile, batch_size, tops, lefts):
        if strip is None:
            strip = np.zeros((tile[0], lefts[-1] + tile[1], probs.shape[-1]), "f4")
        if i > row:
            done = ends[row] - tops[row]
            yield tops[row], strip[:done, :width].copy()
            strip[:-done], strip[-done:] = strip[done:], 0
            row = i
        weight = weights[0][i][:, None, None] * weights[1][j][None, :, None]
        strip[:, lefts[j] : lefts[j] + tile[1]] += probs * weight
    yield tops[row], strip[: ends[row] - tops[row], :width]


def _predicted(predict, image, tile, batch_size, tops, lefts):
    """(i, j, probabilities) of every tile, row by row, in full batches.

    The next batch is computed while the caller blends the last one.
    """
    places = itertools.product(range(len(tops)), range(len(lefts)))

    def next_batch():
        chunk = list(itertools.islice(places, batch_size))
        tiles = [_read_tile(image, tops[i], lefts[j], tile) for i, j in chunk]
        tiles += tiles[:1] * (batch_size - len(tiles))  # fills the last batch
        return chunk, predict(np.stack(tiles)) if chunk else None

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next_batch)
        while (batch := ahead.result())[0]:
            ahead = pool.submit(next_batch)
            for (i, j), probs in zip(*batch, strict=False):
                yield i, j, probs


def _read_tile(image: np.ndarray, top: int, left: int, tile) -> np.ndarray:
    """[*tile, C]; what the image lacks below and on the right is reflected."""
    pixels = np.asarray(image[top : top + tile[0], left : left + tile[1]])
    lacking = [(0, side - n) for side, n in zip(tile, pixels.shape[:2], strict=True)]
    return np.pad(pixels, (*lacking, (0, 0)), mode="reflect")


def _starts(length: int, tile: int, overlap: int, stride: int) -> list[int]:
    """First pixel of every tile along one side, multiples of the stride."""
    last = max(0, -(-(length - tile) // stride) * stride)
    step = (tile - overlap) // stride * stride
    return [*range(0, last, step), last]


def _weights(tile: int, overlap: int, starts: list[int]) -> np.ndarray:
    """[tiles, tile] float32 along one side; they sum to one at every pixel."""
    offsets = np.arange(tile) - (tile - 1) / 2
    bell = np.exp(-0.5 * (offsets / (SIGMA * tile)) ** 2)
    weights = np.tile(bell, (len(starts), 1))
    margin = 3 * overlap // 8
    weights[1:, :margin] = 0
    weights[:-1, tile - margin :] = 0
    total = np.zeros(starts[-1] + tile)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + tile]
    return weights.astype(np.float32)


def refuse_misfits(tile: tuple[int, int], overlap: int, stride: int) -> None:
    """Raises InputError where tile and overlap do not fit the network."""
    if any(side < stride or side % stride for side in tile):
        fitting = tuple(max(round(side / stride), 1) * stride for side in tile)
        raise InputError(
            f"tiles with sides that are multiples of {stride}, the network's stride",
            f"tile={tuple(tile)}",
            f"tile={fitting}",
        )
    most = min(tile) - stride
    if not 0 <= overlap <= most:
        raise InputError(
            f"an overlap from 0 to {most}: a tile less one stride",
            f"overlap={overlap} of tile={tuple(tile)}",
            f"overlap={min(min(tile) // 4, most)}",
        )
