"""Runs one part of a dataset through a network and keeps what each image says."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxseg import parallel
from jaxseg.data.pipeline import EvalLoader, HostBatch
from jaxseg.metrics import Tally, tally_histogram, tally_scores
from jaxseg.tasks import Counts, Thresholds
from jaxseg.types import PerExample


def collect_counts(
    eval_step: Callable, variables: Any, loader: EvalLoader, mesh: Mesh
) -> Counts:
    """Counts of every image of the loader, in its order, without the padding.

    Returns:
      arrays [n, ...] on the host of every process; `loss` [n] among them.
    """
    batches = [c for _, c in run_batches(eval_step, variables, loader, mesh)]
    ours = {name: np.concatenate([c[name] for c in batches]) for name in batches[0]}
    counts = parallel.gather_rows({**ours, "place": loader.places()}, mesh)
    order = np.argsort(counts.pop("place"))
    return join_counts([{name: values[order] for name, values in counts.items()}])


def run_batches(
    step: Callable, variables: Any, loader: EvalLoader, mesh: Mesh
) -> Iterator[tuple[HostBatch, Any]]:
    """Every batch with what the step makes of it, on the host; rows of this process.

    One batch is always in flight, so the device does not wait for the host. A batch is
    the caller's until the next is asked for; then its buffer is filled again, not
    before (see `parallel.put_batch`).
    """
    in_flight = collections.deque()
    for batch in loader:
        outputs = step(variables, parallel.put_batch(batch, mesh))
        in_flight.append((batch, outputs))
        if len(in_flight) == 2:
            yield from _fetch(loader, *in_flight.popleft())
    yield from _fetch(loader, *in_flight.popleft())


def _fetch(loader: EvalLoader, batch: HostBatch, outputs):
    yield batch, parallel.local_values(outputs)
    loader.buffers.give_back(batch)


def join_counts(batches: Sequence[PerExample]) -> Counts:
    """The counts of all batches in one, without `valid` and what is not."""
    return {
        name: np.concatenate([counts[name][counts["valid"]] for counts in batches])
        for name in batches[0]
        if name != "valid"
    }


def tally_decisions(counts: Counts, thresholds: Thresholds) -> dict[str, Tally]:
    """Scores by decision that has a threshold, 'image' and/or 'mask'.

    A decision is left out where only one class occurs: it has no curve.
    """
    tallies = {}
    if "image" in thresholds:
        tallies["image"] = tally_scores(counts["image_probs"][:, 0], counts["label"])
    if "mask" in thresholds:
        tallies["mask"] = tally_histogram(counts["histogram"])
    return {name: t for name, t in tallies.items() if t.has_both_classes()}
