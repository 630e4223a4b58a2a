"""Which pixels count, and sums over those of each example."""

import jax.numpy as jnp

from jaxseg.types import IGNORE, Array


def split(logits: Array, target: Array) -> tuple[Array, Array, Array]:
    """Float32 logits, class ids and which pixels count; ignored pixels hold zeros.

    Replacing the inputs, not only the result, keeps gradients finite there even where a
    logit is not.
    """
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"logits {logits.shape} do not fit target {target.shape}")
    counted = target != IGNORE
    logits = jnp.where(counted[..., None], logits.astype(jnp.float32), 0.0)
    return logits, jnp.where(counted, target, 0).astype(jnp.int32), counted


def pixel_sum(values: Array) -> Array:
    """[N, ...] -> [N]."""
    return values.sum(axis=tuple(range(1, values.ndim)))


def ratio(numerator: Array, denominator: Array, empty: float) -> Array:
    """numerator / denominator; `empty`, without gradient, where that is 0 / 0."""
    filled = denominator > 0
    return jnp.where(filled, numerator / jnp.where(filled, denominator, 1.0), empty)


def pixel_mean(values: Array, weight: Array) -> Array:
    """Weighted mean over the pixels of each example; 0 where the weights sum to 0."""
    weight = weight.astype(jnp.float32)
    return ratio(pixel_sum(values * weight), pixel_sum(weight), empty=0.0)
