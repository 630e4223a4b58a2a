"""The mesh, where arrays live, and the compilation of steps.

One 1-D mesh `data` over all devices: the state is replicated, the batch is split. The
compiler inserts the collectives; nothing above this module knows how many devices there
are. With several processes each one reads the rows of a batch that its devices hold.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
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


def make_local_mesh() -> Mesh:
    """The devices of this process alone."""
    devices = jax.local_devices()
    shape, axes = (len(devices),), ("data",)
    return jax.make_mesh(shape, axes, (AxisType.Auto,), devices=devices)


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Rows of a batch that the devices of this process hold, ascending int64."""
    shares = split_batch(mesh).addressable_devices_indices_map((batch_size,))
    everything = np.arange(batch_size)
    return np.sort(np.concatenate([everything[share] for share in shares.values()]))


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
    """Gives the `local_rows` of a batch to the devices; in one process those are all.

    On CPU the arrays may share the host's memory (`may_alias=False` does not prevent
    it), so the host must leave them alone until the step that reads them is done.
    """
    return _put(batch, split_batch(mesh))


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
    """Gives (the local rows of) consecutive batches to the devices, as [K, N, ...].

    One batch is not copied first: see `put_batch`.
    """
    if len(batches) == 1:
        stacked = {name: values[None] for name, values in batches[0].items()}
    else:
        stacked = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    return _put(stacked, split_steps(mesh))


def put_everywhere(arrays: Any, mesh: Mesh) -> Any:
    """Gives host arrays, the same in every process, whole to every device."""
    return _put(arrays, replicated(mesh))


def _put(arrays: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(arrays, sharding)
    with jax.transfer_guard("allow"):  # JAX takes it for an accident
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x), arrays
        )


def whole_on_host(tree: Any) -> Any:
    """Replicated arrays as a step on the devices of one process takes them."""
    return tree if jax.process_count() == 1 else jax.device_get(tree)


def local_values(tree: Any) -> Any:
    """What `compile_batch_step` gives, on the host: the `local_rows` of it."""
    whole = all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree))
    return jax.device_get(tree) if whole else jax.tree.map(_join_shards, tree)


def _join_shards(array: jax.Array) -> np.ndarray:
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def gather_rows(arrays: Any, mesh: Mesh) -> Any:
    """Host arrays [n, ...] of every process, one after the other, in every process."""
    if replicated(mesh).is_fully_addressable:
        return arrays
    return multihost_utils.process_allgather(arrays, tiled=True)


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
