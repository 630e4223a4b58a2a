"""The wish of a signal to stop a training, on which all processes agree first."""

import contextlib
import signal
from collections.abc import Iterator

import jax
import numpy as np

from jaxseg import hosts
from jaxseg.data.pipeline import HostBatch
from jaxseg.signals import STOPPING
from jaxseg.types import Array


class Stopping:
    """A signal of `STOPPING` asks for the end; after which step is agreed on.

    A process alone stops at once. One of several puts its wish into the inputs of its
    next step, where it is averaged with the losses; all of them read the same average
    of the same step, and none waits in a collective for one that has left.

    Attributes:
      is_agreed: whether to stop now, in all processes.
    """

    def __init__(self) -> None:
        self.is_agreed = False
        self._name = ""
        self._is_urgent = False

    @property
    def reason(self) -> str:
        """E.g. 'SIGTERM'."""
        return self._name or "a signal to another process"

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Inside, signals are noted; outside, they do what they did before."""
        handlers = {number: signal.signal(number, self._note) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises KeyboardInterrupt where this process is alone."""
        self._is_urgent = True
        try:
            if self.is_agreed:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_urgent = False

    def ask(self, batch: HostBatch) -> HostBatch:
        """The inputs of a step with `stop` [N] bool, this process's wish."""
        return {**batch, "stop": np.full(len(batch["index"]), bool(self._name))}

    def hear(self, stop: Array) -> None:
        """Waits for some steps [K], and takes the average wish of all processes."""
        if hosts.is_alone():
            jax.block_until_ready(stop)  # it knows its own; nothing is fetched
        else:
            self.is_agreed |= bool(jax.device_get(stop).any())

    def _note(self, number: int, frame) -> None:
        del frame
        self._name = signal.Signals(number).name
        if hosts.is_alone():
            self.is_agreed = True
            if self._is_urgent:
                raise KeyboardInterrupt
