"""What a reader has to know before believing the numbers of a run."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxseg import metrics
from jaxseg.metrics.bootstrap import Interval
from jaxseg.report.finished import FinishedRun
from jaxseg.thresholds import BY_HAND

FEW_IMAGES, FEW_OF_A_CLASS = 100, 30
EDGE = {"image": 0.01, "mask": 2 / 256}
"""A threshold that is nearer than this to 0 or to 1 has its best value outside."""
MUCH_WAITING = 0.2
MUCH_BETTER = 0.03
WARNING = "WARNING: "


def cautions(run: FinishedRun, intervals: Mapping[str, Interval]) -> list[str]:
    """Sentences, the gravest first; [] where nothing stands out."""
    found = [
        *_leaks(run),
        *_part(run),
        *_never_predicted(run),
        *_few(run, intervals),
        *_thresholds(run),
        *_baseline(run),
        *_training(run),
    ]
    return list(dict.fromkeys(found))


def _leaks(run: FinishedRun) -> Iterator[str]:
    """What the check of the data warned of when the run began."""
    for note in run.record.get("notes") or ():
        if note.startswith(WARNING):
            text = note.removeprefix(WARNING)
            yield text[:1].upper() + text[1:] + "."


def _part(run: FinishedRun) -> Iterator[str]:
    if run.part == "val":
        yield (
            "There is no test part: these images chose the epoch and the threshold, so "
            "every number here is too good."
        )


def _never_predicted(run: FinishedRun) -> Iterator[str]:
    confusions = run.evidence.get("confusions")
    if confusions is None:
        confusions, names = run.image_confusion[None], run.kinds
    else:
        names = run.classes
    for name in metrics.never_predicted(confusions, names):
        yield f"The class {name} is never predicted."


def _few(run: FinishedRun, intervals: Mapping[str, Interval]) -> Iterator[str]:
    n, counts = len(run.names), np.bincount(run.labels, minlength=len(run.kinds))
    rare = int(counts.argmin())
    if n >= FEW_IMAGES and counts[rare] >= FEW_OF_A_CLASS:
        return
    text = f"A small {run.part} set: {n:,} images"
    if counts[rare] < FEW_OF_A_CLASS:
        text += f", {counts[rare]:,} of them {run.kinds[rare]}"
    first = next((item for item in intervals.items() if np.isfinite(item[1][0])), None)
    if first:
        name, (low, high) = first
        text += f". {name} would lie between {low:.2f} and {high:.2f} on other images"
    yield text + "."


def _thresholds(run: FinishedRun) -> Iterator[str]:
    for kind, chosen in run.thresholds.items():
        if chosen["note"]:
            yield f"The {kind} threshold {chosen['value']:.4g}: {chosen['note']}."
        elif not EDGE[kind] <= chosen["value"] <= 1 - EDGE[kind]:
            yield (
                f"The {kind} threshold {chosen['value']:.4g} is at the edge of its "
                "range: the scores are badly scaled, and new images may all fall on "
                "one side of it."
            )
    if run.thresholds.get("image", {}).get("rule") == BY_HAND:
        return
    best, reached = run.metrics.get("optimistic_f1"), run.metrics.get("f1")
    if None not in (best, reached) and best - reached > MUCH_BETTER:
        yield (
            "The threshold of the validation part does not fit well: with the best one "
            f"in hindsight, {run.metrics['optimistic_threshold']:.4g}, F1 would be "
            f"{best:.4f} instead of {reached:.4f}."
        )


def _baseline(run: FinishedRun) -> Iterator[str]:
    reached = run.metrics.get("accuracy")
    idle = run.metrics.get("majority_accuracy")
    if reached is not None and idle is not None and reached <= idle < 1:
        yield (
            f"Accuracy {reached:.4f} is not above {idle:.4f}, that of always answering "
            "the most frequent class."
        )


def _training(run: FinishedRun) -> Iterator[str]:
    last = int(run.history[-1]["epoch"])
    if run.model.get("best_epoch") == last > 1:
        yield (
            f"The best epoch is the last one, {last}: a longer training may be better."
        )
    waits = [float(row["input_wait"]) for row in run.history[1:]]
    if waits and np.median(waits) > MUCH_WAITING:
        yield (
            f"Steps waited for images {np.median(waits):.0%} of the time; "
            "--config.data.cache=host or device, or more --config.data.workers, help."
        )
