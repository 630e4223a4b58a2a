"""Folders through a network: what is written, going on, and names of any kind."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image
from tiny_models import photo, save_tiny

import jaxseg
from jaxseg.data.images import decode_mask
from jaxseg.datasets import coco, labelme
from jaxseg.errors import InputError
from jaxseg.measure import measure
from jaxseg.predict import folder, reading
from jaxseg.predict import photos as photos_module
from jaxseg.predict.folder import Wanted, predict_folder, refuse_broken
from jaxseg.report import component_table

TABLES = ("results.csv", "components.csv")
NOTHING = Wanted(probabilities=False, overlays=False, annotations="")
EVERYTHING = Wanted(probabilities=True, overlays=True, annotations="labelme")
SIZES = {"a.png": (40, 60), "deck/b.png": (32, 48), "deck/c.png": (90, 33)}
SCRIPT = Path(__file__).parents[1] / "scripts" / "predict.py"


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for seed, (name, size) in enumerate(SIZES.items()):
        write(tmp_path / "photos" / name, photo(*size, seed=seed))
    return tmp_path / "photos"


def middle_threshold(model_folder, images, **options):
    """Saves a network whose mask threshold is in the middle of its scores."""
    save_tiny(model_folder, thresholds={"mask": 0.5}, **options)
    predictor = jaxseg.load(model_folder, precision="float32")
    results = [predictor.predict(path) for path in sorted(images.rglob("*.png"))]
    scores = np.concatenate([result.probabilities.ravel() for result in results])
    save_tiny(
        model_folder, thresholds={"mask": round(float(np.median(scores)), 3)}, **options
    )
    return jaxseg.load(model_folder, batch_size=2, precision="float32")


def read_rows(out, table="results.csv"):
    with (out / table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mask_of(out, name):
    return decode_mask((out / "masks" / name).with_suffix(".png").read_bytes())


@pytest.mark.parametrize("resized", [True, False])
def test_what_is_written_is_what_the_predictor_says(tmp_path, photos, resized):
    predictor = middle_threshold(tmp_path / "model", photos, resized=resized)
    out = tmp_path / "out"
    assert predict_folder(predictor, [str(photos)], out, EVERYTHING) == []
    assert predictor.step._cache_size() == 1
    rows = {row["name"]: row for row in read_rows(out)}
    assert list(rows) == list(SIZES)
    for name, size in SIZES.items():
        result = predictor.predict(photos / name)
        mask = mask_of(out, name)
        assert mask.shape == size
        np.testing.assert_array_equal(mask, result.mask)
        assert 0 < mask.mean() < 1
        row = rows[name]
        assert (int(row["height"]), int(row["width"])) == size
        assert float(row["score"]) == pytest.approx(result.score, abs=1e-6)
        assert row["decision"] == result.decision == "defect"
        assert float(row["share/crack"]) == pytest.approx(mask.mean(), rel=1e-9)
        assert (out / row["mask"]).is_file()
        levels = np.asarray(Image.open(out / "probabilities" / "1" / name))
        assert levels.dtype == np.uint16
        expected = result.probabilities[..., 0] * 65535
        np.testing.assert_allclose(levels, expected, atol=0.6)
        drawn = out / "overlays" / Path(name).with_suffix(".jpg")
        assert np.asarray(Image.open(drawn)).std() > 10
    assert not (out / "skipped.csv").exists()


def test_tables_have_the_measurements_of_the_masks(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    (photos / "=1.png").write_bytes((photos / "a.png").read_bytes())
    predict_folder(predictor, [str(photos)], out, NOTHING)
    rows, pieces = read_rows(out), read_rows(out, "components.csv")
    for row in rows:
        name = row["name"].removeprefix("'")
        result = predictor.predict(photos / name)
        true = measure(result.mask == 1, scores=result.probabilities[..., 0])
        true.sort(key=lambda one: one.box[:2])
        expected = component_table.summarize(true, None)
        assert expected["num_components"] > 0
        for key, value in expected.items():
            found = float(row[f"{key}/crack"] or "nan")
            assert found == pytest.approx(value, nan_ok=True), key
        mine = [piece for piece in pieces if piece["name"] == row["name"]]
        for piece, one in zip(mine, true, strict=True):
            assert float(piece["length"]) == pytest.approx(one.length, abs=0.006)
            assert float(piece["top"]) == one.box[0]
            assert float(piece["score"]) == pytest.approx(one.score, abs=0.003)
    assert {row["name"] for row in pieces} == {"'=1.png", *SIZES}


@pytest.mark.parametrize("wanted", [NOTHING, EVERYTHING])
def test_a_piece_has_the_mean_probability_of_its_class(tmp_path, photos, wanted):
    """Of three: what other classes than the background have together is more."""
    save_tiny(tmp_path / "model", classes=tiny.THREE)
    predictor = jaxseg.load(tmp_path / "model", precision="float32")
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, wanted)
    pieces = read_rows(out, "components.csv")
    assert {piece["class"] for piece in pieces} == set(tiny.THREE[1:])
    for name in SIZES:
        result = predictor.predict(photos / name)
        for class_id, kind in enumerate(tiny.THREE[1:], start=1):
            probs = result.probabilities[..., class_id]
            true = measure(result.mask == class_id, scores=probs)
            mine = [
                float(piece["score"])
                for piece in pieces
                if (piece["name"], piece["class"]) == (name, kind)
            ]
            expected = [one.score for one in sorted(true, key=lambda one: one.box[:2])]
            assert mine == pytest.approx(expected, abs=0.003)


def test_millimetres_need_no_second_prediction(tmp_path, photos, monkeypatch):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, NOTHING)
    assert "length_mm/crack" not in read_rows(out)[0]
    written = count_runs(monkeypatch, predictor)
    scaled = dataclasses.replace(NOTHING, mm_per_pixel=0.5)
    predict_folder(predictor, [str(photos)], out, scaled)
    assert written == []
    for row in read_rows(out) + read_rows(out, "components.csv"):
        tail = "/crack" if "height" in row else ""
        for key, factor in (("length", 0.5), ("max_width", 0.5), ("area", 0.25)):
            name = f"{key}_mm2" if key == "area" else f"{key}_mm"
            pixels, millimetres = float(row[key + tail]), float(row[name + tail])
            assert millimetres == pytest.approx(factor * pixels, abs=0.005)


def test_the_model_knows_the_size_of_a_pixel(tmp_path, photos):
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    description["preprocessing"]["mm_per_pixel"] = 0.25
    path.write_text(json.dumps(description))
    predict_folder(jaxseg.load(path.parent), [str(photos)], tmp_path / "out", NOTHING)
    row = read_rows(tmp_path / "out")[0]
    area, millimetres = float(row["area/crack"]), float(row["area_mm2/crack"])
    assert millimetres == pytest.approx(area / 16, abs=1e-4)
    description["preprocessing"]["mm_per_pixel"] = -1.0
    path.write_text(json.dumps(description))
    with pytest.raises(InputError) as caught:
        jaxseg.load(path.parent)
    assert "mm_per_pixel: -1.0" in caught.value.found


def test_results_of_a_version_that_did_not_measure_are_done_again(
    tmp_path, photos, monkeypatch
):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, NOTHING)
    lines = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
    old = [{key: line[key] for key in ("source", "stamp", "row")} for line in lines]
    (out / "journal.jsonl").write_text("\n".join(map(json.dumps, old)) + "\n")
    before = (out / "results.csv").read_bytes()
    written = count_runs(monkeypatch, predictor)
    predict_folder(predictor, [str(photos)], out, NOTHING)
    assert sorted(written) == sorted(SIZES)
    assert (out / "results.csv").read_bytes() == before


def test_three_classes_have_a_palette_shares_and_probabilities(tmp_path, photos):
    save_tiny(tmp_path / "model", classes=tiny.THREE)
    predictor = jaxseg.load(tmp_path / "model", precision="float32")
    out = tmp_path / "out"
    wanted = Wanted(probabilities=True, overlays=False, annotations="")
    predict_folder(predictor, [str(photos)], out, wanted)
    for row in read_rows(out):
        result = predictor.predict(photos / row["name"])
        for class_id in (1, 2):
            share = (result.mask == class_id).mean()
            written = float(row[f"share/{tiny.THREE[class_id]}"])
            assert written == pytest.approx(share, rel=1e-9)
            path = out / "probabilities" / str(class_id) / row["name"]
            expected = result.probabilities[..., class_id] * 65535
            np.testing.assert_allclose(np.asarray(Image.open(path)), expected, atol=0.6)
        with Image.open(out / row["mask"]) as picture:
            assert picture.mode == "P"
            colours = np.asarray(picture.convert("RGB"))
        shown = {tuple(c) for c in colours.reshape(-1, 3)}
        assert len(shown) == len(np.unique(result.mask))
        assert (colours[result.mask == 0] == 0).all()


def test_a_classifier_writes_a_table(tmp_path, photos):
    network = (tiny.SIMPLE_CNN, tiny.CLASSIFICATION, tiny.THREE)
    save_tiny(tmp_path / "model", *network, image_size=(16, 16))
    predictor = jaxseg.load(tmp_path / "model", precision="float32")
    out = tmp_path / "out"
    wanted = Wanted(probabilities=False, overlays=True, annotations="")
    predict_folder(predictor, [str(photos)], out, wanted)
    for row in read_rows(out):
        result = predictor.predict(photos / row["name"])
        assert row["decision"] == result.decision
        for name, value in zip(tiny.THREE, result.image_probabilities, strict=True):
            assert float(row[f"probability/{name}"]) == pytest.approx(value, abs=1e-6)
    assert not (out / "masks").exists()
    assert len(list((out / "overlays").rglob("*.jpg"))) == len(SIZES)


class Stopped(Exception):
    pass


def count_runs(monkeypatch, predictor):
    """The sources of all photos that are written from now on."""
    written, write_one = [], folder._Work._write

    def counted(self, item):
        written.append(item.photo.source)
        return write_one(self, item)

    monkeypatch.setattr(folder._Work, "_write", counted)
    return written


def test_it_goes_on_where_it_stopped(tmp_path, photos, monkeypatch):
    predictor = middle_threshold(tmp_path / "model", photos)
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_folder(predictor, [str(photos)], whole, NOTHING)
    finish = folder.Store.finish

    def stop_at_b(self, photo, *found):
        if photo.source == "deck/b.png":
            raise Stopped
        finish(self, photo, *found)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Store, "finish", stop_at_b)
        with pytest.raises(Stopped):
            predict_folder(predictor, [str(photos)], out, NOTHING)
    assert not (out / "results.csv").exists()
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"source": "deck/b.png", "stamp": [1')  # as a power cut leaves it
    with monkeypatch.context() as patch:
        written = count_runs(patch, predictor)
        predict_folder(predictor, [str(photos)], out, NOTHING)
    assert "a.png" not in written
    assert "deck/b.png" in written
    for name in TABLES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert len((out / "journal.jsonl").read_text().splitlines()) == len(SIZES) + 1
    with monkeypatch.context() as patch:
        written = count_runs(patch, predictor)
        predict_folder(predictor, [str(photos)], out, NOTHING)
        assert written == []
    assert not (out / ".partial").exists()


def test_what_changed_or_is_missing_is_done_again(tmp_path, photos, monkeypatch):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, NOTHING)
    written = count_runs(monkeypatch, predictor)
    write(photos / "a.png", photo(50, 50, seed=9))
    (out / "masks" / "deck" / "b.png").unlink()
    predict_folder(predictor, [str(photos)], out, NOTHING)
    assert written == ["a.png", "deck/b.png"]
    assert mask_of(out, "a.png").shape == (50, 50)
    assert read_rows(out)[0]["height"] == "50"
    written.clear()
    overlays = Wanted(probabilities=False, overlays=True, annotations="")
    predict_folder(predictor, [str(photos)], out, overlays)
    assert written == list(SIZES)


def test_what_changes_after_it_was_read_is_named_and_done_again(
    tmp_path, photos, monkeypatch
):
    predictor = middle_threshold(tmp_path / "model", photos)
    out, write_one = tmp_path / "out", folder._Work._write

    def disturb(self, item):
        if item.photo.source == "a.png":
            write(photos / "a.png", photo(50, 50, seed=9))
        elif item.photo.source == "deck/b.png":
            (photos / "deck" / "b.png").unlink()
        return write_one(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(folder._Work, "_write", disturb)
        skipped = predict_folder(predictor, [str(photos)], out, NOTHING)
    assert [source for source, _ in skipped] == ["a.png", "deck/b.png"]
    assert [row["name"] for row in read_rows(out)] == ["deck/c.png"]
    written = count_runs(monkeypatch, predictor)
    assert predict_folder(predictor, [str(photos)], out, NOTHING) == []
    assert written == ["a.png"]
    assert mask_of(out, "a.png").shape == (50, 50)


KILLED = """
import os, signal, sys
sys.path.insert(0, {scripts!r})
import command_line, predict
from jaxseg.predict.store import Store

