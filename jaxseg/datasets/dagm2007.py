"""DAGM 2007: ten classes of generated textures, each with its own kind of defect.

Layout: `ClassK/Train/NAME.PNG` and `ClassK/Test/NAME.PNG`, 512x512 pixels, and
`ClassK/Train/Label/NAME_label.PNG` with an ellipse around the defect, only for images
that have one. Every class is an experiment of its own: `data.class_id`.
"""

import re
from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.drawing import Blank
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten

CITATION = (
    "Weakly supervised learning for industrial optical inspection, competition at the"
    " DAGM symposium 2007, https://hci.iwr.uni-heidelberg.de/content/"
    "weakly-supervised-learning-industrial-optical-inspection"
)
SUFFIX = "_label"
PARTS = {"Train": "train", "Test": "test"}


def scan(root: Path, *, class_id: int) -> Listing:
    """Lists the images of one class; those without a label image are clean.

    Args:
      class_id: 1 to 10, of the folder ClassK.

    Raises:
      InputError: no such folder, or label images without an image.
    """
    listing.require_folder(root)
    if not _fits(root):
        expected = "the folders Class1, Class2, ... with Train and Test in data.dir"
        raise listing.wrong_layout(root, expected, _fits)
    top = root / f"Class{class_id}"
    if top not in _classes(root):
        names = [path.name for path in _classes(root)]
        raise InputError(
            f"the folder Class{class_id} with Train and Test (data.class_id)",
            f"'{root}' holds {shorten(names, 12)}",
            f"--config.data.class_id={names[0].removeprefix('Class')}",
        )
    records = [record for part in PARTS for record in _scan_part(top, part)]
    return Listing(
        records=tuple(sorted(records, key=lambda record: record.id)),
        classes=("background", "defect"),
        citation=CITATION,
    )


def _scan_part(top: Path, part: str) -> list[Record]:
    folder, prefix = top / part, f"{top.name}/{part}/"
    labels = folder / "Label"
    paths = [p for p in listing.list_images(folder) if labels not in p.parents]
    images = listing.by_id(paths, folder, prefix)
    named = listing.by_id(listing.list_images(labels), labels, prefix)
    masks = {key.removesuffix(SUFFIX): path for key, path in named.items()}
    listing.refuse_orphans(images, masks)
    return [
        Record(
            key,
            path,
            masks.get(key, Blank(path)),
            label=int(key in masks),
            group=key,
            split=PARTS[part],
        )
        for key, path in images.items()
    ]


def _classes(root: Path) -> list[Path]:
    """The folders ClassK with both parts, in the order of their numbers."""
    found = [
        path
        for path in listing.list_folders(root)
        if re.fullmatch(r"Class\d+", path.name)
        and all((path / part).is_dir() for part in PARTS)
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("Class")))


def _fits(folder: Path) -> bool:
    return bool(_classes(folder))
