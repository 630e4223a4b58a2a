"""What a run says while it works: metrics.csv, TensorBoard events, a line per epoch."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from jaxseg import files
from jaxseg.progress import console

Row = dict[str, float]


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
            table = csv.DictWriter(file, fieldnames=list(self.history[0]))
            table.writeheader()
            table.writerows(self.history)
