"""Finished runs beside each other on one page: numbers, curves, where they disagree."""

import html
from collections.abc import Iterator, Sequence

import numpy as np

from jaxseg import metrics
from jaxseg.errors import InputError
from jaxseg.metrics.bootstrap import Interval
from jaxseg.report import evidence, headline, page
from jaxseg.report.charts import Line, Mark, chart
from jaxseg.report.finished import FinishedRun
from jaxseg.report.run_page import asset
from jaxseg.schema import flatten
from jaxseg.writer import column_of

STYLES = ("line0", "line1", "line2", "line3", "line4", "line5")
MAX_DISAGREEMENTS = 200
UNIT = (0.0, 1.0)


def compare(runs: Sequence[FinishedRun]) -> str:
    """The whole page.

    Raises:
      InputError: more runs than there are colours.
    """
    if len(runs) > len(STYLES):
        raise InputError(
            f"2 to {len(STYLES)} runs",
            f"{len(runs)}",
            "scripts/compare.py makes a table of any number of runs",
        )
    names = _distinct_names(runs)
    body = [
        page.paragraph(
            f"{len(runs)} runs, each at its best epoch and its stored threshold."
        ),
        *(page.box(text, "warning") for text in _warnings(runs)),
        page.heading("Numbers"),
        page.paragraph(
            "In brackets the 95 % interval, over images drawn anew. Below it the "
            f"difference to {names[0]} on the same images, bold where its interval "
            "leaves out 0."
        ),
        _numbers(runs, names),
        page.heading("Curves"),
        f'<div class="columns">{"".join(_charts(runs, names))}</div>',
        *_disagreements(runs, names),
        page.heading("What differs in the settings"),
        _differences(runs, names),
    ]
    title = "Runs side by side: " + ", ".join(names)
    return page.page(title, body, style=asset("report.css"))


