"""Lengths, widths and directions against drawings of known geometry."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.distances import distances_to
from jaxseg.measure import MAX_HOLE, measure
from jaxseg.skeletons import branches_of, count_ends, skeletonize

WIDTHS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)


def bar(shape, start, stop, width):
    """Pixels whose centre is in the rectangle along a line; points are (y, x)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    length = np.hypot(*(stop - start))
    direction = (stop - start) / length
    along = (y - start[0]) * direction[0] + (x - start[1]) * direction[1]
    across = (x - start[1]) * direction[0] - (y - start[0]) * direction[1]
    return (along >= 0) & (along <= length) & (np.abs(across) <= width / 2)


def line(length, width, degrees, rng):
    """A line around the middle of an image, its angle against the x axis upwards."""
    side = int(length + 2 * width + 20)
    angle = math.radians(degrees)
    half = length / 2 * np.array([-math.sin(angle), math.cos(angle)])
    middle = side / 2 + rng.uniform(-1, 1, 2)
    return bar((side, side), middle - half, middle + half, width)


def star(arms, width, degrees, rng):
    """Lines of one length from a common point."""
    side = int(2 * arms + 3 * width + 20)
    middle = side / 2 + rng.uniform(-1, 1, 2)
    mask = np.zeros((side, side), bool)
    for angle in np.radians(degrees):
        tip = middle + arms * np.array([-math.sin(angle), math.cos(angle)])
        mask |= bar(mask.shape, middle, tip, width)
    return mask


def only(mask, **options):
    """The one component of a mask."""
    [found] = measure(mask, **options)
    return found


def is_near(found, true, pixels, share):
    return abs(found - true) <= max(pixels, share * true)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_line_of_any_angle_has_its_length_and_width(width):
    rng = np.random.default_rng(width)
    for degrees in (0, 45, 90, 135, *rng.uniform(0, 180, 8)):
        length = rng.uniform(max(30, 2.5 * width), 160)
        found = only(line(length, width, degrees, rng))
        case = (degrees, length, found)
        # Which pixels belong to a drawn line is itself uncertain by up to a pixel.
        assert is_near(found.length, length, 1, 0.03), case
        assert is_near(found.mean_width, width, 1, 0.03), case
        assert is_near(found.max_width, width, 1, 0.03), case
        turn = (found.orientation - degrees + 90) % 180 - 90
        assert abs(turn) < 2, case


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 15, 30])
def test_lines_along_the_axes_are_measured_exactly(width):
    mask = np.zeros((100, 100), bool)
    mask[20 : 20 + width, 7:95] = True
    for turned in (mask, mask.T):
        found = only(turned)
        assert found.length == pytest.approx(88, abs=0.1)
        assert found.mean_width == pytest.approx(width, abs=0.02)
        assert found.max_width == pytest.approx(width, abs=0.02)
        assert found.area == 88 * width
    assert only(mask).orientation == pytest.approx(0, abs=1e-9)
    assert only(mask.T).orientation == pytest.approx(90)


@pytest.mark.parametrize("widest", [5, 7, 13, 25])
@pytest.mark.parametrize("degrees", [0, 33, 45, 120])
def test_the_largest_width_is_that_of_the_widest_stretch(widest, degrees):
    """A line 3 pixels wide, and 50 of its 200 pixels wider."""
    angle = math.radians(degrees)
    direction = np.array([-math.sin(angle), math.cos(angle)])
    shape, middle = (260, 260), np.array([130.0, 130.0])
    mask = bar(shape, middle - 100 * direction, middle + 100 * direction, 3)
    mask |= bar(shape, middle - 25 * direction, middle + 25 * direction, widest)
    found = only(mask)
    assert is_near(found.max_width, widest, 1, 0.03)
    assert found.mean_width < 0.5 * (widest + 3)
    reduced = mask.reshape(130, 2, 130, 2).mean((1, 3))  # shares of larger pixels
    found = only(reduced > 0, spacing=(2.0, 2.0), shares=reduced)
    assert is_near(found.max_width, widest, 1, 0.03)


