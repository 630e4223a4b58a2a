"""COCO: one JSON file with the polygons and run-length masks of all images.

    data.annotations                     data.image_dir
    'annotations.json'                   'images'
    'annotations/instances_{split}.json' '{split}'

The files of train, val and test fix the split. Class ids follow the sorted category
ids, after the background; annotations are drawn in the order of the file. Polygons,
uncompressed and compressed run lengths are read.

Source: https://cocodataset.org/#format-data; the text form of run lengths is that of
https://github.com/cocodataset/cocoapi, common/maskApi.c, rleToString.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.datasets import class_list, listing
from jaxseg.datasets.drawing import (
    BadShape,
    Drawing,
    Problems,
    Shape,
    is_size,
    make_shape,
)
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten


def scan(
    root: Path,
    *,
    annotations: str,
    image_dir: str,
    classes: tuple[str, ...],
    group_pattern: str,
) -> Listing:
    """Lists the images of the annotation files; the mask decides the label.

    Args:
      annotations: the JSON file inside `root`; '{split}' stands for train, val, test.
      image_dir: folder inside `root` that the file names are relative to; may hold
        '{split}' too.
      classes: the background, then names of categories by class id; () takes all
        categories of the files. A category that is left out is refused.
      group_pattern: as in `folder_segmentation`.

    Raises:
      InputError: a file that is missing or not COCO's; images that are missing; a
        category that is no class; an object that cannot be drawn or lies outside.
    """
    listing.require_folder(root)
    places = _places(root, annotations)
    contents = {split: _read(path) for split, path in places.items()}
    classes = classes or _all_classes(contents.values())
    classes, _ = class_list.pixel_classes(root, classes, "")
    problems, records, missing = Problems(), [], []
    for split, content in contents.items():
        folder = root / image_dir.replace("{split}", split or "")
        drawings = _drawings(places[split], content, classes, problems)
        for image in content["images"]:
            path = folder / image["file_name"]
            key = (f"{split}/" if split else "") + _stem(image["file_name"])
            missing += [] if files.is_file(path) else [str(path)]
            drawing = drawings[image["id"]]
            records.append(Record(key, path, drawing, None, key, split))
    _refuse_missing(missing, image_dir)
    problems.refuse(
        classes, f"redraw or delete these objects in {annotations}, e.g. in CVAT"
    )
    _refuse_twins(records)
    ids = [record.id for record in records]
    groups = listing.name_groups(ids, group_pattern, listing.SPLITS)
    records = [
        Record(r.id, r.image, r.mask, None, groups[r.id], r.split)
        for r in sorted(records, key=lambda record: record.id)
    ]
    notes = (*problems.notes(), *listing.note_groups(group_pattern))
    return Listing(tuple(records), classes, notes, mask_values="ids")


def decode_runs(text: str) -> tuple[int, ...]:
    """Run lengths of COCO's text form.

    Each number is written in groups of five bits, the lowest first, as characters from
    '0' on; 32 says that more follow, 16 in the last group that it is negative. From the
    fourth run on it is the difference to the run two before.

    >>> decode_runs("52203")
    (5, 2, 2, 2, 5)

    Raises:
      BadShape: characters that belong to no run.
    """
    runs, value, shift = [], 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise BadShape(f"run lengths with the character {character!r}")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        value -= (group >> 4 & 1) << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise BadShape("run lengths that break off")
    return tuple(runs)


def _places(root: Path, annotations: str) -> dict[str | None, Path]:
    """Annotation file by split, or one for None."""
    if "{split}" in annotations:
        places = {s: root / annotations.replace("{split}", s) for s in listing.SPLITS}
        places = {split: path for split, path in places.items() if path.is_file()}
    else:
        places = {None: root / annotations}
    if places and all(path.is_file() for path in places.values()):
        return places
    found = [p for p in listing.list_files(root) if p.suffix.lower() == ".json"]
    names = [path.relative_to(root).as_posix() for path in found]
    raise InputError(
        f"the file '{annotations}' (data.annotations) in '{root}'",
        f"JSON files there: {shorten(names) or 'none'}",
        f"--config.data.annotations='{names[0] if names else 'FILE.json'}'",
    )


def _read(path: Path) -> dict[str, Any]:
    expected = "a COCO file with images, annotations and categories"
    fix = "--config.data.annotations=FILE with the instances, not captions or results"
    try:
        content = files.parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(expected, f"'{path}': {error}", fix) from None
    needed = {
        "images": {"id": int, "file_name": str, "height": int, "width": int},
        "annotations": {"image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    for group, keys in needed.items():
        items = content.get(group) if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise InputError(expected, f"'{path}' without a list of {group}", fix)
        for number, item in enumerate(items):
            fits = isinstance(item, dict) and all(
                type(item.get(key)) is kind for key, kind in keys.items()
            )
            if not fits:
                found = f"'{path}': {group}[{number}] without {', '.join(keys)}"
                raise InputError(expected, found, fix)
    for image in content["images"]:
        if not is_size(image["height"], image["width"]):
            found = f"'{path}': {image['file_name']} of {image['height']} x "
            found += f"{image['width']} pixels"
            raise InputError("images of a possible size", found, fix)
    known = {image["id"] for image in content["images"]}
    if len(known) < len(content["images"]):
        found = f"'{path}': {len(content['images'])} images, {len(known)} ids"
        raise InputError("an id of its own for each image", found, "export it again")
    lost = [a for a in content["annotations"] if a["image_id"] not in known]
    if lost:
        found = f"'{path}': {len(lost)} annotations of images that it does not list"
        raise InputError(expected, found, "export the file again with all images")
    return content


def _all_classes(contents) -> tuple[str, ...]:
    named = {c["id"]: c["name"] for content in contents for c in content["categories"]}
    names = [named[key] for key in sorted(named)]
    return ("background", *[name for name in names if name != "background"])


def _drawings(
    path: Path, content: Mapping, classes: tuple[str, ...], problems: Problems
) -> dict[int, Drawing]:
    """The mask of every image, by image id."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    sizes = {
        image["id"]: (image["height"], image["width"]) for image in content["images"]
    }
    shapes = collections.defaultdict(list)
    for number, item in enumerate(content["annotations"]):
        image_id = item["image_id"]
        name = names.get(item["category_id"], f"category {item['category_id']}")
        where = f"{path.name} annotation {item.get('id', number)} ({name})"
        if name not in classes:
            problems.unknown[name] += 1
            continue
        try:
            for shape, outside in _shapes(
                item.get("segmentation"), classes.index(name), sizes[image_id]
            ):
                shapes[image_id].append(shape)
                problems.clipped += [where] * outside
        except BadShape as error:
            problems.bad.append(f"{where}: {error}")
    return {key: Drawing(str(path), sizes[key], tuple(shapes[key])) for key in sizes}


