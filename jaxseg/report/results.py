"""Numbers of a finished evaluation: results.csv, metrics.json, a table on the screen.

Files appear whole or not at all: they are written beside their place and moved there.
"""

import collections
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxseg import files

FIRST_COLUMNS = ("name", "prediction", "decision", "ground_truth")
# What spreadsheets run as a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
# What always answering the most frequent class, or background, reaches on the same set.
BASELINES = {"accuracy": "majority_accuracy", "pixel_accuracy": "background_accuracy"}
AVERAGINGS = ("/pooled", "/per_image", "/per_image_pos", "/per_region")
NUM_IMAGES = "num_images"


def write_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes results.csv (RFC 4180), a row per image.

    Columns: name, prediction, decision, ground_truth, then every other key in the order
    of its first appearance. A missing, None, NaN or infinite value is an empty cell;
    numbers keep all digits. Text that a spreadsheet would run as a formula gets a
    leading apostrophe.
    """
    columns = dict.fromkeys(FIRST_COLUMNS)
    for row in rows:
        columns |= dict.fromkeys(row)
    write_rows(path, list(columns), rows)


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes a table in the manner of `write_results`; a row may lack a column."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([to_cell(column) for column in columns])
    for row in rows:
        writer.writerow(
            [to_cell(row[column]) if column in row else "" for column in columns]
        )
    write_whole(path, text.getvalue())


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json: keys sorted, arrays as lists, NaN and infinity as null."""
    text = json.dumps(
        files.to_json(metrics),
        sort_keys=True,
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    write_whole(path, text + "\n")


def print_table(metrics: Mapping[str, Any], title: str, console: Console) -> None:
    """Prints the metrics for people: those of the whole set, then a row per class.

    Args:
      metrics: names as in `jaxseg.metrics`: `<metric>/<class>`, with or without
        `/<averaging>`, is per class, every other name stands for the whole set. What is
        reached without a model stands beside the accuracies. `num_images` is the size
        of the set and joins the title. Arrays are left to metrics.json.
      title: e.g. 'test'.
      console: where to print.
    """
    metrics = {name: value for name, value in metrics.items() if np.ndim(value) == 0}
    if NUM_IMAGES in metrics:
        title = f"{title}: {metrics.pop(NUM_IMAGES):,} images"
    per_class = {name: value for name, value in metrics.items() if "/" in name}
    whole = {name: value for name, value in metrics.items() if "/" not in name}
    if whole:
        console.print(_whole_table(whole, title))
    if per_class:
        console.print(_class_table(per_class, "" if whole else title))


def _whole_table(metrics: Mapping[str, Any], title: str) -> Table:
    baselines = {
        name: baseline
        for name, baseline in BASELINES.items()
        if name in metrics and baseline in metrics
    }
    table = new_table(title)
    table.add_column("metric")
    table.add_column("value", justify="right")
    if baselines:
        table.add_column("without a model", justify="right", style="dim")
    for name, value in metrics.items():
        if name in baselines.values():
            continue
        cells = [Text(name), Text(format_value(value))]
        if name in baselines:
            rule = baselines[name].split("_")[0]
            cells.append(Text(f"{format_value(metrics[baselines[name]])} ({rule})"))
        table.add_row(*cells)
    return table


def _class_table(metrics: Mapping[str, Any], title: str) -> Table:
    """A row per class and metric, averagings across; a class name may contain '/'."""
    cells = collections.defaultdict(str)
    for name, value in metrics.items():
        metric, label = name.split("/", 1)
        averaging = label.rsplit("/", 1)[-1] if label.endswith(AVERAGINGS) else ""
        label = label.removesuffix(f"/{averaging}")
        cells[label, metric, averaging] = format_value(value)
    columns = dict.fromkeys(averaging for _, _, averaging in cells)
    table = new_table(title)
    table.add_column("class")
    table.add_column("metric")
    for averaging in columns:
        heading = averaging.replace("_", " ") or "value"
        table.add_column(Text(heading), justify="right")
    for label, metric in dict.fromkeys(key[:2] for key in cells):
        row = [cells[label, metric, averaging] for averaging in columns]
        table.add_row(Text(label), Text(metric), *map(Text, row))
    return table


def new_table(title: str) -> Table:
    return Table(
        title=Text(title) if title else None, box=box.SIMPLE, title_justify="left"
    )


def _is_undefined(value: Any) -> bool:
    return value is None or (
        isinstance(value, float | np.floating) and not math.isfinite(value)
    )


def format_value(value: Any) -> str:
    if _is_undefined(value):
        return "undefined"
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.4f}"


def to_cell(value: Any) -> str:
    # str, not repr: the shortest digits that read back as the same float32 or float64.
    text = "" if _is_undefined(value) else str(value)
    is_formula = isinstance(value, str) and text.startswith(FORMULA_STARTS)
    return f"'{text}" if is_formula else text


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(path, newline="") as file:
        # Names that are no valid Unicode on disk arrive as lone surrogates.
        file.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
