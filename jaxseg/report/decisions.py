"""The decisions about images, on the screen: a table and a line of numbers.

Laid out as in the README of the reference run of SegDecNet: rows are the true class,
columns the decision, so "Negatives, True" are false alarms.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxseg.report.results import format_value, new_table

LABELS = ("AUC", "AP", "threshold", "F1", "FP", "FN")
OF_RECORD = ("auc", "ap", "image_threshold", "f1", "fp", "fn")
OPTIMISTIC = (
    *("auc", "ap_trapezoid", "optimistic_threshold"),
    *("optimistic_f1", "optimistic_fp", "optimistic_fn"),
)


def print_decisions(
    summary: Mapping[str, Any], classes: tuple[str, str], part: str, console: Console
) -> None:
    """The table of TP, FN, FP, TN, and a line for each of the two conventions.

    The first line is the decision of record, at the threshold of the validation set.
    The second counts as SegDecNet's authors: the AP has straight lines, the threshold
    is chosen on the judged part itself.

    Args:
      summary: of `metrics.image_summary` and `metrics.hindsight_summary`, with
        'image_threshold'.
      classes: names of the negatives and of the positives.
      part: the judged part, e.g. 'test'.
    """
    console.print(_table(summary, classes, part))
    for note, names in (("", OF_RECORD), (" (optimistic)", OPTIMISTIC)):
        facts = zip(LABELS, names, strict=True)
        text = ", ".join(f"{label} {_number(summary[name])}" for label, name in facts)
        console.print(f"EVAL {part}{note}: {text}", markup=False)


def confusion_of(summary: Mapping[str, Any]) -> np.ndarray:
    """[2, 2] counts of images; rows are the true class, columns the decision."""
    tp, fp, fn, tn = (summary[name] for name in ("tp", "fp", "fn", "tn"))
    return np.array([[tn, fp], [fn, tp]])


def _table(summary: Mapping[str, Any], classes: tuple[str, str], part: str) -> Table:
    title = f"{part} set: decisions at threshold {summary['image_threshold']:.4f}"
    table = new_table(title)
    negatives, positives = classes
    table.add_column("true class \\ decision")
    for name, label in (("True", positives), ("False", negatives)):
        table.add_column(Text(f"{name} ({label})"), justify="right")
    for name, label, *columns in (
        ("Positives", positives, "tp", "fn"),
        ("Negatives", negatives, "fp", "tn"),
    ):
        cells = (format_value(summary[column]) for column in columns)
        table.add_row(Text(f"{name} ({label})"), *cells)
    return table


def _number(value: float) -> str:
    """Counts as they are, areas with six decimals, as the reference prints them."""
    is_finite = isinstance(value, float) and math.isfinite(value)
    return f"{value:.6f}" if is_finite else format_value(value)
