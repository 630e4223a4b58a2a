"""The order of an epoch, a pure function of (seed, epoch): a resume needs no state."""

import numpy as np


def epoch_length(labels: np.ndarray, *, mode: str) -> int:
    """Samples of an epoch: every one once, or twice the positives."""
    if mode in ("shuffle", "balanced"):
        return len(labels)
    return 2 * int((labels > 0).sum())


def epoch_order(labels: np.ndarray, *, mode: str, seed: int, epoch: int) -> np.ndarray:
    """Positions of the training samples in the order of one epoch.

    'shuffle' visits every sample once. 'balanced' keeps the length n of the epoch and
    gives every class the same number of places (to within one): its samples in random
    order, as often over as needed; a class with more samples than places rests the
    others until another epoch.

    'matched' visits every positive (label > 0) once and as many negatives, drawn
    without replacement. 'least_used' draws those by `rest_probabilities`, so that
    negatives that were seldom used come first. Where positives outnumber the negatives,
    both draw with replacement.

    Args:
      labels: [n] int, the image class of every training sample.
      mode: one of these.

    Returns:
      [`epoch_length`] int64 positions into `labels`.

    Source of 'matched' and 'least_used': SegDecNet, https://arxiv.org/abs/2007.07676.
    """
    generator = np.random.default_rng((seed, epoch))
    if mode == "shuffle":
        return generator.permutation(len(labels))
    if mode == "balanced":
        return _balanced(labels, generator)
    positives, negatives = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    if mode == "matched":
        chosen = _draw(len(positives), len(negatives), None, generator)
    else:
        chosen = _least_used(len(positives), len(negatives), seed, epoch)
    return generator.permutation(np.concatenate([positives, negatives[chosen]]))


def rest_probabilities(uses: np.ndarray) -> np.ndarray:
    """[n] probability of each negative, from how often each was used before.

    s = 1 - uses / max(uses), shifted to the median 1, to the power 4 ln n, and divided
    by its sum; uniform before any was used.

    >>> rest_probabilities(np.array([0, 0, 0, 1])).round(3).tolist()
    [0.333, 0.333, 0.333, 0.0]
    """
    if not uses.any():
        return np.full(len(uses), 1 / len(uses))
    rest = 1.0 - uses / uses.max()
    rest = (rest - np.median(rest) + 1.0) ** (4.0 * np.log(len(uses)))
    return rest / rest.sum()


def _balanced(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
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


def _least_used(count: int, num_negatives: int, seed: int, epoch: int) -> np.ndarray:
    """The negatives of an epoch, from the draws of all epochs before it."""
    uses = np.zeros(num_negatives, np.int64)
    for past in range(epoch + 1):
        # The third word keeps these draws apart from the order of the epoch.
        generator = np.random.default_rng((seed, past, 2))
        chosen = _draw(count, num_negatives, rest_probabilities(uses), generator)
        np.add.at(uses, chosen, 1)
    return chosen


def _draw(count: int, num_negatives: int, probabilities, generator) -> np.ndarray:
    replace = count > num_negatives
    if probabilities is not None and not replace:
        # Those that cannot be drawn any more come last, not never.
        floor = np.finfo(np.float64).tiny
        probabilities = np.maximum(probabilities, floor)
        probabilities = probabilities / probabilities.sum()
    return generator.choice(num_negatives, count, replace=replace, p=probabilities)
