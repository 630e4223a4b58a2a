"""What is counted and summed per image on the device; no batch is averaged there."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array


def _count_rows(index: Array, length: int) -> Array:
    """Occurrences of 0..length-1 in each row of index [N, ...]; `length` is dropped."""
    zeros = jnp.zeros(length, jnp.int32)  # of one row: devices need not communicate
    return jax.vmap(lambda row: zeros.at[row].add(1, mode="drop"))(index)


def score_histogram(probs: Array, mask: Array, num_bins: int = 256) -> Array:
    """Counts pixels by score, apart for background and foreground, per image.

    A score p falls in bin floor(p * num_bins), p = 1 in the last, NaN in bin 0. With a
    power of two the product is exact, so p >= b / num_bins is just "bin >= b".

    Args:
      probs: [N, ...] float in [0, 1].
      mask: [N, ...] int32 in {0, 1, IGNORE}.
      num_bins: static, a power of two.

    Returns:
      [N, 2, num_bins] int32; [:, 0] counts true background, [:, 1] true foreground.

    >>> score_histogram(jnp.array([[0.2, 0.5, 1]]), jnp.array([[0, 1, 1]]), 2).tolist()
    [[[1, 0], [0, 2]]]
    """
    if num_bins < 1 or num_bins & (num_bins - 1):
        raise ValueError(f"num_bins must be a power of two, not {num_bins}")
    probs = jnp.where(probs >= 0, probs, 0.0).astype(jnp.float32)  # NaN too
    bins = jnp.minimum((probs * num_bins).astype(jnp.int32), num_bins - 1)
    index = mask.astype(jnp.int32) * num_bins + bins
    index = jnp.where(mask == IGNORE, 2 * num_bins, index)
    return _count_rows(index, 2 * num_bins).reshape(-1, 2, num_bins)


def confusion(prediction: Array, mask: Array, num_classes: int) -> Array:
    """Counts pixels by true and predicted class, per image.

    Args:
      prediction: [N, ...] integer or bool in {0..K-1}.
      mask: [N, ...] int32 in {0..K-1, IGNORE}.
      num_classes: static, K >= 2; 2 for binary.

    Returns:
      [N, K, K] int32; rows are the true class, columns the predicted class.

    >>> confusion(jnp.array([[0, 1, 1]]), jnp.array([[0, 0, IGNORE]]), 2).tolist()
    [[[1, 1], [0, 0]]]
    """
    cells = num_classes * num_classes
    index = mask.astype(jnp.int32) * num_classes + prediction.astype(jnp.int32)
    index = jnp.where(mask == IGNORE, cells, index)
    return _count_rows(index, cells).reshape(-1, num_classes, num_classes)


def confusion_at(histogram: np.ndarray, bin: int) -> np.ndarray:
    """Confusions [N, 2, 2] int64 of the decision score >= bin / B, bin in 0..B.

    >>> confusion_at(np.array([[[1, 0], [0, 2]]]), 1).tolist()
    [[[1, 0], [0, 2]]]
    """
    below = histogram[..., :bin].sum(axis=-1, dtype=np.int64)
    above = histogram[..., bin:].sum(axis=-1, dtype=np.int64)
    return np.stack([below, above], axis=-1)


def soft_sums(probs: Array, mask: Array) -> Array:
    """Sums of g p, p and g over the pixels of each image, per class.

    g is 1 on the pixels of the class, p its probability; NaN counts as 0.

    Args:
      probs: [N, H, W, K] float in [0, 1]; K = 1 is the foreground of a binary set.
      mask: [N, H, W] int32 in {0..K-1, IGNORE}, {0, 1, IGNORE} for K = 1.

    Returns:
      [N, K, 3] float32.

    >>> soft_sums(jnp.array([[[[0.5], [0.25]]]]), jnp.array([[[1, 0]]])).tolist()
    [[[0.5, 0.75, 1.0]]]
    """
    num_classes = probs.shape[-1]
    classes = jnp.arange(num_classes) if num_classes > 1 else jnp.ones(1, jnp.int32)
    mask = mask[..., None]  # [N, H, W, 1]
    counted = (mask != IGNORE) & (probs >= 0)
    p = jnp.where(counted, probs, 0.0).astype(jnp.float32)
    g = (mask == classes.reshape(1, 1, 1, -1)).astype(jnp.float32)
    return jnp.stack([(g * p).sum((1, 2)), p.sum((1, 2)), g.sum((1, 2))], axis=-1)
