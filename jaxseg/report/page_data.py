"""What the script of a report computes with: scores, pixels, small pictures."""

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.report import evidence
from jaxseg.report.finished import FinishedRun
from jaxseg.report.overlays import overlay_name

PAGE_BYTES = 13_500_000
"""All pictures together; text and curves come on top."""
OVERLAY_SIDE, OVERLAY_QUALITY = 1000, 72


def page_data(run: FinishedRun) -> dict[str, Any]:
    """The object that report.js reads, in types that JSON knows.

    - `kinds` of images; `thresholds` that have a slider; `image_kind`, the one of them
      that decides about images, or ''.
    - `scores`, `truths`, `decisions`: of all n images.
    - `val`: `scores` and `truths` that chose the threshold, or null.
    - `histogram`: [2][B] pixels of all images, or null.
    - `rows`: the images with a place in the table, `at` their position in the above.
    - `histograms`: of the rows, [rows, 2, B] int32 little-endian, deflated, base64.
    """
    found, rows = run.evidence, _rows(run)
    shown = found.get("shown_histograms") if run.decides_images else None
    is_binary = bool(run.decides_images)
    return files.to_json(
        {
            "kinds": run.kinds,
            "thresholds": {k: run.thresholds[k]["value"] for k in run.sliders},
            "image_kind": run.decides_images,
            "scores": run.scores,
            "truths": run.labels,
            "decisions": run.decisions,
            "val": {"scores": found["val_score"], "truths": found["val_label"]}
            if is_binary and "val_score" in found
            else None,
            "histogram": found.get("histogram"),
            "rows": rows,
            "histograms": None if shown is None else _deflate(shown),
        }
    )


def to_script(data: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _deflate(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.astype("<i4").tobytes(), 9)).decode()


def _rows(run: FinishedRun) -> list[dict[str, Any]]:
    folder = run.folder / run.part
    shown = run.evidence.get("shown")
    if shown is None:
        shown = np.arange(min(len(run.names), evidence.MAX_SHOWN))
    rows, left = [], PAGE_BYTES
    for at in shown.tolist():
        thumbnail = evidence.read_picture(folder, at)
        row = {"at": at, "name": _readable(run.names[at])}
        row["thumbnail"] = base64.b64encode(thumbnail or b"").decode()
        if run.dice is not None:
            row["dice"] = run.dice[at]
        left -= len(row["thumbnail"])
        rows.append(row)
    for row in sorted(rows, key=lambda row: _badness(run, row["at"])):
        at = row["at"]
        name = overlay_name(run.scores[at], run.names[at])
        picture = _overlay(folder / "overlays" / name)
        if picture and len(picture) <= left:
            row["overlay"] = picture
            left -= len(picture)
    return rows


def _badness(run: FinishedRun, at: int) -> tuple[bool, float]:
    """Ascending: wrong decisions first, then the worst masks."""
    is_right = run.labels[at] == run.decisions[at]
    return bool(is_right), float(0 if run.dice is None else np.nan_to_num(run.dice[at]))


def _overlay(path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return jpeg(picture, OVERLAY_SIDE, OVERLAY_QUALITY)


def jpeg(picture: Image.Image, side: int, quality: int) -> str:
    """Base64 of a JPEG whose longer side is at most `side` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _readable(name: str) -> str:
    """Names that are no valid Unicode on disk arrive as lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
