"""What a training takes from files to the final metric on one H200, part by part.

What the processor does is measured here, on one core and rendered photographs. What the
device does is predicted, from the operations of the step (`benchmark_scale`).
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_step
from benchmark_scale import MACHINES, SHARE_OF_PEAK
from make_synthetic import write_classification

from jaxseg.config import Run
from jaxseg.data import cache, check, prepare
from jaxseg.datasets import folder_classification, synthetic
from jaxseg.progress import track

PHOTOS, COPIES = 32, 24  # about 4,000 records: what is done once for a set is little
CORES = 16
"""Beside one H200, as such machines are rented."""

TO_DEVICE = 25e9  # bytes a second, half of what PCIe 5 x16 is sold with
FORWARD = 1 / 3  # of the operations of a step, for an image that is only judged

Part = tuple[float, str]  # seconds, how they are known


def forecast(run: Run, images: int, folder: Path) -> dict[str, Part]:
    """The parts of a training, in their order, and their sum.

    Args:
      images: of the whole set.
      folder: an empty one to work in.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    seconds = measure_files(folder, run.data.image_size, run.data.channels)
    return assemble(run, images, seconds, benchmark_step.count_operations(run))


def assemble(
    run: Run, images: int, seconds: dict[str, float], operations: float
) -> dict[str, Part]:
    """What `forecast` gives, of these measurements.

    Args:
      seconds: of `measure_files`.
      operations: of a train step.
    """
    data, epochs = run.data, run.train.epochs
    val, test = round(images * data.val_fraction), round(images * data.test_fraction)
    train = images - val - test
    num_bytes = train * math.prod(data.image_size) * data.channels
    speed = SHARE_OF_PEAK * MACHINES["H200"].flops
    image = operations / run.train.batch_size / speed
    epoch = (train + FORWARD * val) * image
    shared = f"measured on one core, divided by {CORES}"
    parts = {
        "check the files": (images * seconds["check"] / CORES, shared),
        "copy them into records": (images * seconds["copy"], "measured on one core"),
        "decode them": (images * seconds["decode"] / CORES, shared),
        "upload": (num_bytes / TO_DEVICE, f"predicted, {num_bytes / 1e9:.1f} GB"),
        f"{epochs} epochs": (
            epochs * epoch,
            f"predicted, {epoch:.2f} s each, {1 / image:,.0f} images/s",
        ),
        "test": (FORWARD * (val + test) * image, "predicted"),
    }
    total = sum(part for part, _ in parts.values())
    return parts | {"all": (total, "without compilation")}


def measure_files(
    folder: Path, size: tuple[int, int], channels: int
) -> dict[str, float]:
    """Seconds for an image on one core: to check it, to copy it, to decode it."""
    crops = synthetic.classification_crops(PHOTOS, 0, size[0])
    write_classification(folder / "images", crops)
    listing = folder_classification.scan(
        folder / "images", classes=(), group_pattern=""
    )
    options = dict(palette=(), on_corrupt="fail", workers=1, progress=track)
    checked, check_seconds = _timed(partial(check.check, listing, **options))
    many = replace(checked, records=checked.records * COPIES)
    records, copy_seconds = _timed(partial(prepare.prepare, many, folder))

    def decode() -> None:
        source, _ = cache.open_source(
            records,
            cache.Decoder(size, channels, None),
            files_hash=checked.files_hash,
            cache_dir=folder,
            mode="host",
            workers=1,
        )
        source.wait()

    _, decode_seconds = _timed(decode)
    return {
        "check": check_seconds / len(checked.records),
        "copy": copy_seconds / len(records),
        "decode": decode_seconds / len(records),
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