@pytest.mark.parametrize("width", [1, 3, 6, 12, 20])
@pytest.mark.parametrize(
    "degrees",
    [(20, 110, 245), (0, 120, 240), (0, 90, 180, 270), (10, 100, 190)],
    ids=["y", "even_y", "x", "t"],
)
def test_where_branches_meet_each_counts_once(width, degrees):
    rng = np.random.default_rng(width)
    arms = max(60, 5 * width)
    found = only(star(arms, width, degrees, rng))
    assert is_near(found.length, arms * len(degrees), 1.5, 0.03)
    assert is_near(found.mean_width, width, 1, 0.03)
    assert is_near(found.max_width, width, 1, 0.07)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_right_angle_loses_no_more_than_half_a_width_and_two_pixels(width):
    found = only(star(80, width, (30, 120), np.random.default_rng(0)))
    assert 160 - width / 2 - 2.5 <= found.length <= 161


@pytest.mark.parametrize(("radius", "width"), [(15, 1), (30, 3), (50, 10), (80, 20)])
def test_a_ring_is_as_long_as_its_middle_circle(radius, width):
    y, x = np.mgrid[:201, :201] - 100.3
    found = only(np.abs(np.hypot(y, x) - radius) <= width / 2)
    assert is_near(found.length, 2 * math.pi * radius, 1, 0.02)
    assert is_near(found.mean_width, width, 0.5, 0.03)


@pytest.mark.parametrize("width", [1, 3, 8, 15])
def test_a_curve_is_as_long_as_its_formula_says(width):
    t = np.linspace(20, 380, 4000)
    curve = np.stack([100 + 40 * np.sin(t / 30), t], axis=1)
    canvas = np.ones((200, 400))
    canvas[tuple(np.rint(curve).astype(int).T)] = 0
    mask = ndimage.distance_transform_edt(canvas) <= width / 2
    length = np.hypot(*np.diff(curve, axis=0).T).sum() + width  # round ends
    assert is_near(only(mask).length, length, 1, 0.02)


def test_a_rough_edge_adds_no_branches():
    rng = np.random.default_rng(0)
    mask = line(200, 12, 17, rng)
    rough = ndimage.gaussian_filter(rng.normal(size=mask.shape), 1.5)
    inside, outside = map(ndimage.distance_transform_edt, (mask, ~mask))
    mask = inside - outside + 4 * rough > 0
    largest = max(measure(mask), key=lambda one: one.area)
    assert is_near(largest.length, 200, 0, 0.05)
    assert is_near(largest.mean_width, 12, 1, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (2, 2), (3, 3), (30, 30)])
def test_a_small_or_square_piece_has_the_extents_of_its_pixels(shape):
    mask = np.zeros((40, 40), bool)
    mask[4 : 4 + shape[0], 5 : 5 + shape[1]] = True
    found = only(mask)
    assert found.length == pytest.approx(shape[1])
    assert found.mean_width == pytest.approx(shape[0])
    assert found.max_width == pytest.approx(shape[0])
    assert found.box == (4, 5, 4 + shape[0], 5 + shape[1])
    assert math.isnan(found.orientation) == (shape[0] == shape[1])


def test_a_disc_is_as_long_and_at_most_as_wide_as_its_diameter():
    y, x = np.mgrid[:81, :81] - 40
    found = only(np.hypot(y, x) <= 20)
    assert found.length == 41
    assert found.mean_width == pytest.approx(found.area / 41)
    assert found.max_width == pytest.approx(41, abs=1)


def test_nothing_and_everything():
    assert measure(np.zeros((9, 9), bool)) == []
    found = only(np.ones((64, 64), bool))
    assert (found.length, found.max_width, found.area) == (64, 64, 64 * 64)
    assert found.box == (0, 0, 64, 64)
    assert only(np.ones((64, 640), bool)).length == pytest.approx(640, abs=0.1)


def test_what_leaves_the_image_is_measured_as_shown():
    whole = bar((200, 200), (-50, 40), (250, 160), 9)
    found = only(whole)
    slope = 120 / 300  # x per y; 200 rows are visible
    assert is_near(found.length, 200 * math.hypot(1, slope), 0, 0.03)
    assert is_near(found.mean_width, 9, 1, 0)


def test_pieces_that_touch_at_a_corner_are_one_and_come_from_the_top():
    mask = np.zeros((12, 12), bool)
    mask[8, 2:5] = mask[1, 6:8] = mask[2, 8:10] = True
    first, second = measure(mask)
    assert (first.area, second.area) == (4, 3)
    assert first.box == (1, 6, 3, 10)


