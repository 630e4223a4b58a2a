"""The contestants of `benchmark.py plan`: what saves memory, and how much of it.

Nothing is trained: the compiler's own layout of the step for two sizes of the batch is
extended to others by a straight line. With `--device v5e:2x2` it compiles for TPUs that
are not at hand (`pip install libtpu`).
"""

import dataclasses
import os
from pathlib import Path

import benchmark_step
import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from jaxseg import memory, parallel, tracing
from jaxseg.config import Run
from jaxseg.errors import InputError

LEVERS = {
    "as it is": {},
    "train.accumulate=2": {"accumulate": 2},
    "train.remat=norms": {"remat": "norms"},
    "train.remat=blocks": {"remat": "blocks"},
    "train.shard_optimizer=True": {"shard_optimizer": True},
}


NOT_ON_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}


def open_mesh(device: str, batch_size: int) -> Mesh:
    """The devices at hand, or TPUs by their name and arrangement, 'v5e:2x4'.

    Raises:
      InputError: there is no such TPU, or no libtpu to compile for it; the devices
        cannot share the batch evenly.
    """
    if not device:
        return parallel.make_mesh(batch_size)
    # libtpu looks for the machine that it runs on, and here it runs on none.
    for name, value in NOT_ON_A_TPU.items():
        os.environ.setdefault(name, value)
    try:
        described = topologies.get_topology_desc(device, "tpu")
    except Exception as error:  # of the plug-in: anything
        raise InputError(
            "TPUs as NAME:AxB, and libtpu, which compiles for them",
            f"{device}: {error}",
            "pip install libtpu, and --device v5e:2x2",
        ) from None
    parallel.refuse_uneven(batch_size, len(described.devices))
    return Mesh(np.array(described.devices), ("data",), axis_types=(AxisType.Auto,))


def plan(run: Run, mesh: Mesh, limit: int) -> dict[str, dict]:
    """Of the levers that fit the batch of the config the need, and the largest batch.

    Args:
      limit: bytes of a device.

    Returns:
      name -> `gigabytes` on a device, `megabytes_per_image`, `largest_batch`.
    """
    return {
        name: _pull(run, keys, mesh, limit)
        for name, keys in LEVERS.items()
        if (mesh.size > 1 or "shard_optimizer" not in keys)
        and run.train.batch_size % _smallest_batch(keys, mesh) == 0
    }


def _smallest_batch(keys: dict, mesh: Mesh) -> int:
    """Batches are multiples of it."""
    return mesh.size * keys.get("accumulate", 1)


def _pull(run: Run, keys: dict, mesh: Mesh, limit: int) -> dict:
    count = run.train.batch_size
    small, large = (
        need_of(_with(run, batch_size=batch, **keys), mesh).total
        for batch in (count, 2 * count)
    )
    per_image = (large - small) / count
    step = _smallest_batch(keys, mesh)
    largest = count + (limit - small) / per_image
    return {
        "gigabytes": small / 1e9,
        "megabytes_per_image": per_image * mesh.size / 1e6,
        "largest_batch": max(0, int(largest // step) * step),
    }


def need_of(run: Run, mesh: Mesh) -> memory.Need:
    """The layout of a train step, compiled for these devices."""
    program = benchmark_step.make_program(run, mesh=mesh)
    if mesh.devices.flat[0].platform == jax.default_backend():
        return memory.need_of(program.lower().compile())
    with tracing.traced_for("accelerator"):
        return memory.need_of(program.lower().compile())


def measure_peak(run: Run) -> tuple[float, float]:
    """(predicted, measured) gigabytes that two steps add to what is there already."""
    program = benchmark_step.make_program(run)
    ours = benchmark_step.Ours(program, benchmark_step.make_batch(program))
    before = _reset_peak()
    ours.run(2)
    return memory.need_of(ours.compiled).added / 1e9, (_peak() - before) / 1e9


def _reset_peak() -> int:
    """Bytes in use now; on a CPU the highest mark of the process is set to them."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["bytes_in_use"]
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"]
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))


def _with(run: Run, **keys) -> Run:
    return dataclasses.replace(run, train=dataclasses.replace(run.train, **keys))
