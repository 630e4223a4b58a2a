"""Laws of the report: what is on it, what is not, and that it holds in a letter."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from finished_runs import HOSTILE, make_finished
from PIL import Image

from jaxseg.errors import InputError
from jaxseg.metrics import calibration
from jaxseg.report import (
    charts,
    evidence,
    headline,
    page,
    page_data,
    run_page,
    sections,
    side_by_side,
)
from jaxseg.report.cautions import cautions
from jaxseg.report.finished import read_run
from jaxseg.report.overlays import overlay_name

ROOT = Path(__file__).parents[1]
HEADINGS = {
    "joint": "decide mistakes images-title classes by-folder by-group calibration "
    "training numbers made",
    "masks": "decide mistakes images-title classes by-folder by-group calibration "
    "training numbers made",
    "binary": "decide mistakes images-title by-folder by-group calibration training "
    "numbers made",
    "classes": "mistakes images-title classes by-folder by-group calibration training "
    "numbers made",
    "regions": "mistakes images-title classes by-folder by-group training numbers made",
}


def data_of(text):
    """What the script of a page reads."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', text, re.S
    )
    return json.loads(found.group(1))


@pytest.mark.parametrize("kind", HEADINGS)
def test_sections_that_do_not_apply_are_absent(tmp_path, kind):
    make_finished(tmp_path, kind)
    text = run_page.report(read_run(tmp_path))
    assert re.findall(r'<h2 id="([^"]+)"', text) == HEADINGS[kind].split()
    links = re.findall(r'<a href="#([^"]+)"', text)
    assert set(links) <= set(HEADINGS[kind].split())


def test_nothing_of_the_data_becomes_markup(tmp_path):
    make_finished(tmp_path)
    text = run_page.report(read_run(tmp_path))
    for name in HOSTILE[:3]:
        assert name not in text
    assert "<b>1</b>" not in text  # of the command line
    assert data_of(text)["rows"][0]["name"] == HOSTILE[0]
    assert text.count("<script") == 2
    loaded = re.findall(r'\b(?:src|href|srcset|action)="([^"]*)"', text)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)


