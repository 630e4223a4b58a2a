"""Quotients in float64 with a stated value where the denominator is 0."""

from collections.abc import Mapping

import numpy as np

Summary = dict[str, float]
Columns = dict[str, np.ndarray]


def divide(numerator, denominator, empty=np.nan) -> np.ndarray:
    """float64 quotient, `empty` where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.true_divide(numerator, denominator)
    return np.where(np.equal(denominator, 0), empty, quotient)


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def loss_summary(counts: Mapping[str, np.ndarray]) -> Summary:
    """Means of the loss and of its parts: all counts whose names begin with 'loss'.

    >>> loss_summary({"loss": np.float32([1, 3]), "label": np.int32([0, 1])})
    {'loss': 2.0}
    """
    names = [name for name in counts if name.startswith("loss")]
    return {name: float(counts[name].mean(dtype=np.float64)) for name in names}


def class_scores(confusions: np.ndarray) -> Columns:
    """Pooled metrics of the module's table, [..., K], of confusions [..., K, K]."""
    tp = np.diagonal(confusions, axis1=-2, axis2=-1)
    fp, fn = confusions.sum(axis=-2) - tp, confusions.sum(axis=-1) - tp
    return {
        "iou": divide(tp, tp + fp + fn),
        "dice": divide(2 * tp, 2 * tp + fp + fn),
        "precision": divide(tp, tp + fp, empty=np.where(fn > 0, 0.0, np.nan)),
        "recall": divide(tp, tp + fn),
    }
