"""Laws of the files that a finished evaluation leaves for people."""

import csv
import io
import itertools
import json
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import figure
from PIL import Image
from rich.console import Console

from jaxseg.report import curves, decisions, judge, overlays, results
from jaxseg.types import IGNORE

BINARY = ("background", "crack")

# Severity 1.0 of https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/, on
# linear RGB.
COLOUR_BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def _lab(color, vision):
    """CIE L*a*b* (D65) of an sRGB colour as seen with this vision."""
    part = np.asarray(color) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    linear = (COLOUR_BLINDNESS[vision] @ linear).clip(0, 1)
    to_xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ]
    x, y, z = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = (
        math.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _panels(picture, count, height, width):
    """The panels of a one-row overlay, found from the layout's stated gap."""
    pixels = np.asarray(picture)
    factor = math.ceil(overlays.PANEL_MIN / max(height, width))
    top = overlays.GAP + overlays.LABEL_SIZE + 8  # no title lines
    step = width * factor + overlays.GAP
    starts = [overlays.GAP + index * step for index in range(count)]
    return [
        pixels[top : top + height * factor, x : x + width * factor][::factor, ::factor]
        for x in starts
    ]


# overlay names


def test_an_overlay_is_named_by_its_score_and_sample():
    assert overlays.overlay_name(0.9987, "2490") == "0.999_result_2490.jpg"
    assert overlays.overlay_name(0, "W/CW/7000-1") == "0.000_result_W__CW__7000-1.jpg"
    assert overlays.overlay_name(1.0, "mặt đường 3") == "1.000_result_mặt đường 3.jpg"


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/abs", "a\\b", "C:\\x", "a\x00b", "a\nb", 'x<>:"|?*y',
     "~$(rm)", "\udcff", "é" * 400, "", "..", "%2e%2e/%2f"],
)  # fmt: skip
def test_a_hostile_name_stays_in_the_folder_and_can_be_written(tmp_path, name):
    file_name = overlays.overlay_name(0.5, name)
    path = tmp_path / file_name
    path.write_bytes(b"x")
    assert path.resolve().parent == tmp_path.resolve()
    assert [entry.name for entry in tmp_path.iterdir()] == [file_name]
    assert not set(file_name) & set('\\/<>:"|?*\x00\n$%~')
    assert len(file_name.encode()) <= 255


def test_different_names_have_different_files():
    names = ["a/b", "a__b", "a/_b", "a_/b", "a?b", "a*b", "a_b", "x" * 300, "x" * 301]
    assert len({overlays.overlay_name(0.5, name) for name in names}) == len(names)


# overlays


def test_every_pixel_of_a_binary_result_has_the_colour_of_its_kind():
    truth = np.array([[1, 1, 0, 0], [IGNORE, IGNORE, 0, 1]] * 2, np.uint8)
    decision = np.array([[1, 0, 1, 0], [1, 0, 0, 1]] * 2, np.uint8)
    image = np.full((4, 4, 3), 200, np.uint8)
    probs = np.array([[0, 1, 0.5, np.nan]] * 4)
    picture = overlays.draw_overlay(
        image, truth, probs, decision, classes=BINARY, title=()
    )
    photo, annotation, score, result = _panels(picture, 4, 4, 4)
    assert (photo == 200).all()
    hit, miss, alarm = overlays.HIT, overlays.MISS, overlays.FALSE_ALARM
    grey = overlays.IGNORED
    assert [tuple(pixel) for pixel in result[0, :3]] == [hit, miss, alarm]
    assert [tuple(pixel) for pixel in result[1, :2]] == [grey, grey]
    assert tuple(result[1, 3]) == hit
    assert (result[0, 3] == 110).all()  # 200 * 0.55: the darkened photo
    black, white = overlays.BACKGROUND, overlays.FOREGROUND
    assert [tuple(pixel) for pixel in annotation[0]] == [white, white, black, black]
    assert tuple(annotation[1, 0]) == grey
    assert tuple(score[0, 0]) == (0, 0, 4)  # both ends of matplotlib's magma
    assert tuple(score[0, 1]) == (252, 253, 191)
    assert tuple(score[0, 3]) == grey


