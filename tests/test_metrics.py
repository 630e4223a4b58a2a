import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxseg import metrics
from jaxseg.metrics import (
    class_summary,
    confusion_at,
    hindsight_summary,
    histogram_summary,
    image_columns,
    image_summary,
    never_predicted,
    pixel_curve,
    pixel_summary,
    precision_recall_curve,
    roc_curve,
    tally_scores,
)
from jaxseg.types import IGNORE

score_histogram = jax.jit(metrics.score_histogram, static_argnames="num_bins")
confusion = jax.jit(metrics.confusion, static_argnames="num_classes")

METRICS = ("iou", "dice", "precision", "recall")
HALF_RIGHT = (1 / 2, 2 / 3, 1 / 2, 1)


def masks(num_classes, shape=(8, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    return rng.choice([*range(num_classes), IGNORE], shape).astype(np.int32)


def scored_masks(shape=(8, 5, 6), seed=0):
    """Probabilities, many on the edge of a bin, and a binary mask."""
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 257, shape) / 256 + rng.choice([0.0, 1e-3], shape)
    return np.minimum(probs, 1).astype(np.float32), masks(2, shape, seed)


def scored_labels(count=60, distinct=12, seed=0):
    """Scores with many ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    scores = rng.integers(0, distinct, count) + 3 * labels
    return (scores / (distinct + 3)).astype(np.float32), labels.astype(np.int32)


def as_confusion(truth, prediction, num_classes=2):
    """[1, K, K] by a plain loop."""
    counts = np.zeros((1, num_classes, num_classes), np.int32)
    for true, predicted in zip(truth, prediction, strict=True):
        if true != IGNORE:
            counts[0, true, predicted] += 1
    return counts


def test_histogram_literal():
    probs = jnp.array([[[0.0, 0.25], [0.2499, 1.0]], [[0.5, 0.75], [0.74, 0.9]]])
    mask = jnp.array([[[0, 1], [0, 1]], [[1, IGNORE], [0, 0]]])
    np.testing.assert_array_equal(
        score_histogram(probs, mask, num_bins=4),
        [[[2, 0, 0, 0], [0, 1, 0, 1]], [[0, 0, 1, 1], [0, 0, 1, 0]]],
    )


def test_confusion_literal():
    prediction = jnp.array([[[0, 1], [2, 2]]])
    mask = jnp.array([[[0, 0], [1, IGNORE]]])
    np.testing.assert_array_equal(
        confusion(prediction, mask, num_classes=3), [[[1, 1, 0], [0, 0, 1], [0, 0, 0]]]
    )


def test_histogram_decides_exactly_as_the_scores():
    probs, mask = scored_masks()
    histogram = np.asarray(score_histogram(probs, mask))
    assert histogram.dtype == np.int32
    for bin in (0, 1, 100, 128, 255, 256):
        decided = (probs >= bin / 256).astype(np.int32)
        if bin == 256:  # p = 1 shares the last bin: nothing is above it
            decided[:] = 0
        expected = [
            as_confusion(truth.ravel(), one.ravel())[0]
            for truth, one in zip(mask, decided, strict=True)
        ]
        np.testing.assert_array_equal(confusion_at(histogram, bin), expected)


def test_histogram_refuses_bins_whose_edges_are_not_exact():
    with pytest.raises(ValueError, match="power of two"):
        score_histogram(*scored_masks(), num_bins=100)


def test_nan_scores_count_as_background():
    histogram = score_histogram(jnp.array([[jnp.nan]]), jnp.array([[1]]), num_bins=2)
    np.testing.assert_array_equal(histogram, [[[0, 0], [1, 0]]])


@pytest.mark.parametrize("num_classes", [2, 5])
def test_confusion_equals_scikit_learn(num_classes):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    mask = masks(num_classes)
    prediction = np.random.default_rng(1).integers(0, num_classes, mask.shape)
    expected = [
        sklearn_metrics.confusion_matrix(
            truth[truth != IGNORE], one[truth != IGNORE], labels=range(num_classes)
        )
        for truth, one in zip(mask, prediction, strict=True)
    ]
    actual = confusion(prediction, mask, num_classes=num_classes)
    np.testing.assert_array_equal(actual, expected)


def test_counts_concatenate_at_any_batch_size_and_order():
    probs, mask = scored_masks()
    whole = np.asarray(score_histogram(probs, mask))
    for size in (1, 3, 8):
        parts = [
            score_histogram(probs[i : i + size], mask[i : i + size])
            for i in range(0, 8, size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(2).permutation(8)
    permuted = np.asarray(score_histogram(probs[order], mask[order]))
    np.testing.assert_array_equal(permuted, whole[order])
    classes = ("background", "crack")
    assert pixel_summary(confusion_at(permuted, 128), classes) == pytest.approx(
        pixel_summary(confusion_at(whole, 128), classes), abs=1e-15, nan_ok=True
    )


def test_masking_is_removing():
    probs, mask = scored_masks()
    mask[:, :, 4:] = IGNORE
    np.testing.assert_array_equal(
        score_histogram(probs, mask), score_histogram(probs[..., :4], mask[..., :4])
    )
    decided = (probs > 0.5).astype(np.int32)
    np.testing.assert_array_equal(
        confusion(decided, mask, num_classes=2),
        confusion(decided[..., :4], mask[..., :4], num_classes=2),
    )


def test_eight_devices_count_the_same_without_communication():
    probs, mask = scored_masks()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put((probs, mask), NamedSharding(mesh, PartitionSpec("data")))

    def count(probs, mask):
        return score_histogram(probs, mask), confusion(probs > 0.5, mask, 2)

    compiled = jax.jit(count).lower(*sharded).compile()
    for actual, expected in zip(compiled(*sharded), count(probs, mask), strict=True):
        np.testing.assert_array_equal(actual, expected)
    program = compiled.as_text()
    assert not any(word in program for word in ("all-reduce", "all-gather"))


@pytest.mark.parametrize(
    ("truth", "prediction", "per_image", "pooled"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], (1, 1, 1, 1), (math.nan,) * 4),
        ([0, 0, 0, 0], [0, 1, 0, 0], (0, 0, 0, 1), (0, 0, 0, math.nan)),
        ([0, 1, 1, 0], [0, 0, 0, 0], (0, 0, 0, 0), (0, 0, 0, 0)),
        ([1, 1, 1, 1], [1, 1, 1, 1], (1, 1, 1, 1), (1, 1, 1, 1)),
        ([1, 1, 1, 1], [1, 0, 0, 0], (0.25, 0.4, 1, 0.25), (0.25, 0.4, 1, 0.25)),
        ([0, 0, 1, IGNORE], [0, 1, 1, 1], HALF_RIGHT, HALF_RIGHT),
        ([IGNORE] * 4, [1, 1, 0, 0], (math.nan,) * 4, (math.nan,) * 4),
    ],
)
def test_empty_rule_of_the_documentation(truth, prediction, per_image, pooled):
    summary = pixel_summary(as_confusion(truth, prediction), ("background", "crack"))
    actual = [summary[f"{metric}/crack/per_image"] for metric in METRICS]
    np.testing.assert_allclose(actual, per_image)
    actual = [summary[f"{metric}/crack/pooled"] for metric in METRICS]
    np.testing.assert_allclose(actual, pooled)
    assert not any("background/" in key for key in summary)
    columns = image_columns(as_confusion(truth, prediction), ("background", "crack"))
    assert list(columns) == [f"{metric}/crack" for metric in METRICS]
    np.testing.assert_allclose([column[0] for column in columns.values()], per_image)


def test_pixel_summary_equals_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    classes = ("leaf", "rust", "mould")
    mask = masks(3)
    prediction = np.random.default_rng(1).integers(0, 3, mask.shape)
    summary = pixel_summary(confusion(prediction, mask, 3), classes)
    functions = {
        "iou": sklearn_metrics.jaccard_score,
        "dice": sklearn_metrics.f1_score,
        "precision": sklearn_metrics.precision_score,
        "recall": sklearn_metrics.recall_score,
    }
    counted = mask != IGNORE
    for metric, function in functions.items():
        pooled = function(mask[counted], prediction[counted], average=None)
        images = [
            function(truth[keep], one[keep], average=None)
            for truth, one, keep in zip(mask, prediction, counted, strict=True)
        ]
        for k, name in enumerate(classes):
            assert summary[f"{metric}/{name}/pooled"] == pytest.approx(pooled[k])
            average = np.mean(images, axis=0)[k]
            assert summary[f"{metric}/{name}/per_image"] == pytest.approx(average)
    accuracy = np.mean(mask[counted] == prediction[counted])
    assert summary["pixel_accuracy"] == pytest.approx(accuracy)
    assert summary["background_accuracy"] == pytest.approx(np.mean(mask[counted] == 0))


def test_mean_iou_leaves_out_classes_without_truth():
    # wall: iou 2/4; rust: 1/2; mould: one false pixel, none true.
    counts = as_confusion([0, 0, 0, 1], [0, 0, 2, 1], 3)
    counts += as_confusion([1], [0], 3)
    summary = pixel_summary(counts, ("wall", "rust", "mould"))
    assert summary["iou/mould/pooled"] == 0
    assert summary["iou/mean/pooled"] == pytest.approx((2 / 4 + 1 / 2) / 2)


def test_false_alarms_are_counted_on_clean_images_only():
    clean = as_confusion([0, 0], [0, 0])
    alarm = as_confusion([0, 0, IGNORE], [0, 1, 0])
    cracked = as_confusion([0, 1], [1, 0])
    unknown = as_confusion([IGNORE], [1])
    counts = np.concatenate([clean, alarm, clean, cracked, unknown, cracked])
    classes = ("background", "crack")
    assert pixel_summary(counts, classes)["false_alarm_rate"] == pytest.approx(1 / 3)
    assert math.isnan(pixel_summary(cracked, classes)["false_alarm_rate"])


def test_classes_never_predicted_are_named():
    counts = as_confusion([0, 0, 1, 2], [0, 2, 2, 2], 4)
    assert never_predicted(counts, ("wall", "crack", "rust", "absent")) == ["crack"]


def test_pooled_counts_exceed_32_bits():
    counts = np.full((3, 2, 2), 2**31 - 1, np.int32)
    summary = pixel_summary(counts, ("background", "crack"))
    assert summary["iou/crack/pooled"] == pytest.approx(1 / 3)
    histogram = np.full((3, 2, 4), 2**31 - 1, np.int32)
    assert confusion_at(histogram, 2).tolist() == [[[2**32 - 2] * 2] * 2] * 3


@pytest.mark.parametrize("seed", range(5))
def test_image_summary_equals_scikit_learn(seed):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = scored_labels(seed=seed)
    summary = image_summary(scores, labels, threshold=0.5)
    decided = scores >= 0.5
    curve = sklearn_metrics.precision_recall_curve(labels, scores)
    cells = sklearn_metrics.confusion_matrix(labels, decided).ravel()
    assert summary == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(labels, decided),
            "majority_accuracy": max(np.mean(labels == 0), np.mean(labels == 1)),
            "precision": sklearn_metrics.precision_score(labels, decided),
            "recall": sklearn_metrics.recall_score(labels, decided),
            "f1": sklearn_metrics.f1_score(labels, decided),
            "auc": sklearn_metrics.roc_auc_score(labels, scores),
            "ap": sklearn_metrics.average_precision_score(labels, scores),
            "ap_trapezoid": sklearn_metrics.auc(curve[1], curve[0]),
            **dict(zip(("tn", "fp", "fn", "tp"), cells, strict=True)),
        },
        abs=1e-12,
    )


def test_image_summary_literal():
    # From the top: positive, negative, positive.
    summary = image_summary(np.array([0.9, 0.5, 0.4]), np.array([1, 0, 1]), 0.5)
    assert (summary["tp"], summary["fp"], summary["fn"], summary["tn"]) == (1, 1, 1, 0)
    assert summary["auc"] == 1 / 2
    assert summary["ap"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert summary["ap_trapezoid"] == pytest.approx(1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_areas(label):
    summary = image_summary(np.array([0.2, 0.8]), np.full(2, label), threshold=0.5)
    assert all(math.isnan(summary[key]) for key in ("auc", "ap", "ap_trapezoid"))
    assert summary["accuracy"] == 0.5
    assert math.isnan(summary["recall"]) == (label == 0)


def test_empty_set_is_nan():
    summary = image_summary(np.zeros(0), np.zeros(0, np.int32), threshold=0.5)
    assert all(math.isnan(summary[key]) for key in ("accuracy", "f1", "ap"))


def test_bad_scores_are_a_bug():
    with pytest.raises(ValueError, match="NaN"):
        image_summary(np.array([0.2, math.nan]), np.array([0, 1]), 0.5)
    with pytest.raises(ValueError, match="0 or 1"):
        tally_scores(np.array([0.2, 0.3]), np.array([0, IGNORE]))
    with pytest.raises(ValueError, match="do not fit"):
        tally_scores(np.array([0.2, 0.3]), np.array([0]))


def test_curves_equal_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = scored_labels()
    recall, precision, thresholds = precision_recall_curve(scores, labels)
    expected = sklearn_metrics.precision_recall_curve(labels, scores)
    for actual, one in zip((precision, recall, thresholds), expected, strict=True):
        np.testing.assert_allclose(actual, one)
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for actual, one in zip(roc_curve(scores, labels), expected, strict=True):
        np.testing.assert_allclose(actual, one)


def test_pixel_curve_and_ap_equal_scikit_learn_on_binned_scores():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    probs, mask = scored_masks()
    histogram = np.asarray(score_histogram(probs, mask, num_bins=16))
    counted = mask != IGNORE
    binned = np.minimum(np.floor(probs[counted] * 16), 15) / 16
    recall, precision, thresholds = pixel_curve(histogram)
    expected = sklearn_metrics.precision_recall_curve(mask[counted], binned)
    for actual, one in zip((precision, recall, thresholds), expected, strict=True):
        np.testing.assert_allclose(actual, one)
    ap = sklearn_metrics.average_precision_score(mask[counted], binned)
    summary = histogram_summary(histogram, ("background", "crack"))
    assert summary["ap/crack/pooled"] == pytest.approx(ap)
    auc = sklearn_metrics.roc_auc_score(mask[counted], binned)
    assert summary["auc/crack/pooled"] == pytest.approx(auc)

    def best_f1(truth, scores):
        levels = np.arange(16) / 16
        return max(sklearn_metrics.f1_score(truth, scores >= level) for level in levels)

    assert summary["ods/crack/pooled"] == pytest.approx(best_f1(mask[counted], binned))
    images = zip(probs, mask, mask != IGNORE, strict=True)
    pairs = [(m[c], np.minimum(np.floor(p[c] * 16), 15) / 16) for p, m, c in images]
    each = [best_f1(*pair) for pair in pairs if pair[0].any()]
    assert summary["ois/crack/per_image_pos"] == pytest.approx(np.mean(each))


def test_class_summary_equals_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, decided = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    counts = sklearn_metrics.confusion_matrix(labels, decided)
    summary = class_summary(counts, ("a", "b", "c"))
    table = sklearn_metrics.precision_recall_fscore_support(labels, decided)
    for metric, values in zip(("precision", "recall", "f1"), table[:3], strict=True):
        actual = [summary[f"{metric}/{name}"] for name in "abc"]
        np.testing.assert_allclose(actual, values)
    assert summary["f1/macro"] == pytest.approx(table[2].mean())
    assert summary["accuracy"] == pytest.approx(np.mean(labels == decided))
    assert summary["majority_accuracy"] == np.bincount(labels).max() / 50


def test_macro_f1_leaves_out_classes_without_truth():
    summary = class_summary(np.array([[3, 1], [0, 0]]), ("a", "b"))
    assert summary["f1/b"] == 0
    assert math.isnan(summary["recall/b"])
    assert summary["f1/macro"] == summary["f1/a"] == pytest.approx(6 / 7)


def hindsight_by_brute_force(scores, labels):
    """Every distinct score tried as a threshold, with the authors' F."""
    rows = []
    for threshold in sorted(set(scores)):
        decided = scores >= threshold
        tp, fp = (decided & (labels == 1)).sum(), (decided & (labels == 0)).sum()
        precision, recall = tp / (tp + fp), tp / (labels == 1).sum()
        f = 2 * precision * recall / (precision + recall + 1e-8)
        rows.append((threshold, f, fp, (labels == 1).sum() - tp))
    best = rows[0]
    for row in rows:
        best = row if row[1] > best[1] else best
    lossless = [row for row in rows if row[3] == 0][-1]
    return (*best, lossless[2], lossless[0])


HINDSIGHT = (
    "optimistic_threshold",
    "optimistic_f1",
    "optimistic_fp",
    "optimistic_fn",
    "fp_without_misses",
    "threshold_without_misses",
)


@pytest.mark.parametrize("distinct", [1, 4, 12, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_hindsight_tries_every_score_of_the_set(seed, distinct):
    scores, labels = scored_labels(distinct=distinct, seed=seed)
    scores = scores.astype(np.float64)
    expected = hindsight_by_brute_force(scores, labels)
    summary = hindsight_summary(scores, labels)
    assert summary == pytest.approx(dict(zip(HINDSIGHT, expected, strict=True)))


def test_hindsight_equals_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = scored_labels()
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(
        labels, scores
    )
    f = 2 * precision * recall / (precision + recall + 1e-8)
    summary = hindsight_summary(scores, labels)
    assert summary["optimistic_f1"] == pytest.approx(f.max(), abs=1e-15)
    assert summary["optimistic_threshold"] == thresholds[f.argmax()]
    decided = scores >= thresholds[f.argmax()]
    cells = sklearn_metrics.confusion_matrix(labels, decided)
    assert summary["optimistic_fp"] == cells[0, 1]
    assert summary["optimistic_fn"] == cells[1, 0]


def test_hindsight_literal():
    # From the top: two positives, two negatives, a positive and a negative together.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5])
    summary = hindsight_summary(scores, np.array([1, 1, 0, 0, 1, 0]))
    found = [summary[name] for name in HINDSIGHT]
    assert found == pytest.approx([0.8, 4 / 5, 0, 1, 3, 0.5], abs=1e-7)


def test_hindsight_is_never_worse_than_a_stored_threshold():
    for seed in range(5):
        scores, labels = scored_labels(seed=seed)
        hindsight = hindsight_summary(scores, labels)
        for threshold in (0.1, 0.5, 0.9):
            stored = image_summary(scores, labels, threshold)
            assert hindsight["optimistic_f1"] >= stored["f1"] - 1e-8
            if stored["fn"] == 0:
                assert hindsight["fp_without_misses"] <= stored["fp"]


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_has_no_hindsight(labels):
    scores = np.linspace(0.2, 0.8, len(labels))
    summary = hindsight_summary(scores, np.array(labels, np.int32))
    assert tuple(summary) == HINDSIGHT
    assert all(math.isnan(value) for value in summary.values())
