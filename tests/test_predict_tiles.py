"""Classifiers on images larger than those of their training, against tiles cut here."""

import csv

import jax
import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image
from tiny_models import photo, save_tiny

import jaxseg
from jaxseg.data.images import resize_image
from jaxseg.predict.folder import Wanted, predict_folder
from jaxseg.predict.pictures import draw_tiles
from jaxseg.predict.tiles import Tiles, tiles_of
from jaxseg.report.overlays import SCORE_COLORS
from jaxseg.thresholds import Threshold

NOTHING = Wanted(probabilities=False, overlays=False, annotations="")


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def classifier(folder, classes=tiny.BINARY, **options):
    network = (tiny.SIMPLE_CNN, tiny.CLASSIFICATION, classes)
    save_tiny(folder, *network, image_size=(16, 24), **options)
    return folder


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cut(image):
    """The tiles of an image, 16 x 24; the last row and column end where it does."""
    tops = [*range(0, image.shape[0] - 16, 16), image.shape[0] - 16]
    lefts = [*range(0, image.shape[1] - 24, 24), image.shape[1] - 24]
    return tops, lefts, [image[y : y + 16, x : x + 24] for y in tops for x in lefts]


@pytest.mark.parametrize("resized", [True, False])
def test_a_binary_score_is_the_largest_of_the_tiles(tmp_path, resized):
    thresholds = {"image": 0.5}
    folder = classifier(tmp_path, resized=resized, thresholds=thresholds)
    image = photo(40, 72, seed=3)
    tops, lefts, pieces = cut(image)
    assert (tops, lefts) == ([0, 16, 24], [0, 24, 48])
    # That of windows knows no other way; the other one is asked to.
    tiled = jaxseg.load(folder, tile=resized, precision="float32")
    save_tiny(
        tmp_path / "whole", tiny.SIMPLE_CNN, tiny.CLASSIFICATION,
        image_size=(16, 24), thresholds=thresholds,
    )  # fmt: skip
    whole = jaxseg.load(tmp_path / "whole", precision="float32")
    expected = [whole.predict(piece).score for piece in pieces]
    result = tiled.predict(image)
    np.testing.assert_allclose(result.tiles.scores.ravel(), expected, atol=1e-6)
    assert result.score == pytest.approx(max(expected), abs=1e-6)
    assert result.decision == tiny.BINARY[int(max(expected) >= 0.5)]
    np.testing.assert_array_equal(
        result.tiles.decided.ravel(), [score >= 0.5 for score in expected]
    )
    assert np.ptp(expected) > 0


def test_of_more_classes_it_is_the_mean(tmp_path):
    predictor = jaxseg.load(classifier(tmp_path, tiny.THREE), tile=True)
    result = predictor.predict(photo(32, 48, seed=1))
    assert result.tiles.probs.shape == (2, 2, 3)
    mean = result.tiles.probs.reshape(4, 3).mean(0)
    np.testing.assert_allclose(result.image_probabilities, mean, rtol=1e-6)
    assert result.decision == tiny.THREE[mean.argmax()]
    others = 1 - result.tiles.probs[..., 0]
    np.testing.assert_allclose(result.tiles.scores, others, rtol=1e-6)


def test_tiles_are_at_the_scale_of_the_training(tmp_path):
    folder = classifier(tmp_path, source_size=(32, 72))  # shrunk by 2 and 3
    predictor = jaxseg.load(folder, tile=True, precision="float32")
    image = photo(64, 144, seed=2)
    result = predictor.predict(image)
    np.testing.assert_array_equal(result.tiles.rows, [[0, 32], [32, 64]])
    np.testing.assert_array_equal(result.tiles.columns, [[0, 72], [72, 144]])
    small = resize_image(image, (32, 48))
    one = jaxseg.load(folder, precision="float32").predict(small[:16, 24:])
    assert result.tiles.probs[0, 1, 0] == pytest.approx(one.score, abs=1e-6)


def test_an_image_smaller_than_a_tile_is_one(tmp_path):
    predictor = jaxseg.load(classifier(tmp_path, resized=False))
    result = predictor.predict(photo(10, 20))
    assert result.tiles.probs.shape[:2] == (1, 1)
    np.testing.assert_array_equal(result.tiles.rows, [[0, 10]])
    np.testing.assert_array_equal(result.tiles.columns, [[0, 20]])


