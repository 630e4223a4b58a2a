"""Where the time of some steps goes: a trace of them, and a summary to read.

The trace is for TensorBoard or https://ui.perfetto.dev; the summary adds up what the
devices did, by operation of the compiled program and by kind.
"""

import collections
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxseg.progress import console

HEAVIEST = 10
# First that fits. Fusions carry the names of what is in them.
KINDS = {
    "collectives": r"all-|reduce-scatter|collective|nccl",
    "host transfers": r"memcpyh2d|memcpyd2h|infeed|outfeed|send|recv",
    "convolutions": r"conv(?!ert)|cudnn(?!.*to(?:nhwc|nchw))",
    "matrix products": r"dot|gemm|matmul",
    "transposes and copies": r"transpose|copy|memcpyd2d|to(?:nhwc|nchw)",
    "everything else": "",
}
_OPERATION = re.compile(r"[a-z][\w.\-$]*")  # else events of the runtime on a CPU


class Profiler:
    """Traces the steps first <= k < stop, or the part of them before an epoch ends.

    Whole calls, where a call makes several steps.

    Args:
      steps: (first, stop); None traces nothing.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder = folder
        self._first, self._stop = steps or (0, 0)
        self._since: int | None = None

    def look(self, step: int, count: int, state: Any) -> None:
        """Begins or ends the trace, before the call that makes `count` steps.

        Args:
          step: the first of them.
          state: what the last call gave; the end waits for it.
        """
        is_in = step < self._stop and self._first < step + count
        if self._since is None and is_in:
            self._since = step
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
        elif step >= self._stop:
            self.end(step, state)

    def end(self, step: int, state: Any) -> None:
        """Ends the trace if one is running, and writes summary.txt."""
        if self._since is None:
            return
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        steps, self._since, self._stop = step - self._since, None, 0
        [*_, newest] = sorted(self._folder.rglob("*.xplane.pb"))
        path = self._folder / "summary.txt"
        path.write_text(summarize(_events(newest), steps), encoding="utf-8")
        console.print(f"- {steps} steps are profiled in {path}", markup=False)


def summarize(events: Iterable[tuple[str, float]], steps: int) -> str:
    """A text: milliseconds a step by kind, and of the heaviest operations.

    Args:
      events: (name of the operation, seconds), as often as it ran.
    """
    total, times = collections.Counter(), collections.Counter()
    for name, seconds in events:
        total[name] += seconds
        times[name] += 1
    kinds = collections.Counter()
    for name, seconds in total.items():
        kinds[kind_of(name)] += seconds
    whole = sum(total.values()) or 1.0

    def line(name: str, seconds: float, note: str = "") -> str:
        share = seconds / whole
        return f"{1e3 * seconds / steps:10.3f} ms {share:6.1%}  {name}{note}"

    lines = [f"{steps} steps; time of a device a step", ""]
    lines += [line(kind, seconds) for kind, seconds in kinds.most_common()]
    lines += ["", f"the {HEAVIEST} heaviest operations"]
    lines += [
        line(name, seconds, f", {times[name] / steps:g} times")
        for name, seconds in total.most_common(HEAVIEST)
    ]
    return "\n".join(lines) + "\n"


def kind_of(name: str) -> str:
    """A key of `KINDS`."""
    lowered = name.lower()
    return next(kind for kind, rule in KINDS.items() if re.search(rule, lowered))


def is_operation(name: str) -> bool:
    """Whether an event of a CPU's thread is an operation of the compiled program."""
    return _OPERATION.fullmatch(name) is not None


def _events(path: Path) -> Iterator[tuple[str, float]]:
    """Of the first device; XLA's threads are the device of a CPU."""
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    planes = {plane.name: list(plane.lines) for plane in planes}
    devices = sorted(p for p in planes if p.startswith(("/device:GPU", "/device:TPU")))
    for line in planes[devices[0]] if devices else planes.get("/host:CPU", []):
        if line.name.startswith(("Stream", "XLA Ops") if devices else "tf_XLA"):
            for event in line.events:
                if devices or is_operation(event.name):
                    yield event.name, event.duration_ns / 1e9
