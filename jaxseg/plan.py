"""What a config names, built before an image is opened, or refused."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxseg import augment, class_weights, metrics, misfits, parallel, steps
from jaxseg.backend import resolve_precision
from jaxseg.config import Run
from jaxseg.data.targets import TargetRule, target_fields
from jaxseg.datasets import DATASETS
from jaxseg.datasets.record import Listing
from jaxseg.losses import make_loss
from jaxseg.models import MODELS
from jaxseg.phases import abstract_batch
from jaxseg.schema import takes_loss
from jaxseg.tasks import TASKS, Task, num_outputs
from jaxseg.types import Batch, Outputs


class Plan(NamedTuple):
    """Class weights are not known yet."""

    precision: str
    mesh: Mesh
    listing: Listing
    task: Task
    rule: TargetRule | None  # how targets are made
    model: nn.Module
    normalize: Callable
    batch: Batch  # shapes
    variables: Any  # shapes


def make_plan(run: Run) -> Plan:
    """Scans the folder and builds the network, as shapes.

    Raises:
      InputError: whatever can be told without opening an image.
    """
    mesh = parallel.make_mesh(run.train.batch_size)
    precision = resolve_precision(run.train.precision)
    scan = DATASETS[run.data.source.name]
    listing = scan(Path(run.data.dir).expanduser(), **run.data.source.kwargs)
    task = make_task(run, listing.classes, np.ones(len(listing.classes)))
    model = MODELS[run.model.network.name](
        num_outputs(listing.classes), jnp.dtype(precision), **run.model.network.kwargs
    ).clone(remat=run.train.remat)
    has_masks = any(record.mask for record in listing.records)
    normalize = augment.make_normalize(run.data.mean, run.data.std)
    # Class weights may need the split; no check of this kind depends on their values.
    variables, batch, rule = _refuse_misfits(
        run, model, task, normalize, has_masks, mesh
    )
    return Plan(
        precision, mesh, listing, task, rule, model, normalize, batch, variables
    )


def make_task(run: Run, classes: tuple[str, ...], counts: Sequence[int]) -> Task:
    """The task of a config, for so many pixels (or images) of each class."""
    make = TASKS[run.task.name]
    if not takes_loss(make):
        return make(classes, **run.task.kwargs)
    loss = make_loss(class_weights.resolve(run.loss, counts))
    return make(classes, loss, **run.task.kwargs)


def _refuse_misfits(run: Run, model: nn.Module, task: Task, normalize, has_masks, mesh):
    """Refuses what needs no data to be told.

    Returns:
      Shapes of the network's variables and of a batch, and how targets are made.
    """
    misfits.refuse_values(run)
    # Tracing a deep encoder takes a second or two.
    trace = functools.cache(partial(_variables_and_outputs, model, run.data.channels))
    variables, outputs = trace(run.data.image_size)
    misfits.refuse_wrong_task(run, task, outputs, has_masks)
    misfits.refuse_crop_without_masks(run, has_masks)
    rule = task.targets and task.targets.for_network(outputs)
    misfits.refuse_moved_targets(run, rule)
    misfits.refuse_sizes(run, lambda size: trace(size)[0])
    misfits.refuse_unknown_parts(run, variables["params"])
    fields = target_fields(run.data.image_size, rule) if rule else {}
    batch = abstract_batch(run, run.train.batch_size, has_masks, fields, mesh)
    eval_step = steps.make_eval_step(model, task, normalize)
    names = _metric_names(task, eval_step, variables, batch)
    misfits.refuse_unknown_monitor(run, names)
    return variables, batch, rule


def _variables_and_outputs(
    model: nn.Module, channels: int, image_size: tuple[int, int]
) -> tuple[Any, Outputs]:
    """Shapes of a network's variables and outputs, for one image."""
    image = jnp.zeros((1, *image_size, channels))
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    return variables, outputs


def _metric_names(
    task: Task, eval_step: Callable, variables: Any, batch: Batch
) -> list[str]:
    """Names of the validation metrics, without data and without running anything."""
    shapes = jax.eval_shape(eval_step, variables, batch)
    counts = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    thresholds = task.choose_thresholds(counts)
    return [*metrics.loss_summary(counts), *task.summarize(counts, thresholds)]
