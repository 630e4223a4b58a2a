"""Metrics of regions, against loops over thresholds, images and regions."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.metrics import region_histogram, region_summary, score_histogram
from jaxseg.types import IGNORE

BINS = 32
RECALL, AUPRO = "recall/crack/per_region", "aupro/crack/per_region"


def scored_images(seed=0, count=4, side=24):
    """Scores on the edges of bins, masks with regions of all sizes, ignored pixels."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, side, side)), (0, 1.5, 1.5))
    masks = (noise > 0.12).astype(np.uint8)
    scores = np.clip(masks * 0.3 + rng.uniform(0, 0.7, masks.shape), 0, 1 - 1 / BINS)
    masks[rng.random(masks.shape) < 0.05] = IGNORE
    return np.floor(scores * BINS) / BINS, masks


def summary_of(probs, masks, bin=16):
    shares, count = np.zeros(BINS), 0
    for one, mask in zip(probs, masks, strict=True):
        of_image, regions = region_histogram(one, mask, BINS)
        shares, count = shares + of_image, count + regions
    background = np.asarray(score_histogram(probs, masks.astype(np.int32), BINS))[:, 0]
    return region_summary(shares, count, background.sum(0), bin, "crack")


def neighbours(pixel):
    y, x = pixel
    return {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} - {pixel}


def regions_of(mask):
    """Lists of pixels, by flooding."""
    left = {tuple(pixel) for pixel in np.argwhere(mask == 1).tolist()}
    found = []
    while left:
        region, edge = set(), {left.pop()}
        while edge:
            region |= edge
            left -= edge
            edge = {n for pixel in edge for n in neighbours(pixel)} & left
        found.append(region)
    return found


def overlap_at(threshold, probs, masks):
    """Mean share of a region that is found; share of background that is alarmed."""
    shares = [
        np.mean([one[pixel] >= threshold for pixel in region])
        for one, mask in zip(probs, masks, strict=True)
        for region in regions_of(mask)
    ]
    return np.mean(shares), np.mean(probs[masks == 0] >= threshold)


@pytest.mark.parametrize("seed", range(3))
def test_regions_equal_loops_over_thresholds_and_regions(seed):
    probs, masks = scored_images(seed)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(probs.ravel()), reverse=True):
        overlap, alarms = overlap_at(threshold, probs, masks)
        points.append((alarms, overlap))
    rate, overlap = np.array(points).T
    fine = np.linspace(0, 0.3, 300_001)
    area = np.interp(fine, rate, overlap)
    summary = summary_of(probs, masks)
    assert summary[AUPRO] == pytest.approx(area.mean(), abs=1e-4)
    assert summary[RECALL] == pytest.approx(overlap_at(0.5, probs, masks)[0])


def test_a_small_region_weighs_as_much_as_a_large_one():
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, 0, 0], mask[0, 4:, 4:] = 1, 1
    found = np.zeros((1, 8, 8))
    found[0, 4:, 4:] = 0.75
    assert summary_of(found, mask)[RECALL] == 0.5  # 16 of 17 pixels, one of 2 regions
    found[0, 4:, 4:6] = 0.25
    assert summary_of(found, mask)[RECALL] == 0.25


def test_regions_of_all_images_are_one_list():
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[0, 0, 0], mask[1, ::4, ::4] = 1, 1  # one region, and four
    found = np.where(np.arange(2)[:, None, None] == 0, 0.75, 0.0) * (mask == 1)
    assert summary_of(found, mask)[RECALL] == pytest.approx(1 / 5)


def test_pixels_that_touch_at_a_corner_are_one_region():
    _, count = region_histogram(np.zeros((4, 4)), np.eye(4, dtype=np.uint8), BINS)
    assert count == 1


def test_the_ends_of_the_area():
    _, masks = scored_images()
    perfect = np.where(masks == 1, 1.0, 0.0)
    assert summary_of(perfect, masks)[AUPRO] == pytest.approx(1)
    assert summary_of(1 - perfect, masks)[AUPRO] == pytest.approx(0)
    # One score everywhere: a straight line from (0, 0) to (1, 1), 0.15 below 0.3.
    assert summary_of(np.full(masks.shape, 0.5), masks)[AUPRO] == pytest.approx(0.15)


def test_the_area_by_hand():
    # Half of the region is found with 1 alarm of 10, the rest with 9 more.
    mask = np.zeros((1, 3, 4), np.uint8)
    mask[0, 0, :2] = 1
    probs = np.full(mask.shape, 0.25)
    probs[0, 0, 0] = probs[0, 2, 3] = 0.75
    at_limit = 0.5 + 0.5 * 0.2 / 0.9
    area = (0.1 * 0.5 / 2 + 0.2 * (0.5 + at_limit) / 2) / 0.3
    assert summary_of(probs, mask)[AUPRO] == pytest.approx(area)


def test_scores_fall_in_the_bins_of_the_pixel_histogram():
    probs, masks = scored_images()
    probs[0, :4] = [[0.0], [1.0], [0.999], [np.nan]]
    masks[0], masks[0, :, 12] = 1, 0  # two regions
    shares, count = region_histogram(probs[0], masks[0], BINS)
    assert count == 2
    areas = [24 * 12, 24 * 11]
    parts = [
        np.asarray(score_histogram(part[None], np.ones_like(part[None], int), BINS))
        for part in (probs[0, :, :12], probs[0, :, 13:])
    ]
    expected = sum(part[0, 1] / area for part, area in zip(parts, areas, strict=True))
    np.testing.assert_allclose(shares, expected, rtol=1e-12, atol=1e-15)


def test_without_regions_or_background_nothing_is_defined():
    clean = summary_of(np.zeros((1, 4, 4)), np.zeros((1, 4, 4), np.uint8))
    assert math.isnan(clean[RECALL])
    assert math.isnan(clean[AUPRO])
    full = summary_of(np.ones((1, 4, 4)), np.ones((1, 4, 4), np.uint8))
    assert full[RECALL] == 1
    assert math.isnan(full[AUPRO])
    ignored = summary_of(np.ones((1, 4, 4)), np.full((1, 4, 4), IGNORE, np.uint8))
    assert math.isnan(ignored[RECALL])
