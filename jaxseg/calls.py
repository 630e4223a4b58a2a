"""The compiled calls of a run, of some train steps each, and the pixels they read.

A compiler needs shapes, no pixels: the calls of the first epoch are compiled while the
images are still decoded.
"""

import time
from collections.abc import Callable

from jaxseg import memory, misfits, phases, resident
from jaxseg.experiment import Experiment
from jaxseg.phases import Phase
from jaxseg.progress import console
from jaxseg.types import Array


class Calls:
    """Compiles each shape once.

    Attributes:
      data: what stays in the memory of the devices; None until images are decoded.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.data: dict[str, Array] | None = None
        # No functools.cache: a cycle would keep the pixels in the device's memory.
        self._compiled: dict[tuple[Phase, int], Callable] = {}

    def make_ready(self, epoch: int, step: int) -> None:
        """Compiles the rest of an epoch while images are decoded, and takes these in.

        Raises:
          InputError: an image cannot be decoded, or memory is short of the step.
        """
        self.plan(epoch, step)
        self.experiment.dataset.source.wait()
        self.data = self.experiment.upload()

    def plan(self, epoch: int, step: int) -> tuple[Phase, list[tuple[int, Callable]]]:
        """The phase of an epoch, and from a step to its end the calls with their steps.

        Raises:
          InputError: memory is short of the step.
        """
        phase = phases.phase_of(self.experiment.phases, epoch)
        todo = phase.first_step_of(epoch + 1) - step
        most = self.experiment.run.train.steps_per_call
        counts = [min(most, todo - done) for done in range(0, todo, most)]
        calls = {count: self.compile(phase, count) for count in set(counts)}
        return phase, [(count, calls[count]) for count in counts]

    def compile(self, phase: Phase, count: int) -> Callable:
        """The compiled call of so many steps of a phase.

        Raises:
          InputError: memory is short of the step.
        """
        if (phase, count) not in self._compiled:
            self._compiled[phase, count] = self._compile(phase, count)
        return self._compiled[phase, count]

    def _compile(self, phase: Phase, count: int) -> Callable:
        started, size = time.monotonic(), phase.size
        compiled = self.experiment.lower_call(phase, count).compile()
        shape = " x ".join(map(str, (size.batch_size, *size.image_size)))
        several = f"{count} train steps" if count > 1 else "train step"
        seconds = time.monotonic() - started
        need = memory.need_of(compiled)
        takes = f"; {need.total / 1e9:.2f} GB of memory" if need else ""
        console.print(f"- {several} for {shape} compiled in {seconds:.1f} s{takes}")
        pixels = resident.num_bytes(self.experiment.abstract_data)
        misfits.refuse_large_step(need, self._room(pixels), size.batch_size, pixels)
        return compiled

    def _room(self, pixels: int) -> int | None:
        """Bytes that a step may add on each device, once the pixels are there."""
        free = memory.free_bytes()
        if free is None or self.data is not None:
            return free
        return free - pixels
