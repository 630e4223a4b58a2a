"""Progress for people: a bar on a terminal, plain lines in a log file."""

import atexit
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

console = Console(highlight=False, soft_wrap=True)
_bars = Console(highlight=False, soft_wrap=True, stderr=True)
_one_bar = threading.Lock()
# A bar hides the cursor, and that of a background thread may not live to show it again.
atexit.register(_bars.show_cursor)


def silence() -> None:
    """Says nothing from now on: another process speaks for this one."""
    console.quiet = _bars.quiet = True


def track(
    items: Iterable[T], total: int, description: str, *, quiet: bool = False
) -> Iterator[T]:
    """Yields the items and shows how many of `total` have passed.

    Beside a bar, from another thread, it says so in lines.

    Args:
      quiet: in a log file, says something only when it takes long.
    """
    if not _bars.is_terminal or not _one_bar.acquire(blocking=False):
        yield from _with_lines(items, total, description, quiet)
        return
    try:
        yield from _with_bar(items, total, description)
    finally:
        _one_bar.release()


def _with_bar(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # What is printed meanwhile goes above the bar, unless it goes to a file.
    with Progress(
        *columns,
        console=_bars,
        transient=True,
        redirect_stdout=console.is_terminal,
    ) as bar:
        yield from bar.track(items, total=total, description=description)


def _with_lines(
    items: Iterable[T], total: int, description: str, quiet: bool
) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > 30:
            _bars.print(f"{description}: {done} of {total}")
            last = now
    if not quiet:
        _bars.print(f"{description}: {total} in {time.monotonic() - start:.1f} s")


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
