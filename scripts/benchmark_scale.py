"""How a training step would scale to many devices: predicted, nothing is run.

Each device keeps its batch and all of them add up their gradients. The time of a step
is its operations at a share of the device's peak; that of the sum is the bytes of the
gradient by what the links carry of a sum of this size, far below what they are sold
with. Both are assumptions, written here, until somebody measures them.
"""

import math
from typing import NamedTuple

import benchmark_step
import jax

from jaxseg.config import Run

SHARE_OF_PEAK = 0.4
"""What large U-Nets reach; small networks and small batches reach less."""


class Machine(NamedTuple):
    """Devices of one kind, and what joins them."""

    flops: float  # of a device, a second, dense bfloat16
    links: dict[int, float]  # devices -> bytes of a sum over all of them, a second


MACHINES = {
    # NVLink within a machine of eight; between machines 400 Gbit/s for each device.
    "H200": Machine(989e12, {8: 150e9, 64: 40e9, 256: 40e9}),
    "TPU v5e": Machine(197e12, {8: 200e9, 64: 200e9, 256: 200e9}),
}


def predict(run: Run) -> dict[str, dict]:
    """Of every machine and number of devices the times and the efficiency.

    Returns:
      '8 x H200' -> `step` and `sum`, seconds; `exposed` and `hidden`, the speed of a
      device as a share of its speed alone, where the sum waits for the whole step, and
      where it goes on beside the backward pass.
    """
    operations = benchmark_step.count_operations(run)
    num_bytes = 4 * count_parameters(run)  # gradients are float32
    rows = {}
    for name, machine in MACHINES.items():
        step = operations / (SHARE_OF_PEAK * machine.flops)
        for devices, speed in machine.links.items():
            total = num_bytes / speed
            rows[f"{devices} x {name}"] = {
                "step": step,
                "sum": total,
                "exposed": step / (step + total),
                "hidden": step / max(step, total),
            }
    return rows


def count_parameters(run: Run) -> int:
    """Numbers that training changes."""
    state = benchmark_step.make_program(run).state
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
