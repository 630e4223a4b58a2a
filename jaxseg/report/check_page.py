"""The result of a data check: on the terminal, as JSON, and as a page to send on."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from jaxseg import files
from jaxseg.data.audit import Table
from jaxseg.errors import InputError
from jaxseg.report import page
from jaxseg.report.results import write_whole
from jaxseg.report.tables import print_rows

PAGE = "check.html"
WARNING = "WARNING: "


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a check says.

    Attributes:
      title: the config and the folder.
      problem: what stands in the way of a training; None if nothing does.
      notes: sentences; a warning begins with WARNING.
      pictures: by title.
    """

    title: str
    problem: InputError | None = None
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: Mapping[str, Image.Image] = dataclasses.field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        return [
            note.removeprefix(WARNING)
            for note in self.notes
            if note.startswith(WARNING)
        ]

    @property
    def remarks(self) -> list[str]:
        return [note for note in self.notes if not note.startswith(WARNING)]


def print_findings(found: Findings, console: Console) -> None:
    """Tables, then remarks, then warnings: what matters most is read last."""
    for table in found.tables:
        print_rows(table.header, _rounded(table.rows), table.title, console)
    for note in (*found.remarks, *(WARNING + text for text in found.warnings)):
        console.print(f"- {note}", markup=False)


def write_findings(found: Findings, folder: Path) -> None:
    """check.html, check.json, and a PNG file per picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, image in found.pictures.items():
        image.save(folder / f"{title.replace(' ', '_')}.png")
    text = json.dumps(files.to_json(_as_json(found)), indent=2, allow_nan=False)
    write_whole(folder / "check.json", text + "\n")
    write_whole(folder / PAGE, _as_page(found))


def _as_json(found: Findings) -> dict[str, Any]:
    problem = found.problem
    return {
        "title": found.title,
        "problem": problem
        and {name: getattr(problem, name) for name in ("expected", "found", "fix")},
        "warnings": found.warnings,
        "remarks": found.remarks,
        "tables": [
            {"title": t.title, "header": t.header, "rows": t.rows} for t in found.tables
        ],
    }


def _as_page(found: Findings) -> str:
    body = [page.paragraph(_verdict(found))]
    if found.problem:
        body.append(page.box(str(found.problem), "problem"))
    body += [page.box(text, "warning") for text in found.warnings]
    for table in found.tables:
        body += [
            page.heading(table.title),
            page.table(table.header, _rounded(table.rows)),
        ]
    for title, image in found.pictures.items():
        body += [page.heading(title), page.picture(image, title)]
    if found.remarks:
        body += [page.heading("what was found, and how it is handled")]
        body.append(page.bullets(found.remarks))
    return page.page(f"Data check: {found.title}", body)


def _verdict(found: Findings) -> str:
    if found.problem:
        return "This must be mended before anything can be trained."
    if found.warnings:
        return f"It can be trained on. Warnings to decide on: {len(found.warnings)}."
    return "It can be trained on; nothing stands out."


def _rounded(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Shares with two decimals; counts as they are."""
    return [
        [f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row]
        for row in rows
    ]
