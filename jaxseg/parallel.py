"""The mesh, where arrays live, and the compilation of steps.

One 1-D mesh `data` over all devices: the state is replicated, the batch is split. The
compiler inserts the collectives; nothing above this module knows how many devices there
are.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxseg.errors import InputError
from jaxseg.types import Batch


def make_mesh(batch_size: int) -> Mesh:
    """All devices on the axis `data`.

    Raises:
      InputError: the batch does not divide by the number of devices.
    """
    num_devices = jax.device_count()
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        nearest = [size for size in (below, below + num_devices) if size]
        raise InputError(
            f"a global batch that {num_devices} devices share evenly",
            f"config.train.batch_size={batch_size}",
            f"--config.train.batch_size={' or '.join(map(str, nearest))}",
        )
    return jax.make_mesh((num_devices,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading dimension dealt out over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """Gives a host batch to the devices.

    On CPU the arrays may share the host's memory (`may_alias=False` does not prevent
    it), so the host must leave them alone until the step that reads them is done.
    """
    return jax.device_put(batch, split_batch(mesh))


def compile_train_step(step: Callable, mesh: Mesh) -> Callable:
    """`(state, batch) -> (state, logs)`, compiled; the old state is given up."""
    everywhere, split = replicated(mesh), split_batch(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )


def compile_batch_step(step: Callable, mesh: Mesh) -> Callable:
    """`(variables, batch) -> arrays [N, ...]`, compiled, split like the batch."""
    everywhere, split = replicated(mesh), split_batch(mesh)
    return jax.jit(step, in_shardings=(everywhere, split), out_shardings=split)
