"""What a config alone cannot tell: values, data and network that do not go together.

Everything is refused with an InputError, before anything is written where that can be.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxseg import augment, hosts, optim, trackers
from jaxseg.config import Run
from jaxseg.data.segmented import Segmented
from jaxseg.data.targets import TargetRule
from jaxseg.errors import InputError, shorten
from jaxseg.memory import Need
from jaxseg.phases import sizes_of
from jaxseg.tasks import Task
from jaxseg.types import Outputs


def refuse_values(run: Run) -> None:
    """Values of different groups, or of the machine, that do not go together."""
    trackers.refuse_missing(run.train.log_to)
    augment.refuse_misfits(
        run.data.augment,
        image_size=run.data.image_size,
        channels=run.data.channels,
        task=run.task.name,
    )
    micro_batch = run.train.batch_size // run.train.accumulate
    group = run.model.network.kwargs.get("bn_group") or micro_batch
    if micro_batch % group:
        raise InputError(
            "batch-norm groups that fill the (micro-)batch evenly",
            f"config.model.bn_group={group} and {micro_batch} images at a time",
            f"--config.model.bn_group={math.gcd(group, micro_batch)}",
        )


def refuse_wrong_task(run: Run, task: Task, outputs: Outputs, has_masks: bool) -> None:
    """The task must find its annotations in the data and its logits in the network."""
    name = f"config.task.name={run.task.name}"
    if "seg_logits" in task.needs and not has_masks:
        raise InputError(
            f"masks for {name}",
            f"{run.data.source.name} has image classes only",
            "--config.task.name=classification with a classifier, as configs/sdnet.py",
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
            "a unet or encoder_unet for masks (image_head=True for joint and segdec), "
            "a classifier or simple_cnn for image classes",
        )


def refuse_crop_without_masks(run: Run, has_masks: bool) -> None:
    """A window shows what its pixels show: without a mask nobody knows."""
    if run.data.crop is not None and not has_masks:
        raise InputError(
            "masks, to know what a window shows (config.data.crop)",
            f"{run.data.source.name} has image classes only",
            "--config.data.crop=none resizes whole images",
        )


def refuse_moved_targets(run: Run, rule: TargetRule | None) -> None:
    """Targets of the task segdec are made once: nothing may cut or bend the images.

    At full size a target is a value per pixel, and flips and quarter turns take it
    along. SegDecNet's coarse windows are centred on the first pixel of every eight: the
    target of a mirrored image is not the mirrored target.
    """
    if rule is None:
        return
    exact = augment.MOVES if rule.stride == 1 else ()
    moves = [name for name in augment.moving(run.data.augment) if name not in exact]
    allowed = "only flipped or turned" if exact else "that stay as they are"
    for is_there, found, fix in (
        (
            moves,
            f"data.augment with {', '.join(moves)}",
            " ".join(f"--config.data.augment.{name}.p=0" for name in moves),
        ),
        (run.data.crop, "data.crop", "--config.data.crop=none"),
        (run.train.sizes, "train.sizes", '--config.train.sizes="()"'),
    ):
        if is_there:
            raise InputError(
                f"images {allowed} for config.task.name={run.task.name}, whose targets "
                "are made once",
                f"config.{found}",
                fix,
            )


def refuse_weak_labels(run: Run, task: Task, chosen: Segmented) -> None:
    """What learns from masks needs the mask of one defect at least."""
    if chosen.hidden is None or chosen.count or "seg_logits" not in task.needs:
        return
    found = "none of the training images with a defect is learned from its mask"
    if task.targets is None:
        raise InputError(
            f"masks of defects for config.task.name={run.task.name}",
            found,
            "--config.data.num_segmented=1 or more; task segdec learns from labels too",
        )
    idle = [key for key in ("dynamic", "weighted") if run.task.kwargs[key]]
    if idle:
        raise InputError(
            "config.task.dynamic and .weighted to be off without masks: there is "
            "nothing to weigh, and no segmentation to begin with",
            f"{found}, and {' and '.join(idle)} on",
            " ".join(f"--config.task.{key}=false" for key in idle),
        )


def refuse_unknown_parts(run: Run, params: Any) -> None:
    unknown = optim.unknown_parts(params, run.optim.parts or {})
    if unknown:
        raise InputError(
            "config.optim.parts to name parts of the network",
            f"{', '.join(unknown)}; it has {', '.join(params)}",
            "--config.optim.parts=\"{'encoder': {'rate': 0.1, 'from_epoch': 0}}\"",
        )


def refuse_unknown_monitor(run: Run, names: list[str]) -> None:
    if run.train.monitor not in names:
        raise InputError(
            "config.train.monitor to name a metric of the validation set",
            repr(run.train.monitor),
            f"--config.train.monitor= one of {', '.join(names)}",
        )


def refuse_one_sided(run: Run, task: Task, labels: np.ndarray) -> None:
    """A decision is learned from both kinds of images; only both can be matched.

    Windows of one image (`data.crop`) may be of both kinds.

    Args:
      labels: of the images of the training part.
    """
    has_masks, decides = ("seg_logits" in task.needs), ("cls_logits" in task.needs)
    is_binary = has_masks or len(task.classes) == 2
    if decides and is_binary and run.data.crop is None:
        reason = f"task.name={run.task.name!r}"
        fix = (
            "--config.task.name=segmentation with its keys, which decides nothing"
            if has_masks
            else "add images of the other kind"
        )
    elif run.data.sampling in ("matched", "least_used"):
        reason = f"data.sampling={run.data.sampling!r}"
        fix = "--config.data.sampling=shuffle"
    else:
        return
    clean, defect = (labels == 0).sum(), (labels > 0).sum()
    if not (clean and defect):
        raise InputError(
            f"clean and defect images in the training part, for config.{reason}",
            f"{len(labels)} images, none of them {'defect' if clean else 'clean'}",
            fix,
        )


def refuse_small_parts(run: Run, num_train: int, mesh: Mesh) -> None:
    """The training part must fill one batch, of every size."""
    if num_train < run.train.batch_size:
        fitting = num_train // mesh.size * mesh.size
        raise InputError(
            "at least one full batch of training images",
            f"{num_train} training image(s) and batches of {run.train.batch_size}",
            f"--config.train.batch_size={fitting}" if fitting else "add images",
        )
    largest = max(size.batch_size for size in sizes_of(run))
    if largest > num_train:
        raise InputError(
            "at least one full batch of training images of every size",
            f"{num_train} training images and batches that grow to {largest}",
            "--config.train.grow_batch=false",
        )


def refuse_sizes(run: Run, shapes: Callable[[tuple[int, int]], Any]) -> None:
    """Sizes that the network cannot see.

    Args:
      shapes: `image_size -> shapes of the network's parameters`.

    Raises:
      InputError: a size that the network's stride does not divide, or a network whose
        parameters depend on the size.
    """
    full = shapes(run.data.image_size)
    for size in sizes_of(run):
        try:
            small = shapes(size.image_size)
        except InputError as error:
            raise InputError(
                f"{error.expected}, in config.train.sizes too",
                f"{size.image_size}",
                "heights in --config.train.sizes that it divides",
            ) from None
        if small != full:
            raise InputError(
                "a network that fits images of every size, for config.train.sizes",
                f"config.model.name={run.model.network.name}, made for one size",
                '--config.train.sizes="()"',
            )


def refuse_large_step(
    need: Need | None, free: int | None, batch_size: int, resident: int = 0
) -> None:
    """A step whose activations the device has no room for, told before it runs.

    Args:
      resident: bytes of training pixels on the device.
    """
    if need is None or free is None or need.added <= free:
        return
    pixels = f" beside {resident / 1e9:.2f} GB of pixels" if resident else ""
    raise out_of_memory(
        batch_size,
        f"{need.added / 1e9:.2f} GB for activations and gradients, {free / 1e9:.2f} GB "
        f"free{pixels}",
        "--config.data.cache=host, " if resident else "",
    )


def out_of_memory(
    batch_size: int, found: str = "its memory is exhausted", first: str = ""
) -> InputError:
    """The error for a batch that the device has no room for.

    Args:
      first: what to try before smaller batches.
    """
    return InputError(
        f"room on the device for batches of {batch_size}",
        found,
        f"{first}--config.train.batch_size={max(batch_size // 2, 1)}, "
        "--config.train.accumulate=2 or --config.train.remat=norms, with --restart",
    )


def not_finite(
    step: int, loss: float, ids: Sequence[str], kept: int | None
) -> InputError:
    """The error for a loss or gradient that is NaN or infinite, in all processes.

    Args:
      ids: of the images.
      kept: step of the last checkpoint.
    """
    saved = f"the checkpoint of step {kept} is kept" if kept else "nothing is saved"
    return hosts.SharedError(
        "a finite loss and gradient",
        f"loss {loss} at step {step}, with the images {shorten(ids, 8)}; {saved}",
        "a lower --config.optim.learning_rate or --config.optim.clip_norm=1.0, "
        "with --restart or in a new --workdir",
    )
