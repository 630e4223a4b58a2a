import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import tasks
from jaxseg.losses import make_loss
from jaxseg.tasks import NUM_BINS
from jaxseg.thresholds import Threshold
from jaxseg.types import IGNORE

BCE = make_loss({"bce": {"weight": 1.0, "pos_weight": 1.0}})
CROSS_ENTROPY = make_loss({"cross_entropy": {"weight": 1.0, "class_weights": ()}})
F1 = dict(threshold="max_f1", min_recall=0.9)
RECALL = dict(threshold="min_recall", min_recall=0.9)

TWO, THREE = ("wall", "crack"), ("wall", "crack", "rust")

BINARY = tasks.segmentation(TWO, BCE, **F1)
CLASSES = tasks.segmentation(THREE, CROSS_ENTROPY, **F1)
DECISION = tasks.classification(("clean", "cracked"), BCE, **F1)
SORTS = tasks.classification(THREE, CROSS_ENTROPY, **F1)
JOINT = tasks.joint(TWO, BCE, mask_weight=2.0, image_weight=0.5, **F1)
SEGDEC = tasks.segdec(
    TWO,
    delta=1.0,
    soft_label=True,
    dynamic=True,
    weighted=False,
    weight_power=1.0,
    weight_max=1.0,
    weight_per_component=False,
    dilate=1,
    **F1,
)


def histogram(background, foreground):
    """[2, bins] of the scores of an image's pixels."""
    counts = np.zeros((2, NUM_BINS), np.int32)
    for truth, scores in enumerate((background, foreground)):
        for score in scores:
            counts[truth, int(score * NUM_BINS)] += 1
    return counts


# Nine pixels with two of crack, nine clean pixels, and an image without a mask.
PIXELS = {
    "soft_sums": np.float32([[[1.0, 1.5, 2.0]], [[0.0, 0.25, 0.0]], [[0.0, 0.0, 0.0]]]),
    "histogram": np.stack(
        [
            histogram([0.5] + [0.0] * 6, [0.75, 0.25]),
            histogram([0.25] + [0.0] * 8, []),
            histogram([], []),
        ]
    ),
}

IMAGES = {
    "image_probs": np.float32([[0.9], [0.2], [0.6], [0.4]]),
    "label": np.int32([1, 0, 0, 1]),
}


def mask_threshold(value):
    return {"mask": Threshold(value, "max_f1")}


def image_threshold(value):
    return {"image": Threshold(value, "max_f1")}


# Segmentation with one foreground class.


def test_the_pixel_threshold_by_hand():
    # F1 of the scores 0.75, 0.5, 0.25: 2/3, 2/4, 4/6; of equals the highest is taken
    chosen = BINARY.choose_thresholds(PIXELS)
    assert chosen == {"mask": Threshold(0.75, "max_f1")}
    careful = tasks.segmentation(TWO, BCE, **RECALL)
    assert careful.choose_thresholds(PIXELS)["mask"].value == 0.25


