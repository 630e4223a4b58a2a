"""The command: bad input ends with code 2 and the line that mends it."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import pytest
import tiny_models as tiny
from PIL import Image
from tiny_models import photo, save_tiny

from jaxseg import backend

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        loaded = {}
        for name in ("command_line", "predict"):
            path = ROOT / "scripts" / f"{name}.py"
            spec = importlib.util.spec_from_file_location(name, path)
            loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded


@pytest.fixture
def call(scripts, monkeypatch, capsys, tmp_path):
    """Runs the command on tmp_path; the exit code and what was printed."""
    monkeypatch.setattr(backend, "set_xla_flags", lambda: None)
    monkeypatch.setattr(backend, "enable_compilation_cache", lambda folder: "")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)

    def run(*arguments, model=tmp_path / "model", images=tmp_path / "photos"):
        command = ["--model", model, "--images", images, "--out", tmp_path / "out"]
        command = [str(argument) for argument in (*command, *arguments)]
        monkeypatch.setattr(sys, "argv", ["predict", *command])
        capsys.readouterr()
        try:
            scripts["command_line"].main(scripts["predict"].run)
        except SystemExit as stopped:
            code = stopped.code
        else:
            code = 0
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture(autouse=True)
def model_and_photos(tmp_path):
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(photo(40, 60)).save(tmp_path / "photos" / f"{name}.png")


def assert_refused(answer, fix, *, out=None):
    code, printed = answer
    assert code == 2, printed
    assert "Traceback" not in printed
    for word in ("expected:", "found:", "fix:"):
        assert word in printed
    assert fix in printed.split("fix:")[1]
    if out is not None:
        assert not out.exists()


def test_the_command_predicts_a_folder(call, tmp_path):
    code, printed = call("--overlays", "--probabilities", "--tta", "flips")
    assert code == 0, printed
    assert "images are resized to 32 x 48" in printed
    assert "the mean over four mirror images" in printed
    assert "images/s" in printed
    assert "Mpixel/s" in printed
    out = tmp_path / "out"
    assert len((out / "results.csv").read_text().splitlines()) == 3
    for name in ("masks/a.png", "overlays/b.jpg", "probabilities/1/a.png"):
        assert (out / name).is_file()


def test_tiles_of_a_given_side(call, tmp_path):
    code, printed = call("--tile", "16", "--overlap", "4")
    assert code == 0, printed
    assert "tiles of 16 x 16 that overlap by 4 pixels" in printed


def test_a_broken_image_ends_with_2_or_is_skipped(call, tmp_path):
    (tmp_path / "photos" / "c.png").write_text("no image")
    answer = call()
    assert_refused(answer, "--on-corrupt skip")
    assert "c.png is not an image" in answer[1]
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 3
    code, printed = call("--on-corrupt", "skip")
    assert code == 0, printed
    assert "WARNING: 1 that cannot be read: skipped.csv" in printed


def test_the_guard_against_huge_images_can_be_set(call, tmp_path):
    answer = call("--max-pixels", "2399")
    assert_refused(answer, "--on-corrupt skip")
    assert "over 2,399 pixels" in answer[1]
    assert "--max-pixels" in answer[1]
    code, printed = call("--max-pixels", "2400")
    assert code == 0, printed


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        (dict(model="nothing"), "the model/ folder of a finished run"),
        (dict(images="nothing"), "--images DIR or FILE"),
        (dict(images="nothing*.jpg"), "'FOLDER/*.jpg'"),
    ],
)
def test_a_model_or_images_that_are_not_there(call, tmp_path, wrong, fix):
    wrong = {key: tmp_path / name for key, name in wrong.items()}
    assert_refused(call(**wrong), fix, out=tmp_path / "out")


def test_a_folder_without_images(call, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "list.txt").write_text("")
    answer = call(images=tmp_path / "empty")
    assert_refused(answer, "--images with a folder", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        (["--tile", "31"], "--tile 32"),
        (["--tile", "64", "--overlap", "63"], "--overlap 16"),
        (["--tile", "64", "--overlap", "-1"], "--overlap 16"),
        (["--overlap", "8"], "--tile"),
    ],
)
def test_tiles_that_do_not_fit(call, tmp_path, options, fix):
    assert_refused(call(*options), fix, out=tmp_path / "out")


@pytest.mark.parametrize(
    "option", ["--probabilities", "--format=coco", "--format=labelme"]
)
def test_what_a_classifier_cannot_do(call, tmp_path, option):
    options = dict(classes=tiny.BINARY, image_size=(16, 16))
    save_tiny(tmp_path / "model", tiny.SIMPLE_CNN, tiny.CLASSIFICATION, **options)
    fix = f"leave out {option.split('=')[0]}"
    assert_refused(call(option), fix, out=tmp_path / "out")


def test_a_place_that_is_a_file_or_cannot_be_written(call, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_refused(call(), "--out with a new folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_model_of_a_newer_version(call, tmp_path):
    path = tmp_path / "model" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    assert_refused(call(), "pip install --upgrade jaxseg", out=tmp_path / "out")


@pytest.mark.parametrize("option", ["--tile=0", "--batch-size=-1", "--tta=all"])
def test_numbers_and_names_that_are_none(call, tmp_path, option):
    code, printed = call(option)
    assert code == 2
    assert "usage:" in printed
    assert not (tmp_path / "out").exists()
