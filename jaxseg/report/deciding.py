"""The part of a report that is alive: thresholds, what follows from them, the images.

The numbers are filled in by report.js; `data-out` names what belongs where.
"""

import html
from collections.abc import Sequence

import numpy as np

from jaxseg import metrics
from jaxseg.metrics import tally_histogram
from jaxseg.report import page
from jaxseg.report.charts import Line, Mark, chart
from jaxseg.report.finished import FinishedRun

RULES = {
    "max_f1": "largest F1 on validation",
    "min_recall": "highest that keeps the recall on validation",
}
UNIT = (0.0, 1.0)


def decide_section(run: FinishedRun) -> list[str]:
    """Thresholds with their consequences; [] where the largest probability decides."""
    if not run.thresholds:
        return []
    body = [page.heading("Choose the threshold", "decide")]
    body.append(
        page.paragraph(
            "Everything below follows the sliders. Arrow keys move from one outcome to "
            "the next; a number can be typed. The model keeps its stored threshold, "
            "which predict, serve and export use; another one is given to it by "
            f"scripts/evaluate.py --workdir RUN --split {run.part} --threshold "
            f"{' '.join(f'{kind}=VALUE' for kind in run.thresholds)}"
        )
    )
    sliders = {kind: _slider(run, kind) for kind in run.sliders}
    title, curves = "Decisions about images", _image_curves(run)
    slider = sliders.pop(run.decides_images)
    body.append(_panel("image", title, run.kinds, "images", slider, curves))
    body.append(_cost_box(run))
    if "histogram" in run.evidence:
        slider, curves = sliders.get("mask", ""), _pixel_curves(run)
        body.append(_panel("mask", "Pixels", run.classes, "pixels", slider, curves))
    return body


def _slider(run: FinishedRun, kind: str) -> str:
    chosen = run.thresholds[kind]
    what = "images" if kind == "image" else "masks"
    if kind == run.decides_images == "mask":
        what = "masks; an image with any marked pixel counts as a defect"
    stored = f"Stored: {chosen['value']:.4g}"
    rule = RULES.get(chosen["rule"], chosen["rule"])
    return (
        '<div class="control">'
        f'<label for="slider-{kind}">Threshold of {what}</label>'
        f'<input type="range" id="slider-{kind}" min="0" step="1">'
        f'<input type="number" id="threshold-{kind}" min="0" max="1" step="any" '
        f'aria-label="Threshold of {kind}s as a number">'
        f'<button type="button" id="stored-{kind}" title="{html.escape(rule)}">'
        f"{html.escape(stored)}</button></div>"
    )


def _panel(
    level: str,
    title: str,
    kinds: Sequence[str],
    unit: str,
    slider: str,
    curves: Sequence[str],
) -> str:
    """Slider, confusion matrix and ratios of one level, beside its curves."""
    negative, positive = map(html.escape, kinds)
    cells = {
        f"{positive} (truth)": ("tp found", "fn missed"),
        f"{negative} (truth)": ("fp false alarms", "tn left alone"),
    }
    rows = ""
    for name, pair in cells.items():
        rows += f'<tr><th scope="row">{name}</th>'
        for key, meaning in (cell.split(" ", 1) for cell in pair):
            rows += (
                f'<td class="{key}"><b data-out="{level}.{key}"></b>'
                f"<span>{meaning}</span></td>"
            )
        rows += "</tr>"
    ratios = ["precision", "recall", "f1", "accuracy" if level == "image" else "iou"]
    shown = {"f1": "F1" if level == "image" else "Dice (F1)", "iou": "IoU"}
    facts = "".join(
        f"<div><dt>{shown.get(name, name)}</dt>"
        f'<dd data-out="{level}.{name}"></dd></div>'
        for name in ratios
    )
    return (
        f'<section class="panel"><h3>{html.escape(title)}</h3>{slider}'
        f'<div class="columns"><div><table class="confusion"><thead><tr><td></td>'
        f'<th scope="col">decided {positive}</th><th scope="col">decided {negative}'
        f"</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<dl class="facts" aria-live="polite">{facts}</dl>'
        f'<p class="quiet">Counts of {unit}; undefined where nothing could be found '
        f"or claimed.</p></div>{''.join(curves)}</div></section>"
    )


def _cost_box(run: FinishedRun) -> str:
    has_val = "val_score" in run.evidence
    source = "validation" if has_val else "these very images, which flatters"
    return (
        '<section class="panel costs"><h3>What a mistake costs</h3>'
        '<label>A missed defect <input type="number" id="cost-miss" min="0" step="any" '
        'value="10"></label> <label>a false alarm <input type="number" id="cost-alarm" '
        'min="0" step="any" value="1"></label>'
        f"<p>Cheapest on {source}: threshold <b data-out='cost.best'></b>. On the "
        "judged images that makes <b data-out='cost.misses'></b> missed and "
        "<b data-out='cost.alarms'></b> false alarms, cost "
        "<b data-out='cost.then'></b>; the threshold above costs "
        "<b data-out='cost.now'></b>. "
        '<button type="button" id="use-cheapest">Use it above</button></p></section>'
    )


