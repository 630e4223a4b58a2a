"""What results.csv says about an image."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.predict.photos import Photo
from jaxseg.predict.pictures import class_shares
from jaxseg.predict.result import Result
from jaxseg.report import tables


def describe(photo: Photo, size: tuple[int, int], result: Result) -> dict[str, Any]:
    """The row of results.csv of one image."""
    row = {
        "name": photo.source,
        "height": size[0],
        "width": size[1],
        "score": result.score,
        "decision": result.decision,
    }
    if result.mask is not None:
        row["mask"] = f"masks/{photo.name}.png"
        return row | measure(result.mask, result.classes)
    return row | dict(_class_probabilities(result))


def measure(mask: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """What results.csv says about the mask of an image, as column -> value."""
    shares = class_shares(mask, len(classes))
    return {f"share/{classes[i]}": float(shares[i]) for i in range(1, len(classes))}


def _class_probabilities(result: Result) -> Iterator[tuple[str, float]]:
    probs = result.image_probabilities
    if len(probs) > 1:
        for name, value in zip(result.classes, probs, strict=True):
            yield f"probability/{name}", float(value)


def write_tables(
    out: Path,
    rows: Sequence[Mapping[str, Any] | None],
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Writes results.csv of all images that are done, skipped.csv of the others."""
    done = [row for row in rows if row is not None]
    columns = list(dict.fromkeys(name for row in done for name in row))
    cells = [[row.get(name) for name in columns] for row in done]
    tables.write_csv(out / "results.csv", columns, cells)
    path = out / "skipped.csv"
    path.unlink(missing_ok=True)
    if skipped:
        tables.write_csv(path, ("name", "reason"), skipped)
