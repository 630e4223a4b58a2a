"""A finished run as its folder tells it: no data set and no device is needed."""

import csv
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import workdir, writer
from jaxseg.errors import InputError
from jaxseg.report import evidence
from jaxseg.report.evidence import Evidence
from jaxseg.report.results import FIRST_COLUMNS, FORMULA_STARTS

TRAINING_COLUMNS = ("epoch", "learning_rate", "images_per_second", "input_wait")
CLEAN_OR_DEFECT = ("clean", "defect")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run left; n images were judged.

    Attributes:
      part: what it was judged on.
      record: config.json.
      model: model.json.
      history: rows of metrics.csv.
      metrics: metrics.json of the part.
      columns: results.csv of the part, by name the n texts.
      evidence: {} of a run that an older version judged.
      groups: of each image, as in split.csv; its own name where it is not there.
      sizes: images by part.
      split_hash: sha256 of split.csv.
    """

    folder: Path
    part: str
    record: Mapping[str, Any]
    model: Mapping[str, Any]
    history: Sequence[Mapping[str, str]]
    metrics: Mapping[str, float | None]
    columns: Mapping[str, Sequence[str]]
    evidence: Evidence
    groups: Sequence[str]
    sizes: Mapping[str, int]
    split_hash: str

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.model["classes"])

    @property
    def has_mask(self) -> bool:
        return self.record["config"]["task"]["name"] != "classification"

    @property
    def kinds(self) -> tuple[str, ...]:
        """What an image can be decided to be."""
        return CLEAN_OR_DEFECT if self.has_mask else self.classes

    @property
    def thresholds(self) -> Mapping[str, Mapping[str, Any]]:
        """'image' and 'mask', each with value, rule, note."""
        return self.model["thresholds"]

    @property
    def decides_images(self) -> str:
        """The threshold that decides about images; '' where none does."""
        return next((kind for kind in ("image", "mask") if kind in self.thresholds), "")

    @property
    def sliders(self) -> tuple[str, ...]:
        """The thresholds whose consequences are known for other values too."""
        known = {self.decides_images} | (
            {"mask"} if "histogram" in self.evidence else set()
        )
        return tuple(kind for kind in ("image", "mask") if kind in known)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(_without_apostrophe, self.columns["name"]))

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """[n] float64, exactly what was compared with the threshold."""
        # Image scores are float32: their shortest digits read as another float64.
        return np.array(self.columns["prediction"], np.float32).astype(np.float64)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.array(self.columns["ground_truth"], np.int64)

    @functools.cached_property
    def decisions(self) -> np.ndarray:
        return np.array(self.columns["decision"], np.int64)

    def numbers(self, column: str) -> np.ndarray:
        """[n] float64; nan where a cell is empty."""
        return np.array(
            [float(cell) if cell else np.nan for cell in self.columns[column]]
        )

    @functools.cached_property
    def dice(self) -> np.ndarray | None:
        """[n] mean Dice of the foreground classes of each image; None without masks."""
        names = [f"dice/{name}" for name in self.classes[1:]]
        found = [self.numbers(name) for name in names if name in self.columns]
        return np.mean(found, axis=0) if found else None

    @property
    def image_confusion(self) -> np.ndarray:
        """[K, K] images; rows are the true class."""
        table = np.zeros((len(self.kinds), len(self.kinds)), np.int64)
        np.add.at(table, (self.labels, self.decisions), 1)
        return table


def read_run(folder: Path) -> FinishedRun:
    """Everything that a report is made of.

    Raises:
      InputError: the folder is none of a finished run, or its files are broken.
    """
    record = workdir.read_record(folder)
    if not workdir.is_finished(folder):
        raise InputError(
            "a finished run",
            f"{folder} is not",
            "the command that trains it, again: it goes on where it stopped",
        )
    try:
        model = json.loads((folder / "model" / "model.json").read_text("utf-8"))
        part = workdir.judged_part(folder)
        columns = _read_columns(folder / part / "results.csv", FIRST_COLUMNS)
        split_file = folder / "split.csv"
        split = _read_columns(split_file, ("id", "group", "split"))
        group_of = dict(zip(split["id"], split["group"], strict=True))
        run = FinishedRun(
            folder=folder,
            part=part,
            record=record,
            model=model,
            history=writer.read_history(folder),
            metrics=workdir.read_metrics(folder),
            columns=columns,
            evidence=evidence.read(folder / part),
            groups=[_group_of(name, group_of) for name in columns["name"]],
            sizes={p: split["split"].count(p) for p in ("train", "val", "test")},
            split_hash=hashlib.sha256(split_file.read_bytes()).hexdigest(),
        )
        _check(run)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            "the files that a finished run leaves",
            f"{folder}: {type(error).__name__}: {error}",
            f"python scripts/evaluate.py --workdir {folder} --split with test or val",
        ) from None
    return run


def _check(run: FinishedRun) -> None:
    """Raises ValueError where files do not fit together."""
    n, k = len(run.names), len(run.kinds)
    if not n or len(run.scores) != n or not run.history:
        raise ValueError("results.csv names no image, or metrics.csv no epoch")
    for values in (run.labels, run.decisions):
        if ((values < 0) | (values >= k)).any():
            raise ValueError(f"results.csv holds classes that are not below {k}")
    for column in TRAINING_COLUMNS:
        [float(row[column]) for row in run.history]
    confusions = run.evidence.get("confusions")
    if confusions is not None and len(confusions) != n:
        raise ValueError(f"{evidence.FILE} and results.csv are of different images")


def _read_columns(path: Path, needed: Sequence[str]) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        missing = set(needed) - set(header)
        if missing:
            raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
        cells = list(zip(*rows, strict=True)) or [()] * len(header)
    return dict(zip(header, map(list, cells), strict=True))


def _group_of(name: str, group_of: Mapping[str, str]) -> str:
    """Of a window, that of the image that it is cut from."""
    name = _without_apostrophe(name)
    if name in group_of:
        return group_of[name]
    return group_of.get(name.rsplit("_y", 1)[0], name)


def _without_apostrophe(cell: str) -> str:
    """The text of a cell that spreadsheets would have run as a formula."""
    is_guarded = cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS)
    return cell[1:] if is_guarded else cell
