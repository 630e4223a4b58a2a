"""Everything that a config names, built: data, task, network, steps."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxseg import (
    augment,
    class_weights,
    misfits,
    optim,
    parallel,
    resident,
    steps,
    train_state,
)
from jaxseg.config import Run
from jaxseg.data.dataset import Dataset, load_dataset, num_workers
from jaxseg.data.pipeline import (
    CropLoader,
    EvalLoader,
    PlaceLoader,
    TrainLoader,
)
from jaxseg.data.segmented import choose_masks
from jaxseg.data.splits import Split, make_split, read_split
from jaxseg.phases import (
    Phase,
    Size,
    progress_of,
    resize_batch,
    sizes_of,
    step_at,
)
from jaxseg.plan import Plan, make_plan, make_task
from jaxseg.pretrained import load_start
from jaxseg.tasks import Task
from jaxseg.train_state import TrainState
from jaxseg.types import Array
from jaxseg.vocabulary import SCHEMAS

__all__ = ["SCHEMAS", "Experiment", "build_experiment"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to train or to evaluate.

    Attributes:
      split: of the samples of the dataset.
      record_split: of its records, as split.csv has it; the same without crops.
      loss: the config's, with numbers for all class weights.
      phases: the batches to train on, from the first epoch to the last.
      train_calls: by image size, compiled `(state, data, inputs) -> (state, logs)` that
        makes as many steps as `inputs` [K, ...] is long and gives up the old state.
      upload: puts the training part in the memory of the devices, as `data`, when it is
        decoded; it is {} where batches bring their pixels.
      abstract_data: shapes and dtypes of it.
      abstract_state: shapes, dtypes and shardings of the state.
      init: makes a state of random weights, on the devices.
      load_start: reads the weights to start from, once; None without any.
      eval_step: compiled `(variables, batch) -> counts`.
      predict_step: compiled `(variables, batch) -> probabilities`.
      schedule: step -> learning rate before the plateau.
    """

    run: Run
    precision: str
    dataset: Dataset
    split: Split
    record_split: Split
    task: Task
    loss: Mapping[str, Mapping[str, Any]]
    model: nn.Module
    mesh: Mesh
    phases: tuple[Phase, ...]
    train_calls: Mapping[tuple[int, int], Callable]
    upload: Callable[[], dict[str, Array]]
    abstract_data: dict[str, jax.ShapeDtypeStruct]
    abstract_state: TrainState
    init: Callable[[], TrainState]
    load_start: Callable[[], dict[str, Any] | None]
    eval_step: Callable
    predict_step: Callable
    schedule: Callable

    def start(self) -> TrainState:
        """The state before the first step."""
        state, loaded = self.init(), self.load_start()
        return state if loaded is None else train_state.start_from(state, loaded)

    def lower_call(self, phase: Phase, count: int):
        """The program of `count` train steps of a phase, ready to be compiled."""
        call = self.train_calls[phase.size.image_size]
        inputs = self.abstract_inputs(phase, count)
        return call.lower(self.abstract_state, self.abstract_data, inputs)

    def abstract_inputs(self, phase: Phase, count: int) -> dict[str, Array]:
        """Shapes of what `count` train steps get: batches, and the wish to stop."""
        stop = jax.ShapeDtypeStruct((phase.size.batch_size,), jnp.bool_)
        batch = {**phase.abstract_batch, "stop": stop}
        return parallel.abstract_steps(count, batch, self.mesh)

    @property
    def num_parameters(self) -> int:
        """Numbers that training changes; batch-norm statistics are not among them."""
        params = jax.tree.leaves(self.abstract_state.params)
        return sum(math.prod(leaf.shape) for leaf in params)

    def on_this_host(self) -> "Experiment":
        """The same for evaluation on the devices of this process alone."""
        mesh = parallel.make_local_mesh()
        if mesh.size == self.mesh.size:
            return self
        evaluation = _evaluation_steps(self.run, self.model, self.task, mesh)
        return dataclasses.replace(self, mesh=mesh, **evaluation)

    def eval_loader(self, part: str) -> EvalLoader:
        """The images of a part, in order; of each batch the rows of this process."""
        return EvalLoader(
            self.dataset.source,
            self.dataset.labels,
            self.split.indices(part),
            batch_size=self.run.train.batch_size,
            workers=num_workers(self.run.data),
            rows=parallel.local_rows(self.run.train.batch_size, self.mesh),
        )


