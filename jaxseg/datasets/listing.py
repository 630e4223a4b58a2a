"""What the scan functions share: walking folders, ids, groups and hints.

Names and folders only; no file is opened here. Every order is that of the sorted ids,
so a listing does not depend on the file system. Hidden files and folders (a leading
'.', as in '.DS_Store' and '._photo.jpg') are never seen.
"""

import collections
import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jaxseg.errors import InputError, shorten

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "test")
MANY_FILES = 10  # fewer files that are no images (README, licence) deserve no note


def stem(name: str) -> str:
    """File name without its image extensions, also without several of them.

    >>> stem("wall_3.jpg.jpg"), stem("v1.2.PNG")
    ('wall_3', 'v1.2')
    """
    while name.lower().endswith(EXTENSIONS):
        name = name[: name.rindex(".")]
    return name


def is_image(path: Path) -> bool:
    """Whether the extension is one of `EXTENSIONS`, in any case."""
    return path.suffix.lower() in EXTENSIONS


def list_files(folder: Path) -> list[Path]:
    """All files below a folder, at any depth, links followed, sorted."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [
            name for name in folders if not name.startswith((".", "__MACOSX"))
        ]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, at any depth, sorted."""
    return [path for path in list_files(folder) if is_image(path)]


def list_folders(folder: Path) -> list[Path]:
    """The folders directly inside a folder, sorted; [] where there is none."""
    if not folder.is_dir():
        return []
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in inside if path.is_dir())


def note_ignored(root: Path) -> tuple[str, ...]:
    """A note on files that are no images, if they are many."""
    ignored = [path for path in list_files(root) if not is_image(path)]
    return (describe_ignored(ignored),) if len(ignored) >= MANY_FILES else ()


def describe_ignored(paths: Sequence[Path]) -> str:
    """How many files of which kind are no images."""
    return f"{len(paths)} files are no images and were ignored: {_kinds(paths)}."


def by_id(paths: Iterable[Path], folder: Path, prefix: str = "") -> dict[str, Path]:
    """Names files by their path inside a folder, without extension.

    Args:
      paths: files below `folder`.
      prefix: put before each id: 'train/'.

    Raises:
      InputError: two files have the same id.
    """
    named = {}
    for path in paths:
        name = prefix + path.relative_to(folder).with_name(stem(path.name)).as_posix()
        if name in named:
            raise InputError(
                "one image per name, whatever the extension",
                f"'{named[name]}' and '{path}' both have the id '{name}'",
                f"rename or move away one of them, e.g. mv '{path}' ..",
            )
        named[name] = path
    return named


