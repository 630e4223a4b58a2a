"""Measured pieces as columns of results.csv and rows of components.csv.

Per image, class by class: `num_components`, `length` and `area` of all, `mean_width`
weighted by length, the largest `max_width`, `orientation` of the longest. In pixels of
the image, degrees, and with the size of a pixel in millimetres too.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.measure import Component
from jaxseg.report import results

SIDES = ("top", "left", "bottom", "right")
SIZES = ("length", "mean_width", "max_width", "area")
MILLIMETRES = {
    "length": "length_mm",
    "mean_width": "mean_width_mm",
    "max_width": "max_width_mm",
    "area": "area_mm2",
}


def summarize(found: Sequence[Component], mm_per_pixel: float | None) -> dict[str, Any]:
    """The columns of one class of one image; NaN where nothing was found.

    >>> summarize([], None)["num_components"]
    0
    """
    length = sum(one.length for one in found)
    sizes = {
        "length": length,
        "mean_width": math.nan,
        "max_width": math.nan,
        "area": sum(one.area for one in found),
    }
    orientation = math.nan
    if found:
        weighted = sum(one.mean_width * one.length for one in found)
        sizes["mean_width"] = weighted / length
        sizes["max_width"] = max(one.max_width for one in found)
        orientation = max(found, key=lambda one: one.length).orientation
    return {
        "num_components": len(found),
        **_round(sizes, mm_per_pixel),
        "orientation": round(orientation, 1) % 180,
    }


def write(
    path: Path,
    classes: Sequence[str],
    images: Iterable[tuple[str, Sequence[Sequence[Component]]]],
    mm_per_pixel: float | None,
) -> None:
    """Writes components.csv, whole or not at all.

    Args:
      classes: names of the K foreground classes.
      images: name and components by class of each.
    """
    rows = [
        {
            "name": name,
            "class": classes[k],
            "component": number,
            **dict(zip(SIDES, np.round(one.box, 2).tolist(), strict=True)),
            **_round({key: getattr(one, key) for key in SIZES}, mm_per_pixel),
            "orientation": round(one.orientation, 1) % 180,
            "score": round(one.score, 4),
        }
        for name, by_class in images
        for k, found in enumerate(by_class)
        for number, one in enumerate(found, start=1)
    ]
    sizes = _round(dict.fromkeys(SIZES, 0.0), mm_per_pixel)
    columns = ["name", "class", "component", *SIDES, *sizes, "orientation", "score"]
    results.write_rows(path, columns, rows)


def millimetres(sizes: dict[str, float], mm_per_pixel: float | None) -> dict[str, Any]:
    """The same sizes in millimetres; {} where the size of a pixel is not known."""
    if mm_per_pixel is None:
        return {}
    return {
        name: sizes[key] * mm_per_pixel ** (2 if key == "area" else 1)
        for key, name in MILLIMETRES.items()
    }


def _round(pixels: dict[str, float], mm_per_pixel: float | None) -> dict[str, float]:
    """In pixels and, where their size is known, in millimetres."""
    sizes = {key: round(value, 2) for key, value in pixels.items()}
    known = millimetres(pixels, mm_per_pixel)
    return sizes | {key: round(value, 4) for key, value in known.items()}
