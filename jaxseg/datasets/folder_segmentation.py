"""Your own images and masks, in two folders or side by side.

    image_dir  mask_dir     mask_suffix  files
    'images'   'masks'      ''           images/a.jpg, masks/a.png
    'images'   'masks'      '_mask'      images/a.jpg, masks/a_mask.png
    '.'        '.'          '_gt'        a.JPG, a_gt.png
    '.'        '.'          ''           a.jpg, a.png (the lossy file is the image)
    '{split}'  '{split}_gt' ''           train/a.png, train_gt/a.png, val/..., test/...
    'image'    'label'      ''           image/1.png, label/1.png

Folders train, val, test above image_dir (train/images, train/masks) fix the split
without being named; elsewhere write '{split}' where their name stands.

Projects of the MVTec Deep Learning Tool (.dltp) and HALCON dictionaries (.hdict) cannot
be read; the label images that the tool exports can.
"""

import collections
from pathlib import Path
from typing import Literal

from jaxseg.datasets import class_list, listing
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, shorten

LOSSY = (".jpg", ".jpeg", ".webp")
MVTEC = (".dltp", ".hdict")


def scan(
    root: Path,
    *,
    image_dir: str,
    mask_dir: str,
    mask_suffix: str,
    foreground: Literal["bright", "dark"],
    classes: tuple[str, ...],
    classes_file: str,
    group_pattern: str,
) -> Listing:
    """Lists pairs of image and mask; the content of the mask decides the label.

    Args:
      image_dir: folder of the images inside `root`, '.' for `root` itself.
      mask_dir: folder of the masks, may be the same.
      mask_suffix: what the name of a mask has more than that of its image.
      foreground: of binary masks, which pixels are class 1: the bright ones (255 on 0)
        or the dark ones (black lines on white).
      classes: name of every pixel class by id, ('background', 'crack') if binary.
      classes_file: a file with these names, inside `root` or elsewhere; see
        `class_list`. '' has `classes` name them, else they do not count.
      group_pattern: regular expression whose first group (or whole match), searched in
        the id without its split folder ('photo3_1'), names what must not be split
        apart; '' = each image for itself.

    Raises:
      InputError: missing, empty or wrong folders; images and masks that do not pair;
        two images of one name; a pattern that does not fit; a project of the MVTec
        Deep Learning Tool instead of label images.
    """
    _refuse_project(root)
    listing.require_folder(root)
    classes, class_notes = class_list.pixel_classes(root, classes, classes_file)
    projects = [p for p in listing.list_files(root) if p.suffix.lower() in MVTEC]
    if projects and not _has_pairs(root, image_dir, mask_dir, mask_suffix):
        raise _project(projects[0])
    images, masks, splits, mask_files = {}, {}, {}, []
    for split, image_folder, mask_folder in _folders(root, image_dir, mask_dir):
        prefix = f"{split}/" if split else ""
        found = _collect(image_folder, mask_folder, mask_suffix, prefix)
        images, masks = images | found[0], masks | found[1]
        splits |= dict.fromkeys(found[0], split)
        mask_files += listing.list_images(mask_folder)
    _require_pairs(images, masks, mask_files, f"'{mask_dir}'", mask_suffix)
    groups = listing.name_groups(images, group_pattern, listing.SPLITS)
    records = (
        Record(key, images[key], masks[key], None, groups[key], splits[key])
        for key in sorted(images)
    )
    notes = (
        *class_notes,
        *(f"{path.name} is not read: the label images are" for path in projects),
        *listing.note_ignored(root),
        *listing.note_groups(group_pattern),
    )
    dark = foreground == "dark"
    return Listing(
        tuple(records), classes, notes, mask_values="dark" if dark else "auto"
    )


def _refuse_project(root: Path) -> None:
    """data.dir may name the project file itself."""
    if root.suffix.lower() in MVTEC:
        raise _project(root)


def _project(path: Path) -> InputError:
    return InputError(
        "label images: one grey PNG per photo, whose values are the class ids",
        f"'{path}', a file of the MVTec Deep Learning Tool or HALCON that only they"
        " can read",
        "in the Deep Learning Tool export the dataset together with its label images"
        " (or in HALCON: read_dict the .hdict, write_image each segmentation image as"
        " png), then name their folder: --config.data.mask_dir='FOLDER' and, where"
        " they are named otherwise than the photos, --config.data.mask_suffix='_gt'",
    )


def _has_pairs(root: Path, image_dir: str, mask_dir: str, suffix: str) -> bool:
    """Whether any image has a mask."""
    try:
        folders = _folders(root, image_dir, mask_dir)
    except InputError:
        return False
    found = (_collect(images, masks, suffix, "") for _, images, masks in folders)
    return any(images.keys() & masks.keys() for images, masks in found)


