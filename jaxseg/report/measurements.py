"""Cracks in numbers: one pass over a judged part counts, measures and compares masks.

The mask of an image is what the network decides on the grid that it sees; with
`data.crop` an image is a window. Lengths and widths are in pixels of the original
image, whatever it was resized to and however its sides were stretched, because a pixel
of the grid is measured with the height and the width that it has there. They are as
fine as the grid: what the network saw at half the size is exact to about two pixels.
`data.mm_per_pixel` adds columns in millimetres. All that takes about 30 ms of CPU time
for an image of 448 x 448 with a crack through it, while the device is busy.

Per image, class by class, the columns of `component_table`, then the metrics of
`jaxseg.metrics.thin`. components.csv has a row per component.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import parallel, steps
from jaxseg.augment import make_normalize
from jaxseg.data.dataset import num_workers
from jaxseg.evaluate import join_counts, run_batches
from jaxseg.experiment import Experiment
from jaxseg.measure import Component, measure
from jaxseg.metrics import (
    region_histogram,
    thin_columns,
    thin_counts,
    thin_summary,
)
from jaxseg.report import component_table
from jaxseg.report.evidence import draw_thumbnail
from jaxseg.tasks import NUM_BINS, Counts, Thresholds
from jaxseg.types import IGNORE

ThinCounts = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What was found in the images of a part.

    Attributes:
      classes: names of the K foreground classes.
      components: by image, by class; () without masks.
      thin: by image the counts [K, ...]; None where the truth is not known.
      regions: by image as of `metrics.region_histogram`; () without masks, or with more
        than two classes.
      mm_per_pixel: of the original images.
      thumbnails: by image, a small JPEG of it.
    """

    classes: tuple[str, ...] = ()
    components: Sequence[Sequence[Sequence[Component]]] = ()
    thin: Sequence[ThinCounts | None] = ()
    regions: Sequence[tuple[np.ndarray, int]] = ()
    mm_per_pixel: float | None = None
    thumbnails: Sequence[bytes] = ()

    def summary(self) -> dict[str, float]:
        """Metrics of the part; {} without masks."""
        counts = self._known_counts()
        return thin_summary(counts, self.classes) if counts else {}

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of results.csv, `<name>/<class>` [n]; {} without masks."""
        if not self.components:
            return {}
        columns = {}
        for k, name in enumerate(self.classes):
            rows = [
                component_table.summarize(classes[k], self.mm_per_pixel)
                for classes in self.components
            ]
            for key in rows[0]:
                columns[f"{key}/{name}"] = np.array([row[key] for row in rows])
        known = [counts is not None for counts in self.thin]
        if any(known):
            for key, values in thin_columns(self._known_counts(), self.classes).items():
                columns[key] = np.full(len(known), np.nan)
                columns[key][known] = values
        return columns

    def _known_counts(self) -> ThinCounts:
        """[m, K, ...] of the m images with a true mask; {} without any."""
        known = [counts for counts in self.thin if counts is not None]
        return _stack(known) if known else {}

    def write_components(self, path: Path, names: Sequence[str]) -> None:
        """Writes components.csv, whole or not at all; nothing without masks."""
        if not self.components:
            return
        named = zip(names, self.components, strict=True)
        component_table.write(path, self.classes, named, self.mm_per_pixel)

    def describe(self, image: int) -> tuple[str, ...]:
        """A line for the picture of an image; () where nothing was found."""
        if not self.components:
            return ()
        scale, unit = self.mm_per_pixel or 1.0, "mm" if self.mm_per_pixel else "px"
        texts = []
        for name, found in zip(self.classes, self.components[image], strict=True):
            if found:
                length = scale * sum(one.length for one in found)
                width = scale * max(one.max_width for one in found)
                texts.append(
                    f"{len(found)} x {name}: length {length:.{_digits(length)}f} {unit}"
                    f", width up to {width:.{_digits(width)}f} {unit}"
                )
        return ("; ".join(texts),) if texts else ()


def collect(
    experiment: Experiment, variables: Any, thresholds: Thresholds, part: str
) -> tuple[Counts, Measurements]:
    """The counts of a part as of `collect_counts`, and what is on its masks."""
    run, task, mesh = experiment.run, experiment.task, experiment.mesh
    loader = experiment.eval_loader(part)
    if "seg_logits" not in task.needs:
        return _collect_images(experiment.eval_step, variables, loader, mesh)
    normalize = make_normalize(run.data.mean, run.data.std)
    judge_step = steps.make_judge_step(experiment.model, task, normalize)
    judge_step = parallel.compile_batch_step(judge_step, mesh)
    counted, images = [], []
    with ThreadPoolExecutor(num_workers(run.data)) as pool:
        for batch, (counts, found) in run_batches(judge_step, variables, loader, mesh):
            decisions = found["best"]
            if "mask" in thresholds:
                decisions = found["score"] >= thresholds["mask"].value
            counted.append(counts)
            images += pool.map(
                partial(_look_at, num_classes=len(task.classes)),
                batch["image"][batch["valid"]],
                decisions[batch["valid"]],
                found["score"][batch["valid"]],
                batch["mask"][batch["valid"]],
                [_spacing(experiment, i) for i in batch["index"][batch["valid"]]],
            )
    components, thin, regions, thumbnails = zip(*images, strict=True)
    return join_counts(counted), Measurements(
        task.classes[1:],
        components,
        thin,
        regions if "mask" in thresholds else (),
        run.data.mm_per_pixel,
        thumbnails,
    )


def _collect_images(step, variables: Any, loader, mesh) -> tuple[Counts, Measurements]:
    """Of a network without masks there is nothing to measure."""
    counted, thumbnails = [], []
    for batch, counts in run_batches(step, variables, loader, mesh):
        counted.append(counts)
        for image in batch["image"][batch["valid"]]:
            thumbnails.append(draw_thumbnail(image, None, None))
    return join_counts(counted), Measurements(thumbnails=thumbnails)


def _look_at(
    image: np.ndarray,
    decision: np.ndarray,
    score: np.ndarray,
    truth: np.ndarray,
    spacing: tuple[float, float],
    *,
    num_classes: int,
) -> tuple[list[list[Component]], ThinCounts | None, tuple[np.ndarray, int], bytes]:
    """Components by class, thin counts [K, ...], true regions and a small picture.

    All of one image [H, W, C].
    """
    classes = range(1, num_classes)
    components = [
        measure(decision == k, spacing=spacing, scores=score) for k in classes
    ]
    regions, known = region_histogram(score, truth, NUM_BINS), truth != IGNORE
    thumbnail = draw_thumbnail(image, truth, decision)
    if not known.any():
        return components, None, regions, thumbnail
    counts = [
        thin_counts(
            (decision == k) & known,
            truth == k,
            spacing=spacing,
            found=found if known.all() else None,
        )
        for k, found in zip(classes, components, strict=True)
    ]
    return components, _stack(counts), regions, thumbnail


def _stack(counts: Sequence[ThinCounts]) -> ThinCounts:
    return {name: np.stack([one[name] for one in counts]) for name in counts[0]}


def _spacing(experiment: Experiment, position: int) -> tuple[float, float]:
    """Height and width of a pixel that the network sees, in those of the image."""
    data, dataset = experiment.run.data, experiment.dataset
    if data.crop is not None:
        return (1.0, 1.0)
    height, width = dataset.records[dataset.record_of[position]].size
    return (height / data.image_size[0], width / data.image_size[1])


def _digits(value: float) -> int:
    """Decimals that a reader can use: 0.35, 3.5, 35."""
    return 2 if value < 1 else 1 if value < 10 else 0