def _shapes(segmentation, class_id: int, size: tuple[int, int]):
    """Shapes of one annotation, and whether each lies partly outside."""
    if isinstance(segmentation, Mapping):
        return [(_runs(segmentation, class_id, size), False)]
    if not isinstance(segmentation, list) or not segmentation:
        raise BadShape("has no segmentation, only a box")
    return [
        make_shape("polygon", class_id, _pairs(polygon), size)
        for polygon in segmentation
    ]


def _pairs(polygon) -> list:
    if not isinstance(polygon, Sequence) or len(polygon) % 2:
        raise BadShape("a polygon that is no list of x, y, x, y, ...")
    return list(zip(polygon[::2], polygon[1::2], strict=True))


def _runs(segmentation: Mapping, class_id: int, size: tuple[int, int]) -> Shape:
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = decode_runs(counts)
    whole = isinstance(counts, Sequence) and all(type(n) is int for n in counts)
    if segmentation.get("size") != list(size):
        raise BadShape(f"run lengths of a mask of {segmentation.get('size')}")
    if not whole or min(counts, default=-1) < 0 or sum(counts) != size[0] * size[1]:
        raise BadShape(f"run lengths that do not fill {size[0]} x {size[1]} pixels")
    return Shape("runs", class_id, tuple(counts))


def _stem(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{listing.stem(last)}" if folder else listing.stem(last)


def _refuse_missing(missing: list[str], image_dir: str) -> None:
    if missing:
        raise InputError(
            f"the images of the annotation file in '{image_dir}' (data.image_dir)",
            f"{len(missing)} missing: {shorten(missing)}",
            "--config.data.image_dir='FOLDER' inside data.dir, or restore the images",
        )


def _refuse_twins(records: Sequence[Record]) -> None:
    counts = collections.Counter(record.id for record in records)
    twins = [name for name, count in counts.items() if count > 1]
    if twins:
        expected = "each image once in the annotation file"
        fix = "give each file a name of its own"
        raise InputError(expected, f"twice: {shorten(twins)}", fix)
