"""The parts of a report that stand still: classes, groups, calibration, training."""

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.metrics import calibration, mode_of
from jaxseg.report import page
from jaxseg.report.charts import Line, chart
from jaxseg.report.finished import FinishedRun
from jaxseg.report.headline import title_of
from jaxseg.report.page_data import jpeg
from jaxseg.report.results import AVERAGINGS
from jaxseg.writer import column_of

MAX_GROUPS, MAX_CLASSES_SHOWN = 40, 30
GIF_BYTES = 1_000_000
PREVIEW_SIDE, PREVIEW_QUALITY = 1400, 80
SHOWN_OF_CLASSES = {
    *((metric, "") for metric in ("precision", "recall", "f1")),
    *((metric, "pooled") for metric in ("iou", "dice", "precision", "recall")),
    ("dice", "per image"),
}
UNIT = (0.0, 1.0)


def class_section(run: FinishedRun) -> list[str]:
    """Metrics by class, and who is taken for whom."""
    body = [page.heading("By class", "classes")]
    cells = _class_cells(run)
    labels = [name for name in run.classes if any(name == key[0] for key in cells)]
    if len(labels) == 1:  # metrics downward, what they are averaged over across
        averagings = dict.fromkeys(key[2] for key in cells)
        metrics = dict.fromkeys(key[1] for key in cells)
        rows = [
            [metric, *(cells.get((labels[0], metric, a)) for a in averagings)]
            for metric in metrics
        ]
        body.append(page.table([labels[0], *averagings], rows))
    elif labels:
        columns = [key[1:] for key in cells if key[0] == labels[-1]]
        columns = [key for key in columns if key in SHOWN_OF_CLASSES]
        header = [" ".join(key).strip() for key in columns]
        rows = [
            [name, *(cells.get((name, *key)) for key in columns)] for name in labels
        ]
        body.append(page.table(["class", *header], rows))
    if len(run.kinds) > 2:
        body += _confusion(run.image_confusion, run.kinds, "images")
    elif len(run.classes) > 2 and "confusions" in run.evidence:
        body += _confusion(run.evidence["confusions"].sum(0), run.classes, "pixels")
    return body if len(body) > 1 else []


def _class_cells(run: FinishedRun) -> dict[tuple[str, str, str], float | None]:
    """(class, metric, averaging) -> value."""
    cells = {}
    for name, value in run.metrics.items():
        metric, _, rest = name.partition("/")
        averaging = next((a for a in AVERAGINGS if rest.endswith(a)), "")
        label = rest.removesuffix(averaging)
        if label in run.classes:
            cells[label, metric, averaging[1:].replace("_", " ")] = value
    return cells


def _confusion(table: np.ndarray, names: Sequence[str], unit: str) -> list[str]:
    """Rows are the true class; the colour is the share of it."""
    if len(names) > MAX_CLASSES_SHOWN:
        return []
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    rows = ""
    for name, counts in zip(names, table, strict=True):
        rows += f'<tr><th scope="row">{html.escape(name)}</th>'
        for count in counts.tolist():
            share = count / max(1, counts.sum())
            rows += (
                f'<td class="share" style="--part: {60 * share:.0f}%" '
                f'title="{share:.1%} of this class">{count:,}</td>'
            )
        rows += "</tr>"
    return [
        f"<h3>Confusion, in {unit}: rows are the truth, columns the decision</h3>",
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>'
        f"{rows}</tbody></table></div>",
    ]


def group_section(run: FinishedRun) -> list[str]:
    """Which folder and which group (photo, tile, surface) is bad; worst first."""
    folders = [str(Path(name).parent) for name in run.names]
    folders = ["(top)" if folder == "." else folder for folder in folders]
    together = len(set(zip(folders, run.groups, strict=True)))
    parts = {"By folder": folders, "By group": run.groups}
    if together == len(set(folders)) == len(set(run.groups)):
        del parts["By folder"]  # the groups are the folders
    body = []
    for title, keys in parts.items():
        if not 1 < len(set(keys)) < len(keys):
            continue
        header, rows = _group_table(run, keys)
        body += [page.heading(title, title.lower().replace(" ", "-"))]
        if len(rows) > MAX_GROUPS:
            text = f"The worst {MAX_GROUPS} of {len(rows):,}."
            body.append(page.paragraph(text))
        body.append(page.table(header, rows[:MAX_GROUPS]))
    return body


def _group_table(run: FinishedRun, keys: Sequence[str]) -> tuple[list[str], list]:
    names, group_of = np.unique(np.asarray(keys), return_inverse=True)
    count = len(names)
    wrong = run.labels != run.decisions
    columns = {"images": np.bincount(group_of, minlength=count)}
    if len(run.kinds) == 2:
        positive = run.labels == 1
        columns[run.kinds[1]] = np.bincount(group_of, positive, count).astype(int)
        missed = np.bincount(group_of, wrong & positive, count)
        columns["missed"] = missed.astype(int)
        columns["false alarms"] = np.bincount(group_of, wrong & ~positive, count)
        columns["false alarms"] = columns["false alarms"].astype(int)
    else:
        columns["wrong"] = np.bincount(group_of, wrong, count).astype(int)
    share = np.bincount(group_of, wrong, count) / columns["images"]
    columns["share wrong"] = share
    quality = -share
    if run.dice is not None:
        known = np.isfinite(run.dice)
        total = np.bincount(group_of[known], run.dice[known], count)
        images = np.bincount(group_of[known], minlength=count)
        columns["Dice per image"] = np.where(
            images, total / np.maximum(images, 1), np.nan
        )
        quality = np.nan_to_num(columns["Dice per image"], nan=1.0)
    order = np.lexsort((quality, -share))
    rows = [[str(names[i]), *(of[i].item() for of in columns.values())] for i in order]
    return ["", *columns], rows


