"""Judges a trained network on one part and leaves the files that people look at."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg import metrics
from jaxseg.evaluate import collect_counts
from jaxseg.experiment import Experiment
from jaxseg.metrics import never_predicted
from jaxseg.progress import console
from jaxseg.report import (
    curves,
    decisions,
    evidence,
    measurements,
    overlays,
    panels,
    results,
)
from jaxseg.report.measurements import Measurements
from jaxseg.report.predictions import predictions
from jaxseg.tasks import NUM_BINS, Counts, Task, Thresholds

MAX_OVERLAYS = 100
"""Half of them the worst, half spread evenly over the rest."""


class Validation(NamedTuple):
    """What the validation part says of a network.

    Attributes:
      scores: the `val_` arrays of `evidence`.
    """

    thresholds: Thresholds
    scores: evidence.Evidence


def validate(
    experiment: Experiment, variables: Any, stored: Thresholds | None = None
) -> Validation:
    """The thresholds of the validation set; notes on degenerate ones are printed.

    Args:
      stored: those of the run's model, chosen once and for all; None chooses.
    """
    task, counts = experiment.task, _counts(experiment, variables, "val")
    thresholds = task.choose_thresholds(counts) if stored is None else stored
    for kind, chosen in thresholds.items():
        note = f"; {chosen.note}" if chosen.note else ""
        console.print(f"- {kind} threshold {chosen.value:.4f} ({chosen.origin}){note}")
    return Validation(thresholds, evidence.of_validation(task, counts, thresholds))


def judge(
    experiment: Experiment,
    variables: Any,
    validation: Validation,
    part: str,
    folder: Path,
) -> dict[str, float]:
    """Writes tables, metrics.json, curves, overlays and evidence of a part.

    Returns:
      the metrics, with 'loss' and 'num_images'.
    """
    task, thresholds = experiment.task, validation.thresholds
    counts, found = measurements.collect(experiment, variables, thresholds, part)
    summary = _summarize(task, counts, thresholds, found)
    rows = task.rows(counts, thresholds)
    positions = experiment.split.indices(part)
    ids = [experiment.dataset.ids[position] for position in positions]
    columns = {"name": ids, **rows, **found.columns()}
    names = list(columns)
    table = [
        dict(zip(names, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]
    results.write_results(folder / "results.csv", table)
    found.write_components(folder / "components.csv", ids)
    results.write_metrics(folder / "metrics.json", summary)
    confusion = task.confusion(counts, thresholds)
    curves.save_confusion(folder / "confusion.png", confusion, task.classes)
    has_mask, has_decision = "soft_sums" in counts, "image" in thresholds
    kinds = decision_names(task.classes, has_mask)
    if has_mask and has_decision:
        of_images = decisions.confusion_of(summary)
        curves.save_confusion(folder / "confusion_image.png", of_images, kinds)
    _save_curves(counts, thresholds, summary, task.classes[1], folder)
    _save_overlays(experiment, variables, thresholds, rows, found, positions, folder)
    shown = np.sort(_worst_first(rows, task.classes)[: evidence.MAX_SHOWN])
    judged = evidence.of_judged(counts, thresholds, shown)
    evidence.write(folder, {**validation.scores, **judged}, found.thumbnails)
    results.print_table(summary, f"{part} set", console)
    if has_decision:
        decisions.print_decisions(summary, kinds, part, console)
    for name in never_predicted(confusion[None], task.classes):
        console.print(f"WARNING: the class {name} is never predicted", markup=False)
    return summary


def _summarize(
    task: Task, counts: Counts, thresholds: Thresholds, found: Measurements
) -> dict[str, float]:
    """All metrics of a judged part."""
    summary = {
        "num_images": len(counts["loss"]),
        **metrics.loss_summary(counts),
        **task.summarize(counts, thresholds),
        **found.summary(),
        **{f"{kind}_threshold": t.value for kind, t in thresholds.items()},
    }
    if "image" in thresholds:
        scores = counts["image_probs"][:, 0]
        summary |= metrics.hindsight_summary(scores, counts["label"])
    if found.regions:
        shares, numbers = zip(*found.regions, strict=True)
        background = counts["histogram"][:, 0].sum(0, dtype=np.int64)
        first_bin = round(thresholds["mask"].value * NUM_BINS)
        summary |= metrics.region_summary(
            np.sum(shares, 0), sum(numbers), background, first_bin, task.classes[1]
        )
    return summary


def _counts(experiment: Experiment, variables: Any, part: str) -> Counts:
    loader = experiment.eval_loader(part)
    return collect_counts(experiment.eval_step, variables, loader, experiment.mesh)


def _save_curves(
    counts: Counts,
    thresholds: Thresholds,
    summary: dict,
    foreground: str,
    folder: Path,
) -> None:
    """PR (and for image scores ROC) curves of every binary decision."""
    if "image" in thresholds and _has_both(counts["label"]):
        scores, threshold = counts["image_probs"][:, 0], thresholds["image"].value
        recall, precision, _ = metrics.precision_recall_curve(scores, counts["label"])
        chosen = (summary["recall"], summary["precision"])
        curves.save_precision_recall(
            folder / "precision_recall_image.png",
            recall,
            precision,
            summary["ap"],
            chosen,
            threshold,
        )
        false_positives, true_positives, _ = metrics.roc_curve(scores, counts["label"])
        false_alarms = summary["fp"] / (summary["fp"] + summary["tn"])
        curves.save_roc(
            folder / "roc_image.png",
            false_positives,
            true_positives,
            summary["auc"],
            (false_alarms, summary["recall"]),
        )
    if "mask" in thresholds and counts["histogram"][:, 1].any():
        recall, precision, _ = metrics.pixel_curve(counts["histogram"])
        chosen = (
            summary[f"recall/{foreground}/pooled"],
            summary[f"precision/{foreground}/pooled"],
        )
        curves.save_precision_recall(
            folder / "precision_recall_pixel.png",
            recall,
            precision,
            summary[f"ap/{foreground}/pooled"],
            chosen,
            thresholds["mask"].value,
        )


def _has_both(labels: np.ndarray) -> bool:
    return len(np.unique(labels)) == 2


def _save_overlays(
    experiment: Experiment,
    variables: Any,
    thresholds: Thresholds,
    rows: dict[str, np.ndarray],
    found: Measurements,
    positions: np.ndarray,
    folder: Path,
) -> None:
    """Draws the images worth showing."""
    shutil.rmtree(folder / "overlays", ignore_errors=True)
    (folder / "overlays").mkdir(parents=True)
    task = experiment.task
    shown = _worth_showing(rows, task.classes)
    images = predictions(experiment, variables, positions[shown], "Drawing overlays")
    for k, arrays in zip(shown, images, strict=True):
        row = {name: values[k] for name, values in rows.items()}
        picture = _draw(arrays, row, found.describe(k), task, thresholds)
        name = experiment.dataset.ids[positions[k]]
        file = folder / "overlays" / overlays.overlay_name(row["prediction"], name)
        picture.save(file, quality=92)


def _draw(
    arrays: dict[str, np.ndarray],
    row: dict,
    measured: tuple[str, ...],
    task: Task,
    thresholds: Thresholds,
) -> Image.Image:
    """An image with its results, which `predictions` and `Task.rows` describe."""
    score, probs = float(row["prediction"]), arrays.get("mask_probs")
    kind = "image" if "image" in thresholds else "mask"
    threshold = thresholds[kind].value if kind in thresholds else None
    decision, truth = classes_of(row, task.classes, probs is not None)
    dice = foreground_dice(row, task.classes)
    title = overlays.describe(score, threshold, decision, truth, dice)
    title += measured
    if probs is None:
        right = bool(row["decision"] == row["ground_truth"])
        return overlays.draw_decision(arrays["image"], right=right, title=title)
    decided = overlays.decide(probs, thresholds)
    if "map_probs" in arrays:
        return panels.draw_panels(
            arrays["image"],
            arrays["mask"],
            arrays.get("seg_weight"),
            arrays["map_probs"][..., 0],
            decided,
            max_weight=max(1.0, task.targets.maximum),
            score=score,
            title=title,
        )
    return overlays.draw_overlay(
        arrays["image"],
        arrays.get("mask"),
        overlays.foreground_score(probs),
        decided,
        classes=task.classes,
        title=title,
    )


def decision_names(classes, has_mask: bool) -> tuple[str, ...]:
    """What an image can be decided to be; one with a mask has a defect or none."""
    return ("clean", "defect") if has_mask else classes


def classes_of(row: dict, classes, has_mask: bool) -> tuple[str, str]:
    """Decision and truth of an image in words."""
    names = decision_names(classes, has_mask)
    return names[int(row["decision"])], names[int(row["ground_truth"])]


def foreground_dice(rows: dict[str, Any], classes) -> Any:
    """Mean over all classes but the background, per image; None without masks."""
    columns = [rows[f"dice/{name}"] for name in classes[1:] if f"dice/{name}" in rows]
    return np.mean(columns, axis=0) if columns else None


def _worth_showing(rows: dict[str, np.ndarray], classes) -> np.ndarray:
    """Positions of the images to draw: all, or the worst and an even choice."""
    num_images = len(rows["decision"])
    if num_images <= MAX_OVERLAYS:
        return np.arange(num_images)
    half = MAX_OVERLAYS // 2
    worst = _worst_first(rows, classes)[:half]
    others = np.setdiff1d(np.arange(num_images), worst)
    spread = others[np.linspace(0, len(others) - 1, half).astype(np.int64)]
    return np.sort(np.concatenate([worst, spread]))


def _worst_first(rows: dict[str, np.ndarray], classes) -> np.ndarray:
    """Positions of all images.

    Wrong decisions are worse than right ones. Then counts the Dice of the mask; without
    masks, sure mistakes come first and unsure right decisions after them.
    """
    wrong = rows["decision"] != rows["ground_truth"]
    quality = foreground_dice(rows, classes)
    if quality is None:
        sure = np.abs(rows["prediction"] - 0.5)
        quality = np.where(wrong, -sure, sure)
    return np.lexsort((quality, ~wrong))
