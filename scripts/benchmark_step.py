"""jaxseg's side of `benchmark.py`: the train step of a config's network, on noise.

Needs neither grain, clu nor tensorflow-datasets, which a machine for timing may lack.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import AxisType, Mesh

from jaxseg import (
    augment,
    backend,
    losses,
    optim,
    parallel,
    steps,
    tracing,
    train_state,
)
from jaxseg.config import Optim, Run
from jaxseg.data.targets import target_fields
from jaxseg.errors import InputError
from jaxseg.models import MODELS
from jaxseg.schema import takes_loss
from jaxseg.tasks import TASKS, Task, num_outputs

# Of two losses. The first says that the forward passes are the same. Then Adam turns
# the rounding of tiny gradients into whole steps: float32 parts from float64 by 1e-3
# within five steps, and PyTorch with one thread from PyTorch with two as well.
FIRST_TOLERANCE, TOLERANCE = 1e-5, 5e-3
TOLERANCE_OF_GPU = 5e-2  # whose sums have no fixed order; not yet measured
OF_FIRST_LOSS = 1e-4  # allowed on top: later losses may be next to nothing
MEAN, STD = 0.5, 0.25
ADAM = Optim("adam", 1e-3, "constant", None, 0.0, 0.0, 0.0, None)
PROGRESS = 0.5  # of the training: SegDecNet learns masks and decisions

HFLIP = {"hflip": {"p": 0.5}}
AUGMENTS = {  # name -> what is done; the last is that of the speed lines
    "no augmentation": {},
    "flips and quarter turns": HFLIP | {"vflip": {"p": 0.5}, "rot90": {"p": 1.0}},
    "crops and distortions": HFLIP
    | {
        "crop": {"p": 0.5, "share": (50 / 256, 101 / 256)},
        "vflip": {"p": 0.5},
        "rot90": {"p": 0.5},
        "elastic": {"p": 0.2, "alpha": 120.0, "sigma": 6.0},
        "grid": {"p": 0.2, "steps": 5, "limit": 0.3},
        "optical": {"p": 0.4, "limit": 1.0, "shift": 0.5},
    },
}

Arrays = dict[str, np.ndarray]


class Program(NamedTuple):
    """The train step of a config, not yet compiled, and what goes into it.

    Attributes:
      call: jitted `(state, data, inputs) -> (state, logs)`, as the training has it.
      init: makes a state.
      state: shapes, dtypes and shardings of it.
      fields: shape and dtype of the arrays of a batch.
      shares: of the two losses of SegDecNet's training; () for others.
      count: steps of a call.
    """

    call: Callable
    init: Callable
    state: train_state.TrainState
    fields: Mapping[str, tuple[tuple[int, ...], type]]
    shares: tuple[float, ...]
    mesh: Mesh
    count: int

    def lower(self) -> jax.stages.Lowered:
        """A call for arrays that need not exist."""
        batch = {
            name: jax.ShapeDtypeStruct(shape, dtype)
            for name, (shape, dtype) in self.fields.items()
        }
        inputs = parallel.abstract_steps(self.count, batch, self.mesh)
        return self.call.lower(self.state, {}, inputs)


def make_program(
    run: Run, changes: Mapping[str, Any] | None = None, mesh: Mesh | None = None
) -> Program:
    """The train step of a config but for its loss, optimizer and augmentation.

    They are cross-entropy (SegDecNet's training has its own loss), Adam at 0.001, and
    `changes`, so that all configs and PyTorch do the same.

    Args:
      changes: of the images; None is left-right flips, but for SegDecNet, whose targets
        are made beforehand.
    """
    classes = tuple(run.data.source.kwargs.get("classes", ())) or ("background", "one")
    task = _make_task(run, classes)
    channels, size = run.data.channels, run.data.image_size
    precision = backend.resolve_precision(run.train.precision)
    network = MODELS[run.model.network.name](
        num_outputs(classes), jnp.dtype(precision), **run.model.network.kwargs
    ).clone(remat=run.train.remat)
    fields = _fields(run, task, network)
    if changes is None:
        changes = {} if "seg_target" in fields else HFLIP
    mesh = mesh or parallel.make_mesh(run.train.batch_size)
    optimizer = optim.make_optimizer(ADAM, lambda step: 1e-3, step_at=round)
    if run.train.shard_optimizer:
        optimizer = parallel.share_update(optimizer, mesh)
    step = steps.make_train_step(
        network,
        task,
        optimizer,
        augment.make_augment(changes),
        augment.make_normalize((MEAN,) * channels, (STD,) * channels),
        seed=0,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
        parts={},
        reduction="mean",
        progress=lambda step: PROGRESS,
    )
    init = partial(
        train_state.init_train_state,
        network,
        optimizer,
        image_shape=(*size, channels),
        seed=0,
        use_ema=run.train.ema_decay is not None,
    )
    state = parallel.place_state(
        jax.eval_shape(init), mesh, shard_optimizer=run.train.shard_optimizer
    )
    call = parallel.compile_train_call(steps.make_train_call(step, None), mesh, state)
    shares = task.shares(PROGRESS) if task.targets else ()
    count = run.train.steps_per_call
    return Program(call, init, state, fields, shares, mesh, count)


def make_batch(program: Program) -> Arrays:
    """Noise; a mask marks where its red is bright, and every other label is 1."""
    generator = np.random.default_rng(0)
    batch = {}
    for name, (shape, dtype) in program.fields.items():
        if name in ("label", "index"):
            batch[name] = np.arange(len_of(program), dtype=dtype)
        elif dtype is np.bool_:
            batch[name] = np.zeros(shape, dtype)
        elif np.issubdtype(dtype, np.integer):
            batch[name] = generator.integers(0, 256, shape, dtype)
        else:
            batch[name] = generator.uniform(size=shape).astype(dtype)
    batch["label"] %= 2
    if "mask" in batch:
        batch["mask"] = (batch["image"][..., 0] > 200).astype(np.uint8)
    return batch


def len_of(program: Program) -> int:
    """Images of a batch."""
    return program.fields["index"][0][0]


class Ours:
    """The compiled step on one batch that stays on the device: a contestant.

    Attributes:
      count: steps of a call.
      compile_seconds: of the step, without its tracing.
      num_parameters: numbers that it changes.
    """

    def __init__(self, program: Program, batch: Arrays):
        self.state = parallel.compile_init(program.init, program.state)()
        self.mesh, self.count = program.mesh, program.count
        self.inputs = parallel.put_steps([batch] * self.count, self.mesh)
        lowered, started = program.lower(), time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - started
        self.num_parameters = sum(w.size for w in jax.tree.leaves(self.state.params))

    def weights(self) -> Arrays:
        """Parameters by path, 'encoder_0/Conv_0/kernel'."""
        return flatten_dict(jax.device_get(self.state.params), sep="/")

    def trace(self, steps: int) -> list[float]:
        """Losses of the next steps."""
        calls = [self.advance()["loss"] for _ in range(-(-steps // self.count))]
        return np.concatenate(calls)[:steps].tolist()

    def run(self, steps: int) -> float:
        """Seconds of so many steps, made in whole calls; waits for the device once."""
        started, calls = time.perf_counter(), -(-steps // self.count)
        for _ in range(calls):
            logs = self.advance()
        logs["loss"].block_until_ready()
        return (time.perf_counter() - started) * steps / (calls * self.count)

    def advance(self) -> dict:
        """One call; its logs, which may not be there yet."""
        self.state, logs = self.compiled(self.state, {}, self.inputs)
        return logs


def count_operations(run: Run) -> float:
    """Floating-point operations of a step, convolutions counted as what they are.

    On a CPU some are done by spectra, which takes fewer. It is a CPU's client that
    counts: those of accelerators do not.
    """
    cpu = Mesh(np.array(jax.devices("cpu")[:1]), ("data",), (AxisType.Auto,))
    program = make_program(run, mesh=cpu)._replace(count=1)
    with tracing.traced_for("accelerator"):
        return program.lower().cost_analysis()["flops"]


def compare_losses(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two traces, as a share of the first loss.

    Raises:
      InputError: they part by more than rounding; there is nothing to time then.
    """
    difference = np.abs(np.subtract(theirs, ours))
    on_cpu = jax.default_backend() == "cpu"
    later = TOLERANCE if on_cpu else TOLERANCE_OF_GPU
    allowed = later * np.abs(ours) + OF_FIRST_LOSS * ours[0]
    allowed[0] = FIRST_TOLERANCE * ours[0]
    wrong = np.flatnonzero(~(difference <= allowed))  # NaN is wrong, too
    if len(wrong):
        k = wrong[0]
        raise InputError(
            f"losses of the same network: equal to {allowed[k]:.2g} at step {k}",
            f"{ours[k]} by jaxseg, {theirs[k]} by PyTorch",
            "make the network in scripts/torch_twin.py that of jaxseg/models again",
        )
    return float(difference.max() / ours[0])


def _make_task(run: Run, classes: tuple[str, ...]) -> Task:
    make = TASKS[run.task.name]
    if not takes_loss(make):
        return make(classes, **run.task.kwargs)
    plain = {"bce": {"weight": 1.0, "pos_weight": 1.0}}
    if len(classes) > 2:
        equal = (1.0,) * len(classes)
        plain = {"cross_entropy": {"weight": 1.0, "class_weights": equal}}
    return make(classes, losses.make_loss(plain), **run.task.kwargs)


def _fields(run: Run, task: Task, network) -> dict[str, tuple]:
    count, size = run.train.batch_size, run.data.image_size
    image = jnp.zeros((1, *size, run.data.channels))
    outputs, _ = jax.eval_shape(
        lambda: network.init_with_output(jax.random.key(0), image, train=False)
    )
    fields = {
        "image": ((*size, run.data.channels), np.uint8),
        "label": ((), np.int32),
        "index": ((), np.int32),
        "stop": ((), np.bool_),
    }
    if "seg_logits" in task.needs:
        fields["mask"] = (size, np.uint8)
    if task.targets:
        fields |= target_fields(size, task.targets.for_network(outputs))
    return {name: ((count, *shape), kind) for name, (shape, kind) in fields.items()}
