"""Runs one part of a dataset through a network and keeps what each image says."""

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

    One batch is always in flight, so the device does not wait for the host.

    Returns:
      arrays [n, ...] on the host; `loss` [n] among them.
    """
    collected, in_flight = [], None
    for batch in loader:
        counts = eval_step(variables, parallel.put_batch(batch, mesh))
        loader.buffers.give_back(batch)
        if in_flight is not None:
            collected.append(_without_padding(in_flight))
        in_flight = counts
    collected.append(_without_padding(in_flight))
    return {
        name: np.concatenate([counts[name] for counts in collected])
        for name in collected[0]
    }


def _without_padding(counts) -> dict[str, np.ndarray]:
    on_host = jax.device_get(counts)
    valid = on_host.pop("valid")
    return {name: values[valid] for name, values in on_host.items()}
