"""Laws of the intervals, against the metrics that they belong to."""

import numpy as np
import pytest
from scipy import stats

from jaxseg import metrics
from jaxseg.metrics import bootstrap

RANDOM = np.random.default_rng(7)
LABELS = RANDOM.integers(2, size=80)
SCORES = np.round(RANDOM.normal(LABELS, 1.0), 1)  # with ties
WEIGHT = RANDOM.integers(0, 4, size=80)


def copies(*arrays):
    return [np.repeat(array, WEIGHT, axis=0) for array in arrays]


def assert_equal_where_shared(found, expected):
    assert found
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-12), name


def test_an_image_drawn_twice_counts_as_two_of_decisions():
    metric = bootstrap.of_decisions(SCORES, LABELS, SCORES >= 0.5)
    whole = metrics.image_summary(SCORES, LABELS, 0.5)
    assert_equal_where_shared(metric(np.ones(80, int)), whole)
    assert_equal_where_shared(
        metric(WEIGHT), metrics.image_summary(*copies(SCORES, LABELS), 0.5)
    )


def test_a_resample_without_the_highest_score_has_all_metrics():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.5, 0.8, 0.9])
    metric = bootstrap.of_decisions(scores, labels, scores >= 0.45)
    found = metric(np.array([1, 2, 1, 1, 0]))
    kept = [0, 1, 1, 2, 3]
    expected = metrics.image_summary(scores[kept], labels[kept], 0.45)
    assert_equal_where_shared(found, expected)


def test_an_image_drawn_twice_counts_as_two_of_classes():
    true, decided = RANDOM.integers(3, size=80), RANDOM.integers(3, size=80)
    table = np.zeros((3, 3), int)
    np.add.at(table, tuple(copies(true, decided)), 1)
    expected = metrics.class_summary(table, ("a", "b", "c"))
    assert_equal_where_shared(bootstrap.of_classes(true, decided, 3)(WEIGHT), expected)


@pytest.mark.parametrize("classes", [("wall", "crack"), ("wall", "crack", "spall")])
def test_an_image_drawn_twice_counts_as_two_of_pixels(classes):
    tables = RANDOM.integers(50, size=(80, len(classes), len(classes)))
    expected = metrics.pixel_summary(*copies(tables), classes)
    found = bootstrap.of_pixels(tables, classes)(WEIGHT)
    assert_equal_where_shared(found, expected)
    assert ("iou/mean/pooled" in found) == (len(classes) > 2)


def test_means_leave_out_what_is_undefined():
    metric = bootstrap.of_means({"dice": np.array([1.0, np.nan, 0.5])})
    assert metric(np.array([1, 5, 3]))["dice"] == (1.0 + 1.5) / 4
    assert np.isnan(metric(np.array([0, 5, 0]))["dice"])


def test_the_interval_of_a_share_is_near_the_binomial_one():
    labels = np.ones(200, int)
    decided = np.arange(200) < 150
    metric = bootstrap.of_decisions(decided.astype(float), labels, decided)
    low, high = bootstrap.intervals(metric, range(200))["recall"]
    # A step of the binomial quantile is 0.005; 1,000 draws hit it or the next.
    expected = stats.binom(200, 0.75).ppf([0.025, 0.975]) / 200
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)


def test_groups_are_drawn_whole_which_widens_the_interval():
    found = np.repeat(np.arange(20) < 15, 10)
    metric = bootstrap.of_decisions(found.astype(float), np.ones(200, int), found)
    alone = bootstrap.intervals(metric, range(200))["recall"]
    grouped = bootstrap.intervals(metric, np.repeat(np.arange(20), 10))["recall"]
    expected = stats.binom(20, 0.75).ppf([0.025, 0.975]) / 20
    assert grouped == pytest.approx(tuple(expected), abs=0.051)
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_the_same_images_give_the_same_numbers_and_undefined_stays_undefined():
    metric = bootstrap.of_decisions(SCORES, np.zeros(80, int), SCORES >= 0.5)
    first = bootstrap.intervals(metric, range(80), resamples=50)
    again = bootstrap.intervals(metric, range(80), resamples=50)
    np.testing.assert_equal(first, again)
    assert np.isnan(first["auc"]).all()
    assert np.isfinite(first["accuracy"]).all()
