"""Small tables of results: on the terminal, as CSV and as Markdown.

Cells are text, numbers, None or a `Spread`; what is undefined is an empty cell of the
CSV. Texts of the program are ASCII; names of runs and classes stay as they are.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from jaxseg.report.results import format_value, new_table, to_cell, write_whole

MAX_WIDTH = 1000  # letters; a terminal that is narrower breaks the lines

Rows = Sequence[Sequence[Any]]


class Spread(NamedTuple):
    """A metric over several runs; all nan where one of them is undefined."""

    mean: float
    std: float  # of the sample (n - 1); nan for one run
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return format_value(self.mean)
        return f"{self.mean:.4f} +- {self.std:.4f}"


def spread_of(values: Sequence[float | None]) -> Spread:
    """Mean, sample standard deviation, minimum and maximum, in float64.

    >>> spread_of([1.0, 2.0, 3.0])
    Spread(mean=2.0, std=1.0, low=1.0, high=3.0)
    """
    numbers = np.array([math.nan if v is None else v for v in values], np.float64)
    std = numbers.std(ddof=1) if len(numbers) > 1 else math.nan
    return Spread(*map(float, (numbers.mean(), std, numbers.min(), numbers.max())))


def print_rows(header: Sequence[str], rows: Rows, title: str, console: Console) -> None:
    """The first column to the left, the others to the right; never cut off."""
    table = new_table(title)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left")
    for row in rows:
        table.add_row(*(Text(_as_text(cell)) for cell in row))
    # A console as wide as the table: rich would cut numbers to fit 80 letters.
    Console(file=console.file, width=MAX_WIDTH).print(table)


def write_markdown(
    path: Path, header: Sequence[str], rows: Rows, notes: Sequence[str] = ()
) -> None:
    """A pipe table, numbers with four decimals, and a paragraph per note."""
    aligned = [":---", *["---:"] * (len(header) - 1)]
    lines = [header, aligned, *([_as_text(cell) for cell in row] for row in rows)]
    lines = [[cell.replace("|", "/") for cell in line] for line in lines]
    text = [f"| {' | '.join(line)} |" for line in lines]
    text += [line for note in notes for line in ("", note)]
    write_whole(path, "\n".join(text) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Rows) -> None:
    """Numbers keep all digits; the parts of a `Spread` have columns of their own."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(to_cell, header))
    writer.writerows([to_cell(cell) for cell in row] for row in rows)
    write_whole(path, text.getvalue())


def _as_text(cell: Any) -> str:
    if cell is None:
        return ""
    return str(cell) if isinstance(cell, Spread) else format_value(cell)
