"""The served model, asked as clients do; its page is tried in test_serve_page."""

import base64
import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image
from starlette.testclient import TestClient
from tiny_models import photo, save_tiny

import jaxseg
from jaxseg.data import images
from jaxseg.measure import measure
from jaxseg.serve import answers
from jaxseg.serve.app import Limits, make_app
from jaxseg.serve.batches import Batches

LIMITS = Limits(max_bytes=2**20, max_requests=8, seconds=60.0, hosts=("testserver",))
PNG = {"Content-Type": "image/png"}


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    flat = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    Image.fromarray(flat).save(file, kind, **options)
    return file.getvalue()


def decode(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def load(
    folder, network=tiny.UNET, task=tiny.SEGMENTATION, classes=tiny.BINARY, **more
):
    options = dict(thresholds={"mask": 0.6, "image": 0.5}) | more
    save_tiny(folder, network, task, classes, **options)
    return jaxseg.load(folder, precision="float32", batch_size=8)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return load(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def client(predictor):
    with TestClient(make_app(predictor, LIMITS)) as client:
        yield client


def refusal(reply, status):
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"expected", "found", "fix"}
    return reply.json()


def test_the_answer_is_that_of_the_model(client, predictor):
    image = photo(70, 91)
    answer = client.post("/predict", content=encode(image), headers=PNG).json()
    result = predictor.predict(image)
    assert answer["score"] == pytest.approx(result.score, rel=1e-6)
    assert (answer["decision"], answer["found"]) == (result.decision, result.found)
    assert (answer["threshold"], answer["mask_threshold"]) == (0.6, 0.6)
    assert (answer["height"], answer["width"]) == (70, 91)
    assert answer["share"] == {"crack": pytest.approx(result.mask.mean())}
    found = measure(result.mask == 1, scores=result.probabilities[..., 0])
    assert answer["num_components"] == {"crack": len(found)}
    longest = max(found, key=lambda component: component.length)
    assert answer["components"][0]["length"] == longest.length
    assert answer["components"][0]["score"] == pytest.approx(longest.score, abs=1e-4)
    assert not {"photo", "probabilities", "mask"} & answer.keys()


def test_pictures_are_the_photo_and_its_probabilities(client, predictor):
    image = np.repeat(photo(70, 91, channels=1), 3, axis=-1)
    body = encode(image)
    answer = client.post("/predict?pictures=1", content=body, headers=PNG).json()
    probs = predictor.predict(image).probabilities[..., 0]
    np.testing.assert_array_equal(
        decode(answer["probabilities"]), np.rint(255.0 * np.rint(65535 * probs) / 65535)
    )
    difference = decode(answer["photo"]).astype(int) - image
    assert np.abs(difference).mean() < 8  # of noise, as JPEG
    assert answer["scale"] == 1


def test_a_large_photo_is_drawn_smaller_and_keeps_thin_lines(client, monkeypatch):
    monkeypatch.setattr(answers, "MAX_SIDE", 32)
    body = encode(photo(70, 91))
    whole = client.post("/predict?pictures=1", content=body, headers=PNG).json()
    assert whole["scale"] == 3
    assert decode(whole["photo"]).shape == (24, 31, 3)
    small = decode(whole["probabilities"])
    monkeypatch.undo()
    full = client.post("/predict?pictures=1", content=body, headers=PNG).json()
    full = np.pad(decode(full["probabilities"]), ((0, 2), (0, 2)), mode="edge")
    np.testing.assert_array_equal(
        small, full.reshape(24, 3, 31, 3).max(axis=(1, 3)).astype(np.uint8)
    )


def test_a_map_is_measured_at_another_threshold(client):
    levels = np.zeros((40, 60), np.uint8)
    levels[10:12, 5:45] = 153  # 0.6
    levels[30, 5:15] = 102  # 0.4
    for threshold, count in ((0.61, 0), (0.6, 1), (0.41, 1), (0.4, 2)):
        path = f"/measure?threshold={threshold}"
        answer = client.post(path, content=encode(levels), headers=PNG).json()
        assert answer["num_components"] == {"crack": count}, threshold
    assert answer["share"]["crack"] == pytest.approx(90 / 2400)
    lengths = [round(one["length"]) for one in answer["components"]]
    assert lengths == [40, 10]
    path = "/measure?threshold=0.5&scale=3"
    answer = client.post(path, content=encode(levels), headers=PNG).json()
    assert round(answer["components"][0]["length"]) == 120
    assert round(answer["components"][0]["mean_width"]) == 6


def test_noise_is_counted_and_not_measured(client):
    """By the rule of `predict`: over 1,000 pieces in a small image."""
    for side in (31, 32):
        dots = np.zeros((3 * side, 3 * side), np.uint8)
        dots[::3, ::3] = 255
        path = "/measure?threshold=0.5"
        answer = client.post(path, content=encode(dots), headers=PNG).json()
        assert answer["num_components"] == {"crack": side**2}
        assert len(answer["components"]) == (side**2 if side == 31 else 0)


def test_sizes_are_in_millimetres_too_where_they_are_known(tmp_path):
    predictor = load(tmp_path)
    kept = dataclasses.replace(predictor.trained.preprocessing, mm_per_pixel=0.5)
    trained = dataclasses.replace(predictor.trained, preprocessing=kept)
    predictor = dataclasses.replace(predictor, trained=trained)
    body = encode(photo(32, 48))
    with TestClient(make_app(predictor, LIMITS)) as client:
        for path in ("/predict", "/measure?threshold=0.5&scale=3"):
            found = client.post(path, content=body, headers=PNG).json()["components"]
            assert found
            for one in found:
                for key in ("length", "mean_width", "max_width"):
                    assert one[f"{key}_mm"] == pytest.approx(one[key] / 2)
                assert one["area_mm2"] == pytest.approx(one["area"] / 4)


def test_three_classes_come_as_a_mask_in_their_colours(tmp_path):
    predictor = load(tmp_path, classes=tiny.THREE)
    image = photo(32, 48)
    with TestClient(make_app(predictor, LIMITS)) as client:
        path = "/predict?pictures=1"
        answer = client.post(path, content=encode(image), headers=PNG).json()
        assert client.get("/model").json()["thresholds"] == {}
        refusal(client.post("/measure?threshold=0.5", content=b""), 404)
    result = predictor.predict(image)
    np.testing.assert_array_equal(decode(answer["mask"]), result.mask)
    assert answer["threshold"] is None
    assert answer["share"] == {
        name: pytest.approx((result.mask == i).mean())
        for i, name in enumerate(tiny.THREE)
        if i
    }
    for name in tiny.THREE[1:]:
        class_id = tiny.THREE.index(name)
        probs = result.probabilities[..., class_id]
        expected = [one.score for one in measure(result.mask == class_id, scores=probs)]
        found = [one["score"] for one in answer["components"] if one["class"] == name]
        assert sorted(found) == pytest.approx(sorted(expected), abs=1e-4)


def test_a_classifier_has_neither_masks_nor_measurements(tmp_path):
    options = dict(image_size=(16, 16))
    predictor = load(tmp_path, tiny.SIMPLE_CNN, tiny.CLASSIFICATION, **options)
    image = photo(20, 20)
    with TestClient(make_app(predictor, LIMITS)) as client:
        path = "/predict?pictures=1"
        answer = client.post(path, content=encode(image), headers=PNG).json()
        assert client.get("/model").json()["decisions"] == ["wall", "crack"]
    result = predictor.predict(image)
    assert answer["decision"] == result.decision
    assert answer["image_probabilities"] == pytest.approx(result.image_probabilities)
    assert not {"components", "probabilities", "mask"} & answer.keys()


def test_tiles_are_answered_too(tmp_path):
    predictor = load(tmp_path, image_size=(32, 32), resized=False)
    image = photo(70, 91)
    with TestClient(make_app(predictor, LIMITS)) as client:
        answer = client.post("/predict", content=encode(image), headers=PNG).json()
    assert answer["score"] == pytest.approx(predictor.predict(image).score, rel=1e-6)


def test_a_photo_is_turned_upright(client, predictor):
    image, exif = photo(40, 60), Image.Exif()
    exif[0x0112] = 6
    body = encode(image, exif=exif)
    answer = client.post("/predict", content=body, headers=PNG).json()
    assert (answer["height"], answer["width"]) == (60, 40)
    upright = np.ascontiguousarray(np.rot90(image, k=-1))
    assert answer["score"] == pytest.approx(predictor.predict(upright).score, rel=1e-6)


BODIES = {
    "nothing": (b"", 415, "is empty"),
    "text": (b"no image", 415, "not an image"),
    "cut short": (encode(photo(40, 60))[:-500], 415, "cut short"),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
    "too many bytes": (bytes(2**20 + 1), 413, "a larger one"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_other_bodies_are_refused_with_the_way_out(client, kind):
    body, status, found = BODIES[kind]
    reply = client.post("/predict", content=body, headers=PNG)
    assert found in refusal(reply, status)["found"]


def test_a_body_without_length_is_counted_as_it_comes(client):
    parts = (bytes(2**16) for _ in range(17))
    reply = client.post("/predict", content=parts, headers=PNG)
    assert "--max-bytes" in refusal(reply, 413)["fix"]


def test_a_bomb_is_refused(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.warnings, "simplefilter", lambda *a: None)
        images.allow_pixels(10_000)
    body = encode(np.zeros((101, 100), np.uint8))
    assert len(body) < 500
    assert (
        "--max-pixels"
        in refusal(client.post("/predict", content=body, headers=PNG), 413)["fix"]
    )


def test_forms_of_other_sites_are_refused(client):
    body = encode(photo(32, 48))
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {"Content-Type": kind} if kind else {}
        reply = client.post("/predict", content=body, headers=headers)
        assert "curl --data-binary" in refusal(reply, 415)["fix"]


def test_other_names_of_the_server_are_refused(client):
    assert client.get("/model", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/model").status_code == 200


@pytest.mark.parametrize(
    "query",
    ["threshold=2", "threshold=nan", "threshold=", "scale=0", "scale=1e9", "path=/etc"],
)
def test_other_questions_are_refused(client, query):
    body = encode(np.zeros((4, 4), np.uint8))
    more = "" if query.startswith("threshold") else "&threshold=0.5"
    reply = client.post(f"/measure?{query}{more}", content=body, headers=PNG)
    assert query in refusal(reply, 400)["found"]


def test_measuring_needs_a_threshold(client):
    reply = client.post("/measure", content=b"", headers=PNG)
    assert "?threshold=" in refusal(reply, 400)["fix"]


@pytest.mark.parametrize(
    "path", ["/../app.py", "/page/page.js", "/%2e%2e/app.py", "/predict/x", "/docs"]
)
def test_no_other_path_exists(client, path):
    refusal(client.get(path), 404)


def test_methods_are_fixed(client):
    reply = client.get("/predict")
    refusal(reply, 405)
    assert reply.headers["allow"] == "POST"


def test_the_page_may_load_nothing_from_elsewhere(client):
    reply = client.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "<script>" not in reply.text
    assert "style=" not in reply.text
    for part in ("page.js", "page.css"):
        assert part in reply.text
        assert client.get(f"/{part}").status_code == 200


class Held:
    """A predictor that waits before every batch until it is let go."""

    def __init__(self, predictor):
        self._predictor, self.batches = predictor, []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self._predictor, name)

    def run(self, images, fill):
        self.batches.append((len(images), fill))
        self.entered.release()
        assert self.go.acquire(timeout=30)
        return self._predictor.run(images, fill)


def test_images_that_wait_are_one_batch(predictor):
    held = Held(predictor)
    batches = Batches(held)
    several = [photo(30 + i, 40, seed=i) for i in range(12)]
    futures = [batches.submit(several[0])]
    assert held.entered.acquire(timeout=30)
    futures += [batches.submit(image) for image in several[1:]]
    assert futures[3].cancel()  # whoever asked is gone
    for _ in range(3):
        held.go.release()
    batches.close()
    # Ten of the eleven are left: a batch is at most eight, the cancelled one included.
    assert held.batches == [(1, 8), (7, 8), (3, 8)]
    for i, image in enumerate(several):
        if i != 3:
            result, alone = futures[i].result()(), predictor.predict(image)
            np.testing.assert_array_equal(result.mask, alone.mask)
            assert result.score == pytest.approx(alone.score, rel=1e-5)


def test_an_error_of_a_batch_is_told_and_the_next_one_works(predictor):
    held = Held(predictor)
    batches = Batches(held)
    held.run = lambda images, fill: 1 / 0
    with pytest.raises(ZeroDivisionError):
        batches.submit(photo(8, 8)).result(timeout=30)
    held.run = predictor.run
    assert batches.submit(photo(8, 8)).result(timeout=30)().mask.shape == (8, 8)
    batches.close()


def test_too_many_requests_are_told_to_come_again(predictor):
    held = Held(predictor)
    held.go.release()  # for the compilation
    limits = Limits(2**20, max_requests=2, seconds=60.0, hosts=("*",))
    body = encode(photo(32, 48))

    def ask():
        return client.post("/predict", content=body, headers=PNG)

    with TestClient(make_app(held, limits)) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask) for _ in range(3)]
        done, waiting = wait(asked, return_when=FIRST_COMPLETED, timeout=30)
        (reply,) = (future.result() for future in done)
        assert "--queue" in refusal(reply, 503)["fix"]
        assert int(reply.headers["retry-after"]) >= 1
        for _ in range(3):
            held.go.release()
        assert [future.result().status_code for future in waiting] == [200, 200]
        assert ask().status_code == 200


def test_time_is_limited_and_the_place_is_free_again(predictor):
    held = Held(predictor)
    held.go.release()
    limits = Limits(2**20, max_requests=1, seconds=0.2, hosts=("*",))
    body = encode(photo(32, 48))
    with TestClient(make_app(held, limits)) as client:
        for _ in range(2):
            reply = client.post("/predict", content=body, headers=PNG)
            assert "0.2 s" in refusal(reply, 504)["expected"]
        for _ in range(3):
            held.go.release()


def test_a_bug_is_answered_as_one(predictor):
    held = Held(predictor)
    held.go.release()
    app = make_app(held, LIMITS)
    with TestClient(app, raise_server_exceptions=False) as client:
        held.run = lambda images, fill: 1 / 0
        reply = client.post("/predict", content=encode(photo(8, 8)), headers=PNG)
        assert "log" in refusal(reply, 500)["fix"]


PLAIN = """
import sys
sys.modules["uvloop"] = None  # it hides signals from the rest of the program
sys.path.insert(0, {scripts!r})
import command_line, serve
command_line.main(serve.run)
"""


def test_work_is_ended_after_a_signal_without_uvloop_too(tmp_path):
    """By the clock of the requests, not by that of a training that is to be saved."""
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    scripts = str(Path(__file__).parent.parent / "scripts")
    command = [sys.executable, "-c", PLAIN.format(scripts=scripts)]
    command += ["--model", tmp_path, "--port", "0"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    environment = os.environ | {"JAXSEG_EXIT_SECONDS": "0.3"}
    body = encode(photo(32, 48))
    with subprocess.Popen(command, env=environment, **pipes) as server:
        line = next(line for line in server.stdout if "http" in line)
        port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.get("/model", timeout=60)  # all is compiled

        def slowly():
            yield body[:9]
            httpx2.get(f"http://127.0.0.1:{port}/model", timeout=60)  # it has come in
            server.send_signal(signal.SIGTERM)
            time.sleep(1)
            yield body[9:]

        reply = httpx2.post(
            f"http://127.0.0.1:{port}/predict",
            content=slowly(),
            headers=PNG,
            timeout=60,
        )
        assert server.wait(timeout=30) == 0, server.stderr.read()
    assert reply.json()["decision"] in ("clean", "defect")


def test_the_script_serves_this_machine_until_a_signal_ends_it(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    script = Path(__file__).parent.parent / "scripts" / "serve.py"
    command = [sys.executable, script, "--model", tmp_path, "--port"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "0"], **pipes) as server:
        address = next(
            re.search(r"http://127\.0\.0\.1:(\d+)", line)
            for line in server.stdout
            if "http" in line
        )
        taken = subprocess.run([*command, address[1]], **pipes, check=False)
        body = encode(photo(32, 48))
        reply = httpx2.post(
            f"{address[0]}/predict", content=body, headers=PNG, timeout=60
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, server.stderr.read()
    assert taken.returncode == 2
    assert "--port with another number" in taken.stderr
    assert reply.json()["decision"] in ("clean", "defect")
