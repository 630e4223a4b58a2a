"""Everything that a config names, built: data, task, network, steps."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxseg import augment, class_weights, optim, parallel, steps, train_state
from jaxseg.backend import resolve_precision
from jaxseg.config import Run, Schemas
from jaxseg.data.dataset import Dataset, load_dataset, num_workers, refuse_small_parts
from jaxseg.data.pipeline import CropLoader, EvalLoader, TrainLoader
from jaxseg.data.splits import Split, make_split, read_split
from jaxseg.datasets import DATASETS
from jaxseg.errors import InputError
from jaxseg.losses import LOSSES, make_loss
from jaxseg.models import MODELS
from jaxseg.pretrained import load_start
from jaxseg.tasks import TASKS, Task, num_outputs
from jaxseg.train_state import TrainState
from jaxseg.types import Batch, Outputs

SCHEMAS = Schemas(TASKS, MODELS, DATASETS, LOSSES, augment.AUGMENTS)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to train or to evaluate.

    Attributes:
      split: of the samples of the dataset.
      record_split: of its records, as split.csv has it; the same without crops.
      loss: the config's, with numbers for all class weights.
      abstract_batch: shapes, dtypes and shardings of a training batch.
      init: makes a state of random weights, on the devices.
      load_start: reads the weights to start from, once; None without any.
      train_step: compiled `(state, batch) -> (state, logs)`; gives up the old state.
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
    abstract_batch: Batch
    train_loader: TrainLoader
    init: Callable[[], TrainState]
    load_start: Callable[[], dict[str, Any] | None]
    train_step: Callable
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
    mesh = parallel.make_mesh(run.train.batch_size)
    precision = resolve_precision(run.train.precision)
    scan = DATASETS[run.data.source.name]
    listing = scan(Path(run.data.dir).expanduser(), **run.data.source.kwargs)
    task = _make_task(run, listing.classes, np.ones(len(listing.classes)))
    model = MODELS[run.model.network.name](
        num_outputs(listing.classes), jnp.dtype(precision), **run.model.network.kwargs
    )
    has_masks = any(record.mask for record in listing.records)
    batch = _abstract_batch(run, has_masks, mesh)
    normalize = augment.make_normalize(run.data.mean, run.data.std)
    eval_step = steps.make_eval_step(model, task, normalize)
    # Class weights may need the split; no check of this kind depends on their values.
    _refuse_misfits(run)
    variables, outputs = _variables_and_outputs(run, model)
    _refuse_wrong_task(run, task, outputs, has_masks)
    _refuse_unknown_parts(run, variables["params"])
    _refuse_unknown_monitor(run, _metric_names(run, task, model, eval_step, batch))
    dataset = load_dataset(listing, run.data)
    record_split = _split(run, dataset, split_file)
    parts = tuple(record_split.parts[record] for record in dataset.record_of)
    split = Split(parts, record_split.notes)
    per_image = run.data.crop.per_image if run.data.crop else 1
    num_train = len(record_split.indices("train")) * per_image
    refuse_small_parts(num_train, run.train.batch_size, mesh.size)
    counts = _count_classes(dataset, record_split)
    task = _make_task(run, listing.classes, counts)
    eval_step = steps.make_eval_step(model, task, normalize)
    loader = _make_train_loader(run, dataset, record_split)
    schedule = optim.make_schedule(
        run.optim, steps_per_epoch=loader.steps_per_epoch, epochs=run.train.epochs
    )
    optimizer = optim.make_optimizer(
        run.optim, schedule, steps_per_epoch=loader.steps_per_epoch
    )
    predict_step = steps.make_predict_step(model, task, normalize)
    return Experiment(
        run=run,
        precision=precision,
        dataset=dataset,
        split=split,
        record_split=record_split,
        task=task,
        loss=class_weights.resolve(run.loss, counts),
        model=model,
        mesh=mesh,
        abstract_batch=batch,
        train_loader=loader,
        init=_make_init(run, model, optimizer, mesh),
        load_start=functools.cache(
            lambda: load_start(
                run.model, run.data, _variables_and_outputs(run, model)[0]
            )
        ),
        train_step=_make_train_step(run, model, task, optimizer, normalize, mesh),
        eval_step=parallel.compile_batch_step(eval_step, mesh),
        predict_step=parallel.compile_batch_step(predict_step, mesh),
        schedule=schedule,
    )


def _make_task(run: Run, classes: tuple[str, ...], counts: Sequence[int]) -> Task:
    loss = make_loss(class_weights.resolve(run.loss, counts))
    return TASKS[run.task.name](classes, loss, **run.task.kwargs)


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


def _make_train_loader(run: Run, dataset: Dataset, split: Split) -> TrainLoader:
    """`split` is that of the records."""
    options = dict(
        batch_size=run.train.batch_size,
        sampling=run.data.sampling,
        seed=run.seed,
        workers=num_workers(run.data),
    )
    arguments = dataset.source, dataset.record_labels, split.indices("train")
    if run.data.crop is None:
        return TrainLoader(*arguments, **options)
    return CropLoader(*arguments, crop=run.data.crop, **options)


def _variables_and_outputs(run: Run, model: nn.Module) -> tuple[Any, Outputs]:
    """Shapes of a network's variables and outputs, for one image."""
    image = jnp.zeros((1, *run.data.image_size, run.data.channels))
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    return variables, outputs