def test_foreground_of_another_class_is_marked_as_the_wrong_class():
    truth = np.array([[0, 1, 2, 2]] * 4, np.int32)
    decision = np.array([[0, 1, 1, 0]] * 4, np.int32)
    picture = overlays.draw_overlay(
        np.zeros((4, 4, 1), np.uint8), truth, None, decision,
        classes=("leaf", "rust", "miner"), title=(),
    )  # fmt: skip
    _, annotation, decided, result = _panels(picture, 4, 4, 4)
    assert tuple(result[0, 1]) == overlays.HIT
    assert tuple(result[0, 2]) == overlays.WRONG_CLASS
    assert tuple(result[0, 3]) == overlays.MISS
    colors = overlays.class_colors(3)
    np.testing.assert_array_equal(annotation, colors[truth])
    np.testing.assert_array_equal(decided, colors[decision])


def test_without_ground_truth_the_result_shows_what_was_found():
    decision = np.eye(8, dtype=bool)
    image = np.full((8, 8, 4), 100, np.uint8)
    picture = overlays.draw_overlay(
        image, None, None, decision, classes=BINARY, title=()
    )
    photo, result = _panels(picture, 2, 8, 8)
    assert (photo == 100).all()
    assert (result[decision] == overlays.HIT).all()
    assert (result[~decision] == 55).all()