def test_the_policy_allows_the_script_of_the_page_and_no_other():
    import base64
    import hashlib

    text = page.page("x", [], script="run()")
    digest = base64.b64encode(hashlib.sha256(b"run()").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("kind", HEADINGS)
def test_intervals_surround_the_numbers_that_the_run_stored(tmp_path, kind):
    make_finished(tmp_path, kind, n=100)
    run = read_run(tmp_path)
    found = headline.intervals_of(run)
    assert len(headline.tiles(run, found)) >= 2
    for name, (low, high) in found.items():
        assert low <= run.metrics[name] <= high, name
        assert high - low < 0.7, name
    for weigh in headline.weighted(run):
        for name, value in weigh(np.ones(100, int)).items():
            assert value == pytest.approx(run.metrics[name], abs=1e-9), name


def test_scores_are_read_as_they_were_compared(tmp_path):
    _, counts, thresholds = make_finished(tmp_path, "binary")
    run = read_run(tmp_path)
    exact = counts["image_probs"][:, 0].astype(np.float64)
    np.testing.assert_array_equal(run.scores, exact)
    decided = run.scores >= thresholds["image"].value
    np.testing.assert_array_equal(decided, run.decisions)
    assert run.names[: len(HOSTILE)] == HOSTILE


def test_a_report_of_2000_images_can_be_sent(tmp_path):
    names = [f"wall{i // 9}/photo_{i:05d}.jpg" for i in range(2000)]
    make_finished(tmp_path, n=2000, names=names)
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (96, 96, 3), dtype=np.uint8)
    thumbnail = evidence.draw_thumbnail(noise // 2, None, None)  # worse than any photo
    for row in range(2000):
        (tmp_path / "test" / "thumbnails" / f"{row:06d}.jpg").write_bytes(thumbnail)
    run = read_run(tmp_path)
    (tmp_path / "test" / "overlays").mkdir()
    large = Image.fromarray(random.integers(0, 255, (900, 900, 3), dtype=np.uint8))
    for at in range(0, 2000, 100):
        name = overlay_name(run.scores[at], run.names[at])
        large.save(tmp_path / "test" / "overlays" / name, quality=92)
    text = run_page.report(run)
    assert len(text.encode()) < 15_000_000
    rows = data_of(text)["rows"]
    assert len(rows) == 2000
    with_overlay = [row["at"] for row in rows if "overlay" in row]
    wrong = {at for at in range(0, 2000, 100) if run.labels[at] != run.decisions[at]}
    if len(with_overlay) < 20:  # mistakes come first
        assert not wrong - set(with_overlay) or set(with_overlay) <= wrong


def test_an_overlay_and_a_thumbnail_stand_in_the_row_of_their_image(tmp_path):
    make_finished(tmp_path, n=20)
    run = read_run(tmp_path)
    (tmp_path / "test" / "overlays").mkdir()
    name = overlay_name(run.scores[4], run.names[4])
    Image.new("RGB", (50, 40)).save(tmp_path / "test" / "overlays" / name)
    rows = page_data.page_data(run)["rows"]
    assert [row["at"] for row in rows if "overlay" in row] == [4]
    thumbnails = [row["thumbnail"] for row in rows]
    assert all(thumbnails)
    assert len(set(thumbnails)) == 20


@pytest.mark.parametrize("kind", ["joint", "classes"])
def test_calibration_is_fitted_on_validation_and_told_on_test(tmp_path, kind):
    _, counts, _ = make_finished(tmp_path, kind, n=400)
    run = read_run(tmp_path)
    stored = run.evidence
    if kind == "classes":
        val = calibration.log_probs(stored["val_probs"])
        judged = calibration.log_probs(counts["image_probs"])
    else:
        val = calibration.log_probs(stored["val_score"])
        judged = calibration.log_probs(counts["image_probs"][:, 0])
    temperature = calibration.fit_temperature(val, stored["val_label"])
    probs = calibration.scale(judged, temperature)
    if kind == "classes":
        right = probs.argmax(1) == counts["label"]
        ece = calibration.reliability(probs.max(1), right).ece
    else:
        ece = calibration.reliability(probs[:, 1], counts["label"]).ece
    text = "".join(sections.calibration_section(run))
    assert f"<td>{ece:.4f}</td><td>{temperature:.4f}</td>" in text


def test_groups_and_folders_with_their_mistakes_worst_first(tmp_path):
    make_finished(tmp_path, "binary")
    run = read_run(tmp_path)
    (_, by_folder, _, by_group) = sections.group_section(run)
    for text in (by_folder, by_group):
        rows = re.findall(r"<tr><td>(wall\d+)</td>(.*?)</tr>", text)
        assert {name for name, _ in rows} == {f"wall{i}" for i in range(1, 15)}
        shares = []
        for name, cells in rows:
            numbers = [float(cell) for cell in re.findall("<td>([^<]*)</td>", cells)]
            at = [i for i, one in enumerate(run.names) if one.startswith(f"{name}/")]
            wrong = run.labels[at] != run.decisions[at]
            assert numbers[0] == len(at)
            assert numbers[2] + numbers[3] == wrong.sum()
            shares.append(numbers[4])
        assert shares == sorted(shares, reverse=True)


def warnings_of(folder):
    run = read_run(folder)
    return " ".join(cautions(run, headline.intervals_of(run)))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_stands_in_the_way_of_belief_is_said(tmp_path):
    notes = ("WARNING: this split leaks: 3 group(s)", "4 images: 2 train")
    make_finished(tmp_path, "binary", notes=notes)
    model = tmp_path / "model" / "model.json"
    said = warnings_of(tmp_path)
    assert "This split leaks: 3 group(s)." in said
    assert "4 images: 2 train" not in said
    assert "A small test set: 60 images" in said
    assert "recall would lie between" in said
    assert "best epoch is the last" not in said
    edge = {"image": {"value": 0.999, "rule": "max_f1", "note": ""}}
    edit(model, best_epoch=3, thresholds=edge)
    said = warnings_of(tmp_path)
    assert "The best epoch is the last one, 3" in said
    assert "The image threshold 0.999 is at the edge" in said
    noted = {"image": {"value": 0.5, "rule": "max_f1", "note": "no positive image"}}
    edit(model, thresholds=noted)
    assert "The image threshold 0.5: no positive image." in warnings_of(tmp_path)


@pytest.mark.parametrize(
    ("f1", "best", "is_said"),
    [(0.0, 0.9, True), (0.87, 0.9001, True), (0.875, 0.9, False), (None, 0.9, False)],
)
def test_a_threshold_that_does_not_fit_is_said(tmp_path, f1, best, is_said):
    make_finished(tmp_path, "binary", n=300)
    found = {"optimistic_f1": best, "optimistic_threshold": 0.25}
    edit(tmp_path / "test" / "metrics.json", f1=f1, **found)
    said = warnings_of(tmp_path)
    assert ("in hindsight, 0.25, F1 would be 0.9" in said) == is_said
    assert (f"instead of {f1 or 0:.4f}" in said) == is_said


def test_of_a_threshold_by_hand_only_that_is_said(tmp_path):
    make_finished(tmp_path, "binary", n=300)
    found = {"optimistic_f1": 0.9, "optimistic_threshold": 0.25, "f1": 0.1}
    edit(tmp_path / "test" / "metrics.json", **found)
    image = {"value": 0.5, "rule": "by hand", "note": "chosen by hand"}
    edit(tmp_path / "model" / "model.json", thresholds={"image": image})
    said = warnings_of(tmp_path)
    assert "The image threshold 0.5: chosen by hand." in said
    assert "in hindsight" not in said


def test_a_good_run_is_not_warned_of(tmp_path):
    make_finished(tmp_path, "binary", n=300)
    assert warnings_of(tmp_path) == ""


def test_a_class_that_is_never_predicted_is_named(tmp_path):
    make_finished(tmp_path, "classes")
    path = tmp_path / "test" / "results.csv"
    lines = path.read_text().splitlines()
    moved = [re.sub(r"(,[\d.e-]+),2,(\d)$", r"\1,0,\2", line) for line in lines]
    path.write_text("\n".join(moved))
    assert "The class miner is never predicted." in warnings_of(tmp_path)


def test_an_older_run_without_evidence_has_a_report_too(tmp_path):
    make_finished(tmp_path)
    (tmp_path / "test" / evidence.FILE).unlink()
    text = run_page.report(read_run(tmp_path))
    assert "Judged by an earlier version" in text
    assert 'id="slider-image"' in text
    assert 'id="slider-mask"' not in text
    assert 'id="calibration"' not in text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("test/results.csv", "name,prediction\na,0.5\n"),
        ("test/results.csv", "name,prediction,decision,ground_truth\na,x,0,1\n"),
        ("test/results.csv", "name,prediction,decision,ground_truth\na,0.5,0,7\n"),
        ("test/results.csv", "name,prediction,decision,ground_truth\n"),
        ("test/results.csv", "name,prediction,decision,ground_truth\na,0.5\n"),
        ("test/results.csv", ""),
        ("test/metrics.json", "[1"),
        ("test/evidence.safetensors", "nothing"),
        ("model/model.json", "{}"),
        ("model/model.json", "nan"),
        ("split.csv", "x\n"),
        ("metrics.csv", "\x00"),
        ("metrics.csv", "epoch,train/loss\n1,2\n"),
        ("config.json", "[]"),
    ],
)
def test_broken_files_end_with_a_message(tmp_path, file, content):
    make_finished(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError):
        run_page.write_report(tmp_path)
    assert not (tmp_path / run_page.NAME).exists()


