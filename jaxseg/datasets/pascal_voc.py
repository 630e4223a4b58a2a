"""PASCAL VOC: photos, label images with a palette, and lists of names.

    JPEGImages/NAME.jpg
    SegmentationClass/NAME.png           the palette index is the class id, 255 no class
    ImageSets/Segmentation/train.txt     one NAME a line; val.txt, test.txt

The lists fix the split; without any, all label images count. Label images whose colours
are stored directly, without a palette, need `data.palette`.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012, development kit, section 6.
"""

from pathlib import Path

from jaxseg.datasets import class_list, listing
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten

LISTS = Path("ImageSets") / "Segmentation"


def scan(
    root: Path, *, classes: tuple[str, ...], classes_file: str, group_pattern: str
) -> Listing:
    """Lists the photos with a label image; names without one are left out and said.

    Args:
      classes: names by class id, the background first.
      classes_file: a file with these names instead; see `class_list`.
      group_pattern: as in `folder_segmentation`.

    Raises:
      InputError: another layout, a name in two lists, or nothing left.
    """
    listing.require_folder(root)
    if not _fits(root):
        expected = "the folders JPEGImages and SegmentationClass in data.dir"
        raise listing.wrong_layout(root, expected, _fits)
    classes, class_notes = class_list.pixel_classes(root, classes, classes_file)
    images, masks = (
        listing.by_id(listing.list_images(root / name), root / name)
        for name in ("JPEGImages", "SegmentationClass")
    )
    splits = _read_lists(root) or dict.fromkeys(masks)
    missing = {
        "SegmentationClass": [name for name in splits if name not in masks],
        "JPEGImages": [name for name in splits if name not in images],
    }
    skipped = {
        name: f"no file of this name in {folder}"
        for folder, names in missing.items()
        for name in names
    }
    kept = sorted(splits.keys() - skipped.keys())
    if not kept:
        raise InputError(
            f"names with a file in JPEGImages and in SegmentationClass of '{root}'",
            f"{len(skipped)} names, none with both: {shorten(skipped)}",
            "name each label image as its photo, and as the lists in"
            f" {LISTS.as_posix()} do",
        )
    groups = listing.name_groups(kept, group_pattern)
    records = (
        Record(name, images[name], masks[name], None, groups[name], splits[name])
        for name in kept
    )
    note = f"{len(skipped)} names without photo or label image are left out: "
    notes = (
        *class_notes,
        *([note + shorten(skipped)] if skipped else []),
        *listing.note_groups(group_pattern),
    )
    return Listing(
        tuple(records),
        classes,
        notes,
        mask_values="ids",
        skipped=tuple(sorted(skipped.items())),
    )


def _fits(folder: Path) -> bool:
    needed = ("JPEGImages", "SegmentationClass")
    return all((folder / name).is_dir() for name in needed)


def _read_lists(root: Path) -> dict[str, str]:
    """Split by name; {} without lists."""
    splits: dict[str, str] = {}
    for split in listing.SPLITS:
        path = root / LISTS / f"{split}.txt"
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        names = [line.strip() for line in text.splitlines() if line.strip()]
        twice = [name for name in names if splits.get(name, split) != split]
        if twice:
            raise InputError(
                "every name in one list only",
                f"{len(twice)} of {split}.txt stand in another one too: "
                f"{shorten(twice)}",
                f"take them out of '{path}'",
            )
        splits |= dict.fromkeys(names, split)
    return splits
