"""The mesh, where arrays live, and the compilation of steps.

One 1-D mesh `data` over all devices: the batch is split, the state is replicated, but
for the optimizer's part where the config wants shares of it. The compiler inserts the
collectives; nothing above this module knows how many devices there are. With several
processes each one reads the rows of a batch that its devices hold.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxseg.errors import InputError
from jaxseg.train_state import TrainState
from jaxseg.types import Batch


def make_mesh(batch_size: int) -> Mesh:
    """All devices on the axis `data`.

    Raises:
      InputError: the batch does not divide by the number of devices.
    """
    num_devices = jax.device_count()
    refuse_uneven(batch_size, num_devices)
    return jax.make_mesh((num_devices,), ("data",), axis_types=(AxisType.Auto,))


def refuse_uneven(batch_size: int, num_devices: int) -> None:
    """Raises InputError where the devices cannot share a batch evenly."""
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        nearest = [size for size in (below, below + num_devices) if size]
        raise InputError(
            f"a global batch that {num_devices} devices share evenly",
            f"config.train.batch_size={batch_size}",
            f"--config.train.batch_size={' or '.join(map(str, nearest))}",
        )


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


def place_state(state: TrainState, mesh: Mesh, *, shard_optimizer: bool) -> TrainState:
    """Shapes, dtypes and shardings of a state, given its shapes: whole on every device.

    With `shard_optimizer` each device keeps its share of what the optimizer remembers,
    and the compiler gathers the shares of the update. An array is cut along its longest
    dimension that the devices share evenly; without such a one it stays whole.
    Source: https://arxiv.org/abs/2004.13336; stage 1 of https://arxiv.org/abs/1910.02054.
    """

    def place(
        sharding_of: Callable[[tuple[int, ...]], NamedSharding], tree: Any
    ) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=sharding_of(x.shape)
            ),
            tree,
        )

    placed = place(lambda _: replicated(mesh), state)
    if not shard_optimizer:
        return placed
    shares = place(lambda shape: _cut(shape, mesh), state.opt_state)
    return placed.replace(opt_state=shares)


def shardings_of(placed: Any) -> Any:
    """Of each array of a tree."""
    return jax.tree.map(lambda x: x.sharding, placed)


def share_update(
    optimizer: optax.GradientTransformation, mesh: Mesh
) -> optax.GradientTransformation:
    """The same optimizer, of which each device computes its share; see `place_state`.

    Left alone, the compiler gathers what the optimizer remembers, not the update.
    """

    place = jax.lax.with_sharding_constraint

    def whole(tree: Any) -> Any:
        return place(tree, replicated(mesh))

    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda x: place(x, _cut(x.shape, mesh)), tree)

    # Whole before and after, or the compiler carries the shares into the network.
    def update(grads, state, params=None):
        updates, state = optimizer.update(cut(whole(grads)), state, params)
        return whole(cut(updates)), state

    return optax.GradientTransformation(optimizer.init, update)


def _cut(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    even = [axis for axis, size in enumerate(shape) if size and not size % mesh.size]
    if not even:
        return replicated(mesh)
    longest = max(even, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))


def compile_init(init: Callable[[], TrainState], placed: TrainState) -> Callable:
    """`() -> state`, compiled, its arrays where `place_state` has them."""
    # XLA:CPU spends a second per kernel shape on optimising the random generator.
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    places = shardings_of(placed)
    return jax.jit(init, out_shardings=places, compiler_options=options)


def compile_train_call(call: Callable, mesh: Mesh, placed: TrainState) -> Callable:
    """`(state, data, inputs) -> (state, logs)`, compiled; the old state is given up.

    Args:
      placed: what `place_state` gives.
    """
    everywhere, places = replicated(mesh), shardings_of(placed)
    return jax.jit(
        call,
        in_shardings=(places, everywhere, split_steps(mesh)),
        out_shardings=(places, everywhere),
        donate_argnums=0,
    )


def compile_batch_step(step: Callable, mesh: Mesh) -> Callable:
    """`(variables, batch) -> arrays [N, ...]`, compiled, split like the batch."""
    everywhere, split = replicated(mesh), split_batch(mesh)
    return jax.jit(step, in_shardings=(everywhere, split), out_shardings=split)
