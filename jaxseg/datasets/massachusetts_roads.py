"""Massachusetts Roads: aerial tiles of 1500x1500 pixels, 1 m per pixel, and road masks.

Layout: `training/input/img-N.png` with `training/output/img-N.png` (0 and 255), and the
same below `validation` and `testing` where they are there; these fix the split. Any
image format will do. Tiles at the edge of the survey are partly blank (pure white)
though their masks show roads there: `max_blank` leaves them out, and files without a
partner are left out too; both stand in the run folder's skipped.csv.
"""

from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten

CITATION = "V. Mnih, Machine Learning for Aerial Image Labeling (2013), PhD thesis"
FOLDERS = {"training": "train", "validation": "val", "testing": "test"}


def scan(root: Path, *, max_blank: float) -> Listing:
    """Lists the pairs of tile and road mask; every tile is a group of its own.

    Args:
      max_blank: tiles with a larger share of pure white pixels are left out; 1 keeps
        all.

    Raises:
      InputError: no folder training/input, or no pair at all.
    """
    listing.require_folder(root)
    if not _fits(root):
        expected = "the folders training/input and training/output in data.dir"
        raise listing.wrong_layout(root, expected, _fits)
    folders = [name for name in FOLDERS if (root / name / "input").is_dir()]
    published = len(folders) > 1
    records, skipped = [], []
    for folder in folders:
        images, masks = (
            listing.by_id(
                listing.list_images(root / folder / side), root / folder / side
            )
            for side in ("input", "output")
        )
        pairs = sorted(images.keys() & masks.keys())
        split = FOLDERS[folder] if published else None
        records += [
            Record(key, images[name], masks[name], None, key, split)
            for name in pairs
            for key in [f"{folder}/{name}"]
        ]
        for names, missing in ((images, "output"), (masks, "input")):
            skipped += [
                (f"{folder}/{name}", f"no file of this name in {folder}/{missing}")
                for name in sorted(names.keys() - {*pairs})
            ]
    if not records:
        raise InputError(
            f"tiles with a mask of the same name in '{root}'",
            f"{len(skipped)} files, none with a partner:"
            f" {shorten(name for name, _ in skipped)}",
            "name each file of training/output as its image in training/input",
        )
    records.sort(key=lambda record: record.id)
    names = shorten(name for name, _ in skipped)
    note = f"{len(skipped)} files without a partner are left out: {names}"
    return Listing(
        tuple(records),
        ("background", "road"),
        notes=(note,) if skipped else (),
        citation=CITATION,
        max_blank=max_blank,
        skipped=tuple(skipped),
    )


def _fits(folder: Path) -> bool:
    return all((folder / "training" / side).is_dir() for side in ("input", "output"))
