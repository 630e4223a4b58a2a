"""Whether a probability of 0.8 is right four times in five, and what would mend it.

Temperature scaling divides the logits by one number T > 0, fitted on validation: no
decision between classes changes, nor any order of scores; over-confident networks have
T > 1. Here the logits are the log-probabilities [N, K], which differ from them by a
constant per row; a binary score p gives [ln(1 - p), ln p].

Source: https://arxiv.org/abs/1706.04599, for temperature scaling and for the expected
calibration error (ECE), there with 15 bins. Differs: of binary scores it compares the
score with the share of positives, not the confidence of the decision with its accuracy.
"""

from typing import NamedTuple

import numpy as np

BINS = 10
SMALLEST = 1e-7  # a probability of float32 is no closer to 1 than that
LOWEST, HIGHEST = 1 / 32, 32.0
"""Of temperatures: separated scores would ask for 0, useless ones for infinity."""
HALVINGS = 50


class Reliability(NamedTuple):
    """Bins of equal width over [0, 1]; arrays [BINS], nan where a bin is empty.

    Attributes:
      claimed: mean probability.
      true: share that is so.
      weight: number of examples.
    """

    claimed: np.ndarray
    true: np.ndarray
    weight: np.ndarray

    @property
    def ece(self) -> float:
        """Mean of |claimed - true| over all examples; nan without any.

        >>> reliability(np.array([0.75, 0.75]), np.array([1, 0])).ece
        0.25
        """
        gaps = np.nan_to_num(np.abs(self.claimed - self.true))
        total = self.weight.sum()
        return float(gaps @ self.weight / total) if total else float("nan")


def reliability(
    probs: np.ndarray, true: np.ndarray, weight: np.ndarray | None = None
) -> Reliability:
    """Claims against the truth.

    Args:
      probs: [N] in [0, 1].
      true: [N], 1 where the claim is so, else 0.
      weight: [N], how many examples each stands for; None for one each.
    """
    probs = np.asarray(probs, np.float64)
    weight = np.ones(len(probs)) if weight is None else np.asarray(weight, np.float64)
    bins = np.minimum((probs * BINS).astype(np.int64), BINS - 1)
    sums = [
        np.bincount(bins, weight * values, BINS)
        for values in (probs, np.asarray(true, np.float64), 1.0)
    ]
    with np.errstate(invalid="ignore"):
        return Reliability(sums[0] / sums[2], sums[1] / sums[2], sums[2])


def log_probs(probs: np.ndarray) -> np.ndarray:
    """[N, K] from probabilities [N, K], or [N, 2] from binary scores [N]."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim == 1:
        probs = np.stack([1 - probs, probs], axis=1)
    return np.log(probs.clip(SMALLEST, 1 - SMALLEST))


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """The T in [1/32, 32] with the smallest mean cross-entropy of softmax(logits / T).

    The cross-entropy is convex in 1 / T; its derivative is halved in upon.

    Args:
      logits: [N, K]; N > 0.
      labels: [N] integer in {0..K-1}.
      weight: [N], as of `reliability`.

    >>> logits = log_probs(np.array([0.9, 0.9, 0.9, 0.9]))
    >>> p = scale(logits, fit_temperature(logits, np.array([1, 1, 1, 0])))[0, 1]
    >>> round(float(p), 6)
    0.75
    """
    logits = np.asarray(logits, np.float64)
    weight = np.ones(len(logits)) if weight is None else np.asarray(weight, np.float64)
    wanted = weight @ np.take_along_axis(logits, np.asarray(labels)[:, None], 1)[:, 0]

    def slope(inverse: float) -> float:
        expected = (scale(logits, 1 / inverse) * logits).sum(axis=1)
        return float(weight @ expected - wanted)

    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def scale(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / T), [N, K]."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)
