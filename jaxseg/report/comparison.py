"""Runs side by side: metrics, parameters, speed, and whether they can be compared.

Everything is read from the run folders: config.json, split.csv, metrics.csv, model/ and
the metrics of the judged part. Nothing is computed anew.
"""

import dataclasses
import glob
import hashlib
import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxseg import workdir, writer
from jaxseg.errors import InputError, shorten
from jaxseg.metrics import mode_of
from jaxseg.progress import console
from jaxseg.report.tables import (
    Spread,
    print_rows,
    spread_of,
    write_csv,
    write_markdown,
)
from jaxseg.schema import nearest

PIXEL_METRICS = ("soft_iou", "soft_dice", "iou", "dice")
IMAGE_METRICS = (("auc", "ap", "f1"), ("accuracy", "f1/macro"))

Table = tuple[list[str], list[list[Any]]]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run folder says.

    Attributes:
      metrics: of the judged part; {} while the run is unfinished.
      images_per_second: median over the epochs from the second on; None before.
      judged_on: equal for runs that share data, split and judged part.
      state: '' for a finished run, else e.g. 'epoch 3 of 40'.
    """

    metrics: dict[str, float | None]
    parameters: int
    images_per_second: float | None
    judged_on: str
    state: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the comparison: a run, or the runs of a sweep."""

    name: str
    runs: tuple[RunFacts, ...]

    @property
    def finished(self) -> list[RunFacts]:
        return [run for run in self.runs if not run.state]

    def value(self, metric: str) -> float | Spread | None:
        """Of one finished run, or the spread over several; None without any."""
        values = [run.metrics.get(metric) for run in self.finished]
        return spread_of(values) if len(values) > 1 else next(iter(values), None)

    @property
    def state(self) -> str:
        """'' if every run is finished."""
        if len(self.runs) == 1:
            return self.runs[0].state
        left = len(self.runs) - len(self.finished)
        return f"{left} of {len(self.runs)} runs unfinished" if left else ""


