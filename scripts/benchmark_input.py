"""The contestants of `benchmark.py input`: ways to fill a batch with images.

Call `make_readers` with the process pinned to one core: threads inherit it.
"""

import collections
import math
import mmap
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from make_synthetic import write_classification

from jaxseg.data import cache, check, images, prepare
from jaxseg.data.pipeline import Buffers, TrainLoader
from jaxseg.datasets import folder_classification, synthetic
from jaxseg.progress import track

PHOTOS, COPIES = 48, 6  # about 1,450 images: at 256x256 more than a CPU cache holds
IN_FLIGHT = 3  # batches that a loader and a device hold at once


def make_readers(
    folder: Path, size: int, batch_size: int
) -> dict[str, Callable[[int], float]]:
    """Renders a set and gives name -> (batches -> seconds)."""
    streamed, decoded, num_images = _make_sources(folder, size)
    loader = TrainLoader(
        decoded,
        np.zeros(num_images, np.int32),
        np.arange(num_images),
        batch_size=batch_size,
        sampling="shuffle",
        seed=0,
        workers=1,
    )

    def reuse(source: cache.Source, batches: int) -> None:
        for k in range(batches):
            batch = loader.buffers.take()
            source.read(loader.positions_of(k), batch)
            loader.buffers.give_back(batch)

    def allocate(batches: int) -> None:
        buffers = Buffers(decoded.decoder, batch_size)
        in_flight = collections.deque(maxlen=IN_FLIGHT)
        for k in range(batches):
            in_flight.append(buffers.take())
            decoded.read(loader.positions_of(k), in_flight[-1])

    def map_pages(batches: int) -> None:
        shape = (batch_size, size, size, 3)
        for k in range(batches):
            pages = mmap.mmap(-1, math.prod(shape))
            image = np.frombuffer(pages, np.uint8).reshape(shape)
            decoded.read(loader.positions_of(k), {"image": image})

    def load(batches: int) -> None:
        for batch in loader.batches(0, batches):
            loader.buffers.give_back(batch)

    def reuse_pillow(batches: int) -> None:
        with mock.patch.object(images, "simplejpeg", None):
            reuse(streamed, batches)

    readers = {
        "decoded, reused batches": partial(reuse, decoded),
        "decoded, reused batches, through grain": load,
        "decoded, new batches": allocate,
        "decoded, new pages": map_pages,
        "JPEG by Pillow, reused batches": reuse_pillow,
    }
    if images.simplejpeg:
        readers["JPEG by simplejpeg, reused batches"] = partial(reuse, streamed)
    return {name: _timed(work) for name, work in readers.items()}


def _make_sources(folder: Path, size: int) -> tuple[cache.Source, cache.Source, int]:
    """(streamed, decoded, images) of one rendered set, its copies in a row."""
    crops = synthetic.classification_crops(PHOTOS, 0, size)
    write_classification(folder / "images", crops)
    listing = folder_classification.scan(
        folder / "images", classes=(), group_pattern=""
    )
    checked = check.check(
        listing, palette=(), on_corrupt="fail", workers=1, progress=track
    )
    many = replace(checked, records=checked.records * COPIES)
    records = prepare.prepare(many, folder)
    decoder = cache.Decoder((size, size), 3, None)
    decoded, note = cache.open_source(
        records,
        decoder,
        files_hash=checked.files_hash,
        cache_dir=folder,
        mode="host",
        workers=1,
    )
    decoded.wait()
    print(f"- {len(records)} images; {note}")
    return cache.Streamed(records, decoder), decoded, len(records)


def _timed(work: Callable[[int], None]) -> Callable[[int], float]:
    """The same work, answering with its seconds."""

    def run(batches: int) -> float:
        started = time.perf_counter()
        work(batches)
        return time.perf_counter() - started

    return run
