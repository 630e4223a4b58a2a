"""Scores against two classes: tallies, curves and the areas under them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.metrics.ratios import Summary, divide, mean

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, thresholds


class Tally(NamedTuple):
    """How many examples of class 0 and of class 1 have each score; arrays [T]."""

    values: np.ndarray  # float64, distinct, ascending
    negatives: np.ndarray  # int64
    positives: np.ndarray  # int64

    def at_least(self) -> tuple[np.ndarray, np.ndarray]:
        """(fp, tp) of the decisions score >= values[i], each [T] int64."""
        fp, tp = self.negatives[::-1].cumsum(), self.positives[::-1].cumsum()
        return fp[::-1], tp[::-1]

    def has_both_classes(self) -> bool:
        return bool(self.negatives.any() and self.positives.any())


def tally_scores(scores: np.ndarray, labels: np.ndarray) -> Tally:
    """Tally of exact scores.

    >>> tally_scores(np.array([0.5, 0.2, 0.5]), np.array([1, 0, 0])).negatives.tolist()
    [1, 1]
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} do not fit labels {labels.shape}")
    if np.isnan(scores).any() or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"scores {scores} may not be NaN, labels {labels} be 0 or 1")
    values, inverse = np.unique(scores, return_inverse=True)
    bins = (np.bincount(inverse[labels == k], minlength=len(values)) for k in (0, 1))
    return Tally(values, *bins)


def tally_histogram(histogram: np.ndarray) -> Tally:
    """Tally of a set's pixels, each scored by the lower edge of its bin.

    >>> tally_histogram(np.array([[[1, 0], [0, 2]]])).values.tolist()
    [0.0, 0.5]
    """
    negatives, positives = np.asarray(histogram).sum(axis=0, dtype=np.int64)
    filled = np.flatnonzero(negatives + positives)
    return Tally(filled / len(negatives), negatives[filled], positives[filled])


def precision_recall_curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """(recall [T+1], precision [T+1], thresholds [T]) over the distinct scores.

    Thresholds ascend; the last point is recall 0, precision 1. Without positives all
    other recalls are nan. Differs: scikit-learn returns precision first.

    >>> precision_recall_curve(np.array([0.25, 0.5]), np.array([0, 1]))[1].tolist()
    [0.5, 1.0, 1.0]
    """
    return _precision_recall(tally_scores(scores, labels))


def pixel_curve(histogram: np.ndarray) -> Curve:
    """(recall, precision, thresholds) as above, of all pixels pooled, over filled bins.

    >>> pixel_curve(np.array([[[1, 0], [0, 2]]]))[2].tolist()
    [0.0, 0.5]
    """
    return _precision_recall(tally_histogram(histogram))


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """(false positive rate, true positive rate, thresholds), each [T+1].

    From (0, 0) at infinity to (1, 1) at the lowest score; nan without examples.

    >>> roc_curve(np.array([0.25, 0.5]), np.array([0, 1]))[1].tolist()
    [0.0, 1.0, 1.0]
    """
    tally = tally_scores(scores, labels)
    fp, tp = (np.append(0, counts[::-1]) for counts in tally.at_least())
    thresholds = np.append(np.inf, tally.values[::-1])
    return divide(fp, fp[-1]), divide(tp, tp[-1]), thresholds


def _precision_recall(tally: Tally) -> Curve:
    fp, tp = tally.at_least()
    recall = divide(tp, tally.positives.sum())
    precision = divide(tp, tp + fp, 1.0)  # of none, where a resample lacks the highest
    return np.append(recall, 0.0), np.append(precision, 1.0), tally.values


def areas(tally: Tally) -> Summary:
    """auc, ap, ap_trapezoid; nan where only one class is present."""
    if not tally.has_both_classes():
        return dict.fromkeys(("auc", "ap", "ap_trapezoid"), float("nan"))
    recall, precision, _ = _precision_recall(tally)
    fp, tp = tally.at_least()
    ordered = tally.negatives @ (tp - tally.positives / 2)  # pairs, ties count half
    return {
        "auc": float(ordered / (int(fp[0]) * int(tp[0]))),
        "ap": float(-np.sum(np.diff(recall) * precision[:-1])),
        "ap_trapezoid": float(-np.trapezoid(precision, recall)),
    }


def histogram_summary(histogram: np.ndarray, classes: Sequence[str]) -> Summary:
    """What the scores of a binary set's pixels can do, whatever the threshold.

    - `auc/<class>/pooled`, `ap/<class>/pooled`: the areas of all pixels together.
    - `ods/<class>/pooled`: the largest F1 of all pixels at one threshold.
    - `ois/<class>/per_image_pos`: the mean over images with the class of the largest F1
      of each. Both are chosen with the truth that judges them, which flatters.

    Source: ods and ois https://doi.org/10.1109/TPAMI.2010.161. Differs: of areas,
    there of contours within a tolerance; the mean of F1, there the F1 of mean counts.

    >>> summary = histogram_summary(np.array([[[1, 0], [0, 2]]]), ("wall", "crack"))
    >>> summary["ap/crack/pooled"], summary["ods/crack/pooled"]
    (1.0, 1.0)
    """
    histogram, name = np.asarray(histogram), classes[1]
    of_set = areas(tally_histogram(histogram))
    best = _best_f1(histogram)
    return {
        f"auc/{name}/pooled": of_set["auc"],
        f"ap/{name}/pooled": of_set["ap"],
        f"ods/{name}/pooled": float(_best_f1(histogram.sum(axis=0, dtype=np.int64))),
        f"ois/{name}/per_image_pos": mean(best[np.isfinite(best)]),
    }


def _best_f1(histogram: np.ndarray) -> np.ndarray:
    """Largest F1 over all thresholds, [..., 2, B] -> [...]; nan without positives."""
    above = histogram[..., ::-1].cumsum(axis=-1, dtype=np.int64)
    fp, tp = above[..., 0, :], above[..., 1, :]
    positives = tp[..., -1:]
    f1 = divide(2 * tp, tp + fp + positives, 0.0).max(axis=-1)
    return np.where(positives[..., 0] > 0, f1, np.nan)
