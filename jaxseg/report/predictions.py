"""Image by image: what was read, and what the network says of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxseg import parallel
from jaxseg.data.pipeline import EvalLoader
from jaxseg.experiment import Experiment
from jaxseg.progress import track


def predictions(
    experiment: Experiment, variables: Any, positions: np.ndarray, purpose: str
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each image, in the order of its position in the whole set.

    Those of the batch (`image`, `mask`, ...) and of `Task.probabilities`, without their
    leading dimension. They are overwritten after the next one: copy what is kept.

    Args:
      positions: [n], at least one.
      purpose: what it takes so long for.
    """
    loader = EvalLoader(
        experiment.dataset.source,
        experiment.dataset.labels,
        positions,
        batch_size=experiment.run.train.batch_size,
        workers=1,
    )
    for batch in track(loader, len(loader), purpose, quiet=True):
        on_device = parallel.put_batch(batch, experiment.mesh)
        probs = experiment.predict_step(variables, on_device)
        arrays = batch | {name: np.asarray(values) for name, values in probs.items()}
        for i in np.flatnonzero(batch["valid"]):
            yield {name: values[i] for name, values in arrays.items()}
        loader.buffers.give_back(batch)
