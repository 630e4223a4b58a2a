"""Everything that a config names, built: data, task, network, steps."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxseg import (
    augment,
    class_weights,
    misfits,
    optim,
    parallel,
    parsing,
    steps,
    train_state,
)
from jaxseg.config import Run
from jaxseg.data.dataset import Dataset, load_dataset, num_workers
from jaxseg.data.pipeline import CropLoader, EvalLoader, TrainLoader
from jaxseg.data.segmented import choose_masks
from jaxseg.data.splits import Split, make_split, read_split
from jaxseg.datasets import DATASETS
from jaxseg.losses import LOSSES
from jaxseg.models import MODELS
from jaxseg.phases import (
    Phase,
    Size,
    progress_of,
    resize_batch,
    sizes_of,
    step_at,
)
from jaxseg.plan import make_plan, make_task
from jaxseg.pretrained import load_start
from jaxseg.tasks import TASKS, Task
from jaxseg.train_state import TrainState
from jaxseg.types import Batch

SCHEMAS = parsing.Schemas(TASKS, MODELS, DATASETS, LOSSES, augment.AUGMENTS)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to train or to evaluate.

    Attributes:
      split: of the samples of the dataset.
      record_split: of its records, as split.csv has it; the same without crops.
      loss: the config's, with numbers for all class weights.
      phases: the batches to train on, from the first epoch to the last.
      train_steps: by image size, compiled `(state, batch) -> (state, logs)` that gives
        up the old state.
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
    train_steps: Mapping[tuple[int, int], Callable]
    init: Callable[[], TrainState]
    load_start: Callable[[], dict[str, Any] | None]
    eval_step: Callable
    predict_step: Callable
    schedule: Callable

    def start(self) -> TrainState:
        """The state before the first step."""
        state, loaded = self.init(), self.load_start()
        return state if loaded is None else train_state.start_from(state, loaded)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        sharding = parallel.replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            jax.eval_shape(self.init),
        )

    @property
    def num_parameters(self) -> int:
        """Numbers that training changes; batch-norm statistics are not among them."""
        shapes = jax.eval_shape(self.init).params
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    def eval_loader(self, part: str) -> EvalLoader:
        """The images of a part, in order."""
        return EvalLoader(
            self.dataset.source,
            self.dataset.labels,
            self.split.indices(part),
            batch_size=self.run.train.batch_size,
            workers=num_workers(self.run.data),
        )


def build_experiment(run: Run, split_file: Path | None = None) -> Experiment:
    """Builds what the config names; nothing is trained and no run folder is touched.

    Args:
      split_file: an existing split.csv that stays in force; None splits anew.

    Raises:
      InputError: the data, the split or a value of the config is wrong.
    """
    plan = make_plan(run)
    mesh, listing, task, model = plan.mesh, plan.listing, plan.task, plan.model
    normalize, batch = plan.normalize, plan.batch
    dataset = load_dataset(listing, run.data, plan.rule)
    record_split = _split(run, dataset, split_file)
    parts = tuple(record_split.parts[record] for record in dataset.record_of)
    train_labels = dataset.record_labels[record_split.indices("train")]
    misfits.refuse_one_sided(run, train_labels)
    chosen = choose_masks(dataset.records, record_split.indices("train"), run.data)
    misfits.refuse_weak_labels(run, task, chosen)
    split = Split(parts, (*record_split.notes, *chosen.notes))
    phases = tuple(_make_phases(run, dataset, record_split, chosen.hidden, batch, mesh))
    misfits.refuse_small_parts(run, phases[0].loader.num_samples, mesh)
    counts = _count_classes(dataset, record_split)
    task = make_task(run, listing.classes, counts)
    eval_step = steps.make_eval_step(model, task, normalize)
    steps_before = partial(step_at, phases)
    schedule = optim.make_schedule(
        run.optim, step_at=steps_before, epochs=run.train.epochs
    )
    optimizer = optim.make_optimizer(run.optim, schedule, step_at=steps_before)
    predict_step = steps.make_predict_step(model, task, normalize)
    return Experiment(
        run=run,
        precision=plan.precision,
        dataset=dataset,
        split=split,
        record_split=record_split,
        task=task,
        loss=class_weights.resolve(run.loss, counts),
        model=model,
        mesh=mesh,
        phases=phases,
        train_steps={
            phase.size.image_size: _make_train_step(
                run, phase.size.image_size, model, task, optimizer, phases, mesh
            )
            for phase in phases
        },
        init=_make_init(run, model, optimizer, mesh),
        load_start=functools.cache(
            lambda: load_start(run.model, run.data, plan.variables)
        ),
        eval_step=parallel.compile_batch_step(eval_step, mesh),
        predict_step=parallel.compile_batch_step(predict_step, mesh),
        schedule=schedule,
    )


def _count_classes(dataset: Dataset, record_split: Split) -> np.ndarray:
    """[K] pixels of each class in the training part; images where there is no mask."""
    train = record_split.indices("train")
    pixels = [dataset.records[i].class_pixels for i in train]
    if any(pixels):
        return np.sum([counts for counts in pixels if counts], axis=0)
    return np.bincount(dataset.record_labels[train], minlength=len(dataset.classes))


def _split(run: Run, dataset: Dataset, split_file: Path | None) -> Split:
    """A new split, or the one of a run folder, whatever it is like."""
    if split_file is None:
        return make_split(dataset.records, run.data)
    return Split(tuple(read_split(split_file, dataset.records)))


def _make_phases(
    run: Run, dataset: Dataset, split: Split, hidden, batch: Batch, mesh: Mesh
) -> Iterator[Phase]:
    """`split` and `hidden` are of the records, `batch` of `train.batch_size` images."""
    first_epoch, first_step = 0, 0
    for size in sizes_of(run):
        loader = _make_train_loader(run, size, dataset, split, first_epoch, hidden)
        resized = jax.tree.map(partial(resize_batch, size.batch_size, mesh), batch)
        phase = Phase(size, first_epoch, first_step, loader, resized)
        yield phase
        first_epoch, first_step = first_epoch + size.epochs, phase.stop


def _make_train_loader(
    run: Run, size: Size, dataset: Dataset, split: Split, first_epoch: int, hidden
) -> TrainLoader:
    options = dict(
        batch_size=size.batch_size,
        sampling=run.data.sampling,
        seed=run.seed,
        workers=num_workers(run.data),
        first_epoch=first_epoch,
        hidden=hidden,
    )
    arguments = dataset.source, dataset.record_labels, split.indices("train")
    if run.data.crop is None:
        return TrainLoader(*arguments, **options)
    return CropLoader(*arguments, crop=run.data.crop, **options)


def _make_init(run: Run, model, optimizer: optax.GradientTransformation, mesh):
    def init() -> TrainState:
        return train_state.init_train_state(
            model,
            optimizer,
            image_shape=(*run.data.image_size, run.data.channels),
            seed=run.seed,
            use_ema=run.train.ema_decay is not None,
        )

    # XLA:CPU spends a second per kernel shape on optimising the random generator.
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(
        init, out_shardings=parallel.replicated(mesh), compiler_options=options
    )


def _make_train_step(
    run: Run, image_size, model, task, optimizer, phases: Sequence[Phase], mesh
) -> Callable:
    change = augment.make_augment(run.data.augment)
    step = steps.make_train_step(
        model,
        task,
        optimizer,
        lambda key, batch: change(key, augment.shrink(batch, image_size)),
        augment.make_normalize(run.data.mean, run.data.std),
        seed=run.seed,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
        parts=run.optim.parts or {},
        reduction=run.train.reduction,
        progress=progress_of(phases),
    )
    return parallel.compile_train_step(step, mesh)
