"""Decode once: pixels at the training size, in uint8, as memory-mapped .npy files.

Both sources give the same bytes: `Decoded` copies rows out of the memory map,
`Streamed` decodes them from the prepared records every time.

The files are written in the background: whoever opens a source can compile meanwhile.
"""

import dataclasses
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxseg import files, progress
from jaxseg.data import stock
from jaxseg.data.images import (
    decode_image,
    decode_mask,
    resize_image,
    resize_mask,
)
from jaxseg.data.mask_values import MaskEncoding, encode_mask
from jaxseg.data.targets import TargetRule, make_targets, target_fields
from jaxseg.data.tiles import TileDecoder
from jaxseg.errors import InputError
from jaxseg.types import IGNORE

Fields = dict[str, tuple[tuple[int, ...], type]]
"""Shape and dtype by name."""

Arrays = dict[str, np.ndarray]

FORMAT = 3
"""To be raised when the same files would decode to other pixels than before."""

CHUNK = 8  # images that a thread takes at a time
FIX = "--config.data.cache=none, or --config.data.cache_dir=DIR on a larger disk"


@dataclasses.dataclass(frozen=True)
class Decoder:
    """How the bytes of a record become the pixels that the network sees.

    Attributes:
      image_size: (H, W).
      channels: C, 1 or 3.
      encoding: of the masks; None for a set without masks.
      targets: makes those of the task segdec as well.
    """

    image_size: tuple[int, int]
    channels: int
    encoding: MaskEncoding | None
    targets: TargetRule | None = None

    @property
    def key(self) -> str:
        """Changes when the pixels do."""
        rule = (FORMAT, "bilinear", "nearest", *dataclasses.astuple(self))
        return hashlib.sha256(repr(rule).encode()).hexdigest()[:12]

    def image(self, data: bytes) -> np.ndarray:
        """[H, W, C] uint8."""
        return resize_image(decode_image(data, self.channels), self.image_size)

    def mask(self, data: bytes) -> np.ndarray:
        """Class ids [h, w] uint8 as stored; all `IGNORE` without a mask."""
        if not data:
            return np.full(self.image_size, IGNORE, np.uint8)
        return encode_mask(decode_mask(data), self.encoding)

    def decode(self, record: dict[str, bytes]) -> dict[str, np.ndarray]:
        """`image` and, where the set has masks, `mask` and its targets."""
        pixels = {"image": self.image(record["image"])}
        if self.encoding is not None:
            mask = self.mask(record["mask"])
            pixels["mask"] = resize_mask(mask, self.image_size)
            if self.targets is not None:
                pixels |= make_targets(mask, self.image_size, self.targets)
        return pixels

    def fields(self) -> Fields:
        """Shape and dtype per array of one sample."""
        fields = {"image": ((*self.image_size, self.channels), np.uint8)}
        if self.encoding is not None:
            fields["mask"] = (self.image_size, np.uint8)
            if self.targets is not None:
                fields |= target_fields(self.image_size, self.targets)
        return fields

    def arrays(self, count: int) -> Fields:
        """Shape and dtype of the files that hold `count` decoded samples."""
        fields = self.fields().items()
        return {name: ((count, *shape), dtype) for name, (shape, dtype) in fields}

    def store(self, arrays, i: int, pixels: dict[str, np.ndarray]) -> None:
        """Writes decoded sample i into the arrays."""
        for name, values in pixels.items():
            arrays[name][i] = values

    def open_decoded(self, arrays: Future[Arrays]) -> "Decoded":
        return Decoded(arrays, self)

    def open_streamed(self, records) -> "Streamed":
        return Streamed(records, self)


class Source(Protocol):
    """Pixels by position."""

    decoder: Decoder | TileDecoder

    def wait(self) -> None:
        """Returns when samples can be read at once.

        Raises:
          InputError: the disk is full; so does the first `read`.
        """

    def read(self, positions: np.ndarray, out: Arrays) -> None:
        """Fills `out[name][i]` with the pixels of sample `positions[i]`."""