def _distinct_names(runs: Sequence[FinishedRun]) -> list[str]:
    """Names of the folders; with the folder above where they are equal."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run.folder) for run in runs]


def _warnings(runs: Sequence[FinishedRun]) -> Iterator[str]:
    if len({run.record["data_hash"] for run in runs}) > 1:
        yield "The runs were trained on other data; their numbers are not comparable."
    if len({tuple(sorted(run.names)) for run in runs}) > 1:
        yield "The runs were judged on other images; their numbers are not comparable."
    elif len({run.split_hash for run in runs}) > 1:
        yield "The runs were trained on other parts of the data."


def _numbers(runs: Sequence[FinishedRun], names: Sequence[str]) -> str:
    """A row per metric; the best of each stands out."""
    intervals = [headline.intervals_of(run) for run in runs]
    gaps = [{}, *(headline.differences(runs[0], run) for run in runs[1:])]
    keys = dict.fromkeys(key for found in intervals for key in found)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    rows = ""
    for key in keys:
        values = [run.metrics.get(key) for run in runs]
        known = [value for value in values if value is not None]
        best = None
        if len(set(known)) > 1:
            best = min(known) if metrics.mode_of(key) == "min" else max(known)
        cells = "".join(
            f"<td>{_cell(value, found.get(key), value == best)}"
            f"{_gap(value, values[0], gap.get(key))}</td>"
            for value, found, gap in zip(values, intervals, gaps, strict=True)
        )
        rows += (
            f'<tr><th scope="row">{html.escape(headline.title_of(key))}</th>'
            f"{cells}</tr>"
        )
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr><td></td>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(value: float | None, interval: Interval | None, is_best: bool) -> str:
    if value is None:
        return "undefined"
    text = f"<b>{value:.4f}</b>" if is_best else f"{value:.4f}"
    if interval and np.isfinite(interval[0]):
        text += (
            f' <span class="between">({interval[0]:.3f} to {interval[1]:.3f})</span>'
        )
    return text


def _gap(value: float | None, first: float | None, interval: Interval | None) -> str:
    if value is None or first is None or not interval or not np.isfinite(interval[0]):
        return ""
    low, high = interval
    text = f"{value - first:+.4f} ({low:+.3f} to {high:+.3f})"
    text = f"<b>{text}</b>" if low > 0 or high < 0 else text
    return f'<br><span class="between">{text}</span>'


def _charts(runs: Sequence[FinishedRun], names: Sequence[str]) -> Iterator[str]:
    monitors = [run.record["config"]["train"]["monitor"] for run in runs]
    columns = dict.fromkeys(["loss", *monitors])
    labelled = list(zip(runs, names, STYLES, strict=False))
    for column in columns:
        lines = [
            Line(
                name,
                column_of(run.history, "epoch"),
                column_of(run.history, f"val/{column}"),
                style,
            )
            for run, name, style in labelled
        ]
        title = f"Validation: {headline.title_of(column)}"
        yield chart(title, lines, x_label="epoch", y_label="")
    binary = [
        one
        for one in labelled
        if one[0].decides_images and len(np.unique(one[0].labels)) == 2
    ]
    if binary:
        yield _precision_recall("images", binary, _of_images)
    masked = [
        one
        for one in labelled
        if "histogram" in one[0].evidence and one[0].evidence["histogram"][1].any()
    ]
    if masked:
        yield _precision_recall("pixels", masked, _of_pixels)


def _precision_recall(unit: str, labelled, curve_of) -> str:
    lines, marks = [], []
    for run, name, style in labelled:
        recall, precision, thresholds, chosen = curve_of(run)
        x, y = np.repeat(recall, 2)[1:], np.repeat(precision, 2)[:-1]
        lines.append(Line(name, x, y, style))
        at = np.searchsorted(thresholds, chosen)
        marks.append(Mark(recall[at], precision[at], kind=f"dot {style}"))
    return chart(
        f"Precision over recall of {unit}; dots: stored thresholds",
        lines,
        x_label="recall",
        y_label="precision",
        x_range=UNIT,
        y_range=UNIT,
        marks=marks,
    )


def _of_images(run: FinishedRun):
    curve = metrics.precision_recall_curve(run.scores, run.labels)
    return *curve, run.thresholds[run.decides_images]["value"]


def _of_pixels(run: FinishedRun):
    curve = metrics.pixel_curve(run.evidence["histogram"][None])
    return *curve, run.thresholds["mask"]["value"]


def _disagreements(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[str]:
    """Images that some runs decide right and others wrong."""
    places = [{name: i for i, name in enumerate(run.names)} for run in runs]
    common = [name for name in runs[0].names if all(name in of for of in places)]
    rows = []
    for name in common:
        at = [of[name] for of in places]
        right = [
            bool(run.labels[i] == run.decisions[i])
            for run, i in zip(runs, at, strict=True)
        ]
        if any(right) and not all(right):
            rows.append((sum(right), name, at, right))
    body = [page.heading("Images where the runs disagree")]
    if not rows:
        return [*body, page.paragraph("None: all decide alike, right or wrong.")]
    rows.sort(key=lambda row: row[:2])
    shown = rows[:MAX_DISAGREEMENTS]
    first = f"; the first {len(shown)}" if len(shown) < len(rows) else ""
    counts = ", ".join(
        f"{name} alone is right on {sum(r[3][k] and r[0] == 1 for r in rows)}"
        for k, name in enumerate(names)
    )
    body.append(
        page.paragraph(f"{len(rows)} of {len(common)} images{first}. {counts}.")
    )
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    lines = "".join(_disagreement(runs, *row[1:]) for row in shown)
    body.append(
        '<div class="scroll"><table class="disagreements"><thead><tr><td></td>'
        f'<th scope="col">image</th><th scope="col">truth</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
    return body


def _disagreement(
    runs: Sequence[FinishedRun], name: str, at: Sequence[int], right: Sequence[bool]
) -> str:
    pictures, cells = "", ""
    for run, i, is_right in zip(runs, at, right, strict=True):
        data = evidence.read_picture(run.folder / run.part, i)
        if data:
            pictures += page.jpeg_picture(data, f"{name} as {run.name} sees it")
        decided = html.escape(run.kinds[run.decisions[i]])
        kind = "right" if is_right else "wrong"
        cells += f'<td class="{kind}">{decided} {run.scores[i]:.3f}</td>'
    readable = name.encode("utf-8", "backslashreplace").decode()
    truth = html.escape(runs[0].kinds[runs[0].labels[at[0]]])
    return (
        f'<tr><td class="pictures">{pictures}</td><td>{html.escape(readable)}</td>'
        f"<td>{truth}</td>{cells}</tr>"
    )


def _differences(runs: Sequence[FinishedRun], names: Sequence[str]) -> str:
    flat = [flatten(run.record["config"]) for run in runs]
    keys = sorted(set().union(*flat))
    rows = [
        [key, *(str(of.get(key, "")) for of in flat)]
        for key in keys
        if len({str(of.get(key)) for of in flat}) > 1
    ]
    if not rows:
        return page.paragraph("Nothing: the settings are the same.")
    return page.table(["setting", *names], rows)