def build_experiment(run: Run, split_file: Path | None = None) -> Experiment:
    """Builds what the config names; nothing is trained and no run folder is touched.

    Images may still be decoded in the background then: `Source.wait`.

    Args:
      split_file: an existing split.csv that stays in force; None splits anew.

    Raises:
      InputError: the data, the split or a value of the config is wrong.
    """
    plan = make_plan(run)
    mesh, model = plan.mesh, plan.model
    data = _open_data(run, plan, split_file)
    phases = tuple(_make_phases(run, plan, data))
    misfits.refuse_small_parts(run, phases[0].loader.num_samples, mesh)
    counts = _count_classes(data)
    task = make_task(run, data.dataset.classes, counts)
    steps_before = partial(step_at, phases)
    schedule = optim.make_schedule(
        run.optim, step_at=steps_before, epochs=run.train.epochs
    )
    optimizer = optim.make_optimizer(run.optim, schedule, step_at=steps_before)
    if run.train.shard_optimizer:
        optimizer = parallel.share_update(optimizer, mesh)
    gather = resident.gather if data.on_device else None
    train_calls = {
        size.image_size: steps.make_train_call(
            _make_train_step(run, size, model, task, optimizer, phases), gather
        )
        for size in sizes_of(run)
    }
    init = _make_init(run, model, optimizer)
    state = parallel.place_state(
        jax.eval_shape(init), mesh, shard_optimizer=run.train.shard_optimizer
    )
    return Experiment(
        run=run,
        precision=plan.precision,
        dataset=data.dataset,
        split=data.split,
        record_split=data.record_split,
        task=task,
        loss=class_weights.resolve(run.loss, counts),
        model=model,
        mesh=mesh,
        phases=phases,
        train_calls={
            size: parallel.compile_train_call(call, mesh, state)
            for size, call in train_calls.items()
        },
        upload=partial(_upload, data, mesh) if data.on_device else dict,
        abstract_data=_abstract_data(data),
        abstract_state=state,
        init=parallel.compile_init(init, state),
        load_start=functools.cache(
            lambda: load_start(run.model, run.data, plan.variables)
        ),
        schedule=schedule,
        **_evaluation_steps(run, model, task, mesh),
    )


def _evaluation_steps(run: Run, model, task: Task, mesh: Mesh) -> dict[str, Callable]:
    normalize = augment.make_normalize(run.data.mean, run.data.std)
    eval_step = steps.make_eval_step(model, task, normalize)
    predict_step = steps.make_predict_step(model, task, normalize)
    return {
        "eval_step": parallel.compile_batch_step(eval_step, mesh),
        "predict_step": parallel.compile_batch_step(predict_step, mesh),
    }


class _OpenData(NamedTuple):
    """The data, dealt out to the parts."""

    dataset: Dataset
    record_split: Split
    split: Split
    hidden: np.ndarray | None  # [number of records] bool: masks that are not used
    on_device: bool  # pixels of the training part


def _open_data(run: Run, plan: Plan, split_file: Path | None) -> _OpenData:
    dataset = load_dataset(plan.listing, run.data, plan.rule)
    record_split = _split(run, dataset, split_file)
    train = record_split.indices("train")
    misfits.refuse_one_sided(run, plan.task, dataset.record_labels[train])
    chosen = choose_masks(dataset.records, train, run.data)
    misfits.refuse_weak_labels(run, plan.task, chosen)
    on_device, note = resident.choose(run.data, dataset.source, len(train), plan.mesh)
    parts = tuple(record_split.parts[record] for record in dataset.record_of)
    notes = (*record_split.notes, *chosen.notes, *filter(None, [note]))
    split = Split(parts, notes)
    return _OpenData(dataset, record_split, split, chosen.hidden, on_device)


