"""Outlines against masks drawn again, and run lengths against a plain count."""

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.datasets.coco import decode_runs
from jaxseg.datasets.drawing import Shape
from jaxseg.predict.outlines import (
    Region,
    draw,
    find_regions,
    outline,
    polygons,
    run_lengths,
)


def masks(seed):
    """Noise of two to four classes, sparse dots, and smooth blobs."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 40, 2))
    smooth = ndimage.gaussian_filter(rng.normal(size=size), 1.5)
    yield rng.integers(0, rng.integers(2, 5), size, np.uint8)
    yield (rng.random(size) < 0.3).astype(np.uint8)
    yield (smooth > 0.05).astype(np.uint8) + (smooth > 0.2)


@pytest.mark.parametrize("seed", range(60))
def test_polygons_drawn_in_order_are_the_mask(seed):
    for mask in masks(seed):
        np.testing.assert_array_equal(draw(polygons(mask), mask.shape), mask)


def test_a_ring_is_a_filled_outline_and_a_hole():
    mask = np.zeros((9, 11), np.uint8)
    mask[1:8, 2:9], mask[3:6, 4:7], mask[4, 5] = 1, 0, 2
    outer, hole, island = polygons(mask)
    assert outer.numbers == (2, 1, 8, 1, 8, 7, 2, 7)
    assert hole.numbers == (4, 3, 6, 3, 6, 5, 4, 5)
    assert island.numbers == (5, 4) * 3
    assert [shape.class_id for shape in (outer, hole, island)] == [1, 0, 2]


def test_a_diagonal_crack_is_one_shape_there_and_back():
    mask = np.eye(20, dtype=np.uint8)
    (shape,) = polygons(mask)
    assert set(shape.numbers) == {0, 19}
    assert len(shape.numbers) == 6  # a polygon has three points at least


def test_an_outline_goes_around_the_corners_once():
    pixels = np.ones((3, 4), bool)
    pixels[0, 0] = False
    points = list(outline(Region(1, 10, 20, pixels)))
    assert list(zip(points[::2], points[1::2], strict=True)) == [
        (21, 10),
        (23, 10),
        (23, 12),
        (20, 12),
        (20, 11),
    ]


def plain_runs(inside):
    """Runs of a flat bool array, counted one by one, outside first."""
    runs, state = [0], False
    for value in inside:
        if value != state:
            runs.append(0)
            state = value
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_a_plain_count(seed):
    for mask in masks(seed):
        again = np.zeros_like(mask)
        for region in find_regions(mask, holes=False, corners=True):
            whole = np.zeros(mask.shape, bool)
            height, width = region.pixels.shape
            whole[
                region.top : region.top + height, region.left : region.left + width
            ] = region.pixels
            runs = run_lengths(region, mask.shape)
            expected = plain_runs(whole.T.ravel())
            assert runs in (expected, [*expected, 0])
            again[whole] = region.class_id
            shape = Shape("runs", region.class_id, tuple(runs))
            np.testing.assert_array_equal(draw([shape], mask.shape) > 0, whole)
        np.testing.assert_array_equal(again, mask)


def test_nothing_found_is_no_shape():
    empty = np.zeros((5, 6), np.uint8)
    assert polygons(empty) == []
    assert find_regions(empty, holes=False, corners=True) == []
    full = np.ones((5, 6), np.uint8)
    (region,) = find_regions(full, holes=False, corners=True)
    assert run_lengths(region, full.shape) in ([0, 30], [0, 30, 0])
    assert decode_runs("0n0") == (0, 30)
