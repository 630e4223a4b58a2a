"""Progress for people: a bar on a terminal, plain lines in a log file."""

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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

LINE_SECONDS = 30
"""Between two lines of something that takes long."""

console = Console(highlight=False, soft_wrap=True)
_bars = Console(highlight=False, soft_wrap=True, stderr=True)
_one_bar = threading.Lock()
# A bar hides the cursor, and that of a background thread may not live to show it again.
atexit.register(_bars.show_cursor)


def silence() -> None:
    """Says nothing from now on: another process speaks for this one."""
    console.quiet = _bars.quiet = True


def track(
    items: Iterable[T],
    total: int,
    description: str,
    *,
    quiet: bool = False,
    say: Callable[[], str] = str,
) -> Iterator[T]:
    """Yields the items and shows how many of `total` have passed.

    Beside a bar, from another thread, it says so in lines.

    Args:
      quiet: in a log file, says something only when it takes long.
      say: what else there is to tell by now.
    """
    if not _bars.is_terminal or not _one_bar.acquire(blocking=False):
        yield from _with_lines(items, total, description, quiet, say)
        return
    try:
        yield from _with_bar(items, total, description, say)
    finally:
        _one_bar.release()


def _with_bar(
    items: Iterable[T], total: int, description: str, say: Callable[[], str]
) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    # What is printed meanwhile goes above the bar, unless it goes to a file.
    with Progress(
        *columns,
        console=_bars,
        transient=True,
        redirect_stdout=console.is_terminal,
    ) as bar:
        task = bar.add_task(description, total=total, said="")
        for item in items:
            yield item
            bar.update(task, advance=1, said=say())


def _with_lines(
    items: Iterable[T],
    total: int,
    description: str,
    quiet: bool,
    say: Callable[[], str],
) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > LINE_SECONDS:
            _bars.print(
                ", ".join(filter(None, [f"{description}: {done} of {total}", say()]))
            )
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
