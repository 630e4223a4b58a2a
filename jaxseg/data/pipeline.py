"""Batches for training and evaluation, by grain: batch k is a function of (seed, k).

Reading runs ahead in threads (Pillow and NumPy release the GIL). Batches are filled in
place in buffers that come back when their step is done: a fresh buffer costs a
page fault per 4 KiB, in new memory thirteen times the copy itself.

A loader reads only the `rows` of each batch that it is given: the share of its process.
"""

import functools
import queue
from collections.abc import Iterator

import grain
import numpy as np

from jaxseg.config import Crop
from jaxseg.data.cache import Decoder, Source
from jaxseg.data.sampling import epoch_length, epoch_order
from jaxseg.data.tiles import TileSource, draw_numbers, window_labels
from jaxseg.types import IGNORE

HostBatch = dict[str, np.ndarray]


class Buffers:
    """Host batches to be filled again and again; grows to what is in flight at once."""

    def __init__(self, decoder: Decoder, num_rows: int):
        self._fields = decoder.fields()
        self._num_rows = num_rows
        self._free: queue.SimpleQueue[HostBatch] = queue.SimpleQueue()

    def take(self) -> HostBatch:
        """A batch with arbitrary content."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            n = self._num_rows
            fields = self._fields.items()
            batch = {
                name: np.empty((n, *shape), kind) for name, (shape, kind) in fields
            }
            batch["label"] = np.empty(n, np.int32)
            batch["valid"] = np.empty(n, bool)
            batch["index"] = np.empty(n, np.int32)
            return batch

    def give_back(self, batch: HostBatch) -> None:
        """Call it when nobody reads the batch any more."""
        self._free.put(batch)


class TrainLoader:
    """Training batches by step, whole epochs one after the other.

    Step 0 is the first of `first_epoch`. Masks of `hidden` images (bool, by position in
    the whole set) come as all `IGNORE`; their labels stay.

    Attributes:
      num_samples: n of an epoch.
      steps_per_epoch: floor(n / batch_size); what is left over has its turn in other
        epochs, since the order changes.
    """

    def __init__(
        self,
        source: Source,
        labels: np.ndarray,
        positions: np.ndarray,
        *,
        batch_size: int,
        sampling: str,
        seed: int,
        workers: int,
        first_epoch: int = 0,
        hidden: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ):
        self._source, self._labels, self._positions = source, labels, positions
        self._batch_size, self._sampling, self._seed = batch_size, sampling, seed
        self._workers, self._first_epoch = workers, first_epoch
        self._hidden = hidden
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)
        self._rows = np.arange(batch_size) if rows is None else rows
        self.num_samples = epoch_length(labels[positions], mode=sampling)
        self.steps_per_epoch = self.num_samples // batch_size
        self.buffers = Buffers(source.decoder, len(self._rows))

    def give_back(self, batch: HostBatch) -> None:
        """Call it when nobody reads the batch any more."""
        self.buffers.give_back(batch)

    def positions_of(self, step: int) -> np.ndarray:
        """Positions in the whole set of the samples of one step, [batch_size]."""
        return self._positions[self._places(step)[1]]

    def batches(self, start: int, stop: int) -> Iterator[HostBatch]:
        """Batches of the steps start <= k < stop."""
        steps = grain.MapDataset.range(start, stop).map(self._load)
        return iter(steps.to_iter_dataset(_read_options(self._workers)))

    def _load(self, step: int) -> HostBatch:
        positions = self.positions_of(int(step))[self._rows]
        batch = _fill(self.buffers.take(), self._source, self._labels, positions)
        return self._hide(batch, positions)

    def _hide(self, batch: HostBatch, positions: np.ndarray) -> HostBatch:
        if self._hidden is not None:
            batch["mask"][self._hidden[positions]] = IGNORE
        return batch

    def _places(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and its samples as places in the training part."""
        epoch, k = divmod(step, self.steps_per_epoch)
        epoch += self._first_epoch
        start = k * self._batch_size
        return epoch, self._order(epoch)[start : start + self._batch_size]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        labels = self._labels[self._positions]
        return epoch_order(labels, mode=self._sampling, seed=self._seed, epoch=epoch)


