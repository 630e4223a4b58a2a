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
    metrics,
    misfits,
    optim,
    parallel,
    parsing,
    steps,
    train_state,
)
from jaxseg.backend import resolve_precision
from jaxseg.config import Run
from jaxseg.data.dataset import Dataset, load_dataset, num_workers
from jaxseg.data.pipeline import CropLoader, EvalLoader, TrainLoader
from jaxseg.data.segmented import choose_masks
from jaxseg.data.splits import Split, make_split, read_split
from jaxseg.data.targets import TargetRule, target_fields
from jaxseg.datasets import DATASETS
from jaxseg.datasets.record import Listing
from jaxseg.losses import LOSSES, make_loss
from jaxseg.models import MODELS
from jaxseg.phases import (
    Phase,
    Size,
    abstract_batch,
    progress_of,
    resize_batch,
    sizes_of,
    step_at,
)
from jaxseg.pretrained import load_start
from jaxseg.schema import takes_loss
from jaxseg.tasks import TASKS, Task, num_outputs
from jaxseg.train_state import TrainState
from jaxseg.types import Batch, Outputs

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
    plan = _plan(run)
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
    task = _make_task(run, listing.classes, counts)
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
                run,
                phase.size.image_size,
                model,
                task,
                optimizer,
                normalize,
                progress_of(phases),
                mesh,
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


def refuse_misfits(run: Run) -> None:
    """Raises InputError for what can be told without opening an image."""
    _plan(run)


class _Plan(NamedTuple):
    """What is built before an image is opened; class weights are not known yet."""

    precision: str
    mesh: Mesh
    listing: Listing
    task: Task
    rule: TargetRule | None  # how targets are made
    model: nn.Module
    normalize: Callable
    batch: Batch  # shapes
    variables: Any  # shapes


def _plan(run: Run) -> _Plan:
    mesh = parallel.make_mesh(run.train.batch_size)
    precision = resolve_precision(run.train.precision)
    scan = DATASETS[run.data.source.name]
    listing = scan(Path(run.data.dir).expanduser(), **run.data.source.kwargs)
    task = _make_task(run, listing.classes, np.ones(len(listing.classes)))
    model = MODELS[run.model.network.name](
        num_outputs(listing.classes), jnp.dtype(precision), **run.model.network.kwargs
    ).clone(remat=run.train.remat)
    has_masks = any(record.mask for record in listing.records)
    normalize = augment.make_normalize(run.data.mean, run.data.std)
    # Class weights may need the split; no check of this kind depends on their values.
    variables, batch, rule = _refuse_misfits(
        run, model, task, normalize, has_masks, mesh
    )
    return _Plan(
        precision, mesh, listing, task, rule, model, normalize, batch, variables
    )


def _refuse_misfits(run: Run, model: nn.Module, task: Task, normalize, has_masks, mesh):
    """Refuses what needs no data to be told.

    Returns:
      Shapes of the network's variables and of a batch, and how targets are made.
    """
    misfits.refuse_values(run)
    variables, outputs = _variables_and_outputs(run, model)
    misfits.refuse_wrong_task(run, task, outputs, has_masks)
    rule = task.targets and task.targets.for_network(outputs)
    misfits.refuse_moved_targets(run, rule)
    misfits.refuse_sizes(run, lambda size: _variables_and_outputs(run, model, size)[0])
    misfits.refuse_unknown_parts(run, variables["params"])
    fields = target_fields(run.data.image_size, rule) if rule else {}
    batch = abstract_batch(run, run.train.batch_size, has_masks, fields, mesh)
    eval_step = steps.make_eval_step(model, task, normalize)
    names = _metric_names(run, task, model, eval_step, batch)
    misfits.refuse_unknown_monitor(run, names)
    return variables, batch, rule


def _make_task(run: Run, classes: tuple[str, ...], counts: Sequence[int]) -> Task:
    make = TASKS[run.task.name]
    if not takes_loss(make):
        return make(classes, **run.task.kwargs)
    loss = make_loss(class_weights.resolve(run.loss, counts))
    return make(classes, loss, **run.task.kwargs)


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


def _variables_and_outputs(
    run: Run, model: nn.Module, image_size: tuple[int, int] | None = None
) -> tuple[Any, Outputs]:
    """Shapes of a network's variables and outputs, for one image."""
    size = image_size or run.data.image_size
    image = jnp.zeros((1, *size, run.data.channels))
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    return variables, outputs


def _metric_names(run: Run, task: Task, model, eval_step, batch: Batch) -> list[str]:
    """Names of the validation metrics, without data and without running anything."""
    variables, _ = _variables_and_outputs(run, model)
    shapes = jax.eval_shape(eval_step, variables, batch)
    counts = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    thresholds = task.choose_thresholds(counts)
    return [*metrics.loss_summary(counts), *task.summarize(counts, thresholds)]


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
    run: Run, image_size, model, task, optimizer, normalize, progress, mesh
) -> Callable:
    change = augment.make_augment(run.data.augment)
    step = steps.make_train_step(
        model,
        task,
        optimizer,
        lambda key, batch: change(key, augment.shrink(batch, image_size)),
        normalize,
        seed=run.seed,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
        parts=run.optim.parts or {},
        reduction=run.train.reduction,
        progress=progress,
    )
    return parallel.compile_train_step(step, mesh)