def calibration_section(run: FinishedRun) -> list[str]:
    """Whether scores can be read as probabilities, before and after scaling."""
    rows, charts = [], []
    for title, fitted, judged in _claims(run):
        temperature = calibration.fit_temperature(*fitted)
        lines = [Line("ideal", UNIT, UNIT, "quiet", dashed=True)]
        errors = []
        for name, style, t in (
            ("as it is", "line1", 1.0),
            (f"scaled, T = {temperature:.3g}", "line0", temperature),
        ):
            found = _reliability(*judged, t, fitted[0].shape[1])
            lines.append(Line(name, found.claimed, found.true, style, dots=True))
            errors.append(found.ece)
        rows.append([title, *errors, temperature])
        charts.append(
            chart(
                f"Reliability of {title}",
                lines,
                x_label="claimed probability",
                y_label="share that is so",
                x_range=UNIT,
                y_range=UNIT,
            )
        )
    if not rows:
        return []
    header = ["scores of", "ECE as it is", "ECE scaled", "temperature"]
    return [
        page.heading("Calibration", "calibration"),
        page.paragraph(
            "Whether what is claimed with 80 % is so in 80 % of the cases. ECE is the "
            f"mean gap on the {run.part} part, in ten bins. Temperature scaling, "
            "fitted on validation, divides the logits by one number: above 1, the "
            "model is too sure. It changes no order of scores; the stored model is not "
            "scaled."
        ),
        page.table(header, rows),
        f'<div class="columns">{"".join(charts)}</div>',
    ]


def _claims(run: FinishedRun) -> Iterator[tuple[str, tuple, tuple]]:
    """(what, logits labels weights of validation, the same of the judged part)."""
    found = run.evidence
    if "val_probs" in found:
        val = calibration.log_probs(found["val_probs"]), found["val_label"]
        judged = calibration.log_probs(found["probs"]), run.labels
        yield "the chosen class", (*val, None), (*judged, None)
    elif "image" in run.thresholds and "val_score" in found:
        val = calibration.log_probs(found["val_score"]), found["val_label"]
        judged = calibration.log_probs(run.scores), run.labels
        yield "images", (*val, None), (*judged, None)
    if "val_histogram" in found:
        yield "pixels", _pixels(found["val_histogram"]), _pixels(found["histogram"])


def _pixels(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel with the middle of its bin as score."""
    bins = histogram.shape[1]
    middles = (np.arange(bins) + 0.5) / bins
    logits = calibration.log_probs(np.concatenate([middles, middles]))
    labels = np.repeat([0, 1], bins)
    return logits, labels, histogram.reshape(-1)


def _reliability(logits, labels, weight, temperature: float, num_classes: int):
    probs = calibration.scale(logits, temperature)
    if num_classes == 2:
        return calibration.reliability(probs[:, 1], labels == 1, weight)
    return calibration.reliability(probs.max(1), probs.argmax(1) == labels, weight)


def training_section(run: FinishedRun) -> list[str]:
    """Curves of the epochs, and the pictures drawn on the way."""
    return [
        page.heading("Training", "training"),
        f'<div class="columns">{"".join(training_charts(run))}</div>',
        *_previews(run),
    ]


def training_charts(run: FinishedRun) -> Iterator[str]:
    epochs, best = column_of(run.history, "epoch"), run.model.get("best_epoch")
    monitor = run.record["config"]["train"]["monitor"]
    panels = {"loss": ["train/loss", "val/loss"]}
    parts = [n for n in run.history[0] if n.startswith(("train/loss_", "val/loss_"))]
    if parts:
        panels["parts of the loss"] = parts
    if monitor != "loss":
        better = "higher" if mode_of(monitor) == "max" else "lower"
        panels[f"{title_of(monitor)}, {better} is better"] = [f"val/{monitor}"]
    panels["learning rate"] = ["learning_rate"]
    panels["images per second"] = ["images_per_second"]
    for title, names in panels.items():
        lines = [
            Line(
                name if len(names) > 1 else "",
                epochs,
                column_of(run.history, name),
                f"line{k % 6}",
                dots=len(epochs) <= 30,
            )
            for k, name in enumerate(names)
        ]
        yield chart(
            f"{title[:1].upper()}{title[1:]}"
            + (f"; best epoch {best}" if best else ""),
            lines,
            x_label="epoch",
            y_label="",
            x_range=(float(epochs.min()), float(max(epochs.max(), epochs.min() + 1))),
            vertical=best,
        )


def _previews(run: FinishedRun) -> list[str]:
    """The animation if it is small, else the last picture of the same images."""
    folder, best = run.folder / "previews", run.model.get("best_epoch")
    animation, pair = folder / "previews.gif", folder / "best_and_last.png"
    last, body = folder / f"epoch_{len(run.history):04d}.png", []
    text = "At the best and at the last epoch"
    if best == len(run.history):
        pair, text = last, "At the last epoch, which is the best"
    if pair.is_file():
        with Image.open(pair) as picture:
            data = jpeg(picture, PREVIEW_SIDE, PREVIEW_QUALITY)
        body.append(_image("jpeg", data, text))
    if animation.is_file() and animation.stat().st_size <= GIF_BYTES:
        data = base64.b64encode(animation.read_bytes()).decode()
        body.append(_image("gif", data, "Epoch by epoch"))
    if not body:
        return []
    return ["<h3>The same validation images, as training goes on</h3>", *body]


def _image(kind: str, data: str, text: str) -> str:
    return (
        f"<figure><figcaption>{html.escape(text)}</figcaption>"
        f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(text)}">'
        "</figure>"
    )