@pytest.mark.parametrize("classes", [tiny.BINARY, tiny.THREE])
def test_the_tables_have_every_tile_and_go_on(tmp_path, classes, monkeypatch):
    folder = classifier(tmp_path / "model", classes, thresholds={"image": 0.5})
    predictor = jaxseg.load(folder, tile=True, precision="float32")
    (tmp_path / "photos").mkdir()
    for name, size in (("=a", (32, 48)), ("b", (40, 24))):
        path = tmp_path / "photos" / f"{name}.png"
        Image.fromarray(photo(*size, seed=len(name))).save(path)
    out = tmp_path / "out"
    overlays = Wanted(probabilities=False, overlays=True, annotations="")
    predict_folder(predictor, [str(tmp_path / "photos")], out, overlays)
    rows = {row["name"]: row for row in read_rows(out / "results.csv")}
    tiles = read_rows(out / "tiles.csv")
    assert list(rows) == ["'=a.png", "b.png"]
    for name, row in rows.items():
        result = predictor.predict(tmp_path / "photos" / name.strip("'"))
        mine = [tile for tile in tiles if tile["name"] == name]
        assert int(row["num_tiles"]) == len(mine) == result.tiles.decided.size
        found = sum(tile["decision"] != classes[0] for tile in mine)
        assert int(row["num_tiles_found"]) == found
        scores = [float(tile["score"]) for tile in mine]
        np.testing.assert_allclose(scores, result.tiles.scores.ravel(), atol=1e-6)
        assert row["decision"] == result.decision
        assert ("probability/rust" in mine[0]) == (len(classes) == 3)
        drawn = out / "overlays" / f"{name.strip(chr(39))}".replace(".png", ".jpg")
        assert np.asarray(Image.open(drawn)).std() > 10
    assert [tile["bottom"] for tile in tiles if tile["name"] == "b.png"] == [
        "16.0", "32.0", "40.0",
    ]  # fmt: skip
    before = [(out / name).read_bytes() for name in ("results.csv", "tiles.csv")]
    monkeypatch.setattr(type(predictor), "run", None)
    predict_folder(predictor, [str(tmp_path / "photos")], out, overlays)
    after = [(out / name).read_bytes() for name in ("results.csv", "tiles.csv")]
    assert before == after


def test_a_much_larger_image_is_warned_of(tmp_path, capsys):
    predictor = jaxseg.load(classifier(tmp_path / "model"))
    path = tmp_path / "photo.png"
    Image.fromarray(photo(50, 60)).save(path)
    predict_folder(predictor, [str(path)], tmp_path / "out", NOTHING)
    assert "With --tile it keeps" in capsys.readouterr().out.replace("\n", " ")


def test_a_picture_shows_the_worse_of_tiles_that_overlap():
    said = [(0, 0, [0.0]), (0, 150, [1.0])]
    tiles = tiles_of(
        [(top, left, np.float32(probs)) for top, left, probs in said],
        size=(200, 350),
        tile=(200, 200),
        scale=(1.0, 1.0),
        thresholds={"image": Threshold(0.5, "max_f1")},
    )
    np.testing.assert_array_equal(tiles.decided, [[0, 1]])
    black = np.zeros((200, 350, 3), np.uint8)
    page = np.asarray(draw_tiles(black, tiles, ["title"]))
    counts = {
        level: int((page == (SCORE_COLORS[level] // 2)).all(-1).sum())
        for level in (0, 255)
    }
    # Every pixel of the second tile, and of the first what it leaves.
    assert counts[255] >= 200 * 200
    assert 200 * 150 <= counts[0] < 200 * 200


def test_tiles_survive_the_journal():
    tiles = Tiles(
        np.array([[0.0, 16.0]]),
        np.array([[0.0, 24.0], [24.0, 40.5]]),
        np.float32([[[0.25], [0.75]]]),
        np.array([[0, 1]]),
    )
    again = Tiles.from_json(tiles.to_json())
    rows = list(again.table("a", tiny.BINARY))
    assert rows == list(tiles.table("a", tiny.BINARY))
    assert rows[1] == dict(
        name="a", top=0.0, left=24.0, bottom=16.0, right=40.5, score=0.75,
        decision="crack",
    )  # fmt: skip
