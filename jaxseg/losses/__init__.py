"""Losses: from logits and class ids to one value per example.

Every loss is `name(logits, target, *, <config keys>) -> [N] float32` with

    logits: [N, ..., K], cast to float32; without activation.
    target: [N, ...] int32 class ids; `IGNORE` pixels count nowhere and get no gradient.

'...' is H, W for masks and nothing for image labels; "pixels" below are all positions
of one example. K = 1 is binary, p = sigmoid(logit), target g in {0, 1}; K > 1 is a
softmax over K classes; p_t is the probability of the true class. An example whose every
pixel is ignored has loss 0. The keyword-only parameters are the keys of the config.

Sums are made by `make_loss`: the Keras `bce_jaccard_loss` is
`dict(bce=dict(weight=1.0, pos_weight=1.0), jaccard=dict(weight=1.0, smooth=1e-5))`.

Source: https://github.com/qubvel/segmentation_models, base/functional.py. Differs: sums
are per example, there over the whole batch; logarithms are taken from the logits, there
of probabilities clipped to [1e-7, 1 - 1e-7].
"""

import functools
from collections.abc import Callable, Mapping

from jaxseg.errors import InputError
from jaxseg.losses.cldice import cldice
from jaxseg.losses.entropy import bce, cross_entropy, focal, focal_constant
from jaxseg.losses.lovasz import lovasz
from jaxseg.losses.overlap import dice, jaccard, tversky
from jaxseg.types import Array

__all__ = [
    "LOSSES",
    "bce",
    "cldice",
    "cross_entropy",
    "dice",
    "focal",
    "focal_constant",
    "jaccard",
    "lovasz",
    "make_loss",
    "tversky",
]


LOSSES: dict[str, Callable[..., Array]] = {
    "bce": bce,
    "cross_entropy": cross_entropy,
    "dice": dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "focal": focal,
    "focal_constant": focal_constant,
    "lovasz": lovasz,
    "cldice": cldice,
}


def make_loss(terms: Mapping[str, Mapping]) -> Callable[[Array, Array], Array]:
    """The weighted sum of losses that a config's `loss` group describes.

    Args:
      terms: name in LOSSES -> 'weight' and the keyword-only parameters of that loss.

    Returns:
      A function (logits [N, ..., K], target [N, ...]) -> [N] float32.

    Raises:
      InputError: there is no term.

    >>> import jax.numpy as jnp
    >>> loss = make_loss({"dice": {"weight": 2.0, "smooth": 1.0}})
    >>> loss(jnp.array([[[50.0], [-50.0]]]), jnp.array([[1, 1]])).tolist()
    [0.5]
    """
    if not terms:
        raise InputError(
            expected=f"at least one loss out of {', '.join(LOSSES)}",
            found="an empty loss group in the config",
            fix="loss=dict(bce=dict(weight=1.0, pos_weight=1.0))",
        )
    parts = []
    for name, options in terms.items():
        keys = {key: value for key, value in options.items() if key != "weight"}
        parts.append((options["weight"], functools.partial(LOSSES[name], **keys)))

    def loss(logits: Array, target: Array) -> Array:
        return sum(weight * term(logits, target) for weight, term in parts)

    return loss