def _image_curves(run: FinishedRun) -> list[str]:
    if len(np.unique(run.labels)) < 2:
        return []
    scores, labels = run.scores, run.labels
    recall, precision, _ = metrics.precision_recall_curve(scores, labels)
    false, true, _ = metrics.roc_curve(scores, labels)
    areas = metrics.image_summary(scores, labels, 0.5)
    return _curves("image", recall, precision, false, true, areas["ap"], areas["auc"])


def _pixel_curves(run: FinishedRun) -> list[str]:
    histogram = run.evidence["histogram"]
    tally = tally_histogram(histogram[None])
    if not tally.has_both_classes():
        return []
    recall, precision, _ = metrics.pixel_curve(histogram[None])
    fp, tp = tally.at_least()
    false, true = np.append(0, fp[::-1] / fp[0]), np.append(0, tp[::-1] / tp[0])
    ap = -np.sum(np.diff(recall) * precision[:-1])
    return _curves(
        "mask", recall, precision, false, true, ap, np.trapezoid(true, false)
    )


UNITS = {"image": "images", "mask": "pixels"}


def _curves(level: str, recall, precision, false, true, ap, auc) -> list[str]:
    """Precision-recall in steps, whose area is AP, and ROC."""
    steps_x, steps_y = np.repeat(recall, 2)[1:], np.repeat(precision, 2)[:-1]
    nowhere = float("nan")
    return [
        chart(
            f"Precision over recall, AP {ap:.4f}",
            [Line("", steps_x, steps_y)],
            x_label="recall",
            y_label="precision",
            x_range=UNIT,
            y_range=UNIT,
            marks=[Mark(nowhere, nowhere, key=f"{level}.pr")],
        ),
        chart(
            f"ROC, AUC {auc:.4f}",
            [Line("", UNIT, UNIT, "quiet", dashed=True), Line("", false, true)],
            x_label=f"share of clean {UNITS[level]} that raise an alarm",
            y_label=f"share of defect {UNITS[level]} found",
            x_range=UNIT,
            y_range=UNIT,
            marks=[Mark(nowhere, nowhere, key=f"{level}.roc")],
        ),
    ]


def gallery_section(run: FinishedRun) -> list[str]:
    """Mistakes as pictures, the furthest from the threshold first."""
    if len(run.kinds) == 2:
        negative, positive = run.kinds
        outcomes = {
            "missed": f"Missed: {positive}, decided {negative}",
            "false alarm": f"False alarms: {negative}, decided {positive}",
        }
    else:
        outcomes = {"wrong": "Wrong decisions, the surest first"}
    body = [page.heading("Worst mistakes", "mistakes")]
    if run.has_mask:
        body.append(
            '<p class="quiet">On the pictures <span class="hit">found</span>, '
            '<span class="miss">missed</span> and <span class="alarm">false</span> '
            "pixels at the stored threshold. Click for a large one.</p>"
        )
    for outcome, title in outcomes.items():
        body.append(
            f'<h3>{html.escape(title)} (<span data-out="gallery.{outcome}"></span>)'
            f'</h3><ul class="gallery" data-gallery="{outcome}"></ul>'
            f'<button type="button" data-more="{outcome}" hidden></button>'
        )
    return body


def table_section(run: FinishedRun) -> list[str]:
    """The table of all images that have a place on the page."""
    columns = {"name": "image", "outcome": "outcome", "score": "score"}
    if run.dice is not None:
        columns["dice"] = "Dice"
    if "shown_histograms" in run.evidence and run.decides_images:
        columns |= {"missed": "missed px", "alarmed": "false px"}
    columns |= {"truth": "truth", "decision": "decision"}
    head = "".join(
        f'<th scope="col" data-column="{key}">'
        f'<button type="button">{name}</button></th>'
        for key, name in columns.items()
    )
    two = ("missed", "false alarm", "found", "clean")
    is_binary = len(run.kinds) == 2
    outcomes = two if is_binary else ("wrong", "right")
    first = "Missed defects and false alarms" if is_binary else "Wrong decisions"
    options = "".join(f"<option>{name}</option>" for name in outcomes)
    shown = len(run.evidence.get("shown", run.names))
    note = (
        f"The worst {shown:,} of {len(run.names):,} images. "
        if (shown < len(run.names))
        else ""
    )
    return [
        page.heading("All images", "images-title"),
        page.paragraph(
            f"{note}{first} first, the worst at the top; a click on a heading sorts, a "
            "click on a picture opens it."
        ),
        '<div class="control"><label for="find">Name contains</label>'
        '<input type="search" id="find">'
        '<span class="pair"><label for="outcome">Outcome</label>'
        f'<select id="outcome"><option value="">all</option>{options}</select></span>'
        '<span class="quiet" data-out="table.count" aria-live="polite"></span></div>'
        f'<div class="scroll"><table id="images"><thead><tr><td></td>{head}</tr>'
        "</thead><tbody></tbody></table></div>"
        '<button type="button" id="more-rows" hidden>'
        "Show 100 more</button>",
    ]


VIEWER = (
    '<dialog id="viewer" aria-labelledby="viewed"><h3 id="viewed"></h3><p></p>'
    '<div class="control"><button type="button" id="previous" aria-label="Previous '
    'image">&larr;</button><button type="button" id="next" aria-label="Next image">'
    '&rarr;</button><button type="button" id="close">Close</button></div><img alt="">'
    "</dialog>"
)