def test_an_unfinished_run_is_refused(tmp_path):
    make_finished(tmp_path)
    (tmp_path / "model" / "model.json").unlink()
    with pytest.raises(InputError, match="goes on where it stopped"):
        read_run(tmp_path)


def script(*arguments):
    # A platform that does not exist: whoever touches a device ends with an error.
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "report.py"), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_needs_neither_data_nor_device(tmp_path):
    make_finished(tmp_path / "a", "masks")
    make_finished(tmp_path / "b", "masks", seed=1)
    done = script(tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "report.html").is_file()
    done = script(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both.html")
    assert done.returncode == 0, done.stderr
    assert "Runs side by side: a, b" in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize("kind", ["joint", "classes", "regions"])
def test_runs_beside_each_other(tmp_path, kind):
    runs = []
    for seed, name in enumerate(("<a>", "b")):
        make_finished(tmp_path / name, kind, seed=seed)
        runs.append(read_run(tmp_path / name))
    text = side_by_side.compare(runs)
    assert "<a>" not in text
    for name in HOSTILE[:3]:
        assert name not in text
    differ = sum(
        (one.labels[i] == one.decisions[i]) != (other.labels[i] == other.decisions[i])
        for one, other in [runs]
        for i in range(60)
    )
    assert f"{differ} of 60 images" in text
    best = max(run.metrics[next(iter(headline.intervals_of(run)))] for run in runs)
    assert f"<b>{best:.4f}</b>" in text


def test_differences_are_drawn_in_pairs(tmp_path):
    for name in ("a", "b"):
        make_finished(tmp_path / name, "binary", n=200)
    first = read_run(tmp_path / "a")
    path = tmp_path / "b" / "test" / "results.csv"
    rows = path.read_text().splitlines()
    flipped = [re.sub(r",1,1$", ",0,1", row) for row in rows[:40]]  # some are missed
    path.write_text("\n".join([*flipped, *rows[40:]]))
    worse = read_run(tmp_path / "b")
    alike = headline.differences(first, first)
    assert set(alike.values()) == {(0.0, 0.0)}
    low, high = headline.differences(first, worse)["recall"]
    change = np.mean((worse.decisions - first.decisions)[first.labels == 1])
    assert low < change < high < 0
    low_alone, high_alone = headline.intervals_of(worse)["recall"]
    assert high - low < high_alone - low_alone
    make_finished(tmp_path / "c", "binary", n=190)
    assert headline.differences(first, read_run(tmp_path / "c")) == {}


def test_runs_of_different_tasks_differ_in_what_both_have(tmp_path):
    for kind in ("joint", "masks", "binary"):
        make_finished(tmp_path / kind, kind, n=200)
    joint, masks, binary = (
        read_run(tmp_path / kind) for kind in ("joint", "masks", "binary")
    )
    found = headline.differences(joint, masks)
    assert set(found) == set(headline.intervals_of(masks))
    assert {"dice/crack/pooled", "iou/crack/per_image", "false_alarm_rate"} <= set(
        found
    )
    for name, (low, high) in found.items():
        assert low <= masks.metrics[name] - joint.metrics[name] <= high, name
    assert set(headline.differences(joint, binary)) >= {"recall", "ap"}
    assert headline.differences(masks, binary) == {}


def test_runs_of_other_images_are_marked_and_seven_refused(tmp_path):
    make_finished(tmp_path / "a", "binary")
    make_finished(tmp_path / "b", "binary", n=50)
    runs = [read_run(tmp_path / name) for name in "ab"]
    assert "judged on other images" in side_by_side.compare(runs)
    with pytest.raises(InputError, match="2 to 6"):
        side_by_side.compare(runs[:1] * 7)


def test_a_chart_places_its_points():
    drawn = charts.chart(
        "t",
        [charts.Line("l", [0, 1, 2], [0.0, np.nan, 1.0])],
        x_label="",
        y_label="",
        x_range=(0, 2),
        y_range=(0, 1),
    )
    left, right = charts.LEFT, charts.LEFT + charts.PLOT_WIDTH
    top, bottom = charts.TOP, charts.TOP + charts.PLOT_HEIGHT
    assert f'd="M{left} {bottom}L{right} {top}"' in drawn


def test_an_axis_is_logarithmic_where_values_differ_much():
    drawn = charts.chart(
        "t", [charts.Line("", [1, 2, 3], [100, 1, 10])], x_label="", y_label=""
    )
    path = re.search(r'class="line line0" d="M([^"]+)"', drawn).group(1)
    heights = [float(point.split()[1]) for point in path.split("L")]
    assert heights == [charts.TOP, charts.TOP + charts.PLOT_HEIGHT, pytest.approx(134)]
    assert heights[2] == pytest.approx((heights[0] + heights[1]) / 2, abs=0.1)


def test_charts_of_nothing_and_of_one_value_are_drawn():
    for values in ([], [np.nan], [2.0], [0.0]):
        x = np.arange(len(values))
        drawn = charts.chart("t", [charts.Line("l", x, values)], x_label="", y_label="")
        assert "nan" not in drawn


def test_an_installed_package_has_every_module_and_the_assets():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = described["tool"]["setuptools"]
    folders = {p.parent for p in (ROOT / "jaxseg").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setuptools["packages"]) == names
    patterns = setuptools["package-data"]["jaxseg.report"]
    report = ROOT / "jaxseg" / "report"
    assets = {p for p in report.iterdir() if p.suffix not in ("", ".py")}
    assert assets == {p for pattern in patterns for p in report.glob(pattern)}
