"""Signals that stop a program: time to save after the first, none after the second."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

STOPPED = 75
"""Exit code: stopped by a signal, and `same_command` goes on."""
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""SIGUSR1 is what many jobs of SLURM ask for before their time is over."""
ECHO = 1.0
"""Seconds within which a signal that comes again is the same wish.

Schedulers signal all processes of a job, and a launcher among them hands it on."""


def same_command() -> str:
    """What to type to go on; with --restart it would archive what is saved."""
    return "the same command" + " without --restart" * ("--restart" in sys.argv)


@contextlib.contextmanager
def bounded_stop(seconds: float) -> Iterator[None]:
    """Ends the process with 75 some seconds after the first of `STOPPING`.

    At a second one, later than an echo, it ends at once. Nothing is cleaned up then,
    and nothing needs to be: what is half-written has a temporary name.

    Handlers in Python run between two of its instructions, and the main thread may be
    inside a compilation for minutes. The interpreter writes the number of each signal
    that has a handler into a pipe at once, and a thread waits for it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, seconds), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # the thread reads the end
        thread.join()
        os.close(reader)


@contextlib.contextmanager
def unbounded() -> Iterator[None]:
    """Inside `bounded_stop`, for what ends at a signal by a clock of its own."""
    before = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)


def _watch(reader: int, seconds: float) -> None:
    first = None
    while True:
        left = None if first is None else max(first + seconds - time.monotonic(), 0)
        is_ready, _, _ = select.select([reader], [], [], left)
        if not is_ready:
            _exit(f"not saved within {seconds:g} s")
        received = os.read(reader, 1)
        if not received:
            return
        if received[0] not in STOPPING:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > ECHO:
            _exit("stopped at once")


def _exit(reason: str) -> None:
    text = f"\n{reason}; {same_command()} goes on from the last checkpoint\n"
    os.write(2, text.encode())
    os._exit(STOPPED)
