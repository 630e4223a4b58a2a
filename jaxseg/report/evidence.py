"""What a judged part leaves beside its tables, for a report that needs no data again.

`evidence.safetensors` holds, with n images in the order of results.csv and m images of
the validation part that chose the thresholds:

    val_score [m] float64, val_label [m] int64   as prediction and ground_truth there
    probs [n, K], val_probs [m, K] float32       of classifiers with K > 2
    histogram, val_histogram [2, B] int64        pixels of binary masks, pooled
    confusions [n, K, K] int64                   pixels at the threshold
    shown [s] int64                              rows with a small picture, ascending
    shown_histograms [s, 2, B] int32             their pixels

`thumbnails/` holds a small picture of each row in `shown`, named by its number.
"""

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from jaxseg import metrics
from jaxseg.errors import InputError
from jaxseg.report import overlays
from jaxseg.tasks import NUM_BINS, Counts, Task, Thresholds

FILE, PICTURES = "evidence.safetensors", "thumbnails"
MAX_SHOWN = 2000
"""Images with a small picture: a page of more than that is too heavy to be sent."""
SIDE = 96  # pixels of the longer side of a small picture
QUALITY = 70  # of JPEG: about 2.5 KB

Evidence = Mapping[str, np.ndarray]


def of_validation(task: Task, counts: Counts, thresholds: Thresholds) -> Evidence:
    """The `val_` arrays; they show how sure the network is, and what else to choose."""
    rows = task.rows(counts, thresholds)
    found = {"score": rows["prediction"], "label": rows["ground_truth"]}
    found |= _probs_and_pixels(counts)
    types = {"score": np.float64, "label": np.int64}
    return {
        f"val_{name}": values.astype(types.get(name, values.dtype))
        for name, values in found.items()
    }


def of_judged(counts: Counts, thresholds: Thresholds, shown: np.ndarray) -> Evidence:
    """The arrays of the judged part, with pictures of the images `shown` [s]."""
    found = {"shown": np.asarray(shown, np.int64), **_probs_and_pixels(counts)}
    if "confusion" in counts:
        found["confusions"] = counts["confusion"].astype(np.int64)
    if "histogram" in counts:
        first_bin = round(thresholds["mask"].value * NUM_BINS)
        found["confusions"] = metrics.confusion_at(counts["histogram"], first_bin)
        found["shown_histograms"] = counts["histogram"][shown].astype(np.int32)
    return found


def _probs_and_pixels(counts: Counts) -> dict[str, np.ndarray]:
    found = {}
    if "image_probs" in counts and counts["image_probs"].shape[1] > 1:
        found["probs"] = counts["image_probs"]
    if "histogram" in counts:
        found["histogram"] = counts["histogram"].sum(0, dtype=np.int64)
    return found


def write(folder: Path, evidence: Evidence, pictures: Sequence[bytes]) -> None:
    """Writes the file, whole or not at all, and the pictures of the rows in `shown`."""
    shutil.rmtree(folder / PICTURES, ignore_errors=True)
    (folder / PICTURES).mkdir(parents=True)
    for row in evidence["shown"]:
        (folder / PICTURES / f"{row:06d}.jpg").write_bytes(pictures[row])
    arrays = {name: np.ascontiguousarray(array) for name, array in evidence.items()}
    unfinished = folder / f".{FILE}"
    unfinished.write_bytes(save(arrays))
    unfinished.replace(folder / FILE)


def read(folder: Path) -> Evidence:
    """The arrays of a judged part; {} where an older version left none.

    Raises:
      InputError: the file is broken.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            "the arrays of a judged run",
            f"{path}: {error}",
            "scripts/evaluate.py with the run's --workdir writes them anew",
        ) from None


def read_picture(folder: Path, row: int) -> bytes | None:
    path = folder / PICTURES / f"{row:06d}.jpg"
    return path.read_bytes() if path.is_file() else None


def draw_thumbnail(
    image: np.ndarray, truth: np.ndarray | None, decision: np.ndarray | None
) -> bytes:
    """A small JPEG: the image, or where there are masks the result drawn on it.

    Args:
      image: [H, W, C] uint8.
      truth: [H, W] class ids; with `decision` [H, W].
    """
    photo = overlays.to_rgb(image)
    if decision is not None:
        photo, _ = overlays.paint_result(photo, truth, decision.astype(np.uint8))
    small = Image.fromarray(photo)
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