def test_the_summary_of_pixels_by_hand():
    summary = BINARY.summarize(PIXELS, mask_threshold(0.25))
    assert summary["iou/crack/pooled"] == pytest.approx(2 / 4)  # tp 2, fp 2, fn 0
    assert summary["dice/crack/pooled"] == pytest.approx(4 / 6)
    assert summary["precision/crack/pooled"] == pytest.approx(2 / 4)
    assert summary["recall/crack/pooled"] == pytest.approx(1.0)
    assert summary["iou/crack/per_image"] == pytest.approx((2 / 3 + 0) / 2)
    assert summary["iou/crack/per_image_pos"] == pytest.approx(2 / 3)
    assert summary["ois/crack/per_image_pos"] == pytest.approx(4 / 5)  # at 0.25
    assert summary["pixel_accuracy"] == pytest.approx(16 / 18)
    assert summary["background_accuracy"] == pytest.approx(16 / 18)
    assert summary["false_alarm_rate"] == 1.0  # the second image; the third has no mask
    assert summary["ap/crack/pooled"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert summary["soft_iou/crack/pooled"] == pytest.approx(1 / 2.75, abs=1e-5)
    assert summary["soft_dice/crack/pooled"] == pytest.approx(2 / 3.75, abs=1e-5)
    per_image = (1 / 2.5 + 0) / 2  # the second image; the third has no mask
    assert summary["soft_iou/crack/per_image"] == pytest.approx(per_image, abs=1e-4)
    # As decisions about images: 0.75 is cracked and 0.25 is not; the third has no mask.
    assert [summary[key] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 0, 0]
    assert [summary[key] for key in ("recall", "auc", "ap")] == [1.0, 1.0, 1.0]
    summary = BINARY.summarize(PIXELS, mask_threshold(0.75))
    assert summary["iou/crack/pooled"] == pytest.approx(1 / 2)
    assert summary["false_alarm_rate"] == 0.0
    assert [summary[key] for key in ("tp", "fp", "fn", "tn")] == [1, 0, 0, 1]


def test_the_rows_of_pixels_by_hand():
    rows = BINARY.rows(PIXELS, mask_threshold(0.25))
    np.testing.assert_allclose(rows["prediction"], [0.75, 0.25, 0.0])
    np.testing.assert_array_equal(rows["decision"], [1, 1, 0])
    np.testing.assert_array_equal(rows["ground_truth"], [1, 0, 0])
    np.testing.assert_allclose(rows["iou/crack"], [2 / 3, 0.0, np.nan])
    np.testing.assert_allclose(rows["recall/crack"], [1.0, 1.0, np.nan])
    rows = BINARY.rows(PIXELS, mask_threshold(0.75))
    np.testing.assert_array_equal(rows["decision"], [1, 0, 0])


def test_a_set_without_masks_gets_the_default_threshold_and_says_so():
    nothing = {
        "histogram": np.zeros((2, 2, NUM_BINS), np.int32),
        "soft_sums": np.zeros((2, 1, 3), np.float32),
    }
    chosen = BINARY.choose_thresholds(nothing)
    assert chosen["mask"].value == 0.5
    assert "no positive" in chosen["mask"].note
    summary = BINARY.summarize(nothing, chosen)
    assert math.isnan(summary["iou/crack/pooled"])
    assert math.isnan(summary["soft_iou/crack/pooled"])
    assert math.isnan(summary["soft_iou/crack/per_image"])
    assert math.isnan(summary["pixel_accuracy"])
    np.testing.assert_array_equal(BINARY.rows(nothing, chosen)["decision"], [0, 0])


def test_an_image_without_a_mask_has_no_loss_and_no_counts():
    mask = jnp.stack([jnp.zeros((2, 2), int), jnp.full((2, 2), IGNORE)])
    for task, outputs in ((BINARY, 1), (CLASSES, 3)):
        logits = {"seg_logits": jnp.ones((2, 2, 2, outputs))}
        batch = {"mask": mask}
        loss = jax.jit(task.losses)(logits, batch)["loss"]
        assert loss[0] > 0
        assert loss[1] == 0
        counts = jax.jit(task.counts)(logits, batch)
        pixels = counts["histogram" if task is BINARY else "confusion"]
        assert pixels[0].sum() == 4
        assert counts["soft_sums"][0].sum() > 0
        assert pixels[1].sum() == counts["soft_sums"][1].sum() == 0


def test_pixels_are_counted_by_score():
    logits = jnp.array([0.0, 2.0, -100.0, 100.0]).reshape(1, 2, 2, 1)
    mask = jnp.array([[[0, 1], [0, IGNORE]]])
    counts = BINARY.counts({"seg_logits": logits}, {"mask": mask})
    # sigmoid(0) = 128/256; sigmoid(2) = 0.8808 = 225.5/256
    wanted = histogram([0.5, 0.0], [225 / 256])
    np.testing.assert_array_equal(counts["histogram"], wanted[None])


# Segmentation with more classes: the largest probability decides.

CONFUSIONS = {
    # (Σgp, Σp, Σg) of wall, crack and rust
    "soft_sums": np.float32(
        [[[4, 4, 5], [1, 3, 2], [0, 1, 1]], [[7, 8, 8], [0, 0, 0], [0, 0, 0]]]
    ),
    "confusion": np.array(
        [
            [[4, 1, 0], [0, 2, 0], [0, 1, 0]],  # crack found, rust taken for crack
            [[8, 0, 0], [0, 0, 0], [0, 0, 0]],
        ],
        np.int32,
    ),
    "score": np.array([0.9, 0.2], np.float32),
}


def test_classes_by_hand():
    assert CLASSES.choose_thresholds(CONFUSIONS) == {}
    summary = CLASSES.summarize(CONFUSIONS, {})
    assert summary["iou/wall/pooled"] == pytest.approx(12 / 13)
    assert summary["iou/crack/pooled"] == pytest.approx(2 / 4)
    assert summary["iou/rust/pooled"] == 0.0
    assert summary["iou/mean/pooled"] == pytest.approx((12 / 13 + 1 / 2 + 0) / 3)
    assert summary["dice/mean/pooled"] == pytest.approx((24 / 25 + 2 / 3 + 0) / 3)
    assert summary["soft_iou/wall/pooled"] == pytest.approx(11 / 14, abs=1e-5)
    soft_mean = (11 / 14 + 1 / 4 + 0) / 3
    assert summary["soft_iou/mean/pooled"] == pytest.approx(soft_mean, abs=1e-4)
    assert summary["pixel_accuracy"] == pytest.approx(14 / 16)
    rows = CLASSES.rows(CONFUSIONS, {})
    np.testing.assert_array_equal(rows["prediction"], CONFUSIONS["score"])
    np.testing.assert_array_equal(rows["decision"], [1, 0])
    np.testing.assert_array_equal(rows["ground_truth"], [1, 0])
    np.testing.assert_array_equal(
        CLASSES.confusion(CONFUSIONS, {}), [[12, 1, 0], [0, 2, 0], [0, 1, 0]]
    )


def test_the_score_of_an_image_is_its_least_likely_background():
    logits = jnp.log(
        jnp.array([[[[0.9, 0.1, 0.0001], [0.3, 0.3, 0.4], [0.1, 0.9, 1e-4]]]])
    )
    mask = jnp.array([[[0, 1, IGNORE]]])
    counts = CLASSES.counts({"seg_logits": logits}, {"mask": mask})
    # The third pixel would have 0.9, but it counts nowhere.
    np.testing.assert_allclose(counts["score"], [0.7], rtol=1e-5)


def test_the_largest_logit_decides():
    logits = jnp.array([[[[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]]]])
    counts = CLASSES.counts({"seg_logits": logits}, {"mask": jnp.array([[[2, 1]]])})
    wanted = [[[0, 0, 0], [1, 0, 0], [0, 0, 1]]]
    np.testing.assert_array_equal(counts["confusion"], wanted)


# Classification.


def test_a_binary_decision_by_hand():
    # F1 of the scores 0.9, 0.6, 0.4, 0.2: 2/3, 2/4, 4/5, 4/6
    chosen = DECISION.choose_thresholds(IMAGES)
    assert chosen["image"].value == np.float32(0.4)
    summary = DECISION.summarize(IMAGES, chosen)
    assert summary["f1"] == pytest.approx(4 / 5)
    assert (summary["tp"], summary["fp"], summary["fn"], summary["tn"]) == (2, 1, 0, 1)
    assert summary["auc"] == pytest.approx(3 / 4)  # of four pairs, one is inverted
    rows = DECISION.rows(IMAGES, chosen)
    np.testing.assert_array_equal(rows["prediction"], IMAGES["image_probs"][:, 0])
    np.testing.assert_array_equal(rows["decision"], [1, 0, 1, 1])
    np.testing.assert_array_equal(rows["ground_truth"], [1, 0, 0, 1])
    np.testing.assert_array_equal(DECISION.confusion(IMAGES, chosen), [[1, 1], [0, 2]])


def test_sorts_of_images_by_hand():
    probs = np.float32([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]])
    counts = {"image_probs": probs, "label": np.int32([0, 1, 2])}
    assert SORTS.choose_thresholds(counts) == {}
    wanted = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    np.testing.assert_array_equal(SORTS.confusion(counts, {}), wanted)
    summary = SORTS.summarize(counts, {})
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["f1/macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    rows = SORTS.rows(counts, {})
    np.testing.assert_array_equal(rows["decision"], [0, 1, 1])
    np.testing.assert_array_equal(rows["prediction"], np.float32([0.5, 0.6, 0.5]))


def test_probabilities_are_sigmoid_or_softmax():
    one = DECISION.probabilities({"cls_logits": jnp.array([[math.log(3.0)]])})
    np.testing.assert_allclose(one["image_probs"], [[0.75]], rtol=1e-6)
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    three = SORTS.probabilities({"cls_logits": logits})
    np.testing.assert_allclose(three["image_probs"], [[0.125, 0.25, 0.625]], rtol=1e-6)


# Laws of all tasks.


@pytest.mark.parametrize("score", [0.1, 0.3, 0.7, 0.9])
def test_a_threshold_decides_equally_in_rows_and_summary(score):
    scores = np.float32([0.1, 0.3, 0.7, 0.9])  # none of them is exactly the decimal
    counts = {"image_probs": scores[:, None], "label": np.int32([0, 1, 1, 0])}
    for value in (score, float(np.float32(score))):
        thresholds = image_threshold(value)
        decided = DECISION.rows(counts, thresholds)["decision"].sum()
        summary = DECISION.summarize(counts, thresholds)
        assert decided == summary["tp"] + summary["fp"]
        assert decided == DECISION.confusion(counts, thresholds)[:, 1].sum()


def test_a_stored_threshold_decides_as_the_chosen_one():
    rng = np.random.default_rng(0)
    scores = rng.random((50, 1), np.float32)
    counts = {"image_probs": scores, "label": rng.integers(0, 2, 50)}
    chosen = DECISION.choose_thresholds(counts)
    stored = image_threshold(json.loads(json.dumps(chosen["image"].value)))
    np.testing.assert_equal(
        DECISION.summarize(counts, stored), DECISION.summarize(counts, chosen)
    )
    pixels = {
        "histogram": rng.integers(0, 5, (3, 2, NUM_BINS)),
        "soft_sums": rng.random((3, 1, 3)),
    }
    chosen = BINARY.choose_thresholds(pixels)
    stored = mask_threshold(json.loads(json.dumps(chosen["mask"].value)))
    np.testing.assert_equal(
        BINARY.summarize(pixels, stored), BINARY.summarize(pixels, chosen)
    )


def test_the_joint_task_is_both():
    counts = PIXELS | {name: values[:3] for name, values in IMAGES.items()}
    thresholds = JOINT.choose_thresholds(counts)
    assert set(thresholds) == {"mask", "image"}
    summary = JOINT.summarize(counts, thresholds)
    image_counts = {name: counts[name] for name in IMAGES}
    assert summary == {
        **BINARY.summarize(PIXELS, thresholds),
        **DECISION.summarize(image_counts, thresholds),
    }
    rows = JOINT.rows(counts, thresholds)
    np.testing.assert_array_equal(rows["ground_truth"], [1, 0, 0])  # the image labels
    np.testing.assert_array_equal(rows["prediction"], counts["image_probs"][:, 0])
    assert "iou/crack" in rows
    assert JOINT.confusion(counts, thresholds).sum() == 18  # of pixels


@pytest.mark.parametrize("task", [JOINT, SEGDEC])
def test_the_decision_is_that_of_the_image_and_not_of_its_mask(task):
    counts = PIXELS | {name: values[:3] for name, values in IMAGES.items()}
    thresholds = mask_threshold(0.25) | image_threshold(0.5)
    assert BINARY.rows(counts, thresholds)["decision"].tolist() == [1, 1, 0]
    assert task.rows(counts, thresholds)["decision"].tolist() == [1, 0, 1]


def test_the_joint_loss_adds_up():
    outputs = {"seg_logits": jnp.zeros((1, 2, 2, 1)), "cls_logits": jnp.zeros((1, 1))}
    batch = {"mask": jnp.ones((1, 2, 2), int), "label": jnp.ones(1, int)}
    losses = jax.jit(JOINT.losses)(outputs, batch)
    wanted = {"loss": 2.5 * math.log(2)}
    wanted |= dict.fromkeys(("loss_mask", "loss_image"), math.log(2))
    assert {name: float(of[0]) for name, of in losses.items()} == pytest.approx(wanted)


def test_needs_name_the_logits():
    assert BINARY.needs == ("seg_logits",)
    assert DECISION.needs == ("cls_logits",)
    assert JOINT.needs == ("seg_logits", "cls_logits")


def test_two_classes_need_one_logit():
    assert tasks.num_outputs(TWO) == 1
    assert tasks.num_outputs(THREE) == 3


@pytest.mark.parametrize("task", [BINARY, CLASSES, DECISION, SORTS, JOINT])
def test_the_log_line_shows_metrics_that_exist(task):
    outputs = {
        "seg_logits": jnp.zeros((2, 4, 4, tasks.num_outputs(task.classes))),
        "cls_logits": jnp.zeros((2, tasks.num_outputs(task.classes))),
    }
    batch = {"mask": jnp.zeros((2, 4, 4), int), "label": jnp.array([0, 1])}
    counts = jax.device_get(jax.jit(task.counts)(outputs, batch))
    assert {len(values) for values in counts.values()} == {2}
    summary = task.summarize(counts, task.choose_thresholds(counts))
    assert set(task.headline) <= set(summary)
    assert all(isinstance(value, float | int) for value in summary.values())
