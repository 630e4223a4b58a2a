"""Curves of a run as pictures: precision-recall, ROC, losses, confusion matrix.

The suffix of `path` names the format (png, pdf, svg). Figures are built without pyplot:
no window, no global state, safe in threads. Points that are not finite are left out.

Titles carry AP and AUC with four decimals, as in the reference: SegDecNet,
https://github.com/vicoslab/mixed-segdec-net-comind2021/blob/main/utils.py
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jaxseg.writer import column_of

INK, QUIET, FAINT = "#22262b", "#7a828c", "#dfe3e8"
# Okabe and Ito, https://jfly.uni-koeln.de/color/: told apart by colour-blind readers.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
VIOLET, SKY = "#cc79a7", "#56b4e9"
# 960 pixels at the default 6.4 inches: text stays readable when shown 800 wide.
DPI = 150
MAX_NUMBERED_CLASSES = 12
LOG_RATIO = 20  # largest / smallest positive value from which an axis is logarithmic
MAX_MARKED_EPOCHS = 30
MAX_LEVEL_LETTERS = 40  # of all class names together; longer ones are slanted


def save_precision_recall(
    path: Path,
    recall: np.ndarray,
    precision: np.ndarray,
    ap: float,
    chosen: tuple[float, float] | None,
    threshold: float,
) -> None:
    """Precision over recall as steps, over lines of equal F1.

    Args:
      path: the picture to write.
      recall: [T] in [0, 1], rising or falling; the points of distinct scores.
      precision: [T] in [0, 1].
      ap: average precision; NaN where no image has a defect.
      chosen: (recall, precision) at the stored threshold.
      threshold: the stored threshold, in score units [0, 1].
    """
    recall, precision = np.asarray(recall, float), np.asarray(precision, float)
    if recall.size and recall[0] > recall[-1]:
        recall, precision = recall[::-1], precision[::-1]
    figure = Figure(figsize=(6.4, 5.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _draw_f1_lines(axes)
    # Steps that end at their point: the area below is the step-wise average precision.
    axes.plot(recall, precision, color=BLUE, linewidth=2, drawstyle="steps-pre")
    label = f"threshold {threshold:.4g}: recall {{:.4f}}, precision {{:.4f}}"
    _mark_chosen(axes, chosen, label)
    _finish_unit_square(
        axes, "recall", "precision", f"Precision-recall, AP {_number(ap)}"
    )
    figure.savefig(path)


def save_roc(
    path: Path,
    false_positive_rate: np.ndarray,
    true_positive_rate: np.ndarray,
    auc: float,
    chosen: tuple[float, float] | None,
) -> None:
    """Receiver operating characteristic beside the diagonal of a random score.

    Args:
      path: the picture to write.
      false_positive_rate: [T] in [0, 1].
      true_positive_rate: [T] in [0, 1].
      auc: area under the curve; NaN where only one class is present.
      chosen: (false positive rate, true positive rate) at the stored threshold.
    """
    figure = Figure(figsize=(6.4, 5.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="chance")
    axes.plot(false_positive_rate, true_positive_rate, color=BLUE, linewidth=2)
    _mark_chosen(axes, chosen, "stored threshold: false {:.4f}, true {:.4f}")
    _finish_unit_square(
        axes, "false positive rate", "true positive rate", f"ROC, AUC {_number(auc)}"
    )
    figure.savefig(path)


def save_losses(
    path: Path,
    history: Sequence[Mapping[str, object]],
    *,
    monitor: str,
    mode: Literal["max", "min"],
) -> None:
    """Losses and their parts, the monitored metric with its best epoch, learning rate.

    One above the other. Differs: SegDecNet's authors draw losses and AP in one plot
    with two axes, where lines seem to cross that have nothing in common.

    Args:
      path: the picture to write.
      history: rows of metrics.csv with 'epoch', 'train/loss', 'val/loss', their parts
        if any ('train/loss_seg', ...), 'val/<monitor>' and 'learning_rate'; numbers or
        their text. A missing or empty value is a gap: validation need not run every
        epoch.
      monitor: name of the metric that ranks checkpoints, without 'val/'.
      mode: whether a larger or a smaller value of it is better.
    """
    epochs = column_of(history, "epoch")
    metric = column_of(history, f"val/{monitor}")
    parts = [name for name in history[0] if name.startswith("train/loss_")]
    with_metric = monitor != "loss"
    heights = [3 if with_metric else 4, *([3] if parts else [])]
    heights += [2, 1] if with_metric else [1]
    figure = Figure(figsize=(6.4, 1.1 * sum(heights)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    for name, color in (("train/loss", QUIET), ("val/loss", ORANGE)):
        _draw_line(panels[0], epochs, column_of(history, name), color, name)
    _finish_panel(panels[0], "loss")
    marked = panels[0]
    if parts:
        _draw_parts(panels[1], epochs, history, parts)
    if with_metric:
        marked = panels[-2]
        _draw_line(marked, epochs, metric, BLUE, f"val/{monitor}")
        _finish_panel(marked, monitor.split("/")[0])
    _draw_line(panels[-1], epochs, column_of(history, "learning_rate"), GREEN, None, 1)
    _finish_panel(panels[-1], "learning rate")
    panels[-1].set_xlabel("epoch", fontsize=11, color=INK)
    panels[-1].set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    title = _mark_best(panels, marked, epochs, metric, monitor, mode)
    panels[0].set_title(title, fontsize=12, color=INK, loc="left")
    for panel in panels:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=3)
    figure.savefig(path)


def save_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Confusion matrix with counts and percentages of each true class.

    Args:
      path: the picture to write.
      confusion: [K, K] counts; row = true class, column = decision.
      classes: K names. Above 12 classes only the colours are drawn.
    """
    confusion = np.asarray(confusion)
    totals = confusion.sum(axis=1, keepdims=True)
    share = np.divide(
        confusion, totals, out=np.zeros(confusion.shape), where=totals > 0
    )
    count = len(classes)
    side = 3.2 + min(0.95 * count, 9)
    figure = Figure(figsize=(side + 1, side - 0.3), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for axis, label in ((axes.xaxis, "decision"), (axes.yaxis, "true class")):
        axis.set_ticks(range(count), classes, parse_math=False)
        axis.set_label_text(label, fontsize=12, color=INK)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    if count * max(map(len, classes)) > MAX_LEVEL_LETTERS:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, count - 1), minor=True)
    axes.set_yticks(np.arange(0.5, count - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    if count <= MAX_NUMBERED_CLASSES:
        _write_cells(axes, confusion, share, totals[:, 0])
    axes.set_title(
        f"Confusion, {_count(confusion.sum())} decisions", fontsize=13, color=INK
    )
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, format="{x:.0%}")
    bar.set_label("share of the true class", color=INK)
    bar.outline.set_visible(False)
    # Square cells leave the margins to chance; 'tight' measures them.
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"


def _count(value: float) -> str:
    """A count for a cell: '12,345', or in millions '903.12M'."""
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.2f}M"


