"""The folder of results: whose it is, what is done, writing that nothing can spoil.

    predict.json     the model and how it was used; another one is refused
    journal.jsonl    a line per image, written when all its files are there
    masks/ probabilities/ overlays/ labelme/ coco.json
    results.csv components.csv tiles.csv skipped.csv

A file takes its name when it is whole, so after a `kill -9` an image is done or it is
not. Nothing is ever written outside the folder: names come without '..' (`photos`), and
no link inside is followed.
"""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg import files
from jaxseg.errors import InputError
from jaxseg.predict.photos import Photo

IDENTITY, JOURNAL, LOCK, PARTIAL = "predict.json", "journal.jsonl", ".lock", ".partial"
FIX = "--out with a new folder"


class Entry(NamedTuple):
    """What is known of a photo that is done.

    Attributes:
      stamp: of the photo, when it was read.
      row: of results.csv, but for what was measured.
      pieces: what was measured, by class, or the tiles of a classifier; as JSON.
    """

    stamp: list[int]
    row: dict[str, Any]
    pieces: list[dict[str, Any]]


class Store:
    """Results of one model. Threads may share it."""

    def __init__(self, out: Path):
        self.out = out
        self._entries = _read_journal(out / JOURNAL)
        self._writing = threading.Lock()

    def entry(self, photo: Photo, wanted: list[Path]) -> Entry | None:
        """What was found in a photo, if it is done and has not changed since.

        Args:
          wanted: files that must be there.
        """
        entry = self._entries.get(photo.source)
        if entry is None or not all(path.is_file() for path in [photo.path, *wanted]):
            return None
        return entry if entry.stamp == photo.stamp() else None

    def finish(
        self,
        photo: Photo,
        stamp: list[int],
        row: Mapping[str, Any],
        pieces: Sequence[Mapping[str, Any]],
    ) -> None:
        """Notes that all files of a photo, which had this stamp, are written."""
        written = {"source": photo.source, "stamp": stamp}
        written = files.to_json({**written, "row": row, "pieces": pieces})
        line = json.dumps(written, allow_nan=False) + "\n"
        with self._writing:
            self._entries[photo.source] = _entry(written)
            with (self.out / JOURNAL).open("a", encoding="ascii") as file:
                file.write(line)

    def path(self, kind: str, name: str, ending: str) -> Path:
        """Where a result stands.

        Raises:
          InputError: behind a link.
        """
        path = self.out / kind / f"{name}{ending}"
        for folder in path.relative_to(self.out).parents[:-1]:
            if (self.out / folder).is_symlink():
                raise InputError(
                    "a folder of results without links in it",
                    f"the link {self.out / folder}",
                    f"rm '{self.out / folder}'",
                )
        return path

    def write(self, path: Path, save: Callable[[Path], None]) -> None:
        """Has `save` write a file, which takes its place when it is whole."""
        partial = self.out / PARTIAL / f"{threading.get_ident()}{path.suffix}"
        save(partial)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)


@contextlib.contextmanager
def open_store(out: Path, identity: Mapping[str, Any]) -> Iterator[Store]:
    """The results in a folder, new or to go on with; no other process has it.

    Args:
      identity: the model, and what else changes its results.

    Raises:
      InputError: the folder holds other files or results of another model, is in use,
        or cannot be written.
    """
    identity = json.loads(json.dumps(identity))
    strangers = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if strangers and not (out / IDENTITY).is_file() and strangers != [LOCK]:
        found = f"{out} holds {', '.join(strangers[:5])} and no {IDENTITY}"
        raise InputError("a new folder, or one with results in it", found, FIX)
    for name in (IDENTITY, JOURNAL, LOCK, PARTIAL):
        if (out / name).is_symlink():
            found = f"the link {out / name}"
            raise InputError("a folder of results without links in it", found, FIX)
    if (out / IDENTITY).is_file():
        _refuse_other(out, identity)
    try:
        (out / PARTIAL).mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
    except OSError as error:
        found = f"{out}: {error.strerror}"
        raise InputError("a folder that can be written", found, FIX) from None
    with files.exclusive(out / LOCK, wait=False, way_out="choose another --out"):
        shutil.rmtree(out / PARTIAL)
        (out / PARTIAL).mkdir()
        try:
            with files.atomic_file(out / IDENTITY) as file:
                json.dump(identity, file, indent=2)
            yield Store(out)
        finally:
            shutil.rmtree(out / PARTIAL)


def _refuse_other(out: Path, identity: Mapping[str, Any]) -> None:
    try:
        old = files.parse_json((out / IDENTITY).read_text(encoding="utf-8"))
    except ValueError:
        old = {}
    old = old if isinstance(old, dict) else {}
    different = [
        f"{key}: {old.get(key)!r} there, {identity.get(key)!r} now"
        for key in sorted(old.keys() | identity.keys())
        if old.get(key) != identity.get(key)
    ]
    if different:
        raise InputError(
            f"the model, images and options that {out} was made with",
            "\n  ".join([f"{len(different)} difference(s):", *different]),
            FIX,
        )


def _read_journal(path: Path) -> dict[str, Entry]:
    """Entries by source; a line that was cut off is none, and is closed."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="ascii", errors="replace")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="ascii") as file:
            file.write("\n")
    entries = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            written = files.parse_json(line)
            entries[written["source"]] = _entry(written)
    return entries


def _entry(written: Mapping[str, Any]) -> Entry:
    return Entry(**{key: written[key] for key in Entry._fields})
