"""The loss curve of a run up to an epoch, for the frames of an animation.

Drawn with Pillow: matplotlib takes a third of a second per picture. The axes are those
of the whole history, so that nothing but the lines moves from frame to frame.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from jaxseg.report.overlays import (
    FALSE_ALARM,
    INK,
    LABEL_SIZE,
    PAPER,
    QUIET,
    font,
    to_ascii,
)
from jaxseg.writer import column_of

BLUE, ORANGE, GREY = (0, 114, 178), FALSE_ALARM, (132, 140, 150)
FAINT = (223, 227, 232)
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 22  # pixels around a plot
MAX_EPOCH_LABELS = 10
LOG_RATIO = 20  # largest / smallest value from which an axis is logarithmic
FINER = 3  # lines are drawn larger and averaged down: Pillow has no smooth ones

Values = dict[str, np.ndarray]
Color = tuple[int, int, int]


def draw_loss_panel(
    size: tuple[int, int],
    history: Sequence[Mapping[str, object]],
    epoch: int,
    *,
    monitor: str,
    mode: Literal["max", "min"],
) -> Image.Image:
    """Training and validation loss, below them the monitored metric, up to `epoch`.

    A dotted line marks the best epoch so far.

    Args:
      size: (width, height), pixels.
      history: rows of metrics.csv of the whole run; numbers or their text.
    """
    columns = {"train/loss": GREY, "val/loss": ORANGE}
    plots = [columns]
    if monitor != "loss":
        plots.append({f"val/{monitor}": BLUE})
    epochs = column_of(history, "epoch")
    best = _best_epoch(epochs, column_of(history, f"val/{monitor}"), epoch, mode)
    page = Image.new("RGB", size, PAPER)
    height = size[1] // len(plots)
    for index, colors in enumerate(plots):
        values = {name: column_of(history, name) for name in colors}
        plot = _draw_plot((size[0], height), epochs, values, colors, epoch, best)
        page.paste(plot, (0, index * height))
    if best is not None:
        corner, text = (size[0] - RIGHT, 6), f"best epoch {best:.0f}"
        ImageDraw.Draw(page).text(corner, text, INK, font(LABEL_SIZE - 1), "ra")
    return page


def _best_epoch(epochs, metric, epoch: int, mode: str) -> float | None:
    reached = np.where(np.isfinite(metric) & (epochs <= epoch), metric, np.nan)
    if np.isnan(reached).all():
        return None
    best = np.nanargmax(reached) if mode == "max" else np.nanargmin(reached)
    return float(epochs[best])


def _draw_plot(size, epochs, values: Values, colors, epoch, best) -> Image.Image:
    """One pair of axes with its lines; the last value stands beside each name."""
    low, high, is_log = _limits(values)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (_scale(y, is_log) - low) / (high - low)
        up = size[1] - BOTTOM - share * (size[1] - TOP - BOTTOM)
        return _across(x, epochs, size[0]), up

    ticks = _ticks(low, high, is_log)
    canvas = Image.new("RGB", (size[0] * FINER, size[1] * FINER), PAPER)
    draw = ImageDraw.Draw(canvas)
    for tick in ticks:
        y = place(epochs[0], tick)[1]
        _line(draw, [(LEFT, y), (size[0] - RIGHT, y)], FAINT, 1)
    if best is not None:
        x = _across(best, epochs, size[0])
        for y in range(TOP, size[1] - BOTTOM, 6):
            _line(draw, [(x, y), (x, min(y + 3, size[1] - BOTTOM))], INK, 1)
    for name, line in values.items():
        shown = [
            place(x, y)
            for x, y in zip(epochs, line, strict=True)
            if x <= epoch and math.isfinite(y)
        ]
        if shown:
            _line(draw, shown, colors[name], 2)
            _dot(draw, shown[-1], colors[name])
    page = canvas.reduce(FINER)
    _write_labels(page, place, epochs, ticks)
    _write_values(page, epochs, values, colors, epoch)
    return page


def _across(epoch: float, epochs: np.ndarray, width: int) -> float:
    share = (epoch - epochs[0]) / max(epochs[-1] - epochs[0], 1)
    return LEFT + share * (width - LEFT - RIGHT)


def _write_labels(page, place, epochs, ticks) -> None:
    draw, letters = ImageDraw.Draw(page), font(LABEL_SIZE - 2)
    for tick in ticks:
        corner = (LEFT - 6, place(epochs[0], tick)[1])
        draw.text(corner, f"{tick:.3g}", QUIET, letters, anchor="rm")
    below = page.height - BOTTOM + 5
    draw.text((LEFT - 14, below), "epoch", QUIET, letters, anchor="ra")
    rounds = filter(_is_round, itertools.count(1))
    every = next(n for n in rounds if len(epochs) / n <= MAX_EPOCH_LABELS)
    for x in epochs[epochs % every == 0]:
        corner = (_across(x, epochs, page.width), below)
        draw.text(corner, f"{x:.0f}", QUIET, letters, "ma")


def _write_values(page, epochs, values: Values, colors, epoch: int) -> None:
    """The name of every line and its value at the epoch."""
    draw, letters, x = ImageDraw.Draw(page), font(LABEL_SIZE - 1), LEFT
    for name, line in values.items():
        value = float(line[epochs == epoch][0])
        text = to_ascii(f"{name} {value:.4f}")
        draw.text((x, 6), text, colors[name], letters)
        x += math.ceil(letters.getlength(text)) + 12


def _is_round(n: int) -> bool:
    """1, 2, 5, 10, 20, 50, ..."""
    return str(n).rstrip("0") in ("1", "2", "5")


def _limits(values: Values) -> tuple[float, float, bool]:
    """(lowest, highest, whether both are logarithms) of all lines, with some room."""
    every = np.concatenate(list(values.values()))
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0, False
    low, high = float(every.min()), float(every.max())
    is_log = low > 0 and high / low > LOG_RATIO
    low, high = _scale(low, is_log), _scale(high, is_log)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room, is_log


def _scale(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    """A few round values between the limits."""
    if is_log:
        powers = [10.0**n for n in range(math.floor(low), math.ceil(high) + 1)]
        marks = [m * power for power in powers for m in (1, 2, 5)]
        few = marks if high - low < 2 else powers
        return [mark for mark in few if low <= math.log10(mark) <= high]
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _line(draw, points, color: Color, width: int) -> None:
    finer = [(x * FINER, y * FINER) for x, y in points]
    draw.line(finer, color, width * FINER, joint="curve")


def _dot(draw, point, color: Color) -> None:
    x, y = (part * FINER for part in point)
    radius = 3 * FINER
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
