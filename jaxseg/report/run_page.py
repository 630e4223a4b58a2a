"""report.html of a run: how good it is, where it fails, and what it was made of.

One file that needs neither network, data set nor device: everything is read from the
run folder. At 2,000 judged images it stays below 15 MB.
"""

import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxseg.errors import InputError
from jaxseg.metrics.bootstrap import Interval
from jaxseg.progress import duration
from jaxseg.report import cautions, deciding, headline, page, sections
from jaxseg.report.finished import FinishedRun, read_run
from jaxseg.report.page_data import page_data, to_script
from jaxseg.report.results import format_value, write_whole
from jaxseg.schema import flatten
from jaxseg.writer import column_of

NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Writes the report into the run folder, from what is there.

    Raises:
      InputError: the run is not finished, or a file of it is broken or missing.
    """
    return write_page(folder / NAME, report(read_run(folder)))


def write_page(path: Path, text: str) -> Path:
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(
            "a place for the report that can be written",
            f"{path}: {error.strerror}",
            "--out FILE in another place",
        ) from None
    return path


def report(run: FinishedRun) -> str:
    """The whole page."""
    intervals = headline.intervals_of(run)
    parts = {
        "Threshold": deciding.decide_section(run),
        "Mistakes": deciding.gallery_section(run),
        "Images": deciding.table_section(run),
        "Classes": sections.class_section(run),
        "Groups": sections.group_section(run),
        "Calibration": sections.calibration_section(run),
        "Training": sections.training_section(run),
        "All numbers": numbers_section(run, intervals),
        "What was trained": provenance_section(run),
    }
    body = [
        *(f'<p class="lede">{html.escape(line)}</p>' for line in headline.verdict(run)),
        page.paragraph(_subtitle(run)),
        _tiles(run, intervals),
        *(page.box(text, "warning") for text in cautions.cautions(run, intervals)),
        _links(parts),
        "<noscript><p>Thresholds and pictures need JavaScript.</p></noscript>",
        *(piece for part in parts.values() for piece in part),
        deciding.VIEWER,
        '<script type="application/json" id="data">',
        f"{to_script(page_data(run))}</script>",
    ]
    style, script = (asset(name) for name in ("report.css", "report.js"))
    return page.page(f"Report: {run.name}", body, style=style, script=script)


def asset(name: str) -> str:
    """The style sheet or the script, as they lie beside this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _subtitle(run: FinishedRun) -> str:
    model = run.model["model"]["name"]
    text = (
        f"{model} with {run.record['parameters']:,} parameters, judged on the "
        f"{len(run.names):,} images of the {run.part} part"
    )
    best = run.model.get("best_epoch")
    text += f" at its best epoch, {best} of {len(run.history)}." if best else "."
    if not run.evidence:
        text += (
            " Judged by an earlier version: scripts/evaluate.py adds pictures, pixel "
            "curves and calibration."
        )
    return text


def _tiles(run: FinishedRun, intervals: Mapping[str, Interval]) -> str:
    items = "".join(
        f"<li><span>{html.escape(headline.title_of(name))}</span><b>{value:.4f}</b>"
        f"<span>{_interval(interval)}</span></li>"
        for name, value, interval in headline.tiles(run, intervals)
    )
    return f'<ul class="tiles">{items}</ul>' if items else ""


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"95 %: {low:.3f} to {high:.3f}" if np.isfinite(low) else ""


def _links(parts: Mapping[str, list[str]]) -> str:
    """A link to the first heading of each part that there is."""
    links = []
    for title, part in parts.items():
        key = next((p.split('"')[1] for p in part if p.startswith("<h2 id=")), "")
        if key:
            links.append(f'<a href="#{key}">{html.escape(title)}</a>')
    return f'<nav aria-label="Parts of the report">{" ".join(links)}</nav>'


def numbers_section(run: FinishedRun, intervals: Mapping[str, Interval]) -> list[str]:
    """Every metric with its interval, those with one first."""
    names = dict.fromkeys([*intervals, *sorted(run.metrics)])
    rows = []
    for name in names:
        if name not in run.metrics or np.ndim(run.metrics[name]):
            continue
        low, high = intervals.get(name, (np.nan, np.nan))
        between = f"{low:.4f} to {high:.4f}" if np.isfinite(low) else ""
        value = run.metrics[name]
        rows.append([name, "undefined" if value is None else value, between])
    groups = len(set(run.groups))
    drawn = "images" if groups == len(run.names) else f"{groups:,} groups of images"
    return [
        page.heading("All numbers", "numbers"),
        page.paragraph(
            f"Intervals: 1,000 times {drawn} are drawn anew with replacement; 95 % of "
            "the values fall between. They say nothing about images of another kind."
        ),
        "<details><summary>Show all numbers</summary>"
        + page.table(["metric", "value", "95 % interval"], rows)
        + "</details>",
    ]


def provenance_section(run: FinishedRun) -> list[str]:
    """Config and its difference from the file, data, versions, device, speed."""
    record, config = run.record, run.record["config"]
    origin, made = record.get("origin") or {}, record.get("environment", {})
    speed = column_of(run.history, "images_per_second")
    waits = column_of(run.history, "input_wait")
    sizes = ", ".join(f"{count:,} {part}" for part, count in run.sizes.items())
    facts = {
        "config": origin.get("config"),
        "changed on the command line": "  ".join(origin.get("overrides", ()))
        or ("nothing" if origin else None),
        "data": config["data"]["name"],
        "folder of the data": config["data"].get("dir"),
        "images": sizes,
        "data hash": record["data_hash"],
        "split": config["data"]["split"],
        "hash of split.csv": run.split_hash,
        "device": made.get("device"),
        "precision": record.get("precision"),
        "epochs": f"{len(run.history)} of {config['train']['epochs']}",
        "time in training steps": _training_time(run, speed),
        "images per second": _median(speed, "{:.1f}"),
        "waiting for images": _median(waits, "{:.1%}"),
        "Python": made.get("python"),
        "versions": ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items()),
        "commit": made.get("commit") or None,
    }
    facts = {name: value for name, value in facts.items() if value}
    settings = {name: str(value) for name, value in flatten(config).items()}
    body = [page.heading("What was trained on what", "made"), _facts(facts)]
    if record.get("notes"):
        body += ["<h3>What was found in the data</h3>", page.bullets(record["notes"])]
    body.append(
        "<details><summary>All settings</summary>" + _facts(settings) + "</details>"
    )
    return body


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f'<td class="text">{html.escape(format_value(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def _median(values: np.ndarray, form: str) -> str | None:
    """Over the epochs from the second on; the first one compiles."""
    later = values[1:] if len(values) > 1 else values
    later = later[np.isfinite(later)]
    return form.format(np.median(later)) if len(later) else None


def _training_time(run: FinishedRun, speed: np.ndarray) -> str | None:
    """Images of an epoch over images per second, summed over the epochs."""
    steps, config = run.record.get("steps_per_epoch"), run.record["config"]["train"]
    if not steps or len(steps) > 1 or not len(speed) or not (speed > 0).all():
        return None
    return duration(float((steps[0] * config["batch_size"] / speed).sum()))