def _folders(root: Path, image_dir: str, mask_dir: str):
    """Split, folder of images and folder of masks, for every split or once for None."""
    if "{split}" in image_dir or _under_splits(root, image_dir):
        above = "" if "{split}" in image_dir else "{split}/"
        places = {
            split: [
                root / (above + d).replace("{split}", split)
                for d in (image_dir, mask_dir)
            ]
            for split in listing.SPLITS
        }
        found = [(s, *pair) for s, pair in places.items() if pair[0].is_dir()]
    else:
        found = [(None, root / image_dir, root / mask_dir)]
    if not found or not found[0][1].is_dir():
        raise _missing_folder(root, "image_dir", image_dir)
    if not all(masks.is_dir() for _, _, masks in found):
        raise _missing_folder(root, "mask_dir", mask_dir)
    return found


def _under_splits(root: Path, image_dir: str) -> bool:
    return any((root / split / image_dir).is_dir() for split in listing.SPLITS)


def _missing_folder(root: Path, key: str, value: str) -> InputError:
    """The error for image_dir or mask_dir, with the nearest name that exists."""
    names = [folder.name for folder in listing.list_folders(root)]
    near = listing.nearest(value, names)
    return listing.wrong_layout(
        root,
        f"a folder '{value}' (data.{key}) in data.dir",
        lambda folder: (folder / value).is_dir() or _under_splits(folder, value),
        f"--config.data.{key}='{near or 'ONE_OF_THESE'}'",
    )


def _collect(image_folder: Path, mask_folder: Path, suffix: str, prefix: str):
    """Images and masks of one split, both by the id of the image."""
    images = listing.list_images(image_folder)
    masks = listing.list_images(mask_folder)
    if image_folder.resolve() == mask_folder.resolve() and suffix:
        images = [
            path for path in images if not listing.stem(path.name).endswith(suffix)
        ]
    elif image_folder.resolve() == mask_folder.resolve():
        images = [path for path in images if path.suffix.lower() in LOSSY]
        masks = [path for path in masks if path.suffix.lower() not in LOSSY]
    elif image_folder in mask_folder.parents:
        images = [path for path in images if mask_folder not in path.parents]
    elif mask_folder in image_folder.parents:
        masks = [path for path in masks if image_folder not in path.parents]
    masks = [path for path in masks if listing.stem(path.name).endswith(suffix)]
    named = listing.by_id(masks, mask_folder, prefix)
    by_image = {key[: len(key) - len(suffix)]: path for key, path in named.items()}
    return listing.by_id(images, image_folder, prefix), by_image


def _require_pairs(
    images: dict[str, Path],
    masks: dict[str, Path],
    mask_files: list[Path],
    place: str,
    suffix: str,
) -> None:
    """Refuses no image, images without a mask, and masks without an image."""
    if images and images.keys() == masks.keys():
        return
    guess = _guess_suffix(list(images.values()), mask_files)
    if not images:
        raise InputError(
            f"images, and masks named STEM{suffix} in {place}",
            f"no image; {len(mask_files)} files in {place}: {_names(mask_files)}",
            guess or "--config.data.mask_dir='FOLDER_OF_THE_MASKS'",
        )
    bare = [name for name in images if name not in masks]
    if bare:
        raise InputError(
            f"a mask named STEM{suffix} in {place} for each of {len(images)} images",
            f"{len(bare)} images without a mask: {shorten(bare)};"
            f" {len(mask_files)} files in {place}: {_names(mask_files)}",
            (masks.keys().isdisjoint(images) and guess)
            or "add masks (all 0 where there is nothing to mark), or move these"
            " images away",
        )
    orphans = [name for name in masks if name not in images]
    raise InputError(
        f"an image for each of {len(masks)} masks in {place}",
        f"{len(orphans)} masks without an image: {shorten(orphans)}",
        f"add the images, or move masks away: mv '{masks[orphans[0]]}' ..",
    )


def _guess_suffix(images: list[Path], mask_files: list[Path]) -> str | None:
    """The fix line for masks that are named in another way than the config says."""
    stems = {listing.stem(path.name) for path in images}
    mask_stems = {listing.stem(path.name) for path in mask_files}
    if set(images).isdisjoint(mask_files) and stems & mask_stems:
        return "--config.data.mask_suffix=''"
    rests = collections.Counter()
    for name in sorted(mask_stems - stems)[:50] or sorted(mask_stems)[:50]:
        shorter = [s for s in stems | mask_stems if s != name and name.startswith(s)]
        if shorter:
            rests[name.removeprefix(max(shorter, key=len))] += 1
    common = rests.most_common(1)
    return f"--config.data.mask_suffix='{common[0][0]}'" if common else None


def _names(paths: list[Path]) -> str:
    return shorten([path.name for path in paths], limit=3)
