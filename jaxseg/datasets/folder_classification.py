"""Your own images, one folder per class.

    ROOT/intact/...jpg           or ROOT/train/intact/...jpg
    ROOT/cracked/...jpg             ROOT/test/cracked/...jpg

Folders inside a class folder are read too. Top-level folders train, val and test fix
the split.
"""

from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten


def scan(root: Path, *, classes: tuple[str, ...], group_pattern: str) -> Listing:
    """Lists the images; the label is the position of the folder in the classes.

    Args:
      classes: folder names in the order of their ids; () means all folders, sorted.
      group_pattern: regular expression whose first group (or whole match), searched in
        the id without its split and class folders ('photo3_1'), names what must not be
        split apart; '' = each image for itself.

    Raises:
      InputError: missing, empty or wrong folders; two images of one name; a pattern
        that does not fit.
    """
    listing.require_folder(root)
    parts = _split_folders(root)
    names = sorted(
        {f.name for part in parts.values() for f in listing.list_folders(part)}
    )
    classes = classes or tuple(names)
    _check_classes(root, classes, names)
    found = {}  # id -> (path, label, split)
    for split, part in parts.items():
        for label, name in enumerate(classes):
            images = listing.by_id(listing.list_images(part / name), root)
            found |= {key: (path, label, split) for key, path in images.items()}
    _check_counts(root, classes, [label for _, label, _ in found.values()])
    groups = listing.name_groups(found, group_pattern, (*listing.SPLITS, *classes))
    records = (
        Record(key, path, None, label, groups[key], split)
        for key, (path, label, split) in sorted(found.items())
    )
    notes = (
        *_notes(root, parts, classes, names),
        *listing.note_groups(group_pattern),
    )
    return Listing(tuple(records), classes, notes)


def _split_folders(root: Path) -> dict[str | None, Path]:
    """The folders that hold class folders, by split; {None: root} without a split."""
    splits = {name: root / name for name in listing.SPLITS}
    splits = {name: path for name, path in splits.items() if listing.list_folders(path)}
    return splits or {None: root}


def _holds_classes(folder: Path) -> bool:
    """Whether a folder looks like ROOT: two folders with images directly inside."""
    parts = _split_folders(folder).values()
    inside = {f.name: f for part in parts for f in listing.list_folders(part)}
    with_images = (any(map(listing.is_image, f.iterdir())) for f in inside.values())
    return sum(with_images) >= 2


def _nowhere(folder: Path) -> bool:
    """For a ROOT that is the right one: folders around it are no better."""
    del folder
    return False


def _check_classes(root: Path, classes: tuple[str, ...], names: list[str]) -> None:
    """Refuses classes without a folder, and fewer than two of them."""
    missing = [name for name in classes if name not in names]
    if names and missing:
        near = [n if n in names else listing.nearest(n, names) for n in classes]
        unclear = None in near or len(set(near)) < len(near)
        raise InputError(
            f"a folder for each of data.classes in '{root}'",
            f"no folder {shorten(missing)}; the folders are: {shorten(names)}",
            f'--config.data.classes="{tuple(names if unclear else near)}"',
        )
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise listing.wrong_layout(
            root,
            "two or more different class folders with images in data.dir"
            f" (data.classes is {classes})",
            _holds_classes if len(names) < 2 else _nowhere,
            f'--config.data.classes="{tuple(names)}"'
            if len(names) > 1
            else f"mkdir '{root}/intact' '{root}/cracked' and move the images there",
        )


def _check_counts(root: Path, classes: tuple[str, ...], labels: list[int]) -> None:
    """Refuses a class without images."""
    counts = [labels.count(label) for label in range(len(classes))]
    if min(counts) > 0:
        return
    full = tuple(name for name, count in zip(classes, counts, strict=True) if count)
    listed = ", ".join(f"{n} {c}" for n, c in zip(classes, counts, strict=True))
    raise listing.wrong_layout(
        root,
        f"images ({' '.join(listing.EXTENSIONS)}) in each class folder, found {listed}",
        _holds_classes if len(full) < 2 else _nowhere,
        f'--config.data.classes="{full}"' if len(full) > 1 else "",
    )


def _notes(root: Path, parts: dict, classes: tuple[str, ...], names: list[str]):
    """Folders that were not read, and many files that are no images."""
    unread = [name for name in names if name not in classes]
    if None not in parts:
        beside = [folder.name for folder in listing.list_folders(root)]
        unread += [name for name in beside if name not in listing.SPLITS]
    note = f"Folders that were not read: {shorten(unread)}."
    return ((note,) if unread else ()) + listing.note_ignored(root)
