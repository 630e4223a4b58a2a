"""What results.csv and components.csv say about images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.predict.measuring import Found
from jaxseg.predict.photos import Photo
from jaxseg.predict.pictures import class_shares
from jaxseg.predict.result import Result
from jaxseg.predict.store import Entry
from jaxseg.predict.tiles import Tiles, write_tiles
from jaxseg.report import component_table, results, tables


def describe(photo: Photo, size: tuple[int, int], result: Result) -> dict[str, Any]:
    """The row of results.csv of one image, but for what is measured."""
    row = {
        "name": photo.source,
        "height": size[0],
        "width": size[1],
        "score": result.score,
        "decision": result.decision,
    }
    if result.mask is not None:
        row["mask"] = f"masks/{photo.name}.png"
        return row | _shares(result.mask, result.classes)
    row |= dict(_class_probabilities(result))
    if result.tiles is not None:
        decided = result.tiles.decided
        row |= {"num_tiles": decided.size, "num_tiles_found": int((decided > 0).sum())}
    return row


def _shares(mask: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    shares = class_shares(mask, len(classes))
    return {f"share/{classes[i]}": float(shares[i]) for i in range(1, len(classes))}


def _class_probabilities(result: Result) -> Iterator[tuple[str, float]]:
    probs = result.image_probabilities
    if len(probs) > 1:
        for name, value in zip(result.classes, probs, strict=True):
            yield f"probability/{name}", float(value)


def write_tables(
    out: Path,
    entries: Sequence[Entry | None],
    skipped: Sequence[tuple[str, str]],
    classes: Sequence[str],
    mm_per_pixel: float | None,
) -> None:
    """Writes the tables of all images that are done, skipped.csv of the others.

    Args:
      classes: names of those that are measured.
      mm_per_pixel: of the images, for columns in millimetres.
    """
    done = [entry for entry in entries if entry is not None]
    found = [[Found.from_json(one) for one in entry.pieces] for entry in done]
    rows = [
        entry.row | _measured(pieces, classes, mm_per_pixel)
        for entry, pieces in zip(done, found, strict=True)
    ]
    _write(out, rows, skipped)
    pieces = [
        (entry.row["name"], [one.components for one in by_class])
        for entry, by_class in zip(done, found, strict=True)
    ]
    component_table.write(out / "components.csv", classes, pieces, mm_per_pixel)


def write_classified(
    out: Path,
    entries: Sequence[Entry | None],
    skipped: Sequence[tuple[str, str]],
    classes: Sequence[str],
) -> None:
    """The same of a classifier; tiles.csv where images went tile by tile."""
    done = [entry for entry in entries if entry is not None]
    _write(out, [entry.row for entry in done], skipped)
    tiled = [
        (entry.row["name"], Tiles.from_json(written))
        for entry in done
        for written in entry.pieces
    ]
    if tiled:
        write_tiles(out / "tiles.csv", tiled, classes)


def _write(
    out: Path, rows: Sequence[dict[str, Any]], skipped: Sequence[tuple[str, str]]
) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    results.write_rows(out / "results.csv", columns, rows)
    path = out / "skipped.csv"
    path.unlink(missing_ok=True)
    if skipped:
        tables.write_csv(path, ("name", "reason"), skipped)


def _measured(
    found: Sequence[Found], classes: Sequence[str], mm_per_pixel: float | None
) -> dict[str, float]:
    return {
        f"{key}/{name}": value
        for name, one in zip(classes, found, strict=True)
        for key, value in one.columns(mm_per_pixel).items()
    }
