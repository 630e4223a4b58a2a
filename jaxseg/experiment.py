"""Everything that a config names, built: data, task, network, steps."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxseg import augment, optim, parallel, progress, steps, train_state
from jaxseg.backend import resolve_precision
from jaxseg.config import Run, Schemas
from jaxseg.data.dataset import Dataset, load_dataset, num_workers, refuse_small_parts
from jaxseg.data.pipeline import EvalLoader, TrainLoader
from jaxseg.data.splits import Split, make_split, read_split
from jaxseg.datasets import DATASETS
from jaxseg.errors import InputError
from jaxseg.losses import LOSSES, make_loss
from jaxseg.models import MODELS
from jaxseg.models.heads import check_stride
from jaxseg.tasks import TASKS, Task, num_outputs
from jaxseg.train_state import TrainState
from jaxseg.types import Batch

SCHEMAS = Schemas(TASKS, MODELS, DATASETS, LOSSES, augment.make_augment)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to train or to evaluate.

    Attributes:
      init: makes the state before the first step, on the devices.
      train_step: compiled `(state, batch) -> (state, logs)`; gives up the old state.
      eval_step: compiled `(variables, batch) -> counts`.
      predict_step: compiled `(variables, batch) -> probabilities`.
      schedule: step -> learning rate before the plateau.
    """

    run: Run
    precision: str
    dataset: Dataset
    split: Split
    task: Task
    model: nn.Module
    mesh: Mesh
    train_loader: TrainLoader
    init: Callable[[], TrainState]
    train_step: Callable
    eval_step: Callable
    predict_step: Callable
    schedule: Callable

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
    mesh = parallel.make_mesh(run.train.batch_size)
    precision = resolve_precision(run.train.precision)
    scan = DATASETS[run.data.source.name]
    listing = scan(Path(run.data.dir).expanduser(), **run.data.source.kwargs)
    task = TASKS[run.task.name](listing.classes, make_loss(run.loss), **run.task.kwargs)
    model = MODELS[run.model.name](
        num_outputs(listing.classes), jnp.dtype(precision), **run.model.kwargs
    )
    _refuse_misfits(run, model)
    has_masks = any(record.mask for record in listing.records)
    _refuse_wrong_task(run, task, model, has_masks)
    dataset = load_dataset(listing, run.data)
    for note in dataset.notes:
        progress.console.print(f"- {note}", markup=False)
    split = (
        make_split(dataset.records, run.data)
        if split_file is None
        else Split(tuple(read_split(split_file, dataset.records)))
    )
    refuse_small_parts(split, run.train.batch_size, mesh.size)
    loader = TrainLoader(
        dataset.source,
        dataset.labels,
        split.indices("train"),
        batch_size=run.train.batch_size,
        sampling=run.data.sampling,
        seed=run.seed,
        workers=num_workers(run.data),
    )
    schedule = optim.make_schedule(
        run.optim, steps_per_epoch=loader.steps_per_epoch, epochs=run.train.epochs
    )
    optimizer = optim.make_optimizer(run.optim, schedule)
    normalize = augment.make_normalize(run.data.mean, run.data.std)
    experiment = Experiment(
        run=run,
        precision=precision,
        dataset=dataset,
        split=split,
        task=task,
        model=model,
        mesh=mesh,
        train_loader=loader,
        init=_make_init(run, model, optimizer, mesh),
        train_step=_make_train_step(run, model, task, optimizer, normalize, mesh),
        eval_step=parallel.compile_batch_step(
            steps.make_eval_step(model, task, normalize), mesh
        ),
        predict_step=parallel.compile_batch_step(
            steps.make_predict_step(model, task, normalize), mesh
        ),
        schedule=schedule,
    )
    _refuse_unknown_monitor(experiment)
    return experiment


def abstract_batch(experiment: Experiment) -> Batch:
    """Shapes, dtypes and shardings of a training batch."""
    batch = experiment.train_loader.buffers.take()
    experiment.train_loader.buffers.give_back(batch)
    sharding = parallel.split_batch(experiment.mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch
    )


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


def _make_train_step(run: Run, model, task, optimizer, normalize, mesh) -> Callable:
    step = steps.make_train_step(
        model,
        task,
        optimizer,
        augment.make_augment(**run.data.augment),
        normalize,
        seed=run.seed,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
    )
    return parallel.compile_train_step(step, mesh)


def _refuse_misfits(run: Run, model: nn.Module) -> None:
    """What the network cannot do with this size or batch."""
    check_stride(run.data.image_size, getattr(model, "stride", 1))
    height, width = run.data.image_size
    if run.data.augment["transpose"] > 0 and height != width:
        raise InputError(
            "a square image size, or no transposes",
            f"config.data.image_size={run.data.image_size}",
            "--config.data.augment.transpose=0.0",
        )
    micro_batch = run.train.batch_size // run.train.accumulate
    group = run.model.kwargs.get("bn_group") or micro_batch
    if micro_batch % group:
        raise InputError(
            "batch-norm groups that fill the (micro-)batch evenly",
            f"config.model.bn_group={group} and {micro_batch} images at a time",
            f"--config.model.bn_group={np.gcd(group, micro_batch)}",
        )


def _refuse_wrong_task(run: Run, task: Task, model: nn.Module, has_masks: bool) -> None:
    """The task must find its annotations in the data and its logits in the network."""
    if "seg_logits" in task.needs and not has_masks:
        raise InputError(
            f"masks for config.task.name={run.task.name}",
            f"{run.data.source.name} has image classes only",
            "--config.task.name=classification with a classifier, as configs/sdnet.py",
        )
    image = jnp.zeros((1, *run.data.image_size, run.data.channels))
    outputs, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    missing = [name for name in task.needs if name not in outputs]
    if missing:
        raise InputError(
            f"a network that gives {' and '.join(task.needs)}, which "
            f"config.task.name={run.task.name} learns from",
            f"config.model.name={run.model.name} gives {' and '.join(outputs)}",
            "a unet for masks (with image_head=True for task joint), "
            "a resnet or simple_cnn for image classes",
        )


def _refuse_unknown_monitor(experiment: Experiment) -> None:
    names = metric_names(experiment)
    monitor = experiment.run.train.monitor
    if monitor not in names:
        raise InputError(
            "config.train.monitor to name a metric of the validation set",
            repr(monitor),
            f"--config.train.monitor= one of {', '.join(names)}",
        )


def metric_names(experiment: Experiment) -> list[str]:
    """Names of the validation metrics, without running the network."""
    task = experiment.task
    state = jax.eval_shape(experiment.init)
    shapes: Any = jax.eval_shape(
        experiment.eval_step,
        train_state.inference_variables(state),
        abstract_batch(experiment),
    )
    counts = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    summary = task.summarize(counts, task.choose_thresholds(counts))
    return ["loss", *summary]
