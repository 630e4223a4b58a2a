"""The image files of a config for `benchmark.py step --batches files`.

Needs what a training needs, unlike a step on noise.
"""

import collections
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from benchmark_step import Ours

from jaxseg import parallel
from jaxseg.config import Run
from jaxseg.data.pipeline import HostBatch, TrainLoader
from jaxseg.errors import InputError
from jaxseg.experiment import build_experiment
from jaxseg.loop import CALLS_AHEAD

ENDLESS = 1_000_000  # steps


class Files(NamedTuple):
    """The training part of a config.

    Attributes:
      loader: its shuffled batches.
      listing: paths and labels, as torch_twin.py wants them.
    """

    loader: TrainLoader
    listing: dict[str, Any]

    def contestant(self, ours: Ours) -> Callable[[int], float]:
        """Steps on these batches -> seconds."""
        return _FromFiles(ours, self.loader).run

    def listing_for(self, batch: HostBatch) -> dict[str, Any]:
        """The listing, for PyTorch's DataLoader to make such batches of.

        Raises:
          InputError: they have the targets of SegDecNet.
        """
        if "seg_target" in batch:
            raise InputError(
                "a task on images and masks as they are, for PyTorch's DataLoader",
                "the targets of SegDecNet, which are made once, beforehand",
                "the same command without --against",
            )
        return self.listing


def open_files(run: Run) -> Files:
    """The data of a config, checked and decoded as by train.py, on the host.

    Raises:
      InputError: the data are wrong.
    """
    if run.data.cache != "none":
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, cache="host"))
    experiment = build_experiment(run)
    for note in experiment.dataset.notes:
        print(f"- {note}")
    train = experiment.record_split.indices("train")
    checked = [experiment.dataset.records[k] for k in train]
    listing = {
        "images": [str(c.record.image.resolve()) for c in checked],
        "labels": [c.label for c in checked],
        "size": run.data.image_size,
        "batch_size": run.train.batch_size,
    }
    masks = [c.record.mask for c in checked]
    if any(masks):
        listing["masks"] = [str(Path(mask).resolve()) for mask in masks]
    return Files(experiment.phases[0].loader, listing)


class _FromFiles:
    def __init__(self, ours: Ours, loader: TrainLoader):
        self._ours, self._loader = ours, loader
        self._batches = loader.batches(0, ENDLESS)
        self._in_flight = collections.deque()

    def run(self, steps: int) -> float:
        """Seconds of all steps together."""
        started, one_batch = time.perf_counter(), self._ours.inputs
        for _ in range(steps):
            batch = next(self._batches)
            given = {"stop": np.zeros(len(batch["index"]), np.bool_), **batch}
            chosen = {name: given[name] for name in one_batch}
            self._ours.inputs = parallel.put_steps([chosen], self._ours.mesh)
            self._in_flight.append((batch, self._ours.advance()))
            self._give_back(keep=CALLS_AHEAD)
        self._give_back(keep=0)
        self._ours.inputs = one_batch
        return time.perf_counter() - started

    def _give_back(self, keep: int) -> None:
        while len(self._in_flight) > keep:
            batch, logs = self._in_flight.popleft()
            jax.block_until_ready(logs)
            self._loader.give_back(batch)
