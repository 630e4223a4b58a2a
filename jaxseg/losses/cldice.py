"""The soft clDice loss: overlap of the centrelines of thin structures.

Source: https://arxiv.org/abs/2003.07311, algorithms 1 and 2, and its code,
https://github.com/jocpae/clDice, soft_skeleton.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.errors import InputError
from jaxseg.types import IGNORE, Array


def cldice(logits: Array, target: Array, *, iterations: int, smooth: float) -> Array:
    """Soft clDice loss of each example; the mean over the classes but the background.

    1 - 2 P R / (P + R) with the topological precision P = (Σ s_p g + smooth) /
    (Σ s_p + smooth) and sensitivity R = (Σ s_g p + smooth) / (Σ s_g + smooth), where s
    is the soft skeleton. A ratio of 0 to 0 is 1. Ignored pixels are as if they were not
    there: like the world outside of the image they neither thin nor widen.

    It compares lines, not areas: the source adds it to a Dice loss with equal weights.

    Args:
      logits: [N, ..., K]; one class and its background for K = 1.
      target: [N, ...] int32 class ids or IGNORE, with at least one axis of pixels.
      iterations: erosions of the skeleton, > 0; at least half of the width in pixels of
        the widest line. 3 in the source.
      smooth: pixels, >= 0; 1 in the source.

    Returns:
      [N] float32 in [0, 1].

    Raises:
      InputError: image labels, which have no skeleton.

    Source: see the module. Differs: per example and class, there over the whole batch.

    >>> logits = jnp.array([[[-50.0], [50.0], [-50.0]]] * 3)[None]  # a line downwards
    >>> target = jnp.array([[[0, 0, 0], [1, 1, 1], [0, 0, 0]]])  # a line across it
    >>> loss = cldice(logits, target, iterations=1, smooth=0.0)
    >>> round(float(loss[0]), 5)  # each holds a third of the other
    0.66667
    """
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"logits {logits.shape} do not fit target {target.shape}")
    if target.ndim == 1:
        raise InputError(
            "masks for the loss 'cldice', which compares centrelines",
            "image labels",
            "replace 'cldice' in the config's loss group by "
            "bce=dict(weight=1.0, pos_weight=1.0)",
        )
    counted = (target != IGNORE)[..., None]
    logits = jnp.where(counted, logits.astype(jnp.float32), 0.0)
    target = jnp.where(counted[..., 0], target, 0)
    if logits.shape[-1] == 1:
        probs, truth = jax.nn.sigmoid(logits), target[..., None] == 1
    else:
        probs = jax.nn.softmax(logits)[..., 1:]
        truth = jax.nn.one_hot(target, logits.shape[-1], dtype=bool)[..., 1:]
    probs, truth = probs * counted, (truth & counted).astype(jnp.float32)
    precision = _share(soft_skeleton(probs, counted, iterations), truth, smooth)
    recall = _share(soft_skeleton(truth, counted, iterations), probs, smooth)
    total = precision + recall
    is_any = total > 0
    dice = 2.0 * precision * recall / jnp.where(is_any, total, 1.0)
    return (1.0 - dice).mean(axis=-1)


def soft_skeleton(values: Array, counted: Array, iterations: int) -> Array:
    """Ridges of values in [0, 1] that are narrower than 2 iterations + 2 pixels.

    What an opening takes away, before and after each erosion. Erosions take the
    minimum over a cross, dilations the maximum over a square of three pixels.

    Args:
      values: [N, ..., K] float32.
      counted: [N, ..., 1] bool, False where there is no pixel.

    Returns:
      [N, ..., K] float32 in [0, 1], 0 where nothing is counted.
    """
    eroded = _erode(values, counted)
    skeleton = jax.nn.relu(values - _dilate(eroded, counted))
    for _ in range(iterations):
        values, eroded = eroded, _erode(eroded, counted)
        ridge = jax.nn.relu(values - _dilate(eroded, counted))
        skeleton = skeleton + (1.0 - skeleton) * ridge
    return skeleton * counted


def _share(skeleton: Array, other: Array, smooth: float) -> Array:
    """[N, K] of how much of a skeleton lies inside of the other; 1 of no skeleton."""
    pixels = tuple(range(1, skeleton.ndim - 1))
    inside = (skeleton * other).sum(axis=pixels) + smooth
    total = skeleton.sum(axis=pixels) + smooth
    filled = total > 0
    return jnp.where(filled, inside / jnp.where(filled, total, 1.0), 1.0)


def _erode(values: Array, counted: Array) -> Array:
    values = jnp.where(counted, values, 1.0)
    lowest = values
    for axis in range(1, values.ndim - 1):
        lowest = jnp.minimum(lowest, _of_three(values, axis, 1.0, jnp.minimum))
    return lowest


def _dilate(values: Array, counted: Array) -> Array:
    values = jnp.where(counted, values, 0.0)
    for axis in range(1, values.ndim - 1):
        values = _of_three(values, axis, 0.0, jnp.maximum)
    return values


def _of_three(values: Array, axis: int, outside: float, choose: Callable) -> Array:
    """Of every pixel and its two neighbours along an axis the lowest or the highest."""
    border = [(0, 0)] * values.ndim
    border[axis] = (1, 1)
    padded = jnp.pad(values, border, constant_values=outside)
    size = values.shape[axis]
    before, after = (
        jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 2)
    )
    return choose(choose(before, values), after)
