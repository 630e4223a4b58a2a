"""Losses of the overlap of soft areas: Dice, Jaccard, Tversky."""

import jax
import jax.numpy as jnp

from jaxseg.losses.pixels import ratio, split
from jaxseg.types import Array


def dice(logits: Array, target: Array, *, smooth: float) -> Array:
    """Soft Dice loss over the pixels of each example.

    1 - (2 Σ g p + smooth) / (Σ g + Σ p + smooth); for K > 1 the mean over all classes,
    background included. `smooth` stands above and below, so a class with neither truth
    nor prediction has loss 0, with smooth = 0 too; a class without truth in the image
    has a loss near 1 as soon as Σ p exceeds `smooth`.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.
      smooth: pixels, >= 0; 1e-5 in the source.

    Returns:
      [N] float32 in [0, 1].

    Source: segmentation_models, DiceLoss with beta = 1.

    >>> dice(jnp.array([[[50.0], [-50.0]]]), jnp.array([[1, 1]]), smooth=1.0).tolist()
    [0.25]
    """
    both, truth, probs = _overlap(logits, target)
    overlap = ratio(2.0 * both + smooth, truth + probs + smooth, empty=1.0)
    return (1.0 - overlap).mean(axis=-1)


def jaccard(logits: Array, target: Array, *, smooth: float) -> Array:
    """Soft Jaccard (IoU) loss over the pixels of each example.

    1 - (Σ g p + smooth) / (Σ g + Σ p - Σ g p + smooth); classes and empty rule as in
    `dice`.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.
      smooth: pixels, >= 0; 1e-5 in the source.

    Returns:
      [N] float32 in [0, 1].

    Source: segmentation_models, JaccardLoss.

    >>> jaccard(jnp.array([[[50.0], [-50.0]]]), jnp.array([[1, 1]]), smooth=0).tolist()
    [0.5]
    """
    both, truth, probs = _overlap(logits, target)
    union = truth + probs - both
    return (1.0 - ratio(both + smooth, union + smooth, empty=1.0)).mean(axis=-1)


def tversky(
    logits: Array, target: Array, *, alpha: float, beta: float, smooth: float
) -> Array:
    """Tversky loss over the pixels of each example: overlap, errors weighed by kind.

    1 - (Σ g p + smooth) / (Σ g p + alpha Σ (1 - g) p + beta Σ g (1 - p) + smooth);
    classes and empty rule as in `dice`. alpha = beta = 0.5 is `dice` with twice the
    `smooth`, alpha = beta = 1 is `jaccard`; beta > alpha finds more, with more false
    alarms.

    Args:
      logits: [N, ..., K].
      target: [N, ...] int32 class ids or IGNORE.
      alpha: weight of false positives, >= 0; 0.3 was best in the source.
      beta: weight of false negatives, >= 0; 0.7 was best in the source.
      smooth: pixels, >= 0.

    Returns:
      [N] float32 in [0, 1].

    Source: https://arxiv.org/abs/1706.05721, eq. 4. Differs: `smooth`; the mean over
    all classes, there the lesion alone.

    >>> logits, target = jnp.array([[[50.0], [-50.0]]]), jnp.array([[1, 1]])
    >>> tversky(logits, target, alpha=0.3, beta=3.0, smooth=0.0).tolist()  # 1 / (1 + 3)
    [0.75]
    """
    both, truth, probs = _overlap(logits, target)
    errors = alpha * (probs - both) + beta * (truth - both)
    return (1.0 - ratio(both + smooth, both + errors + smooth, empty=1.0)).mean(axis=-1)


def _overlap(logits: Array, target: Array) -> tuple[Array, Array, Array]:
    """(Σ g p, Σ g, Σ p) over the unignored pixels of each example, [N, K]."""
    num_classes = logits.shape[-1]
    logits, target, counted = split(logits, target)
    if num_classes == 1:
        probs, truth = jax.nn.sigmoid(logits), target[..., None].astype(jnp.float32)
    else:
        probs, truth = jax.nn.softmax(logits), jax.nn.one_hot(target, num_classes)
    pixels = tuple(range(1, target.ndim))
    probs = probs * counted[..., None]
    truth = truth * counted[..., None]
    return tuple(x.sum(axis=pixels) for x in (probs * truth, truth, probs))
