"""LabelMe: one JSON file per image, beside it, with polygons and other shapes.

    a.jpg, a.json, b.png, b.json          or below train/, val/, test/

Polygons, rectangles, circles, and lines and line strips of a given width are drawn in
the order of the file. The label '__ignore__' marks pixels that count nowhere; in
LabelMe's own list labels.txt it is no class. Images without a JSON file are taken for
not yet annotated and left out.

Source: https://github.com/wkentaro/labelme, shape types of its label files.
"""

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
from jaxseg.types import IGNORE

KINDS = {
    "polygon": "polygon",
    "rectangle": "rectangle",
    "circle": "circle",
    "line": "line",
    "linestrip": "line",
}
IGNORED_LABEL = "__ignore__"


def scan(
    root: Path,
    *,
    classes: tuple[str, ...],
    classes_file: str,
    line_width: int,
    group_pattern: str,
) -> Listing:
    """Lists the annotated images; the content of the mask decides the label.

    Args:
      classes: the background, then the labels by class id.
      classes_file: a file with these names instead; see `class_list`.
      line_width: of lines and line strips, pixels.
      group_pattern: as in `folder_segmentation`.

    Raises:
      InputError: no JSON file; one that is not LabelMe's or whose image is missing; a
        label that is no class; a shape that cannot be drawn or lies outside.
    """
    listing.require_folder(root)
    classes, class_notes = class_list.pixel_classes(
        root, classes, classes_file, no_class=IGNORED_LABEL
    )
    if line_width < 1:
        expected = "data.line_width of at least 1 pixel"
        raise InputError(expected, f"{line_width}", "--config.data.line_width=3")
    paths = [p for p in listing.list_files(root) if _is_annotation(p)]
    if not paths:
        raise listing.wrong_layout(
            root, "LabelMe's JSON files in data.dir", _holds_annotations
        )
    problems, images, masks = Problems(), {}, {}
    for path in paths:
        key = path.relative_to(root).with_suffix("").as_posix()
        content = _read(path)
        images[key] = _find_image(path, content)
        masks[key] = _drawing(path, content, classes, line_width, problems)
    problems.refuse(classes, "open these files in LabelMe and redraw or delete them")
    groups = listing.name_groups(images, group_pattern, listing.SPLITS)
    splits = {key: key.split("/")[0] for key in images}
    published = {*splits.values()} <= {*listing.SPLITS}
    records = (
        Record(
            key,
            images[key],
            masks[key],
            None,
            groups[key],
            splits[key] if published else None,
        )
        for key in sorted(images)
    )
    notes = (
        *class_notes,
        *_note_unannotated(root, images.values()),
        *problems.notes(),
        *listing.note_groups(group_pattern),
    )
    return Listing(tuple(records), classes, notes, mask_values="ids")


def _is_annotation(path: Path) -> bool:
    """A JSON file that is no list of classes."""
    if path.suffix.lower() != ".json":
        return False
    try:
        content = files.parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return True  # to be refused with its name
    return isinstance(content, dict) and "shapes" in content


def _holds_annotations(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.json"))


def _read(path: Path) -> dict[str, Any]:
    fix = f"save it again in LabelMe, or move it away: mv '{path}' .."
    expected = "a label file of LabelMe with shapes, imageHeight and imageWidth"
    try:
        content = files.parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(expected, f"'{path}': {error.strerror}", fix) from None
    except ValueError as error:
        raise InputError(expected, f"'{path}': {error}", fix) from None
    sizes = [content.get(key) for key in ("imageHeight", "imageWidth")]
    if not is_size(*sizes):
        found = f"'{path}' with imageHeight and imageWidth {sizes}"
        raise InputError(expected, found, fix)
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(s, dict) for s in shapes):
        raise InputError(expected, f"'{path}' whose shapes are no list of them", fix)
    return content


def _find_image(path: Path, content: dict[str, Any]) -> Path:
    """The image that `imagePath` names, from wherever the labelling was done."""
    named = str(content.get("imagePath") or "").replace("\\", "/")
    beside = [path.parent / named, path.parent / named.rsplit("/", 1)[-1]]
    beside += [path.with_suffix(suffix) for suffix in listing.EXTENSIONS]
    for candidate in beside:
        if listing.is_image(candidate) and files.is_file(candidate):
            return candidate
    embedded = " (only embedded in it as imageData)" * bool(content.get("imageData"))
    raise InputError(
        f"the image of '{path}' beside it",
        f"no file '{named or path.stem + '.jpg'}'{embedded}",
        "put the image files into the folder of the JSON files; labelme_export_json"
        " writes embedded ones",
    )


def _drawing(
    path: Path, content, classes: tuple[str, ...], line_width: int, problems: Problems
) -> Drawing:
    size = (content["imageHeight"], content["imageWidth"])
    shapes: list[Shape] = []
    for number, item in enumerate(content["shapes"], start=1):
        label = item.get("label")
        where = f"{path.name} shape {number} ({label})"
        if label not in (*classes, IGNORED_LABEL):
            problems.unknown[str(label)] += 1
            continue
        try:
            shape, outside = _shape(item, classes, size, line_width)
        except BadShape as error:
            problems.bad.append(f"{where}: {error}")
            continue
        shapes.append(shape)
        problems.clipped += [where] * outside
    return Drawing(str(path), size, tuple(shapes))


def _shape(item: dict, classes, size: tuple[int, int], line_width: int):
    label, kind = item["label"], str(item.get("shape_type") or "polygon")
    if kind not in KINDS:
        raise BadShape(f"the type '{kind}' is not one of {', '.join(KINDS)}")
    class_id = IGNORE if label == IGNORED_LABEL else classes.index(label)
    return make_shape(KINDS[kind], class_id, item.get("points"), size, line_width)


def _note_unannotated(root: Path, used) -> tuple[str, ...]:
    used = {path.resolve() for path in used}
    left = [p.name for p in listing.list_images(root) if p.resolve() not in used]
    note = f"{len(left)} images without a JSON file are left out: {shorten(left)}"
    return (note,) if left else ()