def _upload(data: _OpenData, mesh: Mesh) -> dict[str, Array]:
    dataset, train = data.dataset, data.record_split.indices("train")
    return resident.upload(
        dataset.source, dataset.record_labels, train, data.hidden, mesh
    )


def _abstract_data(data: _OpenData) -> dict[str, jax.ShapeDtypeStruct]:
    if not data.on_device:
        return {}
    count = len(data.record_split.indices("train"))
    return resident.abstract_data(data.dataset.source, count)


def _count_classes(data: _OpenData) -> np.ndarray:
    """[K] pixels of each class in the training part; images where there is no mask.

    Masks that are not in use tell nothing here either.
    """
    dataset, train = data.dataset, data.record_split.indices("train")
    shown = train if data.hidden is None else train[~data.hidden[train]]
    pixels = [dataset.records[i].class_pixels for i in shown]
    if any(pixels):
        return np.sum([counts for counts in pixels if counts], axis=0)
    return np.bincount(dataset.record_labels[train], minlength=len(dataset.classes))


def _split(run: Run, dataset: Dataset, split_file: Path | None) -> Split:
    """A new split, or the one of a run folder, whatever it is like."""
    if split_file is None:
        return make_split(dataset.records, run.data)
    return Split(tuple(read_split(split_file, dataset.records)))


def _make_phases(run: Run, plan: Plan, data: _OpenData) -> Iterator[Phase]:
    first_epoch, first_step = 0, 0
    batch = resident.ABSTRACT_PLACES if data.on_device else plan.batch
    for size in sizes_of(run):
        loader = _make_train_loader(run, size, data, first_epoch, plan.mesh)
        inputs = jax.tree.map(partial(resize_batch, size.batch_size, plan.mesh), batch)
        phase = Phase(size, first_epoch, first_step, loader, inputs)
        yield phase
        first_epoch, first_step = first_epoch + size.epochs, phase.stop


def _make_train_loader(
    run: Run, size: Size, data: _OpenData, first_epoch: int, mesh: Mesh
) -> TrainLoader:
    dataset = data.dataset
    options = dict(
        batch_size=size.batch_size,
        sampling=run.data.sampling,
        seed=run.seed,
        workers=num_workers(run.data),
        first_epoch=first_epoch,
        hidden=data.hidden,
        rows=parallel.local_rows(size.batch_size, mesh),
    )
    train = data.record_split.indices("train")
    arguments = dataset.source, dataset.record_labels, train
    if run.data.crop is not None:
        return CropLoader(*arguments, crop=run.data.crop, **options)
    loader = PlaceLoader if data.on_device else TrainLoader
    return loader(*arguments, **options)


def _make_init(
    run: Run, model: nn.Module, optimizer: optax.GradientTransformation
) -> Callable[[], TrainState]:
    return partial(
        train_state.init_train_state,
        model,
        optimizer,
        image_shape=(*run.data.image_size, run.data.channels),
        seed=run.seed,
        use_ema=run.train.ema_decay is not None,
    )


def _make_train_step(
    run: Run, size: Size, model, task, optimizer, phases: Sequence[Phase]
) -> Callable:
    change = augment.make_augment(run.data.augment)
    return steps.make_train_step(
        model,
        task,
        optimizer,
        lambda key, batch: change(key, augment.shrink(batch, size.image_size)),
        augment.make_normalize(run.data.mean, run.data.std),
        seed=run.seed,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
        parts=run.optim.parts or {},
        reduction=run.train.reduction,
        progress=progress_of(phases),
    )
