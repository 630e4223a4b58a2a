"""Training samples as the network sees them: original and augmented, mask outlined."""

import itertools
import math
import textwrap
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxseg import augment, steps
from jaxseg.data.sampling import epoch_order
from jaxseg.data.tiles import window_labels
from jaxseg.experiment import Experiment
from jaxseg.report import overlays
from jaxseg.types import IGNORE

NUM_VERSIONS = 5
PANEL = 256  # pixels that the longer side of a panel has at least
MARK = (0, 255, 163)  # outline where there is one class: on no surface a colour


def draw_augmented(experiment: Experiment, num_samples: int) -> Image.Image:
    """A row per training sample: the original, then what the first steps make of it.

    Images that are wide strips stand below each other instead.

    Version k is exactly what step k of the run would train on if these samples were
    its batch.

    Returns:
      RGB picture.
    """
    batch = _read_samples(experiment, num_samples)
    change = jax.jit(augment.make_augment(experiment.run.data.augment))
    versions = [batch]
    for step in range(NUM_VERSIONS):
        key, _ = steps.split_key(experiment.run.seed, step)
        versions.append(jax.device_get(change(key, batch)))
    ids = [experiment.dataset.ids[position] for position in batch["index"]]
    classes, panels = experiment.task.classes, []
    for sample, name in enumerate(ids):
        for number, version in enumerate(versions):
            label = _describe(version, sample, classes)
            text = f"{name}{label}" if number == 0 else f"step {number - 1}{label}"
            pixels = outline(
                version["image"][sample],
                version["mask"][sample] if "mask" in version else None,
                num_classes=len(classes),
            )
            panels.append((_shorten(text, pixels.shape[1]), pixels))
    named = ", ".join(experiment.run.data.augment) or "nothing"
    title = textwrap.wrap(f"augmented by {named}", overlays.MAX_LINE)
    legend = _legend([v["mask"] for v in versions if "mask" in v], classes)
    height, width = experiment.run.data.image_size
    columns = 1 if width > 3 * height else 1 + NUM_VERSIONS
    return overlays.compose(panels, title, legend, columns=columns)


def draw_samples(experiment: Experiment, num_samples: int) -> Image.Image:
    """Training samples as they are, masks outlined, image classes in words.

    Returns:
      RGB picture.
    """
    batch = _read_samples(experiment, num_samples)
    classes, panels = experiment.task.classes, []
    for sample, position in enumerate(batch["index"]):
        pixels = outline(
            batch["image"][sample],
            batch["mask"][sample] if "mask" in batch else None,
            num_classes=len(classes),
        )
        name = f"{experiment.dataset.ids[position]}{_describe(batch, sample, classes)}"
        panels.append((_shorten(name, pixels.shape[1]), pixels))
    legend = _legend([batch["mask"]] if "mask" in batch else [], classes)
    return overlays.compose(panels, [], legend, columns=min(6, len(panels)))


def outline(
    image: np.ndarray, mask: np.ndarray | None, *, num_classes: int
) -> np.ndarray:
    """The enlarged image with a line around every class but the background.

    The line runs outside of what it encloses, so that a thin crack stays visible.

    Args:
      image: [H, W, C] uint8.
      mask: [H, W] uint8 class ids; None draws nothing.

    Returns:
      [kH, kW, 3] uint8, k a whole number.
    """
    factor = math.ceil(PANEL / max(image.shape[:2]))
    canvas = overlays.to_rgb(image).repeat(factor, 0).repeat(factor, 1)
    if mask is None:
        return canvas
    large = mask.repeat(factor, 0).repeat(factor, 1)
    colors = outline_colors(num_classes)
    for label in np.unique(mask[mask > 0]):
        inside = large == label
        canvas[ndimage.binary_dilation(inside) & ~inside] = colors[label]
    return canvas


def outline_colors(num_classes: int) -> np.ndarray:
    """[256, 3] uint8: those of `class_colors`, but no white line on a pale wall."""
    colors = overlays.class_colors(num_classes).copy()
    if num_classes == 2:
        colors[1] = MARK
    return colors


def _read_samples(experiment: Experiment, num_samples: int) -> dict[str, np.ndarray]:
    """`image`, `mask`, `label`, `index` of training samples, the classes in turn."""
    dataset = experiment.dataset
    train = experiment.split.indices("train")
    seed, labels = experiment.run.seed, np.zeros(len(train), np.int32)
    if dataset.labels is not None:
        labels = dataset.labels[train]
    order = epoch_order(labels, mode="shuffle", seed=seed, epoch=0)
    queues = [order[labels[order] == label] for label in np.unique(labels)]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    chosen = train[[place for place in turns if place is not None][:num_samples]]
    fields = dataset.source.decoder.fields().items()
    batch = {k: np.empty((len(chosen), *s), dtype) for k, (s, dtype) in fields}
    dataset.source.read(chosen, batch)
    batch["index"] = chosen.astype(np.int32)
    if dataset.labels is None:
        batch["label"] = window_labels(batch["mask"])
    else:
        batch["label"] = dataset.labels[chosen]
    return batch


def _describe(batch: dict, sample: int, classes: Sequence[str]) -> str:
    """What a classifier is told of a sample; nothing where there is a mask."""
    if "mask" in batch:
        return ""
    own = classes[batch["label"][sample]]
    if "label_share" not in batch:
        return f": {own}"
    share, other = batch["label_share"][sample], classes[batch["other_label"][sample]]
    if share == 1 or own == other:
        return f": {own}"
    return f": {share:.0%} {own}, {1 - share:.0%} {other}"


def _shorten(text: str, width: int) -> str:
    """As many characters as stand above a panel; of a long name the end."""
    limit = width // 7
    return text if len(text) <= limit else "..." + text[-limit + 3 :]


def _legend(masks: list[np.ndarray], classes: Sequence[str]) -> overlays.Legend:
    colors = outline_colors(len(classes))
    present = np.unique(masks) if masks else []
    names = {**dict(enumerate(classes)), IGNORE: "ignored"}
    return [(overlays.swatch_of(colors[i]), names[i]) for i in present if i > 0]
