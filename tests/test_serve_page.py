"""The page of the server, in a headless Chromium, against NumPy and the model."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest
import tiny_models as tiny
import uvicorn
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from tiny_models import photo, save_tiny

import jaxseg
from jaxseg.serve.app import Limits, make_app

HOSTILE = "<img src=x onerror=alert(1)>.png"
STORED = 0.5


@contextlib.contextmanager
def serving(predictor):
    """The address of a server in a thread."""
    limits = Limits(2**20, max_requests=8, seconds=60.0, hosts=("127.0.0.1",))
    config = uvicorn.Config(make_app(predictor, limits), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    folder = tmp_path_factory.mktemp("profile")
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def text_of(browser, name):
    return browser.find_element(By.ID, name).text


def wait_for(browser, condition):
    WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: condition())


def drop(browser, *paths):
    field = browser.find_element(By.ID, "files")
    field.send_keys("\n".join(map(os.fspath, paths)))


def slide(browser, kind, value):
    browser.execute_script(
        "const field = document.getElementById(arguments[0]);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('input'));",
        f"{kind}-threshold",
        str(value),
    )


def painted(browser):
    """Share of the pixels of the canvas in the colour of what was found."""
    return browser.execute_script(
        """
        const canvas = document.getElementById("canvas");
        const { width, height } = canvas;
        const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
        let found = 0;
        for (let i = 0; i < data.length; i += 4)
          found += data[i] >= 178 && data[i + 1] <= 123 && data[i + 2] >= 90
            && data[i + 2] <= 168;
        return found / (width * height);
        """
    )


def test_the_page_shows_what_the_model_says_at_every_threshold(browser, tmp_path):
    save_tiny(tmp_path, thresholds={"mask": STORED})
    predictor = jaxseg.load(tmp_path, precision="float32", batch_size=8)
    paths = [tmp_path / "first.png", tmp_path / HOSTILE]
    dark = [photo(64, 96, seed=seed) // 3 for seed in range(2)]  # unlike the overlay
    for path, image in zip(paths, dark, strict=True):
        Image.fromarray(image).save(path)
    with serving(predictor) as address:
        browser.get(address)
        wait_for(browser, lambda: text_of(browser, "model") == str(predictor))
        drop(browser, paths[1])
        wait_for(browser, lambda: text_of(browser, "name") == HOSTILE)
        result = predictor.predict(dark[1])
        levels = np.rint(255 * result.probabilities[..., 0])
        assert text_of(browser, "decision") == result.decision
        assert f"score {result.score:.3f}" in text_of(browser, "score")
        assert f"{100 * result.mask.mean():.2f} %" in text_of(browser, "summary")

        middle = round(float(np.median(result.probabilities)), 3)
        for value in (middle, min(middle + 0.1, 0.9)):
            slide(browser, "mask", value)
            share = (levels >= 255 * value).mean()
            assert painted(browser) == pytest.approx(share, abs=0.01)
            expected = f"{100 * share:.2f} %"
            wait_for(browser, lambda e=expected: e in text_of(browser, "summary"))
        slide(browser, "mask", 1)
        assert text_of(browser, "decision") == "clean"
        assert painted(browser) == 0

        drop(browser, paths[0])
        wait_for(browser, lambda: text_of(browser, "name") == "first.png")
        slide(browser, "mask", 0)
        cells = browser.find_elements(By.CSS_SELECTOR, "#list td:nth-child(2)")
        assert [cell.text for cell in cells] == ["defect", "defect"]
        wait_for(browser, lambda: "100.00 %" in text_of(browser, "summary"))
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no image")
        drop(browser, bad)
        wait_for(browser, lambda: "fix:" in text_of(browser, "problem"))
        assert "not an image" in text_of(browser, "problem")
    logged = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in logged if "415" not in text] == []


def test_a_network_with_two_thresholds_has_two_sliders(browser, tmp_path):
    thresholds = {"mask": 0.5, "image": 0.5}
    save_tiny(tmp_path, tiny.JOINT_UNET, tiny.JOINT, thresholds=thresholds)
    predictor = jaxseg.load(tmp_path, precision="float32", batch_size=8)
    Image.fromarray(photo(64, 96)).save(tmp_path / "a.png")
    with serving(predictor) as address:
        browser.get(address)
        wait_for(browser, lambda: text_of(browser, "model"))
        drop(browser, tmp_path / "a.png")
        wait_for(browser, lambda: text_of(browser, "name") == "a.png")
        for value, decision in ((0, "defect"), (1, "clean")):
            slide(browser, "image", value)
            slide(browser, "mask", 1 - value)  # says nothing about the image
            assert text_of(browser, "decision") == decision