class PlaceLoader(TrainLoader):
    """The same samples without their pixels, which are on the devices.

    A batch has `place` [rows] int32, among the training samples, and `index`.
    """

    def give_back(self, batch: HostBatch) -> None:
        """Nothing is filled again."""

    def _load(self, step: int) -> HostBatch:
        places = self._places(int(step))[1][self._rows]
        index = self._positions[places]
        return {"place": places.astype(np.int32), "index": index.astype(np.int32)}


class CropLoader(TrainLoader):
    """Random windows of tiles, `crop.per_image` of each in an epoch.

    Where a window lies is a function of (seed, epoch, its place in the epoch).
    `labels` and `positions` are those of tiles, `index` in a batch numbers windows.
    """

    def __init__(
        self,
        source: TileSource,
        labels: np.ndarray,
        positions: np.ndarray,
        *,
        crop: Crop,
        seed: int,
        **options,
    ):
        places = np.repeat(positions, crop.per_image)
        super().__init__(source, labels, places, seed=seed, **options)
        self._share = crop.foreground_share
        self._numbers = functools.lru_cache(maxsize=2)(
            lambda epoch: draw_numbers(len(places), seed=seed, epoch=epoch)
        )

    def positions_of(self, step: int) -> np.ndarray:
        """Of the windows of the grid that those of a step begin in, [batch_size]."""
        return self._source.nearest(self._windows(*self._places(step)))

    def _windows(self, epoch: int, places) -> list[tuple[int, int, int]]:
        tiles, numbers = self._positions[places], self._numbers(epoch)[places]
        return self._source.place(tiles, numbers, self._share)

    def _load(self, step: int) -> HostBatch:
        batch = self.buffers.take()
        epoch, places = self._places(int(step))
        places = places[self._rows]
        self._source.read_at(self._windows(epoch, places), batch)
        batch["label"][:] = window_labels(batch["mask"])
        batch["valid"][:] = True
        batch["index"][:] = places
        return self._hide(batch, self._positions[places])


class EvalLoader:
    """Batches over a part in order; the last is filled up with `valid` False."""

    def __init__(
        self,
        source: Source,
        labels: np.ndarray,
        positions: np.ndarray,
        *,
        batch_size: int,
        workers: int,
        rows: np.ndarray | None = None,
    ):
        self._source, self._labels, self.positions = source, labels, positions
        self._batch_size, self._workers = batch_size, workers
        self._rows = np.arange(batch_size) if rows is None else rows
        self.buffers = Buffers(source.decoder, len(self._rows))

    def places(self) -> np.ndarray:
        """Where the rows of all batches lie in `positions`; of padding, beyond it."""
        starts = np.arange(len(self))[:, None] * self._batch_size
        return (starts + self._rows).ravel().astype(np.int32)

    def __len__(self) -> int:
        return -(-len(self.positions) // self._batch_size)

    def __iter__(self) -> Iterator[HostBatch]:
        steps = grain.MapDataset.range(len(self)).map(self._load)
        return iter(steps.to_iter_dataset(_read_options(self._workers)))

    def _load(self, k: int) -> HostBatch:
        start = int(k) * self._batch_size
        chosen = self.positions[start : start + self._batch_size]
        # Padding repeats the first sample, so every batch holds real pixels.
        padding = np.repeat(chosen[:1], self._batch_size - len(chosen))
        padded = np.concatenate([chosen, padding])[self._rows]
        batch = _fill(self.buffers.take(), self._source, self._labels, padded)
        batch["valid"][self._rows >= len(chosen)] = False
        return batch


def _fill(batch: HostBatch, source: Source, labels, positions) -> HostBatch:
    """`labels` is None for windows, which show what they show."""
    source.read(positions, batch)
    shown = window_labels(batch["mask"]) if labels is None else labels[positions]
    batch["label"][:] = shown
    batch["valid"][:] = True
    batch["index"][:] = positions
    return batch


def _read_options(workers: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers + 1)
