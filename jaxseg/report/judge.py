"""Judges a trained network on one part and leaves the files that people look at."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import metrics, parallel
from jaxseg.data.pipeline import EvalLoader
from jaxseg.evaluate import collect_counts
from jaxseg.experiment import Experiment
from jaxseg.metrics import never_predicted
from jaxseg.progress import console, track
from jaxseg.report import curves, decisions, overlays, results
from jaxseg.tasks import Counts, Thresholds

MAX_OVERLAYS = 100
"""Half of them the worst, half spread evenly over the rest."""


def choose_thresholds(experiment: Experiment, variables: Any) -> Thresholds:
    """The thresholds of the validation set; notes on degenerate ones are printed."""
    thresholds = experiment.task.choose_thresholds(
        _counts(experiment, variables, "val")
    )
    for kind, chosen in thresholds.items():
        note = f"; {chosen.note}" if chosen.note else ""
        console.print(
            f"- {kind} threshold {chosen.value:.4f} ({chosen.rule} on validation){note}"
        )
    return thresholds


def judge(
    experiment: Experiment,
    variables: Any,
    thresholds: Thresholds,
    part: str,
    folder: Path,
) -> dict[str, float]:
    """Writes results.csv, metrics.json, curves and overlays of one part.

    Returns:
      the metrics, with 'loss' and 'num_images'.
    """
    task = experiment.task
    counts = _counts(experiment, variables, part)
    summary = {
        "num_images": len(counts["loss"]),
        "loss": float(counts["loss"].mean(dtype=np.float64)),
        **task.summarize(counts, thresholds),
        **{f"{kind}_threshold": t.value for kind, t in thresholds.items()},
    }
    has_mask, has_decision = "soft_sums" in counts, "image" in thresholds
    if has_decision:
        scores = counts["image_probs"][:, 0]
        summary |= metrics.hindsight_summary(scores, counts["label"])
    rows = task.rows(counts, thresholds)
    positions = experiment.split.indices(part)
    ids = [experiment.dataset.ids[position] for position in positions]
    columns = {"name": ids, **rows}
    names = list(columns)
    table = [
        dict(zip(names, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]
    results.write_results(folder / "results.csv", table)
    results.write_metrics(folder / "metrics.json", summary)
    confusion = task.confusion(counts, thresholds)
    curves.save_confusion(folder / "confusion.png", confusion, task.classes)
    kinds = decision_names(task.classes, has_mask)
    if has_mask and has_decision:
        of_images = decisions.confusion_of(summary)
        curves.save_confusion(folder / "confusion_image.png", of_images, kinds)
    _save_curves(counts, thresholds, summary, task.classes[1], folder)
    _save_overlays(experiment, variables, thresholds, rows, positions, folder)
    results.print_table(summary, f"{part} set", console)
    if has_decision:
        decisions.print_decisions(summary, kinds, part, console)
    for name in never_predicted(confusion[None], task.classes):
        console.print(f"WARNING: the class {name} is never predicted", markup=False)
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
    positions: np.ndarray,
    folder: Path,
) -> None:
    shown = _worth_showing(rows, experiment.task.classes)
    loader = EvalLoader(
        experiment.dataset.source,
        experiment.dataset.labels,
        positions[shown],
        batch_size=experiment.run.train.batch_size,
        workers=1,
    )
    shutil.rmtree(folder / "overlays", ignore_errors=True)
    (folder / "overlays").mkdir(parents=True)
    done = 0
    for batch in track(loader, len(loader), "Drawing overlays", quiet=True):
        probs = experiment.predict_step(
            variables, parallel.put_batch(batch, experiment.mesh)
        )
        probs = {name: np.asarray(values) for name, values in probs.items()}
        for i in range(int(batch["valid"].sum())):
            row = {name: values[shown[done]] for name, values in rows.items()}
            picture = _Picture(
                name=experiment.dataset.ids[positions[shown[done]]],
                image=batch["image"][i],
                truth=batch["mask"][i] if "mask" in batch else None,
                probs=probs["mask_probs"][i] if "mask_probs" in probs else None,
                row=row,
            )
            _draw(picture, experiment.task.classes, thresholds, folder / "overlays")
            done += 1
        loader.buffers.give_back(batch)


@dataclasses.dataclass(frozen=True)
class _Picture:
    name: str
    image: np.ndarray
    truth: np.ndarray | None
    probs: np.ndarray | None  # [H, W, K]
    row: dict[str, Any]


def _draw(picture: _Picture, classes, thresholds: Thresholds, folder: Path) -> None:
    row = picture.row
    score = float(row["prediction"])
    dice = foreground_dice(row, classes)
    kind = "image" if "image" in thresholds else "mask"
    threshold = thresholds[kind].value if kind in thresholds else None
    decision, truth = classes_of(row, classes, picture.probs is not None)
    title = overlays.describe(score, threshold, decision, truth, dice)
    if picture.probs is None:
        right = bool(row["decision"] == row["ground_truth"])
        drawn = overlays.draw_decision(picture.image, right=right, title=title)
    else:
        drawn = overlays.draw_overlay(
            picture.image,
            picture.truth,
            overlays.foreground_score(picture.probs),
            overlays.decide(picture.probs, thresholds),
            classes=classes,
            title=title,
        )
    drawn.save(folder / overlays.overlay_name(score, picture.name), quality=92)


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
    quality = foreground_dice(rows, classes)
    if quality is not None:
        worst_first = np.argsort(quality, kind="stable")
    else:
        wrong = rows["decision"] != rows["ground_truth"]
        worst_first = np.lexsort((-np.abs(rows["prediction"] - 0.5), ~wrong))
    half = MAX_OVERLAYS // 2
    others = np.setdiff1d(np.arange(num_images), worst_first[:half])
    spread = others[np.linspace(0, len(others) - 1, half).astype(np.int64)]
    return np.sort(np.concatenate([worst_first[:half], spread]))
