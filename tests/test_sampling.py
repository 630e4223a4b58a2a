"""The order of an epoch: a permutation or a balanced draw, and nothing but its seed."""

import math

import numpy as np
import pytest

from jaxseg.data.sampling import epoch_length, epoch_order, rest_probabilities

LABELS = np.array([0] * 10 + [1] * 3)
MODES = ["shuffle", "balanced", "matched", "least_used"]


def order(mode, *, seed=0, epoch=0, labels=LABELS):
    return epoch_order(labels, mode=mode, seed=seed, epoch=epoch)


@pytest.mark.parametrize("epoch", [0, 1, 100])
def test_shuffle_visits_every_sample_once(epoch):
    np.testing.assert_array_equal(np.sort(order("shuffle", epoch=epoch)), range(13))


@pytest.mark.parametrize("mode", MODES)
def test_the_order_is_a_function_of_seed_and_epoch(mode):
    first = order(mode, seed=5, epoch=2)
    order(mode, seed=5, epoch=3)  # no state is kept in between
    np.testing.assert_array_equal(order(mode, seed=5, epoch=2), first)
    others = [
        order(mode, seed=5, epoch=3),
        order(mode, seed=6, epoch=2),
        order(mode, seed=2, epoch=5),
    ]
    for other in others:
        assert (other != first).any()


def test_balanced_gives_every_class_the_same_number_of_places():
    # 13 places: 7 for class 0, 6 for class 1, whose 3 samples come twice each.
    counts = np.bincount(order("balanced"), minlength=13)
    assert counts.sum() == 13
    assert sorted(counts[:10]) == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert list(counts[10:]) == [2, 2, 2]


def test_balanced_repeats_a_rare_class_evenly():
    # 11 places over classes 0, 2, 7: 4, 4 and 3; the one sample of class 7 comes 3
    # times, the 3 samples of class 2 come 4 times together, none of them thrice.
    labels = np.array([0] * 7 + [2] * 3 + [7])
    counts = np.bincount(order("balanced", labels=labels), minlength=11)
    assert counts[:7].max() == 1
    assert counts[:7].sum() == 4
    assert sorted(counts[7:10]) == [1, 1, 2]
    assert counts[10] == 3


def test_balanced_rests_no_sample_for_ever():
    seen = {int(i) for epoch in range(30) for i in order("balanced", epoch=epoch)}
    assert seen == set(range(13))


def test_balanced_mixes_the_classes():
    labels = np.repeat([0, 1], 200)
    drawn = labels[order("balanced", labels=labels)]
    halves = drawn[:200].sum(), drawn[200:].sum()
    assert min(halves) > 60  # of 100 expected; in order it would be 0 and 200


@pytest.mark.parametrize("mode", ["matched", "least_used"])
def test_every_positive_meets_a_negative_of_its_own(mode):
    for epoch in range(5):
        counts = np.bincount(order(mode, epoch=epoch), minlength=13)
        assert list(counts[10:]) == [1, 1, 1]
        assert sorted(counts[:10]) == [0] * 7 + [1] * 3
    assert epoch_length(LABELS, mode=mode) == 6


@pytest.mark.parametrize("mode", ["matched", "least_used"])
def test_more_positives_than_negatives_draw_these_again(mode):
    labels = np.array([0] * 2 + [1] * 5)
    counts = np.bincount(order(mode, labels=labels), minlength=7)
    assert list(counts[2:]) == [1] * 5
    assert counts[:2].sum() == 5
    assert epoch_length(labels, mode=mode) == len(order(mode, labels=labels)) == 10


def formula(uses):
    """Section 1.7 of the reference, step by step."""
    s = [1 - use / max(uses) for use in uses]
    middle = sorted(s)
    half = len(s) // 2
    median = middle[half] if len(s) % 2 else (middle[half - 1] + middle[half]) / 2
    s = [(value - median + 1) ** (4 * math.log(len(s))) for value in s]
    return [value / sum(s) for value in s]


@pytest.mark.parametrize("uses", [[0, 1, 2, 3, 3], [5, 5, 4, 0], [1, 1, 1]])
def test_rest_probabilities_are_those_of_the_formula(uses):
    found = rest_probabilities(np.array(uses))
    np.testing.assert_allclose(found, formula(uses), rtol=1e-12)


def test_before_any_use_all_negatives_are_alike():
    np.testing.assert_array_equal(rest_probabilities(np.zeros(4, int)), [0.25] * 4)


def test_least_used_spreads_the_uses():
    labels = np.array([0] * 40 + [1] * 10)

    def uses(mode):
        drawn = [order(mode, epoch=epoch, labels=labels) for epoch in range(8)]
        return np.bincount(np.concatenate(drawn), minlength=50)[:40]

    # 80 draws of 40 negatives: two for each, and hardly any difference between them.
    assert uses("least_used").std() < uses("matched").std() / 2
    assert uses("least_used").min() >= 1
