"""The Lovász losses against the definition of the extension, over all small cases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.losses import lovasz
from jaxseg.types import IGNORE

loss_of = jax.jit(lovasz)


def one_minus_iou(wrong, truth):
    """Of the prediction that errs on exactly these pixels."""
    if not wrong.any():
        return 0.0
    return 1.0 - (truth & ~wrong).sum() / (truth | wrong).sum()


def extension(errors, truth):
    """∫ over t of 1 - IoU if all pixels with an error of at least t were wrong."""
    levels = np.unique(np.maximum(errors, 0.0))[::-1]
    below = np.append(levels[1:], 0.0)
    return sum(
        (high - low) * one_minus_iou(errors >= high, truth)
        for high, low in zip(levels, below, strict=True)
        if high > 0
    )


def test_at_every_corner_it_is_one_minus_iou():
    for truth in itertools.product((0, 1), repeat=4):
        truth = np.array(truth)
        for wrong in itertools.product((0, 1), repeat=4):
            # A logit of 0 has error 1, one of 1 on the right side has error 0.
            logits = (1 - np.array(wrong)) * (2 * truth - 1)
            loss = loss_of(np.float32(logits)[None, :, None], np.int32(truth)[None])
            expected = one_minus_iou(np.array(wrong) == 1, truth == 1)
            assert float(loss[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_logits", [1, 3])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_it_is_the_integral_over_all_levels(num_logits, ignored):
    random = np.random.default_rng(num_logits)
    logits = random.normal(0, 2, (20, 3, 4, num_logits)).astype(np.float32)
    target = random.integers(0, max(num_logits, 2), (20, 3, 4)).astype(np.int32)
    target[random.random(target.shape) < ignored] = IGNORE
    target[0] = np.where(target[0] == 1, 0, target[0])  # without class 1
    expected = []
    for example, truth in zip(logits, target, strict=True):
        scores, ids = (
            example[truth != IGNORE].astype(np.float64),
            truth[truth != IGNORE],
        )
        if num_logits == 1:
            expected.append(extension(1 - scores[:, 0] * (2 * ids - 1), ids == 1))
            continue
        probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        held = [
            extension(np.abs((ids == c) - probs[:, c]), ids == c)
            for c in range(3)
            if (ids == c).any()
        ]
        expected.append(np.mean(held))
    np.testing.assert_allclose(loss_of(logits, target), expected, rtol=2e-5, atol=1e-6)


def test_without_foreground_the_hinge_is_its_largest_error():
    logits = jnp.array([[[-3.0], [-0.25], [0.5]]])
    assert float(loss_of(logits, jnp.zeros((1, 3), jnp.int32))[0]) == 1.5


def test_it_falls_along_its_gradient():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (1, 8, 8, 3)).astype(np.float32)
    target = random.integers(0, 3, (1, 8, 8)).astype(np.int32)
    step = jax.jit(lambda x: x - 20.0 * jax.grad(lambda y: lovasz(y, target).sum())(x))
    first = float(loss_of(logits, target)[0])
    for _ in range(40):
        logits = step(logits)
    assert float(loss_of(logits, target)[0]) < 0.2 * first