def find_entries(patterns: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """The runs that paths or shell patterns name, and the paths that are no run.

    Raises:
      InputError: there is no run among them.
    """
    paths = [path for pattern in patterns for path in _expand(pattern)]
    entries, strangers = [], []
    for path in dict.fromkeys(paths):
        is_run = (path / "config.json").is_file()
        folders = [path] if is_run else workdir.sweep_folders(path)
        if folders:
            entries.append(Entry(str(path), tuple(map(read_run, folders))))
        else:
            strangers.append(str(path))
    if not entries:
        raise InputError(
            "run folders, each with a config.json",
            f"{shorten(strangers or patterns)} without one",
            "the folders that were a --workdir, e.g. runs/*",
        )
    return entries, strangers


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    return [path] if path.exists() else [Path(p) for p in sorted(glob.glob(pattern))]


def read_run(folder: Path) -> RunFacts:
    """The facts of a run folder.

    Raises:
      InputError: the folder is none, or the metrics of a finished run are gone.
    """
    record = workdir.read_record(folder)
    has_history = (folder / "metrics.csv").is_file()
    history = writer.read_history(folder) if has_history else []
    speeds = [float(row["images_per_second"]) for row in history[1:]]
    finished = workdir.is_finished(folder)
    part = workdir.judged_part(folder) if finished else ""
    split = folder / "split.csv"
    content = split.read_bytes() if split.is_file() else b""
    judged_on = [record["data_hash"], hashlib.sha256(content).hexdigest(), part]
    epochs = record["config"]["train"]["epochs"]
    return RunFacts(
        metrics=workdir.read_metrics(folder) if finished else {},
        parameters=record["parameters"],
        images_per_second=statistics.median(speeds) if speeds else None,
        judged_on=json.dumps(judged_on),
        state="" if finished else f"epoch {len(history)} of {epochs}",
    )


def choose_metrics(entries: Sequence[Entry], wanted: Sequence[str]) -> list[str]:
    """The wanted metrics, or the headline of every kind of run.

    Raises:
      InputError: no finished run has one of the wanted.
    """
    runs = [run for entry in entries for run in entry.finished]
    if not wanted:
        return list(dict.fromkeys(name for run in runs for name in headline(run)))
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = nearest(unknown[0], known)
        raise InputError(
            "metrics that a finished run has",
            f"{shorten(unknown)}{near}",
            f"--metrics with some of {', '.join(known) or 'none: no run is finished'}",
        )
    return list(wanted)


def headline(run: RunFacts) -> list[str]:
    """Soft and hard overlap of masks, areas and F1 of decisions, as far as they are."""
    names = []
    for metric in PIXEL_METRICS:
        pooled = re.compile(rf"{metric}/.+/pooled")
        mean = f"{metric}/mean/pooled"
        classes = [name for name in run.metrics if pooled.fullmatch(name)]
        names += [mean] if mean in classes else classes
    binary, several = IMAGE_METRICS
    decisions = [name for name in binary if name in run.metrics]
    return names + (decisions or [name for name in several if name in run.metrics])


def compare(entries: Sequence[Entry], metrics: Sequence[str]) -> tuple[Table, Table]:
    """The table for people and the one for programs, best run first.

    Runs with the same letter in the column 'judged on' share data, split and judged
    part; numbers of different letters are not comparable.
    """
    entries = sorted(entries, key=lambda entry: _rank(entry, metrics))
    judged = dict.fromkeys(r.judged_on for entry in entries for r in entry.finished)
    letters = {key: _letter(index) for index, key in enumerate(judged)}
    parts = [part for name in metrics for part in (name, f"{name} std")]
    rows, rows_csv = [], []
    for entry in entries:
        values = [entry.value(name) for name in metrics]
        numbers = [number for value in values for number in _mean_and_std(value)]
        shown = ["-" if value is None else value for value in values]
        marks = sorted({letters[run.judged_on] for run in entry.finished})
        speed, last = _speed(entry), [" ".join(marks), entry.state]
        speed_text = "-" if speed is None else f"{speed:.1f}"
        first, parameters = [entry.name, len(entry.finished)], entry.runs[0].parameters
        rows.append([*first, *shown, parameters, speed_text, *last])
        rows_csv.append([*first, *numbers, parameters, speed, *last])
    return (_header(metrics), rows), (_header(parts), rows_csv)


def _header(metrics: Sequence[str]) -> list[str]:
    return ["run", "runs", *metrics, "parameters", "images/s", "judged on", "state"]


def notes_of(table: Table) -> list[str]:
    """What a reader of the table has to know."""
    header, rows = table
    notes = []
    if len({row[header.index("judged on")] for row in rows} - {""}) > 1:
        notes.append(
            "WARNING: runs with other letters in 'judged on' have other images, "
            "another split or another part; their numbers are not comparable."
        )
    if any(isinstance(cell, Spread) for row in rows for cell in row):
        notes.append("+- is the sample standard deviation over the runs of a sweep.")
    return notes


def _rank(entry: Entry, metrics: Sequence[str]) -> tuple[bool, float]:
    """Runs without the first metric come last."""
    mean = _mean_and_std(entry.value(metrics[0]))[0] if metrics else None
    if mean is None or math.isnan(mean):
        return True, 0.0
    if metrics[0].startswith("width_bias"):  # too wide is no better than too narrow
        return False, abs(mean)
    return False, -mean if mode_of(metrics[0]) == "max" else mean


def _mean_and_std(value: float | Spread | None) -> tuple[float | None, float | None]:
    return value[:2] if isinstance(value, Spread) else (value, None)


def _speed(entry: Entry) -> float | None:
    """Images per second, the median over the runs."""
    speeds = [run.images_per_second for run in entry.runs]
    known = [speed for speed in speeds if speed is not None]
    return statistics.median(known) if known else None


def _letter(index: int) -> str:
    """A to Z, then A1 and so on."""
    turn, place = divmod(index, 26)
    return chr(ord("A") + place) + (str(turn) if turn else "")


def run_comparison(
    patterns: Sequence[str], wanted: Sequence[str], out: Path | None
) -> None:
    """Prints the comparison, and writes `out`.md and `out`.csv if there is an `out`.

    Raises:
      InputError: no runs, unknown metrics, or `out` cannot be written.
    """
    entries, strangers = find_entries(patterns)
    table, numbers = compare(entries, choose_metrics(entries, wanted))
    notes = notes_of(table)
    print_rows(*table, f"{len(entries)} run(s)", console)
    for path in strangers:
        notes = [*notes, f"{path} is no run folder."]
    for note in notes:
        console.print(f"- {note}", markup=False)
    if out is None:
        return
    try:
        write_markdown(Path(f"{out}.md"), *table, notes)
        write_csv(Path(f"{out}.csv"), *numbers)
    except OSError as error:
        raise InputError(
            "a place for the comparison that can be written",
            f"{out}: {error.strerror}",
            "--out NAME in a folder of yours",
        ) from None
    console.print(f"- {out}.md and {out}.csv are written", markup=False)
