"""What a run says while it works: metrics.csv, TensorBoard events, a line per epoch."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from jaxseg import backend, files
from jaxseg.progress import console, duration

Row = dict[str, float]


def epoch_line(
    row: Row,
    metrics: Iterable[str],
    *,
    epochs: int,
    is_best: bool,
    seconds_left: float,
) -> dict[str, str]:
    """The headline of an epoch, name -> text, with these validation metrics."""
    return {
        "epoch": f"{row['epoch']}/{epochs}{' (best)' if is_best else ''}",
        **{
            name.replace("/", " "): f"{value:.4f}"
            for name, value in row.items()
            if name.startswith("train/")
        },
        **(
            {"skipped": f"{skipped} steps"} if (skipped := row["skipped_steps"]) else {}
        ),
        **{f"val {name}": f"{row[f'val/{name}']:.4f}" for name in metrics},
        "lr": f"{row['learning_rate']:.2e}",
        "images/s": f"{row['images_per_second']:.1f}",
        "input wait": f"{row['input_wait']:.1%}",
        "memory": f"{backend.peak_memory_gigabytes():.1f} GB",
        "left": duration(seconds_left),
    }


def read_history(workdir: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, as text."""
    with (workdir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column_of(history: Sequence[Mapping[str, object]], name: str) -> np.ndarray:
    """[E] float64 of rows of numbers or their text; NaN where a row has no value."""
    cells = [row.get(name) for row in history]
    return np.array([math.nan if cell in (None, "") else float(cell) for cell in cells])


class Writer:
    """Writes the rows of a run, one per epoch.

    Attributes:
      history: all rows so far, the restored ones first.
    """

    def __init__(self, workdir: Path, history: Sequence[Row]):
        self.history = list(history)
        self._csv = workdir / "metrics.csv"
        self._events = SummaryWriter(str(workdir / "events"))
        self._write_csv()  # rows of an epoch that was not saved are gone with it

    def write(self, step: int, row: Row, headline: Mapping[str, str]) -> None:
        """One epoch: `row` to the files, `headline` (name -> text) to the terminal."""
        self.history.append(row)
        self._write_csv()
        for name, value in row.items():
            if math.isfinite(value):  # TensorBoard has no place for the others
                self._events.add_scalar(name, value, step)
        self._events.flush()
        line = "  ".join(f"{name} {text}" for name, text in headline.items())
        console.print(line, markup=False)

    def close(self) -> None:
        self._events.close()

    def _write_csv(self) -> None:
        if not self.history:
            self._csv.unlink(missing_ok=True)
            return
        with files.atomic_file(self._csv, newline="") as file:
            # An older version may have begun the run, with fewer columns.
            columns = dict.fromkeys(name for row in self.history for name in row)
            table = csv.DictWriter(file, fieldnames=list(columns))
            table.writeheader()
            table.writerows(self.history)
