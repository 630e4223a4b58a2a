"""What lies in the cache folder: copies of files, and decoded pixels.

Both can be made again from the user's files. Whatever opens one marks it as used.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from jaxseg import files

KINDS = ("prepared", "decoded")
DAY = 24 * 60 * 60  # seconds


class Kept(NamedTuple):
    """A set in the cache folder.

    Attributes:
      kind: 'prepared', a copy of the files; 'decoded', pixels of one size.
      used: when it was last opened, seconds since 1970.
    """

    kind: str
    path: Path
    num_bytes: int
    used: float

    @property
    def days(self) -> float:
        """Since it was last opened."""
        return (time.time() - self.used) / DAY


def mark_used(folder: Path) -> None:
    """Notes that a set is in use; others may own the folder."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def list_kept(cache_dir: Path) -> list[Kept]:
    """All sets, those unused for longest first."""
    found = [
        Kept(kind, path, _size_of(path), path.stat().st_mtime)
        for kind in KINDS
        for path in (cache_dir / kind).glob("[!.]*/")
    ]
    return sorted(found, key=lambda kept: kept.used)


def remove(kept: Kept) -> None:
    """Deletes a set; decoded pixels that a training here has open stay with it.

    Raises:
      InputError: it is being written.
    """
    lock, way_out = kept.path.with_suffix(".lock"), "delete less"
    with files.exclusive(lock, wait=False, way_out=way_out):
        doomed = kept.path.with_name(f".{kept.path.name}.{os.getpid()}")
        kept.path.rename(doomed)  # a half-deleted set must not look like a whole one
        shutil.rmtree(doomed)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
