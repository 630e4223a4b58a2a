"""Writing that an interruption cannot spoil, and folders that two runs cannot share."""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.errors import InputError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path` that takes its name when all went well.

    A crash leaves no `path`; what it left behind goes at the next attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path, newline: str | None = None) -> Iterator:
    """A text file open for writing that takes its name when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # File names that are no UTF-8 arrive as lone surrogates and leave as they came.
        with temporary.open(
            "w", encoding="utf-8", errors="surrogateescape", newline=newline
        ) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> Any:
    """The value in types that JSON knows; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_file(path: Path) -> bool:
    """Whether there is one, whatever the name: JSON of others may hold any text."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def parse_json(text: str) -> Any:
    """What `json.loads` makes of a text that may come from anybody.

    Raises:
      ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextlib.contextmanager
def exclusive(
    path: Path, *, wait: bool, way_out: str = "choose another --workdir"
) -> Iterator[None]:
    """Holds a lock file while the body runs; the system frees it when a process dies.

    Args:
      way_out: what to do but wait, for the message.

    Raises:
      InputError: another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(
                f"{path.parent} to be used by one process",
                "another process is working in it",
                f"wait for it to end, or {way_out}",
            ) from None
        yield


@contextlib.contextmanager
def explain_full_disk(folder: Path, setting: str) -> Iterator[None]:
    """Turns 'no space left' into an error that names the folder and the way out.

    So does a file system that has become read-only, as damaged ones do.
    """
    try:
        yield
    # ArrayRecord raises RuntimeError and orbax ValueError, with the system's words
    # somewhere in their text.
    except (OSError, RuntimeError, ValueError) as error:
        causes = [os.strerror(number) for number in sorted(UNWRITABLE)]
        cause = next((text for text in causes if text in str(error)), None)
        if cause is None:
            raise
        free = shutil.disk_usage(folder).free / 1e9
        raise InputError(
            f"room to write in {folder}",
            f"{cause} ({free:.2f} GB free)",
            setting,
        ) from None
