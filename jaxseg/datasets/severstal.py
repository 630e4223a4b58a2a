"""Severstal steel: photos of flat steel, defects as run lengths in one csv file.

Layout: `train_images/NAME.jpg`, 256x1600 pixels, and `train.csv` in either form:

    ImageId,ClassId,EncodedPixels        a row per image and kind of defect
    ImageId_ClassId,EncodedPixels        the older file: 'NAME.jpg_1', often no pixels

Pixels are counted from 1, down the columns, in pairs of start and length. All kinds of
defects are one class; images without a row, or without pixels in any, are clean. The
competition's own test images have no masks and are not read.

Source: https://www.kaggle.com/c/severstal-steel-defect-detection/data. Differs from the
published SegDecNet runs: of an image with several kinds of defects all are drawn, there
only the one of the last row.
"""

import collections
import csv
from collections.abc import Iterator
from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.drawing import BadShape, Drawing, Problems, Shape, make_runs
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten

CITATION = "https://www.kaggle.com/c/severstal-steel-defect-detection"
FOLDER, FILE = "train_images", "train.csv"
COLUMNS = ("ImageId", "ClassId", "EncodedPixels")
OLDER_COLUMNS = ("ImageId_ClassId", "EncodedPixels")


def scan(root: Path, *, mask_size: tuple[int, int]) -> Listing:
    """Lists the images; every image is a group of its own.

    Args:
      mask_size: (h, w) in pixels of the images that the run lengths count in.

    Raises:
      InputError: another layout or header, rows of missing images, or run lengths that
        cannot be drawn.
    """
    listing.require_folder(root)
    if not _fits(root):
        expected = f"the folder {FOLDER} with images and the file {FILE} in data.dir"
        raise listing.wrong_layout(root, expected, _fits)
    images = listing.by_id(listing.list_images(root / FOLDER), root / FOLDER)
    shapes = _read_shapes(root / FILE, mask_size)
    keys = {path.name: key for key, path in images.items()}
    _refuse_missing([name for name in shapes if name not in keys])
    drawn = {keys[name]: tuple(found) for name, found in shapes.items()}
    records = (
        Record(
            key,
            images[key],
            Drawing(str(root / FILE), mask_size, drawn.get(key, ())),
            label=None,
            group=key,
        )
        for key in sorted(images)
    )
    return Listing(
        tuple(records),
        ("background", "defect"),
        notes=(f"run lengths count in {mask_size[0]} x {mask_size[1]} pixels",),
        citation=CITATION,
        mask_values="ids",
    )


def _fits(folder: Path) -> bool:
    return (folder / FILE).is_file() and bool(listing.list_images(folder / FOLDER))


def _read_shapes(path: Path, size: tuple[int, int]) -> dict[str, list[Shape]]:
    """What to draw by file name; [] for names whose rows hold no pixels."""
    shapes, problems = collections.defaultdict(list), Problems()
    for line, name, pixels in _rows(path):
        found = shapes[name]
        try:
            found += [make_runs(1, pixels, size)] if pixels else []
        except BadShape as error:
            problems.bad.append(f"{path.name} line {line} ({name}): {error}")
    problems.refuse(
        (),
        f"download {path.name} again, or take these rows out; for images of another"
        " size: --config.data.mask_size='(H, W)'",
    )
    return shapes


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, file name and run lengths of every row."""
    fix = f"the {path.name} that comes with the images, unchanged"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            header = reader.fieldnames or ()
            if not any({*known} <= {*header} for known in (COLUMNS, OLDER_COLUMNS)):
                expected = f"the columns {','.join(COLUMNS)} or"
                expected += f" {','.join(OLDER_COLUMNS)} in '{path}'"
                raise InputError(expected, f"{','.join(header)[:80]!r}", fix)
            for row in reader:
                name = (
                    row.get(COLUMNS[0])
                    or row.get(OLDER_COLUMNS[0], "").rpartition("_")[0]
                )
                yield reader.line_num, name, row["EncodedPixels"].strip()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("a csv file", f"'{path}': {error}", fix) from None


def _refuse_missing(names: list[str]) -> None:
    if names:
        raise InputError(
            f"every image of {FILE} in the folder {FOLDER}",
            f"{len(names)} missing: {shorten(map(repr, names))}",
            f"unpack {FOLDER} again, or take their rows out of {FILE}",
        )
