"""What a compiled program needs of a device's memory, known before it runs.

The compiler lays out all arrays of a program: what it is given, what it gives back, and
everything between. Only what lives beside it is not counted: batches on their way
(`loop.CALLS_AHEAD`), the compiled programs themselves, and on a CPU the scratch space
of library kernels.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Need(NamedTuple):
    """Bytes on one device while a program runs.

    Attributes:
      inputs: state, resident data and batch.
      outputs: as far as they are not written over inputs.
      between: activations, gradients, and whatever else comes and goes.
    """

    inputs: int
    outputs: int
    between: int

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def added(self) -> int:
        """What is taken while it runs, beside the inputs, which are there already."""
        return self.outputs + self.between


def need_of(compiled: jax.stages.Compiled) -> Need | None:
    """The layout of a compiled program; None where the backend does not tell."""
    stats: Any = compiled.memory_analysis()
    if stats is None:
        return None
    return Need(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
    )


CGROUPS = (  # limit and use, of the second and the first version
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
FILE_PAGES = ("active_file", "inactive_file")


def free_bytes() -> int | None:
    """What a program may still take of each device, or of the memory beside a CPU.

    None where it is not known.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    info = Path("/proc/meminfo")
    if device.platform != "cpu" or not info.is_file():
        return None
    entries = dict(line.split(":") for line in info.read_text().splitlines())
    available = 1024 * int(entries["MemAvailable"].split()[0])
    left = min(available, left_to_container(Path("/sys/fs/cgroup")))
    return int(left) // jax.local_device_count()


def left_to_container(cgroup: Path) -> float:
    """Bytes that it may still take, pages of files given up; infinite without a limit.

    Args:
      cgroup: where Linux shows the container its limits.
    """
    for limit, used in CGROUPS:
        if (cgroup / limit).is_file():
            most = (cgroup / limit).read_text().strip()
            lines = (cgroup / used).with_name("memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            pages = sum(int(stat.get(name, 0)) for name in FILE_PAGES)
            taken = int((cgroup / used).read_text()) - pages
            return math.inf if most == "max" else max(int(most) - taken, 0)
    return math.inf
