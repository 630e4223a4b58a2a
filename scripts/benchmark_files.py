"""The image files of a config for `benchmark.py step --batches files`.

Needs what a training needs, unlike a step on noise.
"""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
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
      obstacle: why it cannot have them; '' if it can.
    """

    loader: TrainLoader
    listing: dict[str, Any]
    obstacle: str

    def contestant(self, ours: Ours) -> Callable[[int], float]:
        """Steps on these batches -> seconds."""
        return _FromFiles(ours, self.loader).run

    def listing_for(self, batch: HostBatch) -> dict[str, Any]:
        """The listing, for PyTorch's DataLoader to make such batches of.

        Raises:
          InputError: they have the targets of SegDecNet, drawn masks or windows.
        """
        obstacle = self.obstacle
        if "seg_target" in batch:
            obstacle = "the targets of SegDecNet, which are made once, beforehand"
        if obstacle:
            raise InputError(
                "whole images and masks in files, for PyTorch's DataLoader",
                obstacle,
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
    obstacle = "" if run.data.crop is None else "windows of them (data.crop)"
    if any(masks):
        if all(isinstance(mask, Path) for mask in masks):
            listing["masks"] = [str(mask.resolve()) for mask in masks]
        else:
            obstacle = "masks that are drawn from annotations, or images without one"
    return Files(experiment.phases[0].loader, listing, obstacle)


class _FromFiles:
    def __init__(self, ours: Ours, loader: TrainLoader):
        self._ours, self._loader = ours, loader
        self._batches = loader.batches(0, ENDLESS)
        self._in_flight = collections.deque()

    def run(self, steps: int) -> float:
        """Seconds of so many steps, made in whole calls."""
        started, one_batch = time.perf_counter(), self._ours.inputs
        count = self._ours.count
        calls = -(-steps // count)
        for _ in range(calls):
            batches = list(itertools.islice(self._batches, count))
            inputs = [_inputs_of(batch, one_batch) for batch in batches]
            self._ours.inputs = parallel.put_steps(inputs, self._ours.mesh)
            self._in_flight.append((batches, self._ours.advance()))
            self._give_back(keep=CALLS_AHEAD)
        self._give_back(keep=0)
        self._ours.inputs = one_batch
        return (time.perf_counter() - started) * steps / (calls * count)

    def _give_back(self, keep: int) -> None:
        while len(self._in_flight) > keep:
            batches, logs = self._in_flight.popleft()
            jax.block_until_ready(logs)
            for batch in batches:
                self._loader.give_back(batch)


def _inputs_of(batch: HostBatch, names: Iterable[str]) -> HostBatch:
    given = {"stop": np.zeros(len(batch["index"]), np.bool_), **batch}
    return {name: given[name] for name in names}