finish, calls = Store.finish, []

def finish_or_die(self, photo, *found):
    calls.append(photo)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, photo, *found)

Store.finish = finish_or_die
command_line.main(predict.run)
"""


def test_after_kill_minus_nine_nothing_is_lost_or_broken(tmp_path):
    for i in range(12):
        write(tmp_path / "photos" / f"{i:02d}.png", photo(60, 60, seed=i))
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    out, journal = tmp_path / "out", tmp_path / "out" / "journal.jsonl"
    options = ["--model", str(tmp_path / "model"), "--overlays"]
    options += ["--images", str(tmp_path / "photos"), "--precision", "float32"]
    options += ["--batch-size", "2"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}

    def launch(*command, to=out):
        return subprocess.run(
            [sys.executable, *command, *options, "--out", str(to)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    killed = launch("-c", KILLED.format(scripts=str(SCRIPT.parent)))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = journal.read_text().splitlines(keepends=True)
    assert 1 <= len(kept) <= 4  # two threads write
    assert not (out / "results.csv").exists()
    for mask in (out / "masks").iterdir():
        assert decode_mask(mask.read_bytes()).shape == (60, 60)
    done = launch(str(SCRIPT))
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} images are done already" in done.stdout
    assert journal.read_text().startswith("".join(kept))
    # The same program: another number of devices rounds otherwise.
    done = launch(str(SCRIPT), to=tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    for name in [*TABLES, *(f"masks/{i:02d}.png" for i in range(12))]:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("resized", [True, False])
def test_large_images_are_decoded_and_written_one_at_a_time(
    tmp_path, photos, monkeypatch, resized
):
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5}, resized=resized)
    predictor = jaxseg.load(tmp_path / "model", batch_size=1, precision="float32")
    monkeypatch.setattr(folder, "AHEAD_PIXELS", 1)
    monkeypatch.setattr(photos_module, "AHEAD_PIXELS", 1)
    busy, most = [], []

    def counted(work):
        def alone(*arguments):
            busy.append(work)
            most.append(len(busy))
            time.sleep(0.05)  # long enough for another thread to come in
            done = work(*arguments)
            busy.remove(work)
            return done

        return alone

    monkeypatch.setattr(reading, "decode_image", counted(reading.decode_image))
    monkeypatch.setattr(folder._Work, "_write", counted(folder._Work._write))
    predict_folder(predictor, [str(photos)], tmp_path / "out", NOTHING)
    assert max(most) == 1
    assert len(most) == 2 * len(SIZES)
    assert len(read_rows(tmp_path / "out")) == len(SIZES)


@pytest.mark.parametrize("wanted", [NOTHING, EVERYTHING])
def test_photos_are_not_held_by_the_batch(tmp_path, monkeypatch, wanted):
    """Only those that are read, written, or, to be drawn, predicted."""
    for i in range(14):
        write(tmp_path / "photos" / f"{i:02d}.png", photo(60, 60, seed=i))
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path / "model", batch_size=8, precision="float32")
    monkeypatch.setattr(folder, "AHEAD_PIXELS", 1)
    monkeypatch.setattr(photos_module, "AHEAD_PIXELS", 1)
    alive, most, decode = set(), [], reading.decode_image

    def decode_watched(data, channels):
        image, name = decode(data, channels), len(most)
        alive.add(name)
        weakref.finalize(image, alive.discard, name)
        most.append(len(alive))
        return image

    monkeypatch.setattr(reading, "decode_image", decode_watched)
    predict_folder(predictor, [str(tmp_path / "photos")], tmp_path / "out", wanted)
    assert len(most) == len(read_rows(tmp_path / "out")) == 14
    assert max(most) <= 6


def test_broken_files_are_named_and_the_others_done(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_text("no picture")
    cut = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(cut[: len(cut) // 2])
    (photos / "lost.png").symlink_to(tmp_path / "nowhere.png")
    out = tmp_path / "out"
    skipped = predict_folder(predictor, [str(photos)], out, NOTHING)
    broken = ["cut.png", "empty.jpg", "lost.png", "text.png"]
    assert [source for source, _ in skipped] == broken
    assert [row["name"] for row in read_rows(out)] == list(SIZES)
    with (out / "skipped.csv").open(newline="") as file:
        reasons = dict(list(csv.reader(file))[1:])
    assert sorted(reasons) == broken
    assert "0 bytes" in reasons["empty.jpg"]
    with pytest.raises(InputError, match=r"4 that are not: cut\.png is cut short"):
        refuse_broken(skipped, out)
    write(photos / "cut.png", photo(20, 20))
    for name in broken[1:]:
        (photos / name).unlink()
    assert predict_folder(predictor, [str(photos)], out, NOTHING) == []
    assert "cut.png" in [row["name"] for row in read_rows(out)]
    assert not (out / "skipped.csv").exists()


def test_an_image_of_too_many_pixels_is_named_with_the_option(
    tmp_path, photos, monkeypatch
):
    predictor = middle_threshold(tmp_path / "model", photos)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # twice that is the limit
    ((source, reason),) = predict_folder(
        predictor, [str(photos / "a.png")], tmp_path / "out", NOTHING
    )
    assert source == "a.png"
    assert "over 2,000 pixels" in reason
    assert "--max-pixels" in reason


HOSTILE = [
    "same.png",
    "same.jpg",
    "same.jpg.png",
    "=HYPERLINK(1).png",
    "new\nline.png",
    "quote'\"`$(id).png",
    "-rf.png",
    "ü" * 120 + ".png",
    "n" * 250 + ".png",
    "caf\udce9.png",  # Latin-1 bytes
    "tricky.png/inner.png",
    "tricky.jpg",
]


def test_names_of_any_kind_stay_apart_and_inside(tmp_path):
    images = tmp_path / "photos"
    for seed, name in enumerate(HOSTILE):
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        Image.fromarray(photo(20 + seed, 30)).save(data, "PNG")
        path.write_bytes(data.getvalue())
    (images / "deck").mkdir()
    (images / "deck" / "round").symlink_to(images)  # a circle
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path / "model")
    everything = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    out = tmp_path / "out"
    assert predict_folder(predictor, [str(images)], out, EVERYTHING) == []
    rows = read_rows(out)
    assert len(rows) == len(HOSTILE)
    assert {"'=HYPERLINK(1).png", "'-rf.png", "new\nline.png"} <= {
        row["name"] for row in rows
    }
    heights = sorted(
        decode_mask(path.read_bytes()).shape[0]
        for path in (out / "masks").rglob("*")
        if path.is_file()
    )
    assert heights == [20 + i for i in range(len(HOSTILE))]
    assert everything == {p for p in tmp_path.rglob("*") if "out" not in p.parts}
    again = predict_folder(predictor, [str(images)], out, EVERYTHING)
    assert again == []
    assert len(read_rows(out)) == len(HOSTILE)


def test_no_link_in_the_results_is_followed(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    predict_folder(predictor, [str(photos / "a.png")], out, NOTHING)
    (out / "masks" / "deck").symlink_to(victim)
    with pytest.raises(InputError, match="without links") as caught:
        predict_folder(predictor, [str(photos)], out, NOTHING)
    assert "rm '" in caught.value.fix
    for name in ("journal.jsonl", ".lock", "predict.json"):
        new = tmp_path / f"out-{name}"
        new.mkdir()
        (new / "predict.json").write_text("{}")
        (new / name).unlink(missing_ok=True)
        (new / name).symlink_to(victim / "file")
        with pytest.raises(InputError):
            predict_folder(predictor, [str(photos)], new, NOTHING)
    assert list(victim.iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    out, victim = tmp_path / "out", tmp_path / "victim.txt"
    victim.write_text("mine")
    predict_folder(predictor, [str(photos)], out, NOTHING)
    for name in ("results.csv", "masks/a.png"):
        (out / name).unlink()
        (out / name).symlink_to(victim)
    write(photos / "a.png", photo(40, 60, seed=5))
    predict_folder(predictor, [str(photos)], out, NOTHING)
    assert victim.read_text() == "mine"
    assert mask_of(out, "a.png").shape == (40, 60)
    assert len(read_rows(out)) == len(SIZES)


def test_results_inside_the_images_are_no_images(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    for _ in range(2):
        predict_folder(predictor, [str(photos)], photos / "found", NOTHING)
        assert len(read_rows(photos / "found")) == len(SIZES)


def test_files_and_patterns(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    pattern = str(photos / "*" / "?.png")
    predict_folder(predictor, [pattern], tmp_path / "one", NOTHING)
    assert [r["name"] for r in read_rows(tmp_path / "one")] == list(SIZES)[1:]
    files = [str(photos / "a.png"), str(photos / "deck")]
    predict_folder(predictor, files, tmp_path / "two", NOTHING)
    assert [r["name"] for r in read_rows(tmp_path / "two")] == list(SIZES)


def test_a_pattern_holds_where_the_working_folder_has_brackets(tmp_path, monkeypatch):
    write(tmp_path / "Survey [2024]" / "photos" / "a.png", photo(8, 8))
    write(tmp_path / "Survey 2" / "photos" / "b.png", photo(8, 8))
    monkeypatch.chdir(tmp_path / "Survey [2024]")
    for pattern, source in (
        ("photos/*.png", "a.png"),
        ("**/*.png", "photos/a.png"),
        ("../Survey [[]2*/photos/*", "Survey [2024]/photos/a.png"),
    ):
        [found] = photos_module.list_photos([pattern], tmp_path / "out").photos
        assert found.path == tmp_path / "Survey [2024]" / "photos" / "a.png"
        assert found.source == source


def test_nothing_is_left_out_without_a_word(tmp_path, photos, monkeypatch, capsys):
    predictor = middle_threshold(tmp_path / "model", photos)
    for name in ("x.heic", "deck/y.heic", "deck/z.gif"):
        (photos / name).touch()
    listed = photos_module.list_photos([str(photos / "x.heic")], photos / "found")
    assert [found.source for found in listed.photos] == ["x.heic"]  # asked for by name
    scan = os.scandir

    def refuse(path):
        if str(path) == str(photos / "deck"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    capsys.readouterr()
    assert predict_folder(predictor, [str(photos)], photos / "found", NOTHING) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "3 files are no images and were ignored: .heic 2, .gif 1." in said
    monkeypatch.setattr(os, "scandir", refuse)
    skipped = predict_folder(predictor, [str(photos)], photos / "found", NOTHING)
    assert skipped == [("deck", "Permission denied")]
    assert [row["name"] for row in read_rows(photos / "found")] == ["a.png"]
    with pytest.raises(InputError, match="Permission denied"):
        photos_module.list_photos([str(photos / "deck")], tmp_path / "out")


def test_results_of_another_model_or_of_none_are_refused(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, NOTHING)
    before = (out / "predict.json").read_bytes()
    save_tiny(tmp_path / "other", thresholds={"mask": 0.5}, seed=1)
    other = jaxseg.load(tmp_path / "other", precision="float32")
    with pytest.raises(InputError, match="model: '"):
        predict_folder(other, [str(photos)], out, NOTHING)
    tiled = jaxseg.load(tmp_path / "model", tile=True, precision="float32")
    with pytest.raises(InputError, match="tiled: False there, True now"):
        predict_folder(tiled, [str(photos)], out, NOTHING)
    assert (out / "predict.json").read_bytes() == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("...")
    with pytest.raises(InputError, match=r"dear\.txt and no predict\.json"):
        predict_folder(predictor, [str(photos)], tmp_path / "letters", NOTHING)
    assert len(list((tmp_path / "letters").iterdir())) == 1


def holes(seed):
    """A mask of three classes with islands in holes in regions."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 5:30], mask[10:30, 10:25], mask[15:25, 14:20] = 1, 0, 2
    mask[18:20, 16:18] = 0
    mask[np.arange(40), np.arange(40) + 20] = 1  # one pixel wide
    mask[39, 0] = 2
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 3, mask.shape, np.uint8)
    return np.where(rng.random(mask.shape) < 0.05, noise, mask)


