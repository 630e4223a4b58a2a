"""The report in a real browser: its numbers against NumPy's, keys, hostile names."""

import csv
import json
import shutil

import numpy as np
import pytest
from finished_runs import HOSTILE, make_finished
from sklearn import metrics as sklearn_metrics

from jaxseg.report import run_page
from jaxseg.tasks import NUM_BINS

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)
ACTIONS = webdriver.ActionChains


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "window-size=1400,1000",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By kind: (folder, counts, thresholds), with the report written."""
    made = {}
    for kind in ("joint", "masks", "binary", "classes", "regions"):
        folder = tmp_path_factory.mktemp(kind)
        _, counts, thresholds = make_finished(folder, kind)
        run_page.write_report(folder)
        made[kind] = folder, counts, thresholds
    return made


def visit(browser, folder):
    browser.get((folder / run_page.NAME).as_uri())
    wait_until(browser, "return document.body.classList.contains('ready')")


def wait_until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(condition))


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def text_of(browser, key):
    """What the page says of `key`; thousands have commas."""
    element = find(browser, f'[data-out="{key}"]')
    return browser.execute_script("return arguments[0].textContent", element)


def number(browser, key):
    text = text_of(browser, key).replace(",", "")
    return np.nan if text == "undefined" else float(text)


def set_field(browser, selector, value):
    browser.execute_script(
        "arguments[0].value = arguments[1];"
        "arguments[0].dispatchEvent(new Event('input'))",
        find(browser, selector),
        value,
    )


def read_scores(folder):
    """(scores, truth) of results.csv; scores are float32 there."""
    with open(folder / "test" / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([row["prediction"] for row in rows], np.float32)
    return scores.astype(np.float64), np.array([int(r["ground_truth"]) for r in rows])


def assert_images(browser, scores, truth, threshold):
    decided = scores >= threshold
    (tn, fp), (fn, tp) = sklearn_metrics.confusion_matrix(truth, decided, labels=[0, 1])
    for name, count in dict(tp=tp, fp=fp, fn=fn, tn=tn).items():
        assert number(browser, f"image.{name}") == count, (name, threshold)
    for name, score in (
        ("precision", sklearn_metrics.precision_score),
        ("recall", sklearn_metrics.recall_score),
        ("f1", sklearn_metrics.f1_score),
    ):
        expected = score(truth, decided, zero_division=0)
        found = number(browser, f"image.{name}")
        assert found == pytest.approx(expected, abs=5.1e-5), (name, threshold)
    assert number(browser, "gallery.missed") == fn
    assert number(browser, "gallery.false alarm") == fp


@pytest.mark.parametrize("kind", ["joint", "binary"])
def test_decisions_about_images_follow_the_slider(browser, runs, kind):
    folder, _, thresholds = runs[kind]
    scores, truth = read_scores(folder)
    visit(browser, folder)
    assert_images(browser, scores, truth, thresholds["image"].value)
    for threshold in (0.0, 0.2, float(np.sort(scores)[20]), 0.77, 1.0):
        set_field(browser, "#threshold-image", threshold)
        assert_images(browser, scores, truth, threshold)
    find(browser, "#stored-image").click()
    assert_images(browser, scores, truth, thresholds["image"].value)


def test_masks_decide_about_images_where_nothing_else_does(browser, runs):
    folder, counts, thresholds = runs["masks"]
    scores, truth = read_scores(folder)
    visit(browser, folder)
    histogram = counts["histogram"]
    for b in (round(thresholds["mask"].value * NUM_BINS), 10, 90, 128, 255):
        set_field(browser, "#threshold-mask", b / NUM_BINS)
        assert_images(browser, scores, truth, b / NUM_BINS)
        fp, tp = histogram[:, :, b:].sum((0, 2))
        tn, fn = histogram[:, :, :b].sum((0, 2))
        for name, count in dict(tp=tp, fp=fp, fn=fn, tn=tn).items():
            assert number(browser, f"mask.{name}") == count, (name, b)
        iou = number(browser, "mask.iou")
        assert iou == pytest.approx(tp / (tp + fp + fn), abs=5.1e-5)


def test_every_row_has_the_dice_of_its_own_histogram(browser, runs):
    folder, counts, _ = runs["joint"]
    visit(browser, folder)
    set_field(browser, "#threshold-mask", 100 / NUM_BINS)
    rows = browser.execute_script(
        "return data.rows.map((r) => [r.at, r.missed, r.alarmed, r.dice])"
    )
    assert len(rows) == 60
    for at, missed, alarmed, dice in rows:
        clean, crack = counts["histogram"][at]
        fn, tp, fp = crack[:100].sum(), crack[100:].sum(), clean[100:].sum()
        assert (missed, alarmed) == (fn, fp)
        expected = 2 * tp / (2 * tp + fn + fp) if fn + tp + fp else 1
        assert dice == pytest.approx(expected)


def test_the_cheapest_threshold_is_that_of_an_exhaustive_search(browser, runs):
    folder, _, _ = runs["binary"]
    visit(browser, folder)
    val = browser.execute_script("return data.val")
    scores, truths = np.array(val["scores"]), np.array(val["truths"])
    test_scores, test_truths = read_scores(folder)
    for miss, alarm in ((10, 1), (1, 10), (1, 1), (0.5, 200)):
        set_field(browser, "#cost-miss", miss)
        set_field(browser, "#cost-alarm", alarm)
        costs = {
            t: miss * (truths & (scores < t)).sum()
            + alarm * ((1 - truths) & (scores >= t)).sum()
            for t in [*scores, 1.0]
        }
        best = max(t for t, cost in costs.items() if cost == min(costs.values()))
        assert number(browser, "cost.best") == pytest.approx(best, abs=5.1e-5)
        find(browser, "#use-cheapest").click()
        missed = (test_truths & (test_scores < best)).sum()
        assert number(browser, "image.fn") == missed == number(browser, "cost.misses")


def test_the_point_moves_on_the_curve(browser, runs):
    folder, *_ = runs["binary"]
    visit(browser, folder)
    set_field(browser, "#threshold-image", 0.3)
    mark = find(browser, '[data-mark="image.pr"]')
    left, top, width, height = map(float, mark.get_attribute("data-plot").split())
    x = (float(mark.get_attribute("cx")) - left) / width
    y = 1 - (float(mark.get_attribute("cy")) - top) / height
    assert x == pytest.approx(number(browser, "image.recall"), abs=1e-4)
    assert y == pytest.approx(number(browser, "image.precision"), abs=1e-4)


def test_everything_is_reached_by_keys(browser, runs):
    folder, *_ = runs["joint"]
    visit(browser, folder)
    before = number(browser, "image.fn") + number(browser, "image.fp")
    slider = find(browser, "#slider-image")
    browser.execute_script("arguments[0].focus()", slider)
    place = int(slider.get_attribute("value"))
    # The stored threshold is no score of these images: then comes the next score,
    # which is still an alarm, then the one after it.
    ACTIONS(browser).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert int(slider.get_attribute("value")) == place + 2
    after = number(browser, "image.fn") + number(browser, "image.fp")
    assert abs(after - before) == 1
    seen = set()
    for _ in range(40):
        ACTIONS(browser).send_keys(Keys.TAB).perform()
        seen.add(browser.execute_script("return document.activeElement.className"))
        if "open" in seen:
            break
    ACTIONS(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script("return viewer.open")
    first = text_of_viewer(browser)
    ACTIONS(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert text_of_viewer(browser) != first
    ACTIONS(browser).send_keys(Keys.ARROW_LEFT).perform()
    assert text_of_viewer(browser) == first
    ACTIONS(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.execute_script("return viewer.open")
    heading = find(browser, '#images th[data-column="score"] button')
    browser.execute_script("arguments[0].focus()", heading)
    for order, reverse in (("ascending", False), ("descending", True)):
        ACTIONS(browser).send_keys(Keys.ENTER).perform()
        assert (
            find(browser, "#images th[aria-sort]").get_attribute("aria-sort") == order
        )
        cells = browser.find_elements(By.CSS_SELECTOR, "#images td.of-score")
        found = [float(cell.text) for cell in cells]
        assert found == sorted(found, reverse=reverse)
        assert len(found) == 25


def text_of_viewer(browser):
    return find(browser, "#viewer h3").text


def test_the_table_begins_with_the_worst_and_can_be_narrowed(browser, runs):
    folder, *_ = runs["binary"]
    visit(browser, folder)
    outcomes = [
        cell.text
        for cell in browser.find_elements(By.CSS_SELECTOR, "#images td:nth-child(3)")
    ]
    order = ["missed", "false alarm", "found", "clean"]
    assert outcomes == sorted(outcomes, key=order.index)
    assert outcomes[0] == "missed"
    set_field(browser, "#find", "WALL3/")
    names = browser.find_elements(By.CSS_SELECTOR, "#images td.of-name")
    assert sorted(cell.text for cell in names) == [f"wall3/{i}" for i in range(12, 16)]


@pytest.mark.parametrize("kind", ["joint", "masks", "binary", "classes", "regions"])
def test_hostile_names_are_inert_and_the_page_is_silent(browser, runs, kind):
    folder, *_ = runs[kind]
    browser.get_log("performance")
    browser.get_log("browser")
    visit(browser, folder)
    find(browser, "#more-rows").click()
    shown = [
        browser.execute_script("return arguments[0].textContent", cell)
        for cell in browser.find_elements(By.CSS_SELECTOR, "#images td.of-name")
    ]
    assert set(HOSTILE) < set(shown)
    assert browser.title == f"Report: {folder.name}"
    scripts = browser.find_elements(By.TAG_NAME, "script")
    assert len(scripts) == 2
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    asked = {url.split(",")[0][:40] for url in asked}
    own = (folder / run_page.NAME).as_uri()
    assert {u for u in asked if not u.startswith("data:")} <= {own[:40]}


def test_several_classes_show_wrong_decisions_and_no_slider(browser, runs):
    folder, counts, _ = runs["classes"]
    visit(browser, folder)
    wrong = (counts["image_probs"].argmax(1) != counts["label"]).sum()
    assert number(browser, "gallery.wrong") == wrong
    assert not browser.find_elements(By.CSS_SELECTOR, "input[type=range]")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_but_tables_is_wider_than_the_window(browser, runs, width):
    folder, *_ = runs["joint"]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    visit(browser, folder)
    assert browser.execute_script("return document.body.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
