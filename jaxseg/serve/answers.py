"""What is answered: results and measurements as JSON, pictures as data URLs."""

import base64
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.predict import measuring, pictures
from jaxseg.predict.predictor import Predictor
from jaxseg.predict.result import DECISIONS, Result
from jaxseg.report import component_table, overlays

MAX_SIDE = 2048
"""Pixels of the longer side of pictures; larger ones are reduced."""

Answer = dict[str, Any]


def describe_model(predictor: Predictor, max_bytes: int) -> Answer:
    """What a client may want to know before it asks."""
    trained = predictor.trained
    has_masks = "seg_logits" in trained.task.needs
    classes = list(trained.classes)
    colors = overlays.class_colors(len(classes))[: len(classes)]
    return {
        "description": str(predictor),
        "classes": classes,
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist()],
        "decisions": list(DECISIONS) if has_masks else classes,
        "has_masks": has_masks,
        "thresholds": {kind: t.value for kind, t in trained.thresholds.items()},
        "max_bytes": max_bytes,
    }


def describe_result(
    result: Result, size: tuple[int, int], mm_per_pixel: float | None
) -> Answer:
    """Score, decision and measurements.

    Args:
      result: with uint16 probabilities.
      size: (h, w) of the image.
      mm_per_pixel: of the image, where it is known.
    """
    probs = result.image_probabilities
    answer = {
        "height": size[0],
        "width": size[1],
        "score": result.score,
        "decision": result.decision,
        "found": result.found,
        "threshold": result.threshold,
        "mask_threshold": result.mask_threshold,
        "image_probabilities": None if probs is None else probs.tolist(),
    }
    if result.mask is None:
        return answer
    return answer | describe_mask(
        result.mask, result.probabilities, result.classes, mm_per_pixel, scale=1
    )


def describe_mask(
    mask: np.ndarray,
    levels: np.ndarray,
    classes: Sequence[str],
    mm_per_pixel: float | None,
    *,
    scale: int,
) -> Answer:
    """Shares, numbers and sizes of what was found, in pixels of the image.

    Args:
      mask: [H, W] class ids.
      levels: [H, W, K] uint8 or uint16, probabilities.
      mm_per_pixel: of the image, for sizes in millimetres too.
      scale: side of a pixel of the mask.

    Returns:
      `share` and `num_components` by class; `components`, the longest first; none of
      noise, see `measuring`.
    """
    shares = pictures.class_shares(mask, len(classes))
    levels = measuring.decided_levels(levels)
    found = measuring.measure_classes(mask, levels, classes, scale=scale)
    answer = {"share": {}, "num_components": {}, "components": []}
    for name, share, one in zip(classes[1:], shares[1:], found, strict=True):
        answer["share"][name] = float(share)
        answer["num_components"][name] = one.number
        for component in one.components:
            sizes = dataclasses.asdict(component)
            sizes |= component_table.millimetres(sizes, mm_per_pixel)
            answer["components"].append({"class": name, **sizes})
    answer["components"].sort(key=lambda component: -component["length"])
    return files.to_json(answer)  # an orientation may be NaN


def draw_photo(image: np.ndarray) -> tuple[str, int]:
    """The image [h, w, C] as browsers show it, and by which factor it is reduced."""
    scale = math.ceil(max(image.shape[:2]) / MAX_SIDE)
    reduced = overlays.to_rgb(pictures.reduce(image, scale))
    return _data_url(Image.fromarray(reduced), "JPEG", quality=88), scale


def draw_maps(result: Result, scale: int) -> Answer:
    """What was found, to lay over the photo; the largest values of blocks stay.

    Returns:
      `probabilities`, grey, 255 is 1; with more than two classes `mask`, in their
      colours, the background transparent. {} of a classifier.
    """
    if result.mask is None:
        return {}
    if len(result.classes) == 2:
        levels = pictures.shrink(result.probabilities[..., 0], scale)
        grey = ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return {"probabilities": _data_url(Image.fromarray(grey), "PNG")}
    picture = Image.fromarray(pictures.shrink(result.mask, scale))
    picture.putpalette(overlays.class_colors(len(result.classes)).tobytes())
    return {"mask": _data_url(picture, "PNG", transparency=0)}


def _data_url(picture: Image.Image, kind: str, **options) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return (
        f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    )
