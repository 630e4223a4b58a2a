"""How much a metric would change with other images of the same kind.

The images are drawn anew with replacement, whole groups (photos, tiles) at a time,
because images of one group err together; the 95 % interval leaves out the 2.5 % lowest
and highest values (percentile bootstrap, Efron 1979). It says nothing about images of
another kind.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxseg.metrics.ratios import Summary, class_scores, divide, mean
from jaxseg.metrics.scores import Tally, areas

RESAMPLES = 1000
LEVEL = 0.95

Interval = tuple[float, float]
Weighted = Callable[[np.ndarray], Summary]


def intervals(
    metric: Weighted, groups: Sequence[object], *, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """The interval of every metric; where it is undefined in a resample, without it.

    (nan, nan) where no resample defines it. The same images give the same numbers.

    Args:
      metric: how often each image counts, [n] integer -> metrics.
      groups: [n], equal for images that belong together.
    """
    drawn = [metric(weight) for weight in _resample(groups, resamples)]
    found = {}
    for name in drawn[0]:
        values = np.array([one[name] for one in drawn])
        values = values[np.isfinite(values)]
        cuts = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        ends = np.quantile(values, cuts) if len(values) else (np.nan, np.nan)
        found[name] = (float(ends[0]), float(ends[1]))
    return found


def _resample(groups: Sequence[object], resamples: int) -> Iterator[np.ndarray]:
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    count, random = int(group_of.max()) + 1, np.random.default_rng(0)
    for _ in range(resamples):
        drawn = random.integers(count, size=count)
        yield np.bincount(drawn, minlength=count)[group_of]


def of_decisions(
    scores: np.ndarray, labels: np.ndarray, decisions: np.ndarray
) -> Weighted:
    """As `metrics.image_summary`: accuracy, precision, recall, f1, auc, ap.

    Args:
      scores: [n] float.
      labels: [n] integer in {0, 1}, like decisions.
    """
    values, place = np.unique(scores, return_inverse=True)
    labels = np.asarray(labels)
    cells = 2 * labels + np.asarray(decisions)

    def metric(weight: np.ndarray) -> Summary:
        tallies = (
            np.bincount(place, weight * (labels == k), len(values)) for k in (0, 1)
        )
        tn, fp, fn, tp = np.bincount(cells, weight, 4)
        table = class_scores(np.array([[tn, fp], [fn, tp]]))
        area = areas(Tally(values, *tallies))
        return {
            "accuracy": float(divide(tp + tn, tp + fp + fn + tn)),
            "precision": float(table["precision"][1]),
            "recall": float(table["recall"][1]),
            "f1": float(table["dice"][1]),
            "auc": area["auc"],
            "ap": area["ap"],
        }

    return metric


def of_classes(labels: np.ndarray, decisions: np.ndarray, num_classes: int) -> Weighted:
    """As `metrics.class_summary`: accuracy and f1/macro."""
    cells = np.asarray(labels) * num_classes + np.asarray(decisions)

    def metric(weight: np.ndarray) -> Summary:
        table = np.bincount(cells, weight, num_classes**2)
        table = table.reshape(num_classes, num_classes)
        present = table.sum(axis=1) > 0
        return {
            "accuracy": float(divide(np.trace(table), table.sum())),
            "f1/macro": mean(class_scores(table)["dice"][present]),
        }

    return metric


def of_pixels(confusions: np.ndarray, classes: Sequence[str]) -> Weighted:
    """As `metrics.pixel_summary`: iou, dice, precision, recall `/<class>/pooled`.

    Args:
      confusions: [n, K, K].
      classes: K names; of two classes the foreground counts, of more all of them, and
        `iou/mean/pooled`.
    """
    flat = np.asarray(confusions).reshape(len(confusions), -1)
    reported = (1,) if len(classes) == 2 else range(len(classes))

    def metric(weight: np.ndarray) -> Summary:
        table = (weight @ flat).reshape(len(classes), len(classes))
        scores = class_scores(table)
        summary = {
            f"{name}/{classes[k]}/pooled": float(scores[name][k])
            for name in ("iou", "dice", "precision", "recall")
            for k in reported
        }
        if len(classes) > 2:
            present = table.sum(axis=1) > 0
            summary["iou/mean/pooled"] = mean(scores["iou"][present])
        return summary

    return metric


def of_means(columns: dict[str, np.ndarray]) -> Weighted:
    """The mean over images of each column [n], nan left out."""

    def metric(weight: np.ndarray) -> Summary:
        return {
            name: float(
                divide(np.nansum(weight * values), weight[~np.isnan(values)].sum())
            )
            for name, values in columns.items()
        }

    return metric
