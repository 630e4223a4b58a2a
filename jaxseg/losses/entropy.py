"""Cross-entropy and the focal losses: a loss of every pixel, and their mean."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxseg.errors import InputError
from jaxseg.losses.pixels import pixel_mean, split
from jaxseg.types import Array


def bce(logits: Array, target: Array, *, pos_weight: float) -> Array:
    """Binary cross-entropy, mean over the pixels of each example.

    -[pos_weight * g ln p + (1 - g) ln(1 - p)], divided by the number of unignored
    pixels, not by the sum of weights.

    Args:
      logits: [N, ..., 1].
      target: [N, ...] int32 in {0, 1, IGNORE}.
      pos_weight: weight of foreground pixels, >= 0; 1 weighs all alike.

    Returns:
      [N] float32.

    Raises:
      InputError: the model has more than one logit.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html

    >>> loss = bce(jnp.zeros([1, 2, 1]), jnp.array([[1, 255]]), pos_weight=2.0)
    >>> round(float(loss[0]), 5)  # 2 ln 2
    1.38629
    """
    if logits.shape[-1] != 1:
        raise InputError(
            expected="a binary model with one logit for the loss 'bce'",
            found=f"{logits.shape[-1]} logits, one per class",
            fix="replace 'bce' in the config's loss group by "
            "cross_entropy=dict(weight=1.0, class_weights=())",
        )
    logits, target, counted = split(logits, target)
    log_p, _ = _log_likelihood(logits, target)
    return pixel_mean(jnp.where(target == 1, -pos_weight * log_p, -log_p), counted)


def cross_entropy(
    logits: Array,
    target: Array,
    *,
    class_weights: tuple[float, ...] | Mapping[str, float],
) -> Array:
    """Softmax cross-entropy, weighted mean over the pixels of each example.

    Σ w_t (-ln p_t) / Σ w_t over unignored pixels, w_t the weight of the true class; an
    example whose weights sum to 0 has loss 0.

    Args:
      logits: [N, ..., K], K > 1.
      target: [N, ...] int32 in {0..K-1, IGNORE}.
      class_weights: one weight >= 0 per class; () weighs all alike; a config may say
        dict(balanced_up_to=LIMIT), which `class_weights.resolve` turns into numbers.

    Returns:
      [N] float32.

    Raises:
      InputError: the model is binary, or the number of weights is not K.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    Differs: the sum of weights is that of the example, there that of the batch; the
    Keras CategoricalCELoss is 1/K of this.

    >>> loss = cross_entropy(jnp.zeros([1, 2]), jnp.array([1]), class_weights=(1, 9))
    >>> round(float(loss[0]), 5)  # ln 2
    0.69315
    """
    num_classes = logits.shape[-1]
    if num_classes == 1:
        raise InputError(
            expected="one logit per class for the loss 'cross_entropy'",
            found="a binary model with one logit, whose softmax is always 1",
            fix="replace 'cross_entropy' in the config's loss group by "
            "bce=dict(weight=1.0, pos_weight=1.0)",
        )
    if class_weights and len(class_weights) != num_classes:
        ones = (1.0,) * num_classes
        raise InputError(
            expected=f"{num_classes} class weights, one per class, or ()",
            found=f"{len(class_weights)}: {tuple(class_weights)}",
            fix=f'--config.loss.cross_entropy.class_weights="{ones}"',
        )
    logits, target, counted = split(logits, target)
    weights = jnp.asarray(class_weights or (1.0,) * num_classes, jnp.float32)
    log_p, _ = _log_likelihood(logits, target)
    return pixel_mean(-log_p, weights[target] * counted)


def focal(logits: Array, target: Array, *, alpha: float, gamma: float) -> Array:
    """Focal loss with a class-dependent factor, mean over the pixels of each example.

    K = 1: alpha g (1 - p)^gamma (-ln p) + (1 - alpha)(1 - g) p^gamma (-ln(1 - p)).
    K > 1: -alpha (1 - p_t)^gamma ln p_t.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.
      alpha: in [0, 1], weight of the foreground, the background has 1 - alpha; a
        plain factor for K > 1. 0.25 in the source.
      gamma: >= 0, 0 leaves the cross-entropy; 2 in the source.

    Returns:
      [N] float32.

    Source: https://arxiv.org/abs/1708.02002, eq. 5; segmentation_models,
    BinaryFocalLoss and CategoricalFocalLoss. Differs: the categorical mean is over
    pixels, there over pixels and classes.

    >>> loss = focal(jnp.zeros([1, 1]), jnp.array([1]), alpha=0.25, gamma=2.0)
    >>> round(float(loss[0]), 5)  # 0.25 * 0.5^2 * ln 2
    0.04332
    """
    binary = logits.shape[-1] == 1
    logits, target, counted = split(logits, target)
    factor = jnp.where(target == 1, alpha, 1.0 - alpha) if binary else alpha
    return pixel_mean(factor * _focal_pixels(logits, target, gamma), counted)


def focal_constant(
    logits: Array, target: Array, *, alpha: float, gamma: float
) -> Array:
    """Focal loss with the same factor for all classes, mean over pixels per example.

    alpha (1 - exp(-CE))^gamma CE with CE = -ln p_t, so 1 - exp(-CE) = 1 - p_t.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.
      alpha: plain factor, >= 0; 0.8 in the source.
      gamma: >= 0; 2 in the source.

    Returns:
      [N] float32.

    Source: https://github.com/Andrii-Radyhin/speedlines-detection, FocalLoss.

    >>> loss = focal_constant(jnp.zeros([1, 1]), jnp.array([0]), alpha=0.8, gamma=2.0)
    >>> round(float(loss[0]), 5)  # 0.8 * 0.5^2 * ln 2
    0.13863
    """
    logits, target, counted = split(logits, target)
    return pixel_mean(alpha * _focal_pixels(logits, target, gamma), counted)


def _focal_pixels(logits: Array, target: Array, gamma: float) -> Array:
    """-(1 - p_t)^gamma ln p_t; the power by exp, for a finite gradient at p_t = 1."""
    log_p, log_rest = _log_likelihood(logits, target)
    return -jnp.exp(gamma * log_rest) * log_p


def _log_likelihood(logits: Array, target: Array) -> tuple[Array, Array]:
    """(ln p_t, ln(1 - p_t)) of the true class, [N, ...], exact at saturated logits."""
    if logits.shape[-1] == 1:
        signed = jnp.where(target == 1, logits[..., 0], -logits[..., 0])
        return jax.nn.log_sigmoid(signed), jax.nn.log_sigmoid(-signed)
    is_true = jax.nn.one_hot(target, logits.shape[-1], dtype=bool)
    true_logit = jnp.where(is_true, logits, 0.0).sum(axis=-1)
    others = jax.nn.logsumexp(logits, axis=-1, where=~is_true)
    return jax.nn.log_sigmoid(true_logit - others), jax.nn.log_sigmoid(
        others - true_logit
    )