def test_annotations_read_back_as_the_same_masks(tmp_path, photos, monkeypatch):
    save_tiny(tmp_path / "model", classes=tiny.THREE)
    predictor = jaxseg.load(tmp_path / "model")
    out = tmp_path / "out"
    masks = {}
    save_mask = folder.pictures.save_mask

    def replaced(path, mask, classes):
        height, width = mask.shape
        masks[mask.shape] = np.tile(holes(height), (3, 2))[:height, :width]
        save_mask(path, masks[mask.shape], classes)

    monkeypatch.setattr(folder.pictures, "save_mask", replaced)
    predict_folder(predictor, [str(photos)], out, EVERYTHING)
    in_coco = Wanted(probabilities=True, overlays=True, annotations="coco")
    predict_folder(predictor, [str(photos)], out, in_coco)
    assert len(masks) == len(SIZES)
    for listing in (
        labelme.scan(
            out / "labelme",
            classes=tiny.THREE,
            classes_file="",
            line_width=1,
            group_pattern="",
        ),
        coco.scan(
            out,
            annotations="coco.json",
            image_dir=str(photos),
            classes=tiny.THREE,
            group_pattern="",
        ),
    ):
        assert len(listing.records) == len(SIZES)
        for record in listing.records:
            mask = decode_mask(record.mask.read_bytes())
            np.testing.assert_array_equal(mask, masks[mask.shape])
            assert {1, 2} <= set(np.unique(mask))
            assert photos in record.image.resolve().parents