@pytest.mark.parametrize("side", [64, 96, 224, 300])
def test_small_images_are_enlarged_until_text_is_readable(side):
    image = np.zeros((side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.uint8)
    picture = overlays.draw_overlay(
        image, mask, mask.astype(float), mask, classes=BINARY, title=("one", "two")
    )
    assert picture.mode == "RGB"
    assert 4 * 224 <= picture.width <= 4 * 448
    assert picture.height > 224


def test_large_images_are_drawn_small_and_thin_finds_stay_visible():
    decision = np.zeros((2100, 2100), np.uint8)
    decision[:, 1050] = 1
    image = np.zeros((2100, 2100, 3), np.uint8)
    picture = overlays.draw_overlay(
        image, None, None, decision, classes=BINARY, title=()
    )
    assert max(picture.size) < 2 * overlays.PANEL_MAX
    result = np.asarray(picture)[400, picture.width // 2 :]
    assert (np.abs(result.astype(int) - np.array(overlays.HIT) // 3).sum(-1) < 6).any()


def test_wide_images_are_stacked_and_tall_ones_stand_side_by_side():
    def size(height, width):
        mask = np.zeros((height, width), np.uint8)
        image = np.zeros((height, width, 3), np.uint8)
        return overlays.draw_overlay(
            image, mask, mask, mask, classes=BINARY, title=()
        ).size

    assert size(128, 1000)[0] < 2 * 1000
    assert size(640, 232)[1] < 2 * 640


def test_long_titles_and_foreign_letters_fit_on_the_picture():
    image = np.zeros((16, 16, 3), np.uint8)
    title = ("裂缝 đường nứt " * 30,)
    picture = overlays.draw_decision(image, right=True, title=title)
    assert picture.width > overlays.PANEL_MIN
    right_edge = np.asarray(picture)[:, -3:]
    assert (right_edge == 255).all()


@pytest.mark.parametrize(
    ("right", "color"),
    [(True, overlays.HIT), (False, overlays.FALSE_ALARM), (None, overlays.IGNORED)],
)
def test_a_classified_image_is_framed_by_its_verdict(right, color):
    image = np.full((1020, 1020, 3), 7, np.uint8)
    picture = np.asarray(overlays.draw_decision(image, right=right, title=()))
    top = overlays.GAP + overlays.LABEL_SIZE + 8
    left, frame = overlays.GAP, overlays.FRAME
    assert (picture[top : top + frame, left : left + 1020 + 2 * frame] == color).all()
    inside = picture[top + frame :, left + frame :][:1020, :1020]
    assert (inside == 7).all()


def test_result_colours_differ_for_every_kind_of_colour_vision():
    colors = (overlays.HIT, overlays.MISS, overlays.FALSE_ALARM)
    for vision in COLOUR_BLINDNESS:
        for one, other in itertools.combinations(colors, 2):
            assert np.linalg.norm(_lab(one, vision) - _lab(other, vision)) > 30


def test_score_colours_are_those_of_magma():
    magma = matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255
    assert np.abs(overlays.SCORE_COLORS - magma).max() < 4


def test_a_class_keeps_its_colour_and_no_two_classes_share_one():
    few, many = overlays.class_colors(3), overlays.class_colors(32)
    np.testing.assert_array_equal(few, many)
    assert len({tuple(color) for color in many[:32]}) == 32


def test_the_dice_of_an_image_leaves_the_background_out():
    row = {"dice/background": 1.0, "dice/rust": 0.2, "dice/miner": 0.6}
    found = judge.foreground_dice(row, ("background", "rust", "miner"))
    assert found == pytest.approx(0.4)
    assert judge.foreground_dice({"decision": 1}, ("clean", "crack")) is None


@pytest.mark.parametrize("has_mask", [True, False])
def test_wrong_decisions_are_drawn_before_poor_masks_and_unsure_scores(has_mask):
    count, wrong, worst = 400, [7, 399], [50, 51, 52]
    decision = np.zeros(count, np.int64)
    decision[wrong] = 1
    prediction, dice = np.full(count, 0.9), np.full(count, 0.8)
    prediction[worst], dice[worst], dice[wrong] = 0.5, 0.1, 1.0
    rows = {
        "prediction": prediction,
        "decision": decision,
        "ground_truth": 0 * decision,
    }
    rows |= {"dice/crack": dice} if has_mask else {}
    shown = judge._worth_showing(rows, BINARY)
    assert len(shown) == len(set(shown)) == judge.MAX_OVERLAYS
    assert {*wrong, *worst} <= set(shown)


def test_titles_say_score_threshold_decision_truth_and_dice():
    assert overlays.describe(0.2, 0.5, "clean", "crack", None) == (
        "score 0.200 < threshold 0.500: clean",
        "ground truth: crack",
    )
    assert overlays.describe(0.5, 0.5, "crack", None, None) == (
        "score 0.500 >= threshold 0.500: crack",
    )
    assert overlays.describe(0.9, None, "rust", None, 0.25) == (
        "score 0.900: rust",
        "dice 0.250",
    )


# results.csv, metrics.json, table


def test_results_survive_a_round_trip_with_hostile_names(tmp_path):
    names = ["a,b", 'say "x"', "two\nlines", "W/CW/1", "裂 ü", "plain", " padded "]
    rows = [
        {"name": name, "prediction": np.float32(0.1), "decision": 1, "ground_truth": 0}
        for name in names
    ]
    results.write_results(tmp_path / "results.csv", rows)
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["name"] for row in read] == names
    assert list(read[0]) == ["name", "prediction", "decision", "ground_truth"]
    assert np.float32(read[0]["prediction"]) == np.float32(0.1)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_name_that_looks_like_a_formula_is_made_text(tmp_path, start):
    name = f"{start}HYPERLINK(1)"
    row = {"name": name, "prediction": -0.5, "decision": name, "ground_truth": None}
    results.write_results(tmp_path / "results.csv", [row])
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        (read,) = csv.DictReader(file)
    assert read["name"] == read["decision"] == f"'{name}"
    assert read["prediction"] == "-0.5"
    assert read["ground_truth"] == ""


def test_every_metric_of_any_row_has_a_column_and_gaps_are_empty(tmp_path):
    common = {"prediction": 0.5, "decision": "crack", "ground_truth": "crack"}
    rows = [
        {"name": "a", **common, "dice": 0.123456789012345678},
        {"name": "b", **common, "dice": math.nan, "iou": np.float64(0.5)},
    ]
    results.write_results(tmp_path / "deep" / "results.csv", rows)
    text = (tmp_path / "deep" / "results.csv").read_text()
    assert text.splitlines() == [
        "name,prediction,decision,ground_truth,dice,iou",
        "a,0.5,crack,crack,0.12345678901234568,",
        "b,0.5,crack,crack,,0.5",
    ]


def test_metrics_are_strict_json_with_sorted_keys(tmp_path):
    path = tmp_path / "metrics.json"
    results.write_metrics(
        path,
        {"b": np.float32(0.5), "a": math.nan, "c": {"y": np.int64(3), "x": -math.inf},
         "confusion": np.array([[1, 2], [3, 4]]), "many": (np.nan, True, None)},
    )  # fmt: skip

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {
        "a": None, "b": 0.5, "c": {"x": None, "y": 3},
        "confusion": [[1, 2], [3, 4]], "many": [None, True, None],
    }  # fmt: skip
    assert list(read) == sorted(read)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    results.write_metrics(path, {"a": 1})
    with pytest.raises(TypeError):
        results.write_metrics(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def _printed(metrics):
    console = Console(file=io.StringIO(), width=100)
    results.print_table(metrics, "test", console)
    return console.file.getvalue()


def test_the_table_shows_set_size_and_the_baseline_beside_accuracy():
    text = _printed({
        "num_images": 1695, "accuracy": 0.97935, "majority_accuracy": 0.875,
        "pixel_accuracy": 0.97, "background_accuracy": 0.9669, "auc": math.nan,
    })  # fmt: skip
    lines = {
        line.split()[0]: line.split() for line in text.splitlines() if line.strip()
    }
    assert "test: 1,695 images" in text
    assert lines["accuracy"] == ["accuracy", "0.9794", "0.8750", "(majority)"]
    assert lines["pixel_accuracy"][1:] == ["0.9700", "0.9669", "(background)"]
    assert lines["auc"] == ["auc", "undefined"]
    assert "majority_accuracy" not in lines


def test_the_table_has_a_row_per_class_whatever_its_name():
    text = _printed({
        "iou/rust/pooled": 0.5, "iou/a/b [red]/pooled": 0.25,
        "iou/rust/per_image": 0.75, "f1/rust": 0.1, "f1/macro": 0.2,
    })  # fmt: skip
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert ["rust", "iou", "0.5000", "0.7500"] in lines
    assert ["a/b", "[red]", "iou", "0.2500"] in lines
    assert ["rust", "f1", "0.1000"] in lines
    assert ["macro", "f1", "0.2000"] in lines


# decisions about images

# As the reference run of SegDecNet counts: 1483 positives and 212 negatives.
DECISIONS = {
    "tp": 1475, "fn": 8, "fp": 27, "tn": 185, "auc": 0.990410, "ap": 0.998510,
    "ap_trapezoid": 0.998506, "f1": 0.988274, "image_threshold": 0.32359,
    "optimistic_threshold": 0.25, "optimistic_f1": 0.99, "optimistic_fp": 20,
    "optimistic_fn": 7,
}  # fmt: skip


def _printed_decisions(summary):
    console = Console(file=io.StringIO(), width=200)
    decisions.print_decisions(summary, ("clean", "defect"), "test", console)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_decisions_are_printed_as_in_the_reference():
    lines = _printed_decisions(DECISIONS)
    assert lines[0] == ["test", "set:", "decisions", "at", "threshold", "0.3236"]
    assert ["Positives", "(defect)", "1,475", "8"] in lines
    assert ["Negatives", "(clean)", "27", "185"] in lines
    record, optimistic = (" ".join(line) for line in lines[-2:])
    assert record == (
        "EVAL test: AUC 0.990410, AP 0.998510, threshold 0.323590, F1 0.988274, "
        "FP 27, FN 8"
    )
    assert optimistic == (
        "EVAL test (optimistic): AUC 0.990410, AP 0.998506, threshold 0.250000, "
        "F1 0.990000, FP 20, FN 7"
    )
    assert decisions.confusion_of(DECISIONS).tolist() == [[185, 27], [8, 1475]]


def test_decisions_of_one_class_are_printed_as_undefined():
    undefined = dict.fromkeys(DECISIONS, math.nan) | dict(
        tp=0, fn=0, fp=3, tn=9, image_threshold=0.5
    )
    lines = _printed_decisions(undefined)
    assert ["Negatives", "(clean)", "3", "9"] in lines
    assert " ".join(lines[-1]).endswith("F1 undefined, FP undefined, FN undefined")


# curves


def _is_drawn(path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = pixels.shape[:2]
    return width >= 800 and height >= 500 and len(np.unique(pixels)) > 20


@pytest.mark.parametrize("order", [1, -1])
def test_precision_recall_and_roc_are_drawn_for_rising_and_falling_points(
    tmp_path, order
):
    recall, precision = np.array([0, 0.5, 1])[::order], np.array([1, 0.8, 0.4])[::order]
    path = tmp_path / "pr.png"
    curves.save_precision_recall(path, recall, precision, 0.75, (0.5, 0.8), 0.3)
    assert _is_drawn(path)
    curves.save_roc(path, recall, precision[::-1], 0.7, (0.5, 0.8))
    assert _is_drawn(path)


def test_curves_of_a_set_with_one_class_are_drawn_without_warning(tmp_path):
    nothing = np.array([np.nan, np.nan])
    path = tmp_path / "curve.png"
    curves.save_precision_recall(path, nothing, nothing, np.nan, None, 0.5)
    assert _is_drawn(path)
    curves.save_roc(path, nothing, nothing, np.nan, (np.nan, 0.5))
    assert _is_drawn(path)
    curves.save_roc(path, [], [], np.nan, None)
    assert _is_drawn(path)


def _history(num_epochs):
    return [
        {"epoch": str(epoch), "train/loss": f"{2.0**-epoch}", "val/loss": "0.5",
         "val/iou/crack/pooled": "" if epoch % 2 else str(1 - (epoch - 4) ** 2 / 100),
         "learning_rate": "1e-3"}
        for epoch in range(1, num_epochs + 1)
    ]  # fmt: skip


def test_the_best_epoch_is_the_extreme_of_the_monitored_metric(tmp_path, monkeypatch):
    titles = []
    mark_best = curves._mark_best
    monkeypatch.setattr(
        curves,
        "_mark_best",
        lambda *args: titles.append(mark_best(*args)) or titles[-1],
    )
    path = tmp_path / "losses.png"
    curves.save_losses(path, _history(9), monitor="iou/crack/pooled", mode="max")
    assert _is_drawn(path)
    curves.save_losses(path, _history(9), monitor="iou/crack/pooled", mode="min")
    curves.save_losses(path, _history(1), monitor="loss", mode="min")
    assert titles == [
        "Best epoch 4: val/iou/crack/pooled 1.0000",
        "Best epoch 8: val/iou/crack/pooled 0.8400",
        "Best epoch 1: val/loss 0.5000",
    ]


def test_parts_of_the_loss_have_a_panel_of_their_own(tmp_path, monkeypatch):
    figures = []

    def recorded(**options):
        figures.append(figure.Figure(**options))
        return figures[-1]

    monkeypatch.setattr(curves, "Figure", recorded)
    parts = {"train/loss_seg": 0.3, "train/loss_dec": 0.2, "val/loss_seg": 0.1}
    rows = [row | parts for row in _history(3)]
    for monitor in ("iou/crack/pooled", "loss"):
        curves.save_losses(tmp_path / "losses.png", rows, monitor=monitor, mode="max")
    with_metric, without = (
        [panel.get_ylabel() for panel in one.axes] for one in figures
    )
    assert with_metric == ["loss", "parts of the loss", "iou", "learning rate"]
    assert without == ["loss", "parts of the loss", "learning rate"]
    lines = {
        line.get_label(): (line.get_linestyle(), *line.get_ydata())
        for line in figures[0].axes[1].get_lines()
    }
    assert lines["train/loss_seg"] == ("--", 0.3, 0.3, 0.3)
    assert lines["val/loss_seg"] == ("-", 0.1, 0.1, 0.1)
    assert lines["train/loss_dec"] == ("--", 0.2, 0.2, 0.2)
    assert "val/loss_dec" not in lines


def test_losses_are_drawn_before_the_first_validation(tmp_path):
    path = tmp_path / "losses.png"
    rows = [{"epoch": 1, "train/loss": 0.5, "learning_rate": 0.0}]
    curves.save_losses(path, rows, monitor="auc", mode="max")
    assert _is_drawn(path)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_confusions_of_any_size_are_drawn(tmp_path, count):
    confusion = np.diag(np.arange(count)) * 10**7
    path = tmp_path / "confusion.png"
    curves.save_confusion(path, confusion, [f"$class_{k}$" for k in range(count)])
    assert _is_drawn(path)


def test_only_the_curves_import_matplotlib():
    code = (
        "import sys, jaxseg.report.overlays, jaxseg.report.results;"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
