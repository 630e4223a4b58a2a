"""Class weights from how often the classes occur in the training part.

`class_weights=dict(balanced_up_to=10.0)` in a loss asks for them: the commonest class
has weight 1, the others as many times more as they are rarer, at most 10. They are
known when the split is, and stand in config.json of the run folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.errors import InputError

KEY = "balanced_up_to"


def resolve(
    terms: Mapping[str, Mapping[str, Any]], counts: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """A config's `loss` group with numbers for all class weights.

    >>> resolve({"cross_entropy": {"class_weights": {KEY: 10.0}}}, (900, 90, 10))
    {'cross_entropy': {'class_weights': (1.0, 10.0, 10.0)}}

    Args:
      counts: pixels (or images) of each class in the training part; a class without
        any gets the largest weight.

    Raises:
      InputError: another key than balanced_up_to, or a number under 1.
    """
    return {
        name: {
            key: balance(counts, _limit(value)) if _asks(key, value) else value
            for key, value in options.items()
        }
        for name, options in terms.items()
    }


def balance(counts: Sequence[int], limit: float) -> tuple[float, ...]:
    """min(limit, largest count / count) per class.

    >>> balance((80, 20, 0), limit=10.0)
    (1.0, 4.0, 10.0)
    """
    counts = np.asarray(counts, np.float64)
    ratios = counts.max() / np.maximum(counts, 1)
    return tuple(np.where(counts > 0, ratios, limit).clip(max=limit).tolist())


def describe(weights: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> str:
    """The class weights of a resolved `loss` group in a sentence; '' without any."""
    found = [o["class_weights"] for o in weights.values() if o.get("class_weights")]
    texts = [
        ", ".join(f"{name} {w:.3g}" for name, w in zip(classes, values, strict=True))
        for values in found
    ]
    return f"class weights: {'; '.join(texts)}" if texts else ""


def _asks(key: str, value: Any) -> bool:
    return key == "class_weights" and isinstance(value, Mapping)


def _limit(value: Mapping[str, Any]) -> float:
    limit = value.get(KEY)
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if value.keys() != {KEY} or not number or not limit >= 1:
        raise InputError(
            f"class_weights with one number per class, (), or dict({KEY}=LIMIT) with a"
            " limit of at least 1",
            f"{dict(value)}",
            f"--config.loss.cross_entropy.class_weights=\"{{'{KEY}': 10.0}}\"",
        )
    return float(limit)