def test_small_holes_are_no_branches_and_large_ones_are():
    solid = bar((80, 200), (40, 20), (40, 180), 12)
    small, large = solid.copy(), solid.copy()
    small[38:42, 98:102] = False
    assert MAX_HOLE == 16
    large[37:44, 60:140] = False
    assert only(small).length == pytest.approx(only(solid).length, abs=0.2)
    assert only(small).area == only(solid).area - 16
    assert only(large).length > 1.4 * only(solid).length


@pytest.mark.parametrize("spacing", [(2.0, 2.0), (3.0, 1.0), (0.5, 1.25)])
def test_a_stretched_image_is_measured_in_its_own_pixels(spacing):
    """The line is drawn in the original image; the mask is a sample of it."""
    rng = np.random.default_rng(0)
    for degrees in (0, 30, 77, 90, 140):
        angle = math.radians(degrees)
        y, x = np.mgrid[:300, :300]
        dy, dx = y * spacing[0] - 150 * spacing[0], x * spacing[1] - 150 * spacing[1]
        along = dx * math.cos(angle) - dy * math.sin(angle)
        across = dx * math.sin(angle) + dy * math.cos(angle)
        length, width = rng.uniform(100, 140), 14
        pixel = max(spacing)
        mask = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
        found = only(mask, spacing=spacing)
        case = (degrees, length, found)
        assert is_near(found.length, length, 3 * pixel, 0.03), case
        assert is_near(found.mean_width, width, pixel, 0.03), case
        assert is_near(found.max_width, width, pixel, 0.03), case
        assert is_near(found.area, mask.sum() * spacing[0] * spacing[1], 0, 0.02)
        assert abs((found.orientation - degrees + 90) % 180 - 90) < 2, case
        rows = np.flatnonzero(mask.any(1))
        assert found.box[0] == pytest.approx(rows[0] * spacing[0], abs=0.5)
        assert found.box[2] == pytest.approx((rows[-1] + 1) * spacing[0], abs=0.5)


def test_the_score_is_the_mean_over_the_pixels_of_the_piece():
    mask = np.array([[1, 1, 0, 1]], bool)
    scores = np.array([[0.5, 1.0, 9.0, 0.25]])
    assert [one.score for one in measure(mask, scores=scores)] == [0.75, 0.25]
    assert math.isnan(measure(mask)[0].score)


def test_a_known_skeleton_changes_nothing():
    mask = star(40, 5, (20, 110, 245), np.random.default_rng(0))
    assert measure(mask, skeleton=skeletonize(mask)) == measure(mask)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
def test_any_mask_is_measured_without_a_pixel_lost(share):
    rng = np.random.default_rng(int(10 * share))
    for _ in range(60):
        mask = rng.random(rng.integers(1, 24, 2)) < share
        spacing = tuple(rng.choice([0.5, 1.0, 1.7], 2))
        found = measure(mask, spacing=spacing, scores=rng.random(mask.shape))
        if spacing[0] == spacing[1]:
            area = mask.sum() * spacing[0] * spacing[1]
            assert sum(one.area for one in found) == pytest.approx(area)
        for one in found:
            assert one.length > 0
            assert one.max_width >= one.mean_width > 0
            assert 0 <= one.score <= 1


def test_distances_are_those_of_the_distance_transform():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        mask = rng.random((30, 40)) < share
        pixels = ~mask & (rng.random(mask.shape) < 0.5)
        expected = ndimage.distance_transform_edt(~mask, sampling=(2, 0.5))[pixels]
        found = distances_to(mask, pixels, (2, 0.5))
        np.testing.assert_allclose(found, expected)
    nothing = np.zeros_like(mask)
    assert np.isinf(distances_to(nothing, ~nothing)).all()


def test_the_branches_of_a_cross_meet_at_one_node():
    mask = np.zeros((41, 41), bool)
    mask[20, 5:36] = mask[5:36, 20] = True
    branches = branches_of(skeletonize(mask), mask.astype(float), (1, 1))
    assert sorted(count_ends(branches).values()) == [1, 1, 1, 1, 4]
    [node] = {n for n, ends in count_ends(branches).items() if ends == 4}
    lines = [branch.seen_from(node).line for branch in branches]
    assert {tuple(one[0, :2]) for one in lines} == {(20, 20)}
    assert {tuple(one[-1, :2]) for one in lines} == {
        (5, 20),
        (35, 20),
        (20, 5),
        (20, 35),
    }
