"""Laws of the pictures of SegDecNet."""

import math

import matplotlib
import numpy as np
import pytest

from jaxseg.data.targets import downsize
from jaxseg.report import overlays, panels
from jaxseg.types import IGNORE


def test_the_blur_is_the_mean_of_boxes_with_mirrored_edges():
    output = np.random.default_rng(0).random((40, 48))
    padded = np.pad(output, 32, mode="reflect")
    corner = 32 - 16  # the box of a pixel reaches 16 back and 15 ahead
    means = [
        [padded[y : y + 32, x : x + 32].mean() for x in range(corner, corner + 48)]
        for y in range(corner, corner + 40)
    ]
    blurred, largest = panels.blur(output)
    assert largest == pytest.approx(np.max(means))
    np.testing.assert_allclose(blurred, np.array(means) / np.max(means))
    assert blurred.max() == 1


def test_nothing_blurred_is_nothing():
    blurred, largest = panels.blur(np.zeros((40, 40)))
    assert largest == 0
    assert (blurred == 0).all()


def test_output_is_drawn_where_its_targets_come_from():
    """A value stands on the middle of the window that it was averaged over."""
    mask = np.zeros((64, 48))
    mask[24:33, 16:25] = 1  # around pixel (28, 20)
    target = downsize(mask)
    drawn = panels.enlarge(target, mask.shape)
    assert drawn.shape == mask.shape
    assert (drawn[::8, ::8] == target).all()
    pixels = np.argwhere(drawn > 0.05)
    np.testing.assert_allclose(pixels.mean(0), (28, 20), atol=1)
    same = np.random.default_rng(0).random((6, 5))
    np.testing.assert_array_equal(panels.enlarge(same, same.shape), same)


def test_scores_have_the_colours_of_turbo():
    colors = panels.paint(np.array([0.0, 0.5, 1.0, 1.2]))
    turbo = matplotlib.colormaps["turbo"](np.array([0, 128, 255, 255]))[:, :3] * 255
    np.testing.assert_allclose(colors, turbo, atol=0.5)


def draw(height, width, weight=True, truth=None):
    shape, coarse = (height, width), (height // 8, width // 8)
    return panels.draw_panels(
        np.full((*shape, 3), 200, np.uint8),
        np.zeros(shape, np.uint8) if truth is None else truth,
        np.full(coarse, 3.0) if weight else None,
        np.linspace(0, 1, math.prod(coarse)).reshape(coarse),
        np.ones(shape, np.uint8),
        max_weight=3.0,
        score=0.5,
        title=("score",),
    )


def panel(picture, row, column, height, width):
    """Of a picture with one line of title; side by side or stacked."""
    top = overlays.GAP + overlays.TEXT_SIZE + 6 + overlays.LABEL_SIZE + 8
    y = top + row * (height + overlays.LABEL_SIZE + 8 + overlays.GAP)
    x = overlays.GAP + column * (width + overlays.GAP)
    return np.asarray(picture)[y : y + height, x : x + width]


def test_the_panels_are_image_truth_weight_output_blur_and_result():
    truth = np.zeros((256, 256), np.uint8)
    truth[:100], truth[100:120] = 1, IGNORE
    picture = draw(256, 256, truth=truth)  # two rows of three
    assert (panel(picture, 0, 0, 256, 256) == 200).all()
    annotation = panel(picture, 0, 1, 256, 256)
    assert tuple(annotation[0, 0]) == overlays.FOREGROUND
    assert tuple(annotation[110, 0]) == overlays.IGNORED
    assert (panel(picture, 0, 2, 256, 256) == overlays.SCORE_COLORS[-1]).all()
    output = panel(picture, 1, 0, 256, 256)
    assert tuple(output[0, 0]) == tuple(panels.TURBO[0])
    assert tuple(output[-1, -1]) == tuple(panels.TURBO[-1])
    assert tuple(panel(picture, 1, 1, 256, 256)[-1, -1]) == tuple(panels.TURBO[-1])
    result = panel(picture, 1, 2, 256, 256)
    assert tuple(result[0, 0]) == overlays.HIT
    assert tuple(result[-1, 0]) == overlays.FALSE_ALARM


def test_without_weights_there_is_no_panel_of_them():
    picture = draw(640, 232, weight=False)  # five in a row
    assert picture.width == 5 * (232 + overlays.GAP) + overlays.GAP
    assert draw(640, 232).width == 6 * (232 + overlays.GAP) + overlays.GAP
    assert tuple(panel(picture, 0, 2, 640, 232)[0, 0]) == tuple(panels.TURBO[0])


def test_landscape_images_are_stacked_not_turned():
    picture = draw(256, 1024)
    assert picture.width < 3 * 1024
    assert picture.height > 3 * 256
    assert (panel(picture, 0, 0, 256, 1024) == 200).all()
