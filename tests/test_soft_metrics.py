"""Soft IoU and Dice against plain loops over pixels in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import metrics
from jaxseg.metrics import soft_summary
from jaxseg.types import IGNORE

soft_sums = jax.jit(metrics.soft_sums)

BINARY, CLASSES = ("wall", "crack"), ("leaf", "rust", "mould")


def pixels(num_classes, shape=(6, 7, 9), seed=0):
    """Probabilities [N, H, W, K] and masks with ignored pixels."""
    rng = np.random.default_rng(seed)
    outputs = 1 if num_classes == 2 else num_classes
    probs = rng.random((*shape, outputs), np.float32)
    if outputs > 1:
        probs /= probs.sum(-1, keepdims=True)
    mask = rng.choice([*range(num_classes), IGNORE], shape).astype(np.int32)
    return probs, mask


def oracle(probs, mask, index, class_id):
    """(soft IoU, soft Dice) as segmentation_models writes them, over all pixels."""
    p = probs[..., index][mask != IGNORE].astype(np.float64)
    g = (mask[mask != IGNORE] == class_id).astype(np.float64)
    intersection, s = np.sum(g * p), 1e-5
    union = np.sum(g + p) - intersection
    tp = intersection
    fp, fn = np.sum(p) - tp, np.sum(g) - tp
    return (intersection + s) / (union + s), (2 * tp + s) / (2 * tp + fn + fp + s)


@pytest.mark.parametrize("classes", [BINARY, CLASSES])
def test_soft_metrics_equal_a_numpy_oracle(classes):
    probs, mask = pixels(len(classes))
    counted = (mask != IGNORE).any(axis=(1, 2))
    summary = soft_summary(soft_sums(probs, mask), counted, classes)
    reported = classes[1:] if len(classes) == 2 else classes
    for index, name in enumerate(reported):
        class_id = classes.index(name)
        images = [
            oracle(p, m, index, class_id) for p, m in zip(probs, mask, strict=True)
        ]
        wanted = dict(pooled=oracle(probs, mask, index, class_id))
        wanted["per_image"] = np.mean(images, axis=0)
        for averaging, values in wanted.items():
            for metric, value in zip(("soft_iou", "soft_dice"), values, strict=True):
                actual = summary[f"{metric}/{name}/{averaging}"]
                assert actual == pytest.approx(value, rel=1e-6)
    if len(classes) > 2:
        pooled = [summary[f"soft_iou/{name}/pooled"] for name in classes]
        assert summary["soft_iou/mean/pooled"] == pytest.approx(np.mean(pooled))


def test_certain_probabilities_give_the_hard_metrics():
    _, mask = pixels(3)
    decision = np.random.default_rng(1).integers(0, 3, mask.shape)
    sums = soft_sums(np.eye(3, dtype=np.float32)[decision], mask)
    soft = soft_summary(sums, np.ones(len(mask), bool), CLASSES)
    hard = metrics.pixel_summary(metrics.confusion(decision, mask, 3), CLASSES)
    for metric in ("iou", "dice"):
        for name in CLASSES:
            key = f"{metric}/{name}/pooled"
            assert soft[f"soft_{key}"] == pytest.approx(hard[key], rel=1e-5)


@pytest.mark.parametrize(
    ("truth", "probability", "soft_iou", "soft_dice"),
    [
        ([0, 0], 0.0, 1.0, 1.0),
        ([0, 0], 5e-6, 0.5, 0.5),
        ([0, 0], 1.0, 1e-5 / 2.00001, 1e-5 / 2.00001),
        ([1, 1], 0.0, 1e-5 / 2.00001, 1e-5 / 2.00001),
        ([1, 1], 1.0, 1.0, 1.0),
        ([1, 0], 0.5, 0.50001 / 1.50001, 1.00001 / 2.00001),
        ([1, IGNORE], 0.5, 0.50001 / 1.00001, 1.00001 / 1.50001),
        ([IGNORE, IGNORE], 1.0, math.nan, math.nan),
    ],
)
def test_the_table_of_the_documentation(truth, probability, soft_iou, soft_dice):
    probs = jnp.full((1, 1, 2, 1), probability, jnp.float32)
    counted = np.array([truth != [IGNORE, IGNORE]])
    summary = soft_summary(soft_sums(probs, jnp.array([[truth]])), counted, BINARY)
    for averaging in ("pooled", "per_image"):
        for key, value in dict(soft_iou=soft_iou, soft_dice=soft_dice).items():
            actual = summary[f"{key}/crack/{averaging}"]
            assert actual == pytest.approx(value, rel=1e-5, nan_ok=True)


def test_masking_is_removing_and_nan_is_no_probability():
    probs, mask = pixels(3)
    mask[:, :, 4:] = IGNORE
    np.testing.assert_allclose(
        soft_sums(probs, mask), soft_sums(probs[:, :, :4], mask[:, :, :4]), rtol=1e-6
    )
    probs, mask = jnp.array([[[[jnp.nan], [0.5]]]]), jnp.array([[[1, 1]]])
    assert soft_sums(probs, mask).tolist() == [[[0.5, 0.5, 2.0]]]


def test_images_without_a_mask_are_left_out():
    probs, mask = pixels(2)
    mask[2] = IGNORE
    counted = np.arange(len(mask)) != 2
    whole = soft_summary(soft_sums(probs, mask), counted, BINARY)
    kept = soft_sums(probs[counted], mask[counted])
    assert whole == pytest.approx(soft_summary(kept, np.ones(5, bool), BINARY))


def test_sums_of_large_images_and_sets_are_exact():
    probs = np.random.default_rng(0).random((1, 512, 512, 1), np.float32)
    sums = soft_sums(probs, jnp.ones((1, 512, 512), int))
    exact = probs.sum(dtype=np.float64)
    np.testing.assert_allclose(sums[0, 0], [exact, exact, 512**2], rtol=1e-6)
    # A float32 sum over the set would lose the last digits of these odd numbers.
    many = np.full((2**10 + 1, 1, 3), [32769, 32769, 65537], np.float32)
    summary = soft_summary(many, np.ones(len(many), bool), BINARY)
    expected = pytest.approx(32769 / 65537, rel=1e-9)
    assert summary["soft_iou/crack/pooled"] == expected
    assert many[:, 0].sum(0)[0] / many[:, 0].sum(0)[2] != expected
