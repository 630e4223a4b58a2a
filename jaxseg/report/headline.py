"""The numbers that a run is known by, each with its interval."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxseg.metrics import bootstrap
from jaxseg.metrics.bootstrap import Interval
from jaxseg.report.finished import FinishedRun

TILES = 6
WRITTEN = {"f1": "F1", "ap": "AP", "auc": "AUC", "iou": "IoU", "dice": "Dice"}


def intervals_of(run: FinishedRun) -> dict[str, Interval]:
    """95 % intervals by name in metrics.json, the most telling first.

    Images of one group (see split.csv) are drawn together.
    """
    found = {}
    for metric in weighted(run):
        found |= bootstrap.intervals(metric, run.groups)
    first = [name for name in _order(run) if name in found]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def differences(first: FinishedRun, other: FinishedRun) -> dict[str, Interval]:
    """Intervals of what `other` has more than `first`, on the same drawn images.

    Narrower than those of the two would suggest, because both runs find the same images
    hard. {} if they were judged on different images.
    """
    if first.names != other.names:
        return {}
    return bootstrap.intervals(_Gap(weighted(first), weighted(other)), first.groups)


class _Gap(NamedTuple):
    ours: list[bootstrap.Weighted]
    theirs: list[bootstrap.Weighted]

    def __call__(self, weight: np.ndarray) -> dict[str, float]:
        first, other = _together(self.ours, weight), _together(self.theirs, weight)
        return {name: other[name] - first[name] for name in first if name in other}


def _together(metrics: list[bootstrap.Weighted], weight: np.ndarray) -> dict:
    """Of runs of different tasks other metrics are those with the same names."""
    return {name: value for one in metrics for name, value in one(weight).items()}


def weighted(run: FinishedRun) -> list[bootstrap.Weighted]:
    """The metrics as functions of how often each image counts."""
    metrics = []
    if "image" in run.thresholds:
        scores = (run.scores, run.labels, run.decisions)
        metrics.append(bootstrap.of_decisions(*scores))
    elif not run.has_mask:
        labels = (run.labels, run.decisions, len(run.classes))
        metrics.append(bootstrap.of_classes(*labels))
    if "confusions" in run.evidence:
        metrics.append(bootstrap.of_pixels(run.evidence["confusions"], run.classes))
    columns = {
        f"{name}/per_image": run.numbers(name)
        for name in run.columns
        if f"{name}/per_image" in run.metrics and name.startswith(("dice/", "iou/"))
    }
    if "false_alarm_rate" in run.metrics:
        clean = np.where(run.labels == 0, 1.0, np.nan)
        marked = _marked(run)
        if marked is not None:
            columns["false_alarm_rate"] = clean * marked
    if columns:
        metrics.append(bootstrap.of_means(columns))
    return metrics


def _marked(run: FinishedRun) -> np.ndarray | None:
    """[n] whether any pixel was decided foreground."""
    if "confusions" in run.evidence:
        return run.evidence["confusions"][:, :, 1:].any(axis=(1, 2)).astype(float)
    return None


def _order(run: FinishedRun) -> list[str]:
    of_images = ["recall", "precision", "f1", "ap", "auc"]
    if "image" not in run.thresholds and not run.has_mask:
        of_images = ["accuracy", "f1/macro"]
    if len(run.classes) == 2:
        name = run.classes[1]
        pixels = [f"{key}/{name}/pooled" for key in ("dice", "iou")]
        pixels += [f"{key}/{name}/pooled" for key in ("recall", "precision")]
    else:
        pixels = ["iou/mean/pooled"]
        pixels += [f"iou/{name}/pooled" for name in run.classes[1:]]
    if not run.has_mask:
        return of_images
    if "image" not in run.thresholds:
        return [*pixels, "false_alarm_rate"]
    return [*of_images[:4], *pixels[:2], *of_images[4:], *pixels[2:]]


def title_of(metric: str) -> str:
    """A name of metrics.json as people write it.

    >>> title_of("iou/crack/pooled")
    'IoU crack pooled'
    """
    name, *rest = metric.split("/")
    rest = [part.replace("per_", "per ") for part in rest]
    return " ".join([WRITTEN.get(name, name.replace("_", " ")), *rest])


def tiles(
    run: FinishedRun, intervals: Mapping[str, Interval]
) -> list[tuple[str, float, Interval]]:
    """(name, value, interval) of the first few."""
    known = [name for name in _order(run) if run.metrics.get(name) is not None]
    known = [name for name in known if name in intervals]
    return [(name, run.metrics[name], intervals[name]) for name in known[:TILES]]


def verdict(run: FinishedRun) -> list[str]:
    """What the numbers say, in sentences."""
    sentences = []
    table = run.image_confusion
    if len(run.kinds) == 2:
        (tn, fp), (fn, tp) = table.tolist()
        with_defect, without = (
            ("with a defect", "clean ones")
            if run.has_mask
            else tuple(f"of the class {name}" for name in reversed(run.kinds))
        )
        sentences.append(
            f"Of {tp + fn:,} images {with_defect}, {tp:,} are found and {fn:,} missed; "
            + (
                f"of {tn + fp:,} {without}, {fp:,} raise a false alarm."
                if tn + fp
                else "no others were judged, so false alarms are not known."
            )
        )
    else:
        right, n = int(np.trace(table)), int(table.sum())
        sentences.append(f"{right:,} of {n:,} images are decided right.")
    if len(run.classes) == 2 and run.has_mask:
        name = run.classes[1]
        recall = run.metrics.get(f"recall/{name}/pooled")
        precision = run.metrics.get(f"precision/{name}/pooled")
        if recall is not None and precision is not None:
            sentences.append(
                f"{recall:.0%} of the {name} pixels are marked, and {precision:.0%} of "
                f"the marked pixels are {name}."
            )
    return sentences