def _draw_f1_lines(axes: Axes) -> None:
    """Lines of equal F1: precision = F1 * recall / (2 * recall - F1)."""
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(f1 / (2 - f1), 1, 100)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=FAINT, linewidth=1)
        at_right = f1 / (2 - f1)
        axes.annotate(
            f"F1 {f1}", (1.0, at_right), xytext=(-3, 3), textcoords="offset points",
            ha="right", fontsize=8, color=QUIET,
        )  # fmt: skip


def _mark_chosen(axes: Axes, chosen: tuple[float, float] | None, label: str) -> None:
    if chosen is None or not np.isfinite(chosen).all():
        return
    axes.plot(
        *chosen, "o", color=ORANGE, markersize=9, markeredgecolor="white", zorder=5,
        clip_on=False, label=label.format(*chosen),
    )  # fmt: skip


def _finish_unit_square(axes: Axes, xlabel: str, ylabel: str, title: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel(xlabel, fontsize=12, color=INK)
    axes.set_ylabel(ylabel, fontsize=12, color=INK)
    axes.set_title(title, fontsize=13, color=INK)
    _quieten(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", fontsize=10, labelcolor=INK, edgecolor=FAINT)


def _quieten(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(color=QUIET, labelcolor=INK, labelsize=10)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_line(axes, epochs, values, color, label, linewidth=2, linestyle="-") -> None:
    shown = np.isfinite(values)
    if not shown.any():
        return
    marker = "o" if len(epochs) <= MAX_MARKED_EPOCHS else ""
    axes.plot(
        epochs[shown], values[shown], color=color, linewidth=linewidth, label=label,
        linestyle=linestyle, marker=marker, markersize=1.75 * linewidth,
    )  # fmt: skip


def _finish_panel(axes: Axes, ylabel: str) -> None:
    lines = [line.get_ydata() for line in axes.get_lines()]
    values = np.array(list(itertools.chain.from_iterable(lines)))
    if values.size and values.min() > 0 and values.max() / values.min() > LOG_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values.size and values.min() == values.max():
        axes.set_ylim(*sorted((0, 1.5 * values[0] or 1)))
    axes.set_ylabel(ylabel, fontsize=11, color=INK)
    _quieten(axes)


def _draw_parts(axes, epochs, history, names: Sequence[str]) -> None:
    """Parts of the loss, each in its colour; of training dashed."""
    for name, color in zip(names, itertools.cycle((VIOLET, SKY, GREEN)), strict=False):
        for part, style in ((name, "--"), (name.replace("train/", "val/"), "-")):
            values = column_of(history, part)
            _draw_line(axes, epochs, values, color, part, linestyle=style)
    _finish_panel(axes, "parts of the loss")


def _mark_best(panels, marked, epochs, metric, monitor: str, mode: str) -> str:
    """Draws a line at the best epoch and returns the title that names it."""
    finite = np.isfinite(metric)
    if not finite.any():
        return "Training"
    signed = np.where(finite, metric if mode == "max" else -metric, -np.inf)
    best = int(signed.argmax())
    for panel in panels:
        panel.axvline(epochs[best], color=INK, linewidth=1, linestyle=":")
    marked.plot(epochs[best], metric[best], "*", color=INK, markersize=11, zorder=5)
    return f"Best epoch {epochs[best]:.0f}: val/{monitor} {metric[best]:.4f}"


def _write_cells(axes: Axes, confusion, share, totals) -> None:
    for row, column in np.ndindex(confusion.shape):
        percent = f"{share[row, column]:.1%}" if totals[row] else "-"
        axes.text(
            column, row, f"{_count(confusion[row, column])}\n{percent}",
            ha="center", va="center", fontsize=10,
            color="white" if share[row, column] > 0.5 else INK,
        )  # fmt: skip
