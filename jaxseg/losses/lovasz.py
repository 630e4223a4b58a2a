"""The Lovász losses: the convex extension of 1 - IoU, one value per example.

Source: https://arxiv.org/abs/1705.08790, algorithm 1 and equations 8, 11 and 12.
"""

import jax
import jax.numpy as jnp

from jaxseg.types import IGNORE, Array


def lovasz(logits: Array, target: Array) -> Array:
    """Lovász hinge (K = 1) or Lovász softmax (K > 1) of each example.

    With the errors m sorted from the largest, the loss is Σ relu(m_i) (J_i - J_(i-1)),
    J_i = 1 - IoU if the first i pixels were wrong and the others right. Binary:
    m = 1 - logit * (2 g - 1). Softmax: m = |g_c - p_c| per class, the mean over the
    classes that the example holds. Without any foreground the hinge is its largest
    error. Ignored pixels are as if they were not there.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.

    Returns:
      [N] float32; 0 where every pixel is ignored.

    Source: see the module. Differs: always per image.

    >>> lovasz(jnp.array([[[3.0], [-0.5]]]), jnp.array([[1, 0]])).tolist()
    [0.25]
    """
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"logits {logits.shape} do not fit target {target.shape}")
    num_classes = logits.shape[-1]
    counted = (target != IGNORE).reshape(len(target), -1)
    logits = logits.astype(jnp.float32).reshape(len(target), -1, num_classes)
    logits = jnp.where(counted[..., None], logits, 0.0)
    target = jnp.where(counted, target.reshape(counted.shape), 0)
    if num_classes == 1:
        errors = 1.0 - logits[..., 0] * (2.0 * target - 1.0)
        return _extend(errors, target == 1, counted)
    truth = jax.nn.one_hot(target, num_classes, dtype=bool) & counted[..., None]
    errors = jnp.abs(truth - jax.nn.softmax(logits))
    losses = jax.vmap(_extend, in_axes=(2, 2, None), out_axes=1)(errors, truth, counted)
    held = truth.any(axis=1)  # [N, K]
    return (losses * held).sum(1) / jnp.maximum(held.sum(1), 1)


def _extend(errors: Array, truth: Array, counted: Array) -> Array:
    """[N] extension of 1 - IoU at errors [N, P] for truth [N, P]."""
    # An ignored pixel has no error and comes last, so no other one sees it.
    errors = jnp.where(counted, jax.nn.relu(errors), -1.0)
    order = jnp.argsort(-jax.lax.stop_gradient(errors), axis=1)
    errors = jnp.take_along_axis(errors, order, axis=1)
    truth = jnp.take_along_axis(truth & counted, order, axis=1).astype(jnp.float32)
    total = truth.sum(axis=1, keepdims=True)
    intersection = total - truth.cumsum(axis=1)
    union = total + (1.0 - truth).cumsum(axis=1)
    jaccard = 1.0 - intersection / union  # union >= 1 from the first pixel on
    steps = jnp.diff(jaccard, axis=1, prepend=0.0)
    return (jax.nn.relu(errors) * steps).sum(axis=1)
