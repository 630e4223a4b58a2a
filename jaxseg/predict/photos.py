"""The images to predict: which they are, what their results are called, reading ahead.

Results are named by the path below the folder that was asked for, without extension:
'deck/photo_7'. No name leads out of a folder, and no two images share one.
"""

import collections
import dataclasses
import glob
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxseg.datasets import listing
from jaxseg.errors import InputError

T, R = TypeVar("T"), TypeVar("R")

MAX_NAME = 150  # bytes of a part of a name; file systems allow 255
ENDINGS = (".png", ".jpg", ".json")  # of results; a folder may be called like one
AHEAD_PIXELS = 2**26  # of images that are read or written while others are predicted
AHEAD = 64  # images at most


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image file.

    Attributes:
      path: where it is.
      source: the path below the folder that was asked for, '/'-separated.
      name: of its results, unique, '/'-separated.
    """

    path: Path
    source: str
    name: str

    def stamp(self) -> list[int]:
        """Changes when the file does: its bytes and time of change."""
        status = self.path.stat()
        return [status.st_size, status.st_mtime_ns]


class Listed(NamedTuple):
    """What is there to predict.

    Attributes:
      skipped: (source, reason) of folders that cannot be read.
      ignored: files that are no images by their names.
    """

    photos: list[Photo]
    skipped: list[tuple[str, str]]
    ignored: list[Path]


def list_photos(wanted: Sequence[str], out: Path) -> Listed:
    """The images of folders (with their sub-folders), files and patterns, sorted.

    Hidden files, and what is below `out`, are left out.

    Raises:
      InputError: nothing is there, or no image.
    """
    roots, images, ignored, errors = [], set(), set(), []
    own = out.resolve()
    for text in wanted:
        root, found = _find(text, errors.append)
        roots.append(root)
        for path in found:
            if own not in path.resolve().parents:
                is_wanted = listing.is_image(path) or os.path.isfile(text)
                (images if is_wanted else ignored).add(path)
    root = os.path.commonpath(roots)
    skipped = [(_below(error.filename, root), error.strerror) for error in errors]
    if not images:
        found = [f"none in {' '.join(wanted)}", *map(": ".join, skipped)]
        raise InputError(
            f"images ({', '.join(listing.EXTENSIONS)})",
            "; ".join(found),
            "--images with a folder, a file or 'FOLDER/*.jpg'",
        )
    paths = sorted(images)
    sources = [_below(path, root) for path in paths]
    named = zip(paths, sources, _name(sources), strict=True)
    return Listed([Photo(*three) for three in named], skipped, sorted(ignored - images))


def _below(path: str | Path, root: str) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _find(text: str, on_error: Callable[[OSError], None]) -> tuple[str, list[Path]]:
    """The folder that names are relative to, and the files; all absolute."""
    whole = Path(os.path.abspath(text))
    if whole.is_dir():
        return str(whole), list(_walk(whole, on_error))
    if whole.is_file():
        return str(whole.parent), [whole]
    if not glob.has_magic(text):
        raise InputError(
            "images to predict", f"no file or folder '{text}'", "--images DIR or FILE"
        )
    # As it was given: the working folder may have brackets in its name.
    parts = Path(text).parts
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
    hits = (Path(os.path.abspath(hit)) for hit in glob.iglob(text, recursive=True))
    return os.path.abspath(Path(*fixed)), [hit for hit in hits if hit.is_file()]


def _walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Files at any depth, links followed but no folder twice."""
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _name(sources: Sequence[str]) -> list[str]:
    """'a/b' of 'a/b.jpg', or 'a/b.jpg' where there is an 'a/b.png' too."""
    short = [os.path.splitext(source)[0] for source in sources]
    counts = collections.Counter(short)
    names = [
        name if counts[name] == 1 else source
        for name, source in zip(short, sources, strict=True)
    ]
    folders = {parent for source in sources for parent in _parents(source)}
    counts = collections.Counter(names)
    return [
        _shorten(name, source, counts[name] > 1 or _is_taken(name, folders))
        for name, source in zip(names, sources, strict=True)
    ]


def _parents(source: str) -> Iterator[str]:
    return (parent.as_posix() for parent in Path(source).parents)


def _is_taken(name: str, folders: set[str]) -> bool:
    return any(name + ending in folders for ending in ENDINGS)


def _shorten(name: str, source: str, is_taken: bool) -> str:
    """Parts of a length that file systems allow; a digest tells the rest apart."""
    digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:8]
    parts = [
        part
        if len(os.fsencode(part)) <= MAX_NAME
        else f"{os.fsdecode(os.fsencode(part)[:MAX_NAME])}-{digest}"
        for part in name.split("/")
    ]
    return "/".join(parts) + f"-{digest}" * is_taken


def in_order(
    pool: Executor,
    work: Callable[[T], R],
    items: Iterable[T],
    cost: Callable[[T], int],
) -> Iterator[R]:
    """`work(item)` of every item, in order, done ahead by threads.

    Args:
      cost: pixels of an item: at most `AHEAD_PIXELS` are ahead, but one item always.
    """
    waiting, held = collections.deque(), 0
    for item in items:
        pixels = cost(item)
        while waiting and (held + pixels > AHEAD_PIXELS or len(waiting) == AHEAD):
            done, first = waiting.popleft()
            yield first.result()
            del first  # the result is large
            held -= done
        waiting.append((pixels, pool.submit(work, item)))
        del item  # it may be large
        held += pixels
    while waiting:
        yield waiting.popleft()[1].result()