def split_masks(
    folder: Path, suffix: str, prefix: str = ""
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks that lie together, both by the id of the image.

    Args:
      suffix: what the name of a mask has more than that of its image: '_GT'.
      prefix: put before each id.

    Raises:
      InputError: two files have the same id.
    """
    paths = list_images(folder)
    masks = [path for path in paths if stem(path.name).endswith(suffix)]
    images = [path for path in paths if not stem(path.name).endswith(suffix)]
    named = by_id(masks, folder, prefix)
    by_image = {key.removesuffix(suffix): path for key, path in named.items()}
    return by_id(images, folder, prefix), by_image


def refuse_bare(images: dict[str, Path], masks: dict[str, Path], name: str) -> None:
    """Raises InputError for images without a mask; `name` says how it is called."""
    bare = [key for key in images if key not in masks]
    if bare:
        raise InputError(
            f"a mask {name} for each of {len(images)} images",
            f"{len(bare)} images without one: {shorten(bare)}",
            "add masks (all 0 where there is nothing to mark), or move these images"
            f" away: mv '{images[bare[0]]}' ..",
        )


def refuse_orphans(images: dict[str, Path], masks: dict[str, Path]) -> None:
    """Raises InputError for masks without an image."""
    orphans = [key for key in masks if key not in images]
    if orphans:
        raise InputError(
            f"an image for each of {len(masks)} masks",
            f"{len(orphans)} masks without one: {shorten(orphans)}",
            f"add the images, or move these masks away: mv '{masks[orphans[0]]}' ..",
        )


def _below(name: str, above: set[str]) -> str:
    """An id without the leading folders of these names."""
    *folders, last = name.split("/")
    while folders and folders[0] in above:
        folders.pop(0)
    return "/".join([*folders, last])


def note_groups(pattern: str) -> tuple[str, ...]:
    """What a set without groups risks."""
    if pattern:
        return ()
    return (
        "each image is a group of its own; if several come from one photo, name it: "
        r" --config.data.group_pattern='(.+)_\d+$' groups wall7_1 and wall7_2",
    )


def name_groups(
    ids: Iterable[str], pattern: str, above: Iterable[str] = ()
) -> dict[str, str]:
    """Group of every id: the first group of the pattern in it, or the whole match.

    >>> name_groups(["train/a_7_1", "test/a_7_2"], r"(.+)_\\d+$", above=SPLITS)
    {'train/a_7_1': 'a_7', 'test/a_7_2': 'a_7'}

    Args:
      pattern: regular expression, searched in an id without the folders `above`; ''
        makes each image its own group.
      above: names of leading folders that say nothing about the group: splits, classes.

    Raises:
      InputError: the pattern is no regular expression, or is not in every id.
    """
    ids = list(ids)
    if not pattern:
        return {name: name for name in ids}
    try:
        found = {name: re.search(pattern, _below(name, set(above))) for name in ids}
    except re.error as error:
        raise InputError(
            "data.group_pattern to be a regular expression",
            f"{pattern!r}: {error}",
            r"""--config.data.group_pattern='(.+)_\d+$'""",
        ) from None
    groups = {
        name: match[1 if match.re.groups else 0]
        for name, match in found.items()
        if match
    }
    missing = [name for name in ids if not groups.get(name)]
    if missing:
        raise InputError(
            f"data.group_pattern {pattern!r} to name a group in each of {len(ids)} ids",
            f"it names none in {len(missing)} of them: {shorten(missing)}",
            "--config.data.group_pattern='' (each image its own group), or a pattern"
            f" that fits '{missing[0]}'",
        )
    return groups


def require_folder(root: Path) -> None:
    """Refuses a dataset folder that does not exist, is a file or is empty.

    Raises:
      InputError: so, with the nearest name that exists.
    """
    expected = "data.dir to be the folder of the dataset"
    if root.is_file():
        found, fix = f"'{root}' is a file", f"unpack it; {set_dir(root.parent)}"
    elif not root.is_dir():
        names = [path.name for path in list_folders(root.parent)]
        near = nearest(root.name, names)
        known = f"; in '{root.parent}' are: {shorten(names)}" if names else ""
        found = f"'{root}' does not exist{known}"
        fix = set_dir(root.parent / near) if near else set_dir("/path/to/the/dataset")
    elif not list_files(root):
        found, fix = f"'{root}' has no file in it", set_dir("/path/to/the/dataset")
    else:
        return
    raise InputError(expected, found, fix)


def wrong_layout(
    root: Path, expected: str, fits: Callable[[Path], bool], otherwise: str = ""
) -> InputError:
    """The error for a folder of another layout.

    Args:
      fits: whether a folder has the expected layout; asked for the folders up to two
        levels below and above `root`, so that the fix can name the right one.
      otherwise: the fix where none fits.
    """
    below = list_folders(root)
    deeper = [folder for parent in below for folder in list_folders(parent)]
    around = [*below, *deeper, *root.absolute().parents[:2]]
    right = next((folder for folder in around if fits(folder)), None)
    fix = set_dir(right) if right else otherwise or set_dir("/path/to/the/dataset")
    return InputError(expected, f"'{root}' holds {describe(root)}", fix)


def set_dir(folder: Path | str) -> str:
    """The fix line that names another dataset folder."""
    return f"--config.data.dir='{folder}'"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The first name that contains it, or the most similar one; case is ignored."""
    folded = {known.casefold(): known for known in names}
    longer = [known for known in folded if name.casefold() in known]
    if longer:
        return folded[longer[0]]
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def describe(root: Path) -> str:
    """What is directly inside a folder, in a few words."""
    names = [folder.name for folder in list_folders(root)]
    inside = (path for path in root.iterdir() if not path.name.startswith("."))
    files = [path for path in inside if path.is_file()]
    parts = [f"the folders {shorten(names)}"] if names else ["no folder"]
    parts += [f"{len(files)} files ({_kinds(files)})"] if files else []
    return " and ".join(parts)


def _kinds(paths: Sequence[Path]) -> str:
    """Extensions and how many files have them, most frequent first."""
    counts = collections.Counter(path.suffix or "none" for path in paths)
    return shorten(f"{suffix} {count}" for suffix, count in counts.most_common())
