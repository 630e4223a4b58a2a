"""Predicted masks as files of annotation tools, to correct and to train on again.

`datasets.labelme` and `datasets.coco` read the very same masks from them. LabelMe has
polygons; a hole is a polygon of the background, drawn later. COCO has run lengths, one
annotation per region, which every COCO tool fills alike.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.predict.outlines import find_regions, polygons, run_lengths


def write_labelme(
    path: Path, place: Path, photo: Path, mask: np.ndarray, classes: Sequence[str]
) -> None:
    """Writes a label file of LabelMe.

    Args:
      path: of the file.
      place: where it will stand; it names the photo from there.
      mask: [H, W] class ids.
    """
    shapes = [
        {
            "label": classes[shape.class_id],
            "points": [list(pair) for pair in _pairs(shape.numbers)],
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for shape in polygons(mask)
    ]
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": os.path.relpath(photo, place.parent),
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def coco_regions(mask: np.ndarray) -> list[dict[str, Any]]:
    """The annotations of [H, W] class ids, without their ids."""
    annotations = []
    for region in find_regions(mask, holes=False, corners=True):
        height, width = region.pixels.shape
        counts = [int(n) for n in run_lengths(region, mask.shape)]
        annotations.append(
            {
                "category_id": region.class_id,
                "segmentation": {"size": list(mask.shape), "counts": counts},
                "area": int(region.pixels.sum()),
                "bbox": [region.left, region.top, width, height],
                "iscrowd": 0,
            }
        )
    return annotations


def write_coco(
    path: Path,
    images: Iterable[tuple[str, tuple[int, int], list[dict[str, Any]]]],
    classes: Sequence[str],
) -> None:
    """Writes a COCO file.

    Args:
      images: file name, (H, W) and `coco_regions` of each.
    """
    listed, annotations = [], []
    for image_id, (name, (height, width), regions) in enumerate(images, start=1):
        size = {"height": height, "width": width}
        listed.append({"id": image_id, "file_name": name, **size})
        annotations += [
            {"id": len(annotations) + number, "image_id": image_id, **region}
            for number, region in enumerate(regions, start=1)
        ]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes) if i]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def _pairs(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    return ((int(x), int(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