def _abstract_batch(run: Run, has_masks: bool, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a training batch."""
    n, size = run.train.batch_size, run.data.image_size
    arrays = {
        "image": ((n, *size, run.data.channels), jnp.uint8),
        "label": ((n,), jnp.int32),
        "valid": ((n,), jnp.bool_),
        "index": ((n,), jnp.int32),
    }
    if has_masks:
        arrays["mask"] = ((n, *size), jnp.uint8)
    sharding = parallel.split_batch(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in arrays.items()
    }


def _metric_names(run: Run, task: Task, model, eval_step, batch: Batch) -> list[str]:
    """Names of the validation metrics, without data and without running anything."""
    variables, _ = _variables_and_outputs(run, model)
    shapes = jax.eval_shape(eval_step, variables, batch)
    counts = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    return ["loss", *task.summarize(counts, task.choose_thresholds(counts))]


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
        augment.make_augment(run.data.augment),
        normalize,
        seed=run.seed,
        accumulate=run.train.accumulate,
        ema_decay=run.train.ema_decay,
        parts=run.optim.parts or {},
    )
    return parallel.compile_train_step(step, mesh)


def _refuse_misfits(run: Run) -> None:
    """Values of different groups that do not go together."""
    augment.refuse_misfits(
        run.data.augment,
        image_size=run.data.image_size,
        channels=run.data.channels,
        task=run.task.name,
    )
    micro_batch = run.train.batch_size // run.train.accumulate
    group = run.model.network.kwargs["bn_group"] or micro_batch
    if micro_batch % group:
        raise InputError(
            "batch-norm groups that fill the (micro-)batch evenly",
            f"config.model.bn_group={group} and {micro_batch} images at a time",
            f"--config.model.bn_group={math.gcd(group, micro_batch)}",
        )


def _refuse_wrong_task(run: Run, task: Task, outputs: Outputs, has_masks: bool) -> None:
    """The task must find its annotations in the data and its logits in the network."""
    name = f"config.task.name={run.task.name}"
    if "seg_logits" in task.needs and not has_masks:
        raise InputError(
            f"masks for {name}",
            f"{run.data.source.name} has image classes only",
            "--config.task.name=classification with a classifier, as configs/sdnet.py",
        )
    if run.data.crop is not None and task.needs != ("seg_logits",):
        raise InputError(
            "a task of masks alone for config.data.crop: what an image shows, a window "
            "of it may not",
            name,
            "--config.data.crop=none, or --config.task.name=segmentation",
        )
    if "seg_logits" not in task.needs and has_masks and len(task.classes) > 2:
        raise InputError(
            f"image classes for {name}",
            f"{run.data.source.name} with masks of {len(task.classes)} pixel classes",
            "--config.task.name=segmentation with a unet, as folder_segmentation.py",
        )
    missing = [needed for needed in task.needs if needed not in outputs]
    if missing:
        raise InputError(
            f"a network that gives {' and '.join(task.needs)}, for {name}",
            f"config.model.name={run.model.network.name} gives {' and '.join(outputs)}",
            "a unet for masks (with image_head=True for task joint), "
            "a classifier or simple_cnn for image classes",
        )


def _refuse_unknown_parts(run: Run, params: Any) -> None:
    unknown = optim.unknown_parts(params, run.optim.parts or {})
    if unknown:
        raise InputError(
            "config.optim.parts to name parts of the network",
            f"{', '.join(unknown)}; it has {', '.join(params)}",
            "--config.optim.parts=\"{'encoder': {'rate': 0.1, 'from_epoch': 0}}\"",
        )


def _refuse_unknown_monitor(run: Run, names: list[str]) -> None:
    if run.train.monitor not in names:
        raise InputError(
            "config.train.monitor to name a metric of the validation set",
            repr(run.train.monitor),
            f"--config.train.monitor= one of {', '.join(names)}",
        )
