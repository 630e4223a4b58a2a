"""What a network makes of the same few validation images, epoch by epoch.

A picture per epoch, at the end an animation with the loss curve beside it, and the best
epoch next to the last: over-fitting can be watched. The images are read once and
predicted in a batch per epoch; Pillow draws a page in some ten milliseconds.

A picture is written before the checkpoint of its epoch: a run that is killed and goes
on has the pictures of an uninterrupted one.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from jaxseg import hosts, parallel
from jaxseg.data.pipeline import EvalLoader
from jaxseg.experiment import Experiment
from jaxseg.report.loss_panel import draw_loss_panel
from jaxseg.report.overlays import (
    BACKGROUND,
    FALSE_ALARM,
    GAP,
    HIT,
    INK,
    MISS,
    PAPER,
    SCORE_COLORS,
    TEXT_SIZE,
    font,
    to_ascii,
)
from jaxseg.report.preview_page import draw_page, make_sample
from jaxseg.tasks import Thresholds

CANDIDATES = 16  # images looked at for one that is drawn
CURVE_SIZE = (400, 320)  # pixels (width, least height) of the curves beside a page
MAX_FRAMES = 60
"""Of the animation; of a longer run it shows as many epochs, evenly spread."""
PLAY_SECONDS, LAST_SECONDS, SLOWEST_SECONDS = 12.0, 3.0, 0.6
NAME_LETTERS = 30  # of a sample's name, its end

Row = Mapping[str, Any]


class Previews:
    """Draws `train.preview` samples of the validation part; nothing if that is 0.

    Process 0 does, on its own devices; the others draw nothing.
    """

    def __init__(self, experiment: Experiment, folder: Path):
        self._experiment, self._folder = experiment.on_this_host(), folder
        count = experiment.run.train.preview if hosts.is_first() else 0
        self._positions = _choose_positions(experiment, count)
        self._batches = list(_load(experiment, self._positions))

    def draw(self, row: Row, variables: Any, thresholds: Thresholds) -> Path | None:
        """Writes the picture of an epoch, and says where.

        Args:
          row: of metrics.csv.
          thresholds: of this epoch's validation.
        """
        classes = self._experiment.task.classes
        samples = [
            make_sample(name, arrays, classes, thresholds)
            for name, arrays in self._predict(parallel.whole_on_host(variables))
        ]
        if not samples:
            return None
        self._folder.mkdir(exist_ok=True)
        page = draw_page(samples, self._title(row, thresholds), classes)
        path = _path(self._folder, row["epoch"])
        page.save(path)
        return path

    def _predict(self, variables: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Name and arrays of every sample: what was read, what the network says."""
        names = iter(self._experiment.dataset.ids[i] for i in self._positions)
        for batch in self._batches:
            on_device = parallel.put_batch(batch, self._experiment.mesh)
            probs = self._experiment.predict_step(variables, on_device)
            arrays = batch | {name: np.asarray(of) for name, of in probs.items()}
            for i in np.flatnonzero(batch["valid"]):
                sample = {name: values[i] for name, values in arrays.items()}
                yield next(names)[-NAME_LETTERS:], sample

    def _title(self, row: Row, thresholds: Thresholds) -> tuple[str, ...]:
        config = self._experiment.run.train
        values = {"train loss": row["train/loss"], "val loss": row["val/loss"]}
        if config.monitor != "loss":
            values[f"val {config.monitor}"] = row[f"val/{config.monitor}"]
        facts = [f"{name} {value:.4f}" for name, value in values.items()]
        chosen = [f"{kind} threshold {t.value:.3f}" for kind, t in thresholds.items()]
        first = [f"epoch {row['epoch']} of {config.epochs}", *chosen]
        return "   ".join(first), "   ".join(facts)


def _choose_positions(experiment: Experiment, count: int) -> np.ndarray:
    """Images with foreground first; of a classifier, images of all classes."""
    positions = _evenly(experiment.split.indices("val"), CANDIDATES * count)
    batches = _load(experiment, positions)
    labels = [batch["label"][batch["valid"]] for batch in batches]
    labels = np.concatenate([np.empty(0, np.int32), *labels])
    if "seg_logits" in experiment.task.needs:
        return spread(positions, labels > 0, count)
    by_class = np.argsort(labels, kind="stable")
    return spread(positions[by_class], np.ones(len(positions), bool), count)


def _load(experiment: Experiment, positions: np.ndarray) -> EvalLoader:
    return EvalLoader(
        experiment.dataset.source,
        experiment.dataset.labels,
        positions,
        batch_size=experiment.run.train.batch_size,
        workers=1,
    )


