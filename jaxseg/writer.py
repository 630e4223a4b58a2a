"""What a run says while it works: metrics.csv, TensorBoard events, a line per epoch.

Of an epoch TensorBoard has the numbers, the curves of precision and recall in
validation, and the picture of previews/.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg import backend, files, hosts
from jaxseg.events import Events
from jaxseg.metrics import Tally
from jaxseg.progress import console, duration
from jaxseg.trackers import Tracker, open_trackers

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
    """Writes the rows of a run, one per epoch; files in process 0 only.

    Attributes:
      history: all rows so far, the restored ones first.

    Args:
      log_to: names of `trackers.TRACKERS`.
    """

    def __init__(
        self, workdir: Path, history: Sequence[Row], log_to: Sequence[str] = ()
    ):
        self.history = list(history)
        self._csv = workdir / "metrics.csv"
        self._writes = hosts.is_first()
        names = log_to if self._writes else ()
        self._trackers = hosts.in_turn(partial(open_trackers, names, workdir))
        self._events = Events(workdir / "events") if self._writes else None
        self._write_csv()  # rows of an epoch that was not saved are gone with it

    def write(self, step: int, row: Row, headline: Mapping[str, str]) -> None:
        """One epoch: `row` to the files, `headline` (name -> text) to the terminal."""
        self.history.append(row)
        self._write_csv()
        if self._events:
            for name, value in row.items():
                if math.isfinite(value):  # TensorBoard has no place for the others
                    self._events.add_scalar(step, name, value)
            self._events.flush()
        self._track(lambda tracker: tracker.log(step, row))
        line = "  ".join(f"{name} {text}" for name, text in headline.items())
        console.print(line, markup=False)

    def draw(
        self, step: int, tallies: Mapping[str, Tally], picture: Path | None
    ) -> None:
        """Curves by name, and the picture of the epoch, to TensorBoard."""
        if not self._events:
            return
        for name, tally in tallies.items():
            self._events.add_curve(step, f"precision_recall/{name}", tally)
        if picture is not None:
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            self._events.add_image(step, "previews", pixels)

    def close(self) -> None:
        if self._events:
            self._events.close()
        self._track(lambda tracker: tracker.close())

    def _track(self, act: Callable[[Tracker], None]) -> None:
        """Has each tracker do it; training goes on without one that fails."""
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception as error:  # whatever their packages raise
                self._trackers.remove(tracker)
                name, kind = type(tracker).__name__, type(error).__name__
                text = f"- {name} gets no more rows: {kind}: {error}"
                console.print(text, markup=False)

    def _write_csv(self) -> None:
        if not self._writes:
            return
        if not self.history:
            self._csv.unlink(missing_ok=True)
            return
        with files.atomic_file(self._csv, newline="") as file:
            # An older version may have begun the run, with fewer columns.
            columns = dict.fromkeys(name for row in self.history for name in row)
            table = csv.DictWriter(file, fieldnames=list(columns))
            table.writeheader()
            table.writerows(self.history)
