"""The order of an epoch, a pure function of (seed, epoch): a resume needs no state."""

import numpy as np


def epoch_order(labels: np.ndarray, *, mode: str, seed: int, epoch: int) -> np.ndarray:
    """Positions of the training samples in the order of one epoch.

    'shuffle' visits every sample once. 'balanced' keeps the length n of the epoch and
    gives every class the same number of places (to within one): its samples in random
    order, as often over as needed; a class with more samples than places rests the
    others until another epoch.

    Args:
      labels: [n] int, the image class of every training sample.
      mode: 'shuffle' or 'balanced'.

    Returns:
      [n] int64 positions into `labels`.
    """
    generator = np.random.default_rng((seed, epoch))
    if mode == "shuffle":
        return generator.permutation(len(labels))
    classes = np.unique(labels)
    places = np.full(len(classes), len(labels) // len(classes))
    places[: len(labels) % len(classes)] += 1
    chosen = [
        _repeated(np.flatnonzero(labels == name), count, generator)
        for name, count in zip(classes, places, strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))


def _repeated(samples, count: int, generator: np.random.Generator) -> np.ndarray:
    rounds = -(-count // len(samples))
    return np.concatenate([generator.permutation(samples) for _ in range(rounds)])[
        :count
    ]
