"""Windows cut out of large images at full resolution, instead of resizing them.

A tile is one image of the set with its mask; tiles may differ in size. For training,
windows are drawn at random anew in every epoch, a share of them around a foreground
pixel. For evaluation a grid covers every tile: each pixel is counted in one window. A
window is the "image" of results.csv, of averages per image and of the mean loss. The
pixels of all tiles lie one behind the other in flat memory-mapped files.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from jaxseg.config import Crop
from jaxseg.data.images import decode_image, decode_mask
from jaxseg.data.mask_values import MaskEncoding, encode_mask
from jaxseg.types import IGNORE

FORMAT = 1
"""To be raised when the same files would decode to other pixels than before."""

KEPT_DECODED = 16  # tiles without a cache; a grid reads one tile many times in a row


@dataclasses.dataclass(frozen=True)
class Tile:
    """One image at full size.

    Attributes:
      image: [h, w, C] uint8.
      mask: [h, w] uint8 class ids.
      rows: [h] int32, foreground pixels in the row and all rows above it.
    """

    image: np.ndarray
    mask: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class TileDecoder:
    """How records become tiles, and where a tile lies in the flat files.

    Attributes:
      image_size: (H, W) of a window.
      channels: C, 1 or 3.
      encoding: of the masks.
      sizes: (h, w) of every tile.
    """

    image_size: tuple[int, int]
    channels: int
    encoding: MaskEncoding
    sizes: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        """Changes when the pixels do; windows of any size share them."""
        rule = (FORMAT, "tiles", self.channels, *dataclasses.astuple(self.encoding))
        return hashlib.sha256(repr(rule).encode()).hexdigest()[:12]

    def fields(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype per array of one window."""
        return {
            "image": ((*self.image_size, self.channels), np.uint8),
            "mask": (self.image_size, np.uint8),
        }

    def arrays(self, count: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of the flat files that hold all tiles."""
        assert count == len(self.sizes)
        pixels, rows = self._starts[-1].tolist()
        return {
            "image": ((pixels * self.channels,), np.uint8),
            "mask": ((pixels,), np.uint8),
            "rows": ((rows,), np.int32),
        }

    def decode(self, record: Mapping[str, bytes]) -> Tile:
        """The tile of a record; a missing mask is `IGNORE` everywhere."""
        image = decode_image(record["image"], self.channels)
        if record["mask"]:
            mask = encode_mask(decode_mask(record["mask"]), self.encoding)
        else:
            mask = np.full(image.shape[:2], IGNORE, np.uint8)
        rows = _is_foreground(mask).sum(axis=1).cumsum(dtype=np.int32)
        return Tile(image, mask, rows)

    def store(self, arrays: Mapping[str, np.ndarray], i: int, tile: Tile) -> None:
        """Writes tile i into the flat arrays."""
        stored = self.tile_of(arrays, i)
        stored.image[:], stored.mask[:], stored.rows[:] = (
            tile.image,
            tile.mask,
            tile.rows,
        )

    def tile_of(self, arrays: Mapping[str, np.ndarray], i: int) -> Tile:
        """Tile i as views of the flat arrays."""
        (pixels, rows), size = self._starts[i], self.sizes[i]
        stop = pixels + size[0] * size[1]
        image = arrays["image"][pixels * self.channels : stop * self.channels]
        return Tile(
            image.reshape(*size, self.channels),
            arrays["mask"][pixels:stop].reshape(size),
            arrays["rows"][rows : rows + size[0]],
        )

    def open_decoded(self, arrays: Future[dict[str, np.ndarray]]) -> "TileSource":
        return TileSource(self, lambda i: self.tile_of(arrays.result(), i))

    def open_streamed(self, records: Sequence) -> "TileSource":
        @functools.lru_cache(maxsize=KEPT_DECODED)
        def tile(i: int) -> Tile:
            return self.decode(records[i])

        return TileSource(self, tile)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """[n + 1, 2] int64: first pixel and first row of every tile, and the totals."""
        sizes = np.asarray(self.sizes, np.int64)
        lengths = np.stack([sizes.prod(axis=1), sizes[:, 0]], axis=1)
        return np.concatenate([np.zeros((1, 2), np.int64), lengths.cumsum(axis=0)])


class TileSource:
    """Windows of tiles: those of the grid by position, others at random.

    Attributes:
      grid: [m, 3] int64: tile, top and left of every window of the grid.
    """

    def __init__(self, decoder: TileDecoder, tile: Callable[[int], Tile]):
        self.decoder = decoder
        self.grid = make_grid(decoder.sizes, decoder.image_size)
        self._tile = tile

    def wait(self) -> None:
        """Returns when windows can be read at once."""
        self._tile(0)

    def read(self, positions: np.ndarray, out: dict[str, np.ndarray]) -> None:
        """Fills `out[name][i]` with window `positions[i]` of the grid.

        The last windows of a row and a column are moved inside the tile; what a window
        before them has counted already is `IGNORE` in their masks.
        """
        height, width = self.decoder.image_size
        for i, (tile, top, left) in enumerate(self.grid[positions].tolist()):
            tile_height, tile_width = self.decoder.sizes[tile]
            inside = min(top, tile_height - height), min(left, tile_width - width)
            self._cut(tile, *inside, out, i)
            out["mask"][i, : top - inside[0]] = IGNORE
            out["mask"][i, :, : left - inside[1]] = IGNORE

    def place(
        self, tiles: np.ndarray, numbers: np.ndarray, share: float
    ) -> list[tuple[int, int, int]]:
        """Tile, top and left of a random window of each tile; see `place_window`."""
        size = self.decoder.image_size
        return [
            (tile, *place_window(self._tile(tile), size, three, share))
            for tile, three in zip(tiles.tolist(), numbers.tolist(), strict=True)
        ]

    def read_at(self, windows, out: dict[str, np.ndarray]) -> None:
        """Fills `out[name][i]` with the window at tile, top, left `windows[i]`."""
        for i, window in enumerate(windows):
            self._cut(*window, out, i)

    def nearest(self, windows) -> np.ndarray:
        """Positions of the windows of the grid that hold the upper left corners."""
        tiles, tops, lefts = np.asarray(windows).T
        height, width = self.decoder.image_size
        columns = -(-np.asarray(self.decoder.sizes)[tiles, 1] // width)
        first = np.searchsorted(self.grid[:, 0], tiles)
        return first + tops // height * columns + lefts // width

    def _cut(self, tile: int, top: int, left: int, out, i: int) -> None:
        height, width = self.decoder.image_size
        pixels = self._tile(tile)
        rows, columns = slice(top, top + height), slice(left, left + width)
        out["image"][i] = pixels.image[rows, columns]
        out["mask"][i] = pixels.mask[rows, columns]


def make_grid(
    sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
) -> np.ndarray:
    """[m, 3] int64: tile, top and left of windows side by side over every tile.

    >>> make_grid([(4, 7)], (4, 4)).tolist()
    [[0, 0, 0], [0, 0, 4]]
    """
    height, width = image_size
    return np.asarray(
        [
            (tile, top, left)
            for tile, (tile_height, tile_width) in enumerate(sizes)
            for top in range(0, tile_height, height)
            for left in range(0, tile_width, width)
        ],
        np.int64,
    )


def place_window(
    tile: Tile, image_size: tuple[int, int], numbers: Sequence[float], share: float
) -> tuple[int, int]:
    """Top and left of a random window inside a tile.

    Args:
      numbers: three numbers in [0, 1), from which everything follows.
      share: of the windows that are centred on a foreground pixel of the tile, all
        pixels alike, as far as its border allows; the rest lies anywhere. A tile
        without foreground has windows anywhere only.
    """
    size = np.asarray(image_size)
    room = np.asarray(tile.mask.shape) - size
    num_foreground = int(tile.rows[-1])
    if numbers[0] < share and num_foreground:
        centre = _find_foreground(tile, int(numbers[1] * num_foreground))
        corner = np.clip(centre - size // 2, 0, room)
    else:
        corner = (numbers[1:] * (room + 1)).astype(np.int64)
    return int(corner[0]), int(corner[1])


def draw_numbers(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """[count, 3] float64 in [0, 1) for `place_window`, a function of (seed, epoch)."""
    # The third word keeps them apart from the order of the epoch (`sampling`).
    return np.random.default_rng((seed, epoch, 1)).random((count, 3))


def window_labels(mask: np.ndarray) -> np.ndarray:
    """[N] int32: 1 for windows [N, H, W] that show foreground."""
    return _is_foreground(mask).any(axis=(1, 2)).astype(np.int32)


def _find_foreground(tile: Tile, number: int) -> np.ndarray:
    """[2] row and column of a foreground pixel, counted row by row from 0."""
    row = int(np.searchsorted(tile.rows, number, side="right"))
    above = int(tile.rows[row - 1]) if row else 0
    column = np.flatnonzero(_is_foreground(tile.mask[row]))[number - above]
    return np.asarray((row, column))


def _is_foreground(mask: np.ndarray) -> np.ndarray:
    return (mask != 0) & (mask != IGNORE)


def describe_crop(crop: Crop, image_size: tuple[int, int], windows: int) -> str:
    """A sentence on how tiles are cut."""
    size = f"{image_size[0]} x {image_size[1]}"
    return (
        f"windows of {size} pixels instead of whole images: {crop.per_image} random "
        f"ones of each image in an epoch ({100 * crop.foreground_share:g} % around a "
        f"foreground pixel); to be judged, a grid of {windows} windows"
    )
