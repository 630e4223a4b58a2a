"""Runs one part of a dataset through a network and keeps what each image says."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxseg import parallel
from jaxseg.data.pipeline import EvalLoader
from jaxseg.tasks import Counts


def collect_counts(
    eval_step: Callable, variables: Any, loader: EvalLoader, mesh: Mesh
) -> Counts:
    """Counts of every image of the loader, in its order, without the padding.

    One batch is always in flight, so the device does not wait for the host; its buffer
    goes back when its counts are here, not before (see `parallel.put_batch`).

    Returns:
      arrays [n, ...] on the host; `loss` [n] among them.
    """
    collected, in_flight = [], collections.deque()
    for batch in loader:
        counts = eval_step(variables, parallel.put_batch(batch, mesh))
        in_flight.append((batch, counts))
        if len(in_flight) == 2:
            collected.append(_fetch(loader, *in_flight.popleft()))
    collected.append(_fetch(loader, *in_flight.popleft()))
    return {
        name: np.concatenate([counts[name] for counts in collected])
        for name in collected[0]
    }


def _fetch(loader: EvalLoader, batch, counts) -> dict[str, np.ndarray]:
    """The counts on the host, without padding; gives the buffer back."""
    on_host = jax.device_get(counts)
    valid = on_host.pop("valid")
    kept = {name: values[valid] for name, values in on_host.items()}
    loader.buffers.give_back(batch)
    return kept
