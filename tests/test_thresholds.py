import dataclasses

import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.metrics import confusion_at, score_histogram
from jaxseg.thresholds import choose_image_threshold, choose_pixel_threshold
from jaxseg.types import IGNORE

BOTH_RULES = pytest.mark.parametrize("rule", ["max_f1", "min_recall"])


def scored_labels(seed):
    """Scores with many ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(40) < 0.4
    scores = rng.integers(0, 10, 40) + 2 * labels
    return (scores / 12).astype(np.float32), labels.astype(np.int32)


def scored_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 0, 1, IGNORE], (4, 6, 6)).astype(np.int32)
    probs = np.clip(rng.normal(0.3 + 0.3 * (mask == 1), 0.2), 0, 1)
    return probs.astype(np.float32), mask


@pytest.mark.parametrize("seed", range(5))
def test_max_f1_equals_the_highest_f1_over_all_thresholds(seed):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = scored_labels(seed)
    chosen = choose_image_threshold(scores, labels, rule="max_f1", min_recall=0.5)
    f1 = {s: sklearn_metrics.f1_score(labels, scores >= s) for s in np.unique(scores)}
    assert chosen.value == max(s for s in f1 if f1[s] == max(f1.values()))
    assert chosen.rule == "max_f1"


@pytest.mark.parametrize("min_recall", [0.1, 0.5, 0.9, 1.0])
def test_min_recall_is_the_highest_threshold_that_reaches_it(min_recall):
    scores, labels = scored_labels(seed=1)
    chosen = choose_image_threshold(
        scores, labels, rule="min_recall", min_recall=min_recall
    )
    recall = {s: np.mean(scores[labels == 1] >= s) for s in np.unique(scores)}
    assert chosen.value == max(s for s in recall if recall[s] >= min_recall)


def test_min_recall_reached_exactly_is_reached():
    scores, labels = np.arange(10) / 10, np.ones(10, np.int32)
    scores, labels = np.append(scores, 0.0), np.append(labels, 0)
    for found in range(1, 11):
        chosen = choose_image_threshold(
            scores, labels, rule="min_recall", min_recall=found / 10
        )
        assert chosen.value == (10 - found) / 10


def test_ties_go_to_the_highest_threshold():
    # F1 is 2/3 at 0.9, 2/5 at 0.5 and 4/6 at 0.3.
    scores, labels = np.array([0.9, 0.5, 0.5, 0.3]), np.array([1, 0, 0, 1])
    chosen = choose_image_threshold(scores, labels, rule="max_f1", min_recall=0.5)
    assert (chosen.value, chosen.note) == (0.9, "")


@pytest.mark.parametrize("seed", range(3))
def test_pixel_threshold_equals_the_best_bin(seed):
    probs, mask = scored_mask(seed)
    histogram = np.asarray(score_histogram(probs, mask, num_bins=16))
    counted = mask != IGNORE
    truth, scores = mask[counted] == 1, probs[counted]
    f1, recall = {}, {}
    for bin in range(16):
        decided = scores >= bin / 16
        recall[bin] = np.sum(decided & truth) / np.sum(truth)
        f1[bin] = 2 * np.sum(decided & truth) / (np.sum(decided) + np.sum(truth))
    chosen = choose_pixel_threshold(histogram, rule="max_f1", min_recall=0.5)
    assert f1[round(chosen.value * 16)] == max(f1.values())
    chosen = choose_pixel_threshold(histogram, rule="min_recall", min_recall=0.8)
    assert chosen.value * 16 == max(b for b in recall if recall[b] >= 0.8)


def test_pixel_threshold_is_the_edge_of_a_bin():
    probs, mask = scored_mask(seed=0)
    histogram = np.asarray(score_histogram(probs, mask))
    value = choose_pixel_threshold(histogram, rule="max_f1", min_recall=0.5).value
    bin = int(value * 256)
    assert bin == value * 256
    total = confusion_at(histogram, bin).sum(axis=0)
    assert total[1, 1] == np.sum((probs >= value) & (mask == 1))
    assert total[0, 1] == np.sum((probs >= value) & (mask == 0))


@BOTH_RULES
@pytest.mark.parametrize(("label", "missing"), [(0, "positive"), (1, "negative")])
def test_one_class_gives_one_half_and_a_note(rule, label, missing):
    scores, labels = np.array([0.1, 0.7]), np.full(2, label)
    chosen = choose_image_threshold(scores, labels, rule=rule, min_recall=0.9)
    assert chosen.value == 0.5
    assert f"no {missing} image" in chosen.note
    histogram = np.zeros((1, 2, 4), np.int32)
    histogram[0, label] = 3
    chosen = choose_pixel_threshold(histogram, rule=rule, min_recall=0.9)
    assert chosen.value == 0.5
    assert f"no {missing} pixel" in chosen.note


@BOTH_RULES
def test_empty_validation_gives_one_half_and_a_note(rule):
    chosen = choose_image_threshold(
        np.zeros(0), np.zeros(0, np.int32), rule=rule, min_recall=0.9
    )
    assert chosen.value == 0.5
    assert chosen.note
    histogram = np.zeros((0, 2, 4), np.int32)
    assert choose_pixel_threshold(histogram, rule=rule, min_recall=0.9).value == 0.5


@BOTH_RULES
def test_a_model_that_cannot_tell_is_noted(rule):
    scores, labels = np.full(4, 0.3), np.array([0, 1, 0, 1])
    chosen = choose_image_threshold(scores, labels, rule=rule, min_recall=0.9)
    assert chosen.value == 0.3
    assert "every validation image is decided positive" in chosen.note


def test_wrong_arguments_are_refused():
    scores, labels = np.array([0.1, 0.7]), np.array([0, 1])
    for min_recall in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="min_recall"):
            choose_image_threshold(
                scores, labels, rule="min_recall", min_recall=min_recall
            )
    with pytest.raises(ValueError, match="rule"):
        choose_image_threshold(scores, labels, rule="best", min_recall=0.5)
    with pytest.raises(ValueError, match="NaN"):
        choose_image_threshold(
            np.array([np.nan, 0.7]), labels, rule="max_f1", min_recall=0.5
        )


def test_threshold_is_frozen():
    chosen = choose_image_threshold(
        np.array([0.1, 0.7]), np.array([0, 1]), rule="max_f1", min_recall=0.5
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.value = 0.1