class Decoded:
    """Rows of memory-mapped arrays [n, H, W, C] and [n, H, W]."""

    def __init__(self, arrays: Future[Arrays], decoder: Decoder):
        self.decoder = decoder
        self._arrays = arrays

    def wait(self) -> None:
        self._arrays.result()

    def read(self, positions: np.ndarray, out: Arrays) -> None:
        for name, rows in self._arrays.result().items():
            # mode='clip' lets NumPy write into `out` without a copy of its own.
            np.take(rows, positions, axis=0, out=out[name], mode="clip")


class Streamed:
    """Decodes from the prepared records whenever a sample is read."""

    def __init__(self, records, decoder: Decoder):
        self.decoder = decoder
        self._records = records

    def wait(self) -> None:
        """Nothing is made ahead."""

    def read(self, positions: np.ndarray, out: Arrays) -> None:
        records = self._records.__getitems__(positions.tolist())
        for i, record in enumerate(records):
            for name, pixels in self.decoder.decode(record).items():
                out[name][i] = pixels


def open_source(
    records: Sequence,
    decoder: Decoder | TileDecoder,
    *,
    files_hash: str,
    cache_dir: Path,
    mode: str,
    workers: int,
) -> tuple[Source, str]:
    """The source that `data.cache` asks for, and a sentence on the choice.

    'auto' decodes into the cache if the disk has room for twice its size. Decoding has
    begun then; see `Source.wait`.

    Raises:
      InputError: mode 'host' or 'device', and too little room on the disk.
    """
    folder = cache_dir / "decoded" / f"{files_hash[:20]}-{decoder.key}"
    if mode == "none":
        return decoder.open_streamed(records), "images are decoded in every epoch"
    size = sum(
        int(np.prod(shape)) * np.dtype(dtype).itemsize
        for shape, dtype in decoder.arrays(len(records)).values()
    )
    note = f"{size / 1e9:.2f} GB of decoded images in {folder}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir).free
    if not folder.is_dir():
        if mode == "auto" and free < 2 * size:
            return decoder.open_streamed(records), (
                f"images are decoded in every epoch: {size / 1e9:.2f} GB would crowd "
                f"{cache_dir} ({free / 1e9:.2f} GB free)"
            )
        if free < size:
            found = f"{free / 1e9:.3f} GB free"
            raise InputError(f"{size / 1e9:.3f} GB of room in {cache_dir}", found, FIX)
    make = partial(_open_arrays, records, decoder, folder, workers)
    return decoder.open_decoded(_in_background(make)), note


def _in_background(make: Callable[[], Arrays]) -> Future[Arrays]:
    """What a thread makes, which does not keep a program from ending."""
    future: Future[Arrays] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=work, name="decode", daemon=True).start()
    return future


def _open_arrays(records, decoder, folder: Path, workers: int) -> Arrays:
    with files.exclusive(folder.with_suffix(".lock"), wait=True):
        if not folder.is_dir():
            _build(records, decoder, folder, workers)
        stock.mark_used(folder)
    # Plain arrays over the maps: slicing a np.memmap costs three times as much.
    return {
        name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
        for name in decoder.arrays(len(records))
    }


def _build(records, decoder, folder: Path, workers: int) -> None:
    with (
        files.explain_full_disk(folder.parent, FIX),
        files.atomic_folder(folder) as temporary,
        ThreadPool(workers) as pool,
    ):
        arrays = {
            name: _allocate(temporary / f"{name}.npy", shape, dtype)
            for name, (shape, dtype) in decoder.arrays(len(records)).items()
        }

        def decode_into(i: int) -> None:
            decoder.store(arrays, i, decoder.decode(records[i]))

        work = pool.imap_unordered(decode_into, range(len(records)), CHUNK)
        for _ in progress.track(work, len(records), "Decoding images"):
            pass
        for array in arrays.values():
            array.flush()


def _allocate(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """A memory map whose disk blocks exist: writing to it cannot fail half-way."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
