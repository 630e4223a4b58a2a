"""Pieces of large masks, cut out and reduced, against measuring the whole at once."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_measure import bar

from jaxseg import files
from jaxseg.measure import measure
from jaxseg.predict import measuring
from jaxseg.predict.measuring import Found, measure_classes

CLASSES = ("wall", "crack", "rust")


def scattered(shape, number, seed, width=(1, 6)):
    """Class ids of random bars, some of which cross; and random scores."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for k in range(number):
        start = rng.uniform(0, shape, 2)
        stop = start + rng.uniform(-60, 60, 2)
        mask[bar(shape, start, stop, rng.uniform(*width))] = 1 + k % 2
    return mask, rng.integers(0, 256, shape).astype(np.uint8)


def assert_same(found, true):
    assert len(found) == len(true)
    for one, other in zip(found, true, strict=True):
        assert one.box == other.box
        for key in ("area", "length", "mean_width", "max_width", "orientation"):
            assert getattr(one, key) == pytest.approx(
                getattr(other, key), nan_ok=True
            ), key
        assert one.score == pytest.approx(other.score, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_pieces_are_those_of_the_whole_mask(seed):
    mask, levels = scattered((300, 410), 24, seed)
    found = measure_classes(mask, levels, CLASSES)
    for class_id, one in enumerate(found, start=1):
        true = measure(mask == class_id, scores=levels / np.float32(255))
        true.sort(key=lambda piece: piece.box[:2])
        assert one.number == len(true) > 2
        assert_same(one.components, true)


def test_rows_of_blocks_that_are_read_apart_stay_together(monkeypatch):
    mask, levels = scattered((200, 90), 9, 1)
    whole = measure_classes(mask, levels, CLASSES)
    monkeypatch.setattr(measuring, "BLOCK_ROWS", 1)
    assert [one.number for one in whole] == [
        one.number for one in measure_classes(mask, levels, CLASSES)
    ]


def test_a_reduced_mask_is_measured_in_pixels_of_the_image(monkeypatch):
    mask, levels = scattered((90, 120), 8, 2, width=(2, 9))
    for max_box in (measuring.MAX_BOX, 50 * 50):  # reduced once more
        monkeypatch.setattr(measuring, "MAX_BOX", max_box)
        for one, other in zip(
            measure_classes(mask, levels, CLASSES),
            measure_classes(mask, levels, CLASSES, scale=4),
            strict=True,
        ):
            for small, large in zip(one.components, other.components, strict=True):
                assert large.box == tuple(4 * side for side in small.box)
                assert large.area == pytest.approx(16 * small.area)
                assert large.length == pytest.approx(4 * small.length)
                assert large.score == small.score


def test_large_boxes_are_measured_one_at_a_time(monkeypatch):
    monkeypatch.setattr(measuring, "LARGE_BOX", 50)
    mask, levels = scattered((90, 120), 8, 2)
    busy, most = [], []

    def measure_alone(*arguments, **options):
        busy.append(0)
        most.append(len(busy))
        time.sleep(0.01)  # long enough for another thread to come in
        busy.pop()
        return measure(*arguments, **options)

    monkeypatch.setattr(measuring, "measure", measure_alone)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: measure_classes(mask, levels, CLASSES), range(4)))
    assert len(most) >= 8
    assert max(most) == 1


def test_an_empty_mask_has_no_pieces():
    empty = np.zeros((70, 50), np.uint8)
    assert measure_classes(empty, empty, CLASSES) == [Found(0, []), Found(0, [])]


@pytest.mark.parametrize(("width", "degrees"), [(3, 20), (6, 75), (12, 130)])
def test_a_reduced_line_keeps_its_sizes(monkeypatch, width, degrees):
    monkeypatch.setattr(measuring, "MAX_BOX", 60 * 60)
    angle, length = math.radians(degrees), 240
    half = length / 2 * np.array([-math.sin(angle), math.cos(angle)])
    line = bar((300, 300), 150 - half, 150 + half, width)
    levels = np.where(line, 51, 255).astype(np.uint8)
    [found] = measure_classes(line.astype(np.uint8), levels, CLASSES[:2])
    [one] = found.components
    factor = math.ceil(math.sqrt(240 * 240 / measuring.MAX_BOX))
    assert one.area == pytest.approx(line.sum(), rel=1e-6)
    assert one.score == pytest.approx(0.2)  # of its own pixels, not of those around
    assert one.length == pytest.approx(length, abs=2 * factor)
    assert one.mean_width == pytest.approx(width, abs=0.08 * width)
    assert one.mean_width <= one.max_width <= width + 1.5 * factor
    assert one.orientation == pytest.approx(degrees, abs=1)


def test_noise_is_counted_and_not_measured(monkeypatch):
    monkeypatch.setattr(measuring, "MIN_NOISE", 99)
    mask = np.zeros((20, 40), np.uint8)
    mask[::2, ::4] = 1
    mask[:, 3] = 2
    noise, line = measure_classes(mask, mask, CLASSES)
    assert noise == Found(100, [])
    columns = noise.columns(None)
    assert columns.pop("num_components") == 100
    assert all(math.isnan(value) for value in columns.values())
    assert line.columns(0.5)["length_mm"] == pytest.approx(10, abs=1)
    monkeypatch.setattr(measuring, "NOISE_PIXELS", 8)  # a larger image holds more
    assert len(measure_classes(mask, mask, CLASSES)[0].components) == 100


def test_what_was_found_survives_the_journal():
    mask, levels = scattered((90, 90), 5, 3)
    mask[10, 10] = 1  # a speck has no orientation
    for one in measure_classes(mask, levels, CLASSES):
        text = json.dumps(files.to_json(one.to_json()), allow_nan=False)
        again = Found.from_json(json.loads(text))
        assert again.number == one.number
        for read, written in zip(again.components, one.components, strict=True):
            assert tuple(read.box) == written.box
        assert str(again.columns(0.2)) == str(one.columns(0.2))
