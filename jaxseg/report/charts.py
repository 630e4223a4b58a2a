"""Line charts as SVG inside of a page: sharp at any size, dark where the page is.

Colours, fonts and line widths are those of the style sheet (`.line0`, `.axis`, ...).
"""

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
LOG_RATIO = 20  # largest / smallest positive value from which an axis is logarithmic
MANY_DECADES = 500

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart; points that are not finite are left out.

    Attributes:
      name: for the legend; '' for none.
      style: which of the colours of the style sheet, 'line0' to 'line5' or 'quiet'.
      dots: a dot at each point.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "line0"
    dashed: bool = False
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point that stands out; `kind` is a class of the style sheet, `key` an id."""

    x: float
    y: float
    kind: str = "chosen"
    key: str = ""


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
    marks: Sequence[Mark] = (),
    vertical: float | None = None,
) -> str:
    """A figure: title, axes with round numbers, lines, marks, legend.

    The y axis is logarithmic where positive values without a given range differ much.

    Args:
      vertical: where a dotted line stands.
    """
    x_axis = _Axis.of([line.x for line in lines], x_range, log=False)
    y_axis = _Axis.of([line.y for line in lines], y_range, log=True)
    body = [_grid(x_axis, y_axis)]
    if vertical is not None and math.isfinite(vertical):
        x = LEFT + PLOT_WIDTH * x_axis.place(vertical)
        body.append(f'<path class="best" d="M{x:.1f} {TOP}v{PLOT_HEIGHT}"/>')
    for line in lines:
        body += _draw(line, x_axis, y_axis)
    body += [_dot(mark, x_axis, y_axis) for mark in marks]
    body.append(
        f'<text class="label" x="{LEFT + PLOT_WIDTH / 2}" y="{HEIGHT - 6}" '
        f'text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text class="label" transform="translate(12 {TOP + PLOT_HEIGHT / 2}) '
        f'rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>'
    )
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(body)}</svg>'
        f"{_legend(lines)}</figure>"
    )


@dataclasses.dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    is_log: bool
    ticks: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[Sequence[float]], given: Range | None, *, log: bool):
        found = np.concatenate([np.asarray(v, float) for v in values] or [np.empty(0)])
        found = found[np.isfinite(found)]
        low, high = given or ((found.min(), found.max()) if len(found) else (0.0, 1.0))
        is_log = log and not given and low > 0 and high / low > LOG_RATIO
        if is_log:
            few = high / low > MANY_DECADES
            subs = (1,) if few else (1, 2, 5)
            ticks = LogLocator(subs=subs).tick_values(low, high)
        else:
            if low == high:
                low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
            are_whole = not log and len(found) > 0 and (found == found.round()).all()
            whole = are_whole and high - low > 1
            locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole)
            ticks = locator.tick_values(low, high)
        if given is None and not is_log and log:
            low, high = float(ticks[0]), float(ticks[-1])
        inside = [float(t) for t in ticks if low - 1e-9 <= t <= high + 1e-9]
        return cls(float(low), float(high), is_log, inside)

    def place(self, value):
        """0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = np.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def _points(x, y, x_axis: _Axis, y_axis: _Axis) -> np.ndarray:
    """[n, 2] in the picture, without points that fall on the one before."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    shown = np.isfinite(x) & np.isfinite(y)
    if y_axis.is_log:
        shown &= y > 0
    across = LEFT + PLOT_WIDTH * x_axis.place(x[shown])
    down = TOP + PLOT_HEIGHT * (1 - y_axis.place(y[shown]))
    points = np.stack([across, down], axis=-1).round(1)
    moved = np.any(np.diff(points, axis=0) != 0, axis=1)
    return points[np.concatenate([[True], moved])] if len(points) else points


def _draw(line: Line, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    points = _points(line.x, line.y, x_axis, y_axis)
    if not len(points):
        return []
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    kind = f"{line.style} dashed" if line.dashed else line.style
    drawn = [f'<path class="line {kind}" d="M{path}"/>']
    if line.dots or len(points) == 1:
        drawn += [
            f'<circle class="dot {line.style}" cx="{x:g}" cy="{y:g}" r="3"/>'
            for x, y in points
        ]
    return drawn


def _dot(mark: Mark, x_axis: _Axis, y_axis: _Axis) -> str:
    """A mark that is nowhere yet is hidden, for a script to place it."""
    points = _points([mark.x], [mark.y], x_axis, y_axis)
    (x, y), state = (points[0], "") if len(points) else ((0, 0), ' visibility="hidden"')
    key = f' data-mark="{html.escape(mark.key)}"' if mark.key else ""
    plot = f' data-plot="{LEFT} {TOP} {PLOT_WIDTH} {PLOT_HEIGHT}"' if mark.key else ""
    return (
        f'<circle class="{mark.kind}" cx="{x:g}" cy="{y:g}" r="5.5"{key}{plot}{state}/>'
    )


def _grid(x_axis: _Axis, y_axis: _Axis) -> str:
    parts = []
    for tick in x_axis.ticks:
        x = LEFT + PLOT_WIDTH * x_axis.place(tick)
        parts.append(
            f'<path class="grid" d="M{x:.1f} {TOP}v{PLOT_HEIGHT}"/>'
            f'<text class="tick" x="{x:.1f}" y="{TOP + PLOT_HEIGHT + 16}" '
            f'text-anchor="middle">{tick:g}</text>'
        )
    for tick in y_axis.ticks:
        y = TOP + PLOT_HEIGHT * (1 - y_axis.place(tick))
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}h{PLOT_WIDTH}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> str:
    named = [line for line in lines if line.name]
    if not named:
        return ""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line '
        f'{line.style}{" dashed" if line.dashed else ""}" d="M1 4h22"/></svg>'
        f"{html.escape(line.name)}</li>"
        for line in named
    )
    return f'<ul class="legend">{items}</ul>'