def test_corrected_annotations_are_never_overwritten(tmp_path, photos):
    predictor = middle_threshold(tmp_path / "model", photos)
    out = tmp_path / "out"
    predict_folder(predictor, [str(photos)], out, EVERYTHING)
    path = out / "labelme" / "a.json"
    path.write_text("corrected")
    (out / "labelme" / "deck" / "b.json").unlink()
    predict_folder(predictor, [str(photos)], out, EVERYTHING)
    assert path.read_text() == "corrected"
    assert (out / "labelme" / "deck" / "b.json").is_file()


def test_the_largest_value_of_a_block_stays():
    line = np.zeros((7, 11), np.uint8)
    line[:, 4] = 2
    small = folder.pictures.shrink(line, 3)
    assert small.tolist() == [[0, 2, 0, 0]] * 3
    levels = np.arange(24, dtype=np.uint16).reshape(4, 6, 1)
    assert folder.pictures.shrink(levels, 2)[..., 0].tolist() == [
        [7, 9, 11],
        [19, 21, 23],
    ]


def test_class_shares_are_exact_in_blocks(monkeypatch):
    mask = np.random.default_rng(0).integers(0, 3, (31, 17), np.uint8)
    monkeypatch.setattr(folder.pictures, "BLOCK", 40)
    shares = folder.pictures.class_shares(mask, 4)
    assert shares.tolist() == [(mask == i).mean() for i in range(4)]


def test_much_larger_photos_are_warned_of_once(tmp_path, photos, capsys):
    predictor = middle_threshold(tmp_path / "model", photos, source_size=(40, 60))
    write(photos / "d.png", photo(90, 20))
    write(photos / "e.png", photo(200, 20))
    predict_folder(predictor, [str(photos)], tmp_path / "out", NOTHING)
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 1
    assert "d.png has 90 x 20" in printed
    assert "--tile" in printed
