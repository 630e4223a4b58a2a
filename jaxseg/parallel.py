"""The mesh, where arrays live, and the compilation of steps.

One 1-D mesh `data` over all devices: the state is replicated, the batch is split. The
compiler inserts the collectives; nothing above this module knows how many devices there
are.
"""

from collections.abc import Callable, Sequence

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


def split_steps(mesh: Mesh) -> NamedSharding:
    """The batches of several steps [K, N, ...], each dealt out over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


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


def put_steps(batches: Sequence[dict[str, np.ndarray]], mesh: Mesh) -> Batch:
    """Gives the batches of consecutive steps to the devices, as [K, N, ...].

    One batch is not copied first: see `put_batch`.
    """
    if len(batches) == 1:
        stacked = {name: values[None] for name, values in batches[0].items()}
    else:
        stacked = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    return jax.device_put(stacked, split_steps(mesh))


def abstract_steps(count: int, batch: Batch, mesh: Mesh) -> Batch:
    """Shapes of what `put_steps` gives, for shapes of one batch."""
    sharding = split_steps(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype, sharding=sharding),
        batch,
    )


def compile_train_call(call: Callable, mesh: Mesh) -> Callable:
    """`(state, data, inputs) -> (state, logs)`, compiled; the old state is given up."""
    everywhere = replicated(mesh)
    return jax.jit(
        call,
        in_shardings=(everywhere, everywhere, split_steps(mesh)),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )


def compile_batch_step(step: Callable, mesh: Mesh) -> Callable:
    """`(variables, batch) -> arrays [N, ...]`, compiled, split like the batch."""
    everywhere, split = replicated(mesh), split_batch(mesh)
    return jax.jit(step, in_shardings=(everywhere, split), out_shardings=split)
