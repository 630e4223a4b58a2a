"""Training from small images to large ones: what changes from phase to phase.

A phase has its own image size, and with `train.grow_batch` a batch as large as its
smaller images allow; so its own batches and its own compiled step, and nothing else. A
training without `train.sizes` is one phase.

Source: progressive resizing, https://www.fast.ai/posts/2018-08-10-fastai-diu-imagenet
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxseg import parallel
from jaxseg.config import Run
from jaxseg.data.pipeline import HostBatch, TrainLoader
from jaxseg.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class Size:
    """What the config says of a phase."""

    image_size: tuple[int, int]  # (H, W) that the network sees
    epochs: int
    batch_size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Consecutive epochs at one image size.

    Attributes:
      first_epoch: counted from 0.
      first_step: counted from 0, over all phases.
      loader: counts its steps and epochs from the first of the phase.
      abstract_batch: shapes, dtypes and shardings of what the loader gives for a step.
    """

    size: Size
    first_epoch: int
    first_step: int
    loader: TrainLoader
    abstract_batch: Batch

    @property
    def stop(self) -> int:
        """The first step after the phase."""
        return self.first_step + self.size.epochs * self.loader.steps_per_epoch

    def first_step_of(self, epoch: int) -> int:
        """The first step of an epoch of this phase, or the last of it plus one."""
        return (
            self.first_step + (epoch - self.first_epoch) * self.loader.steps_per_epoch
        )

    def batches(self, start: int, stop: int) -> Iterator[HostBatch]:
        """Batches of the steps start <= k < stop."""
        return self.loader.batches(start - self.first_step, stop - self.first_step)

    def positions_of(self, step: int):
        """Positions in the whole set of the samples of a step, [batch_size]."""
        return self.loader.positions_of(step - self.first_step)


def sizes_of(run: Run) -> tuple[Size, ...]:
    """The phases of a config; the last one has `data.image_size`."""
    (height, width), train = run.data.image_size, run.train
    if not train.sizes:
        return (Size((height, width), train.epochs, train.batch_size),)
    sizes = []
    for side, epochs in train.sizes:
        small = (side, side * width // height)
        growth = height * width // (small[0] * small[1]) if train.grow_batch else 1
        sizes.append(Size(small, epochs, train.batch_size * growth))
    return tuple(sizes)


def abstract_batch(run: Run, n: int, has_masks: bool, fields, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a batch of n images.

    Args:
      fields: shape and dtype of further arrays of an image.
    """
    size = run.data.image_size
    arrays = {
        "image": ((n, *size, run.data.channels), jnp.uint8),
        "label": ((n,), jnp.int32),
        "valid": ((n,), jnp.bool_),
        "index": ((n,), jnp.int32),
    }
    if has_masks:
        arrays["mask"] = ((n, *size), jnp.uint8)
    arrays |= {name: ((n, *shape), dtype) for name, (shape, dtype) in fields.items()}
    sharding = parallel.split_batch(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in arrays.items()
    }


def resize_batch(
    n: int, mesh: Mesh, array: jax.ShapeDtypeStruct
) -> jax.ShapeDtypeStruct:
    """The same array for n images."""
    sharding = parallel.split_batch(mesh)
    return jax.ShapeDtypeStruct((n, *array.shape[1:]), array.dtype, sharding=sharding)


def progress_of(phases: Sequence[Phase]) -> Callable[[Array], Array]:
    """step -> share of all epochs that are done before its epoch; traceable."""
    starts = [
        phase.first_step_of(phase.first_epoch + epoch)
        for phase in phases
        for epoch in range(phase.size.epochs)
    ]

    def progress(step: Array) -> Array:
        epoch = jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1
        return epoch / len(starts)

    return progress


def epoch_of(phases: Sequence[Phase], step: int) -> int:
    """The epoch that a step belongs to."""
    phase = next((p for p in phases if step < p.stop), phases[-1])
    return phase.first_epoch + (step - phase.first_step) // phase.loader.steps_per_epoch


def phase_of(phases: Sequence[Phase], epoch: int) -> Phase:
    """The phase that an epoch belongs to."""
    return next(p for p in reversed(phases) if p.first_epoch <= epoch)


def step_at(phases: Sequence[Phase], epoch: float) -> int:
    """Steps before a moment, in epochs from 0 to the end of the training or later."""
    phase = phase_of(phases, int(epoch))
    elapsed = (epoch - phase.first_epoch) * phase.loader.steps_per_epoch
    return phase.first_step + round(elapsed)