def spread(positions: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """`count` of the positions, evenly over the wanted ones, then over the others.

    Args:
      wanted: [n] bool.

    >>> spread(np.arange(8), np.arange(8) > 1, 3).tolist()
    [2, 4, 7]
    """
    chosen = _evenly(positions[wanted], count)
    others = _evenly(positions[~wanted], count - len(chosen))
    return np.concatenate([chosen, others])


def _evenly(items: np.ndarray, count: int) -> np.ndarray:
    """At most `count` items, the first and the last among them."""
    if len(items) <= count:
        return items
    return items[np.linspace(0, len(items) - 1, count).astype(np.int64)]


def summarize(
    folder: Path,
    history: Sequence[Row],
    *,
    best_epoch: int,
    monitor: str,
    mode: Literal["max", "min"],
) -> None:
    """Writes previews.gif and best_and_last.png of the epochs that were drawn.

    The animation has at most 60 frames and shares one palette of 255 colours; what does
    not change from frame to frame is not stored again.

    Args:
      history: rows of metrics.csv.
      best_epoch: 0 if no epoch was one.
    """
    epochs = np.array([int(row["epoch"]) for row in history])
    drawn = np.array([e for e in epochs if _path(folder, e).is_file()], np.int64)
    if not len(drawn):
        return
    frames = [
        _frame(folder, history, epoch, monitor, mode)
        for epoch in _evenly(drawn, MAX_FRAMES)
    ]
    _save_animation(folder / "previews.gif", frames)
    if best_epoch in drawn:
        _save_pair(folder, best_epoch, int(drawn[-1]), monitor)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch_{epoch:04d}.png"


def _frame(folder: Path, history, epoch: int, monitor: str, mode) -> Image.Image:
    page = Image.open(_path(folder, epoch))
    width, height = CURVE_SIZE[0], max(page.height, CURVE_SIZE[1])
    frame = Image.new("RGB", (page.width + width, height), PAPER)
    frame.paste(page, (0, 0))
    curves = draw_loss_panel(
        (width, height), history, epoch, monitor=monitor, mode=mode
    )
    frame.paste(curves, (page.width, 0))
    return frame


def _save_animation(path: Path, frames: list[Image.Image]) -> None:
    size = [max(frame.size[axis] for frame in frames) for axis in (0, 1)]
    frames = [_on_canvas(frame, size) for frame in frames]
    palette = _shared_palette(frames)
    # Without dithering, or every pixel would flicker and be stored in every frame.
    indexed = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    each = min(PLAY_SECONDS / len(frames), SLOWEST_SECONDS)
    durations = [round(1000 * each)] * (len(frames) - 1) + [round(1000 * LAST_SECONDS)]
    indexed[0].save(
        path, save_all=True, append_images=indexed[1:], duration=durations, loop=0
    )


def _on_canvas(frame: Image.Image, size) -> Image.Image:
    """Frames differ in size only when `train.preview` changed in the middle."""
    canvas = Image.new("RGB", tuple(size), PAPER)
    canvas.paste(frame, (0, 0))
    return canvas


def _shared_palette(frames: list[Image.Image]) -> Image.Image:
    """The exact colours of the drawing, and those of three frames."""
    width, height = frames[0].size
    mosaic = Image.new("RGB", (width, 3 * height))
    for place, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        mosaic.paste(frame, (0, place * height))
    exact = [PAPER, INK, HIT, MISS, FALSE_ALARM, BACKGROUND]
    exact += SCORE_COLORS[::8].tolist()
    free = 255 - len(exact)  # one of 256 stays free for 'as before'
    colors = mosaic.quantize(free).getpalette()[: 3 * free]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*itertools.chain(*exact), *colors])
    return palette


def _save_pair(folder: Path, best: int, last: int, monitor: str) -> None:
    """The two pages side by side, each below its heading."""
    headings = (f"best epoch by val {monitor}: {best}", f"last epoch: {last}")
    pages = [Image.open(_path(folder, epoch)) for epoch in (best, last)]
    top = TEXT_SIZE + 2 * GAP
    width, height = sum(p.width for p in pages) + GAP, max(p.height for p in pages)
    pair = Image.new("RGB", (width, top + height), PAPER)
    draw, x = ImageDraw.Draw(pair), 0
    for heading, page in zip(headings, pages, strict=True):
        draw.text((x + GAP, GAP), to_ascii(heading), INK, font(TEXT_SIZE))
        pair.paste(page, (x, top))
        x += page.width + GAP
    pair.save(folder / "best_and_last.png")
