"""Metrics of thin structures against hand-computed masks and plain restatements."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from jaxseg.metrics import mode_of, thin_columns, thin_counts, thin_summary

OVERLAPS = ("cldice", "f1_2px", "f1_1pct")


def mask_of(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def stacked(*pairs):
    """Counts [n, 1, ...] of (prediction, truth) pairs."""
    counts = [thin_counts(*pair) for pair in pairs]
    return {name: np.stack([[one[name]] for one in counts]) for name in counts[0]}


def blobs(rng, shape=(60, 80)):
    """Winding pieces, as cracks and false alarms are."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return np.abs(field) < 0.015


# The share of matched pixels, plainly.


def plain_f(matched, claimed, found, true):
    precision, recall = matched / claimed, found / true
    return 2 * precision * recall / (precision + recall)


def plain_cldice(prediction, truth):
    lines = [skeletonize(mask, method="lee") for mask in (prediction, truth)]
    return plain_f(
        (lines[0] & truth).sum(), lines[0].sum(),
        (lines[1] & prediction).sum(), lines[1].sum(),
    )  # fmt: skip


def plain_tolerance_f1(prediction, truth, pixels):
    to_truth = ndimage.distance_transform_edt(~truth)
    to_prediction = ndimage.distance_transform_edt(~prediction)
    return plain_f(
        (to_truth[prediction] <= pixels).sum(), prediction.sum(),
        (to_prediction[truth] <= pixels).sum(), truth.sum(),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_equal_a_plain_restatement(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = blobs(rng), blobs(rng)
    columns = thin_columns(stacked((prediction, truth)), ("crack",))
    diagonal = math.hypot(60, 80)
    expected = {
        "cldice": plain_cldice(prediction, truth),
        "f1_2px": plain_tolerance_f1(prediction, truth, 2),
        "f1_1pct": plain_tolerance_f1(prediction, truth, 0.01 * diagonal),
    }
    for name, value in expected.items():
        assert columns[f"{name}/crack"][0] == pytest.approx(value), name
    _, predicted = ndimage.label(prediction, np.ones((3, 3)))
    _, true = ndimage.label(truth, np.ones((3, 3)))
    assert columns["component_error/crack"][0] == abs(predicted - true)


def test_cldice_by_hand():
    """A line of 6 pixels; the prediction finds 4 of them and 4 beside it."""
    truth = mask_of("..........", "..######..", "..........", "..........")
    found = mask_of("..........", "....####..", "..........", "####......")
    counts = thin_counts(found, truth)
    # The skeleton of a line of one pixel is the line.
    assert counts["cldice"].tolist() == [4, 8, 4, 6]
    columns = thin_columns(stacked((found, truth)), ("crack",))
    assert columns["cldice/crack"][0] == pytest.approx(2 * (1 / 2) * (2 / 3) / (7 / 6))


def test_a_tolerance_includes_its_limit():
    """Rows 2 apart are matched, rows 3 apart are not; 1 % here is 0.1 pixels."""
    truth, near, far = (np.zeros((7, 7), bool) for _ in range(3))
    truth[1], near[3], far[4] = True, True, True
    assert thin_counts(near, truth)["f1_2px"].tolist() == [7, 7, 7, 7]
    assert thin_counts(far, truth)["f1_2px"].tolist() == [0, 7, 0, 7]
    assert thin_counts(near, truth)["f1_1pct"].tolist() == [0, 7, 0, 7]
    assert thin_counts(truth, truth)["f1_1pct"].tolist() == [7, 7, 7, 7]


def test_one_percent_is_of_the_diagonal():
    """300 x 400 pixels: 5 of them."""
    truth, near, far = (np.zeros((300, 400), bool) for _ in range(3))
    truth[100], near[105], far[106] = True, True, True
    assert thin_counts(near, truth)["f1_1pct"].tolist() == [400] * 4
    assert thin_counts(far, truth)["f1_1pct"].tolist() == [0, 400, 0, 400]


NOTHING = np.zeros((8, 8), bool)
LINE = mask_of(*["........"] * 3, "########", *["........"] * 4)


@pytest.mark.parametrize(
    ("prediction", "truth", "image", "pooled"),
    [
        (NOTHING, NOTHING, 1.0, math.nan),
        (LINE, NOTHING, 0.0, 0.0),
        (NOTHING, LINE, 0.0, 0.0),
        (LINE, np.roll(LINE, 4, axis=0), 0.0, 0.0),
        (LINE, LINE, 1.0, 1.0),
    ],
    ids=["empty", "false alarm", "missed", "apart", "equal"],
)
def test_the_table_of_values_on_empty_masks(prediction, truth, image, pooled):
    summary = thin_summary(stacked((prediction, truth)), ("crack",))
    for name in OVERLAPS:
        assert summary[f"{name}/crack/per_image"] == image
        assert summary[f"{name}/crack/pooled"] == pytest.approx(pooled, nan_ok=True)


def test_component_errors_do_not_cancel():
    """Two pieces for one, and none for two: 1 and 2 wrong, of 3 true ones."""
    two = mask_of("##..##", "......", "......")
    one = mask_of("######", "......", "......")
    summary = thin_summary(stacked((two, one), (NOTHING[:3, :6], two)), ("crack",))
    assert summary["component_error/crack/per_image"] == 1.5
    assert summary["component_error/crack/pooled"] == 1.0


def test_the_component_error_of_clean_images_is_undefined_only_pooled():
    summary = thin_summary(stacked((LINE, NOTHING), (NOTHING, NOTHING)), ("crack",))
    assert summary["component_error/crack/per_image"] == 0.5
    assert math.isnan(summary["component_error/crack/pooled"])


def bar(width, length=60):
    mask = np.zeros((40, 80), bool)
    mask[10 : 10 + width, 10 : 10 + length] = True
    return mask


def test_the_width_bias_is_the_difference_of_the_mean_widths():
    nothing = np.zeros_like(bar(1))
    pairs = [(bar(5), bar(3)), (bar(4), bar(4)), (bar(4), nothing), (nothing, bar(2))]
    columns = thin_columns(stacked(*pairs), ("crack",))
    found = columns["width_bias/crack"]
    np.testing.assert_allclose(found, [2, 0, math.nan, math.nan], atol=0.05)
    summary = thin_summary(stacked(*pairs), ("crack",))
    assert summary["width_bias/crack/per_image"] == pytest.approx(1, abs=0.05)
    pooled = (5 + 4 + 4) / 3 - (3 + 4 + 2) / 3  # all lines have one length
    assert summary["width_bias/crack/pooled"] == pytest.approx(pooled, abs=0.05)


def test_pooled_widths_are_weighted_by_length():
    pairs = [(bar(2, length=60), bar(2)), (bar(8, length=20), bar(2))]
    summary = thin_summary(stacked(*pairs), ("crack",))
    expected = (2 * 60 + 8 * 20) / 80 - 2
    assert summary["width_bias/crack/pooled"] == pytest.approx(expected, abs=0.1)


def test_width_bias_is_in_pixels_of_the_original_image():
    counts = thin_counts(bar(6), bar(4), spacing=(2.5, 2.5))
    predicted, true = counts["widths"] / counts["lengths"]
    assert predicted - true == pytest.approx(5, abs=0.1)


def test_pooled_overlaps_sum_the_counts_of_all_images():
    rng = np.random.default_rng(0)
    pairs = [(blobs(rng), blobs(rng)), (blobs(rng), blobs(rng)), (LINE, NOTHING)]
    counts = [thin_counts(*pair) for pair in pairs]
    summary = thin_summary(stacked(*pairs), ("crack",))
    for name in OVERLAPS:
        total = sum(one[name] for one in counts)
        assert summary[f"{name}/crack/pooled"] == pytest.approx(plain_f(*total))


def test_every_class_has_its_own_metrics():
    counts = thin_counts(LINE, LINE), thin_counts(NOTHING, LINE)
    counts = {name: np.stack([[one[name] for one in counts]]) for name in counts[0]}
    summary = thin_summary(counts, ("crack", "spall"))
    assert summary["cldice/crack/pooled"] == 1.0
    assert summary["cldice/spall/pooled"] == 0.0
    averagings = {key.rsplit("/", 1)[1] for key in summary}
    assert averagings == {"pooled", "per_image"}
    assert len(summary) == 2 * 5 * 2


def test_fewer_component_errors_are_better():
    assert mode_of("component_error/crack/pooled") == "min"
    assert mode_of("cldice/crack/pooled") == "max"
