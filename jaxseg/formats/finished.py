"""A finished model as one pure function: pixels in, probabilities and decisions out."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import augment, export
from jaxseg.config import Spec
from jaxseg.errors import InputError
from jaxseg.formats.sizes import SizeRule, size_rule
from jaxseg.trained import restore
from jaxseg.types import Array, Outputs

DECISIONS = {
    "mask_probs": ("mask", "mask", jnp.uint8),
    "image_probs": ("decision", "image", jnp.int32),
}
"""Probabilities -> their decision, the name of its threshold, and its type."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A trained network with all that stands in its model.json.

    Attributes:
      network: name and keys of the network.
      variables: weights and statistics, float32.
      description: model.json.
      forward: `(variables, image [N, H, W, C] uint8) -> outputs`. Of them there are
        `mask_probs` [N, H, W, K] float32 and `mask` [N, H, W] uint8, the class ids,
        or `image_probs` [N, K] float32 and `decision` [N] int32, or all four. Two
        classes have K = 1, the probability of the second. It computes in float32,
        whatever the training did.
      outputs: their names.
      size: which H and W it takes.
      image_classes: names of `decision`; with masks, whether there is anything.
      thresholds: 'mask' and 'image' where a threshold decides, not the largest.
      facts: what a user must know, by name, for the metadata of a file.
    """

    network: Spec
    variables: Any
    description: Mapping[str, Any]
    forward: Callable[[Any, Array], Outputs]
    outputs: Sequence[str]
    size: SizeRule
    image_classes: Sequence[str]
    thresholds: Mapping[str, float]
    facts: Mapping[str, str]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of training."""
        return tuple(self.description["preprocessing"]["image_size"])

    @property
    def channels(self) -> int:
        return self.description["preprocessing"]["channels"]

    @property
    def facts_of_network(self) -> dict[str, str]:
        """The facts, for a file that is run."""
        return {
            **self.facts,
            "input": f"image [N, H, W, {self.channels}] uint8, {self._colours}, 0 to "
            "255; the normalisation of training is inside",
            "outputs": "mask_probs [N, H, W, K], image_probs [N, K]: probabilities, of "
            "two classes that of the second only; mask [N, H, W], decision [N]: class "
            "ids, probability >= threshold, or the largest without a threshold",
        }

    @property
    def facts_of_weights(self) -> dict[str, str]:
        """The facts, for a file of weights: the rest is left to its user."""
        kept = self.description["preprocessing"]
        return {
            **self.facts,
            "input": f"{self._colours}, (pixels / 255 - mean) / std with mean "
            f"{kept['mean']} and std {kept['std']}",
            "outputs": "logits; sigmoid of two classes, else softmax",
        }

    @property
    def _colours(self) -> str:
        return {1: "grey", 3: "RGB"}[self.channels]

    def image(self) -> jax.ShapeDtypeStruct:
        """Any batch of images that the network takes, as symbolic shape."""
        shape = (*self.size.symbolic(), self.channels)
        return jax.ShapeDtypeStruct(shape, jnp.uint8)


def read_finished(folder: Path) -> Finished:
    """Builds the network of a model folder around its weights.

    Raises:
      InputError: as `trained.restore`.
    """
    trained = restore(folder)
    _, description = export.load_model(folder)
    kept, task = trained.preprocessing, trained.task
    model = trained.build(jnp.float32)
    size = size_rule(trained.network, kept.image_size)
    thresholds = {kind: chosen.value for kind, chosen in trained.thresholds.items()}
    normalize = augment.make_normalize(kept.mean, kept.std)

    def forward(variables, image):
        image = normalize({"image": image})["image"]
        probs = task.probabilities(model.apply(variables, image, train=False))
        probs = {name: probs[name] for name in DECISIONS if name in probs}
        return probs | _decide(probs, thresholds)

    image = jnp.zeros((1, *kept.image_size, kept.channels), jnp.uint8)
    image_classes = getattr(task, "decision", task).classes
    return Finished(
        trained.network,
        trained.variables,
        description,
        forward,
        sorted(jax.eval_shape(forward, trained.variables, image)),
        size,
        image_classes,
        thresholds,
        _facts(description, size, thresholds, image_classes),
    )


def decide(probs: np.ndarray, threshold: float | None) -> np.ndarray:
    """Class ids of probabilities [..., K], as the metrics and results.csv have them."""
    if threshold is None:
        return probs.argmax(-1)
    return probs[..., 0].astype(np.float64) >= threshold


def _decide(probs: Outputs, thresholds: Mapping[str, float]) -> Outputs:
    decisions = {}
    for name, values in probs.items():
        decision, kind, dtype = DECISIONS[name]
        if kind not in thresholds and values.shape[-1] == 1:
            raise InputError(
                f"a model.json with a threshold for the {kind} of two classes",
                f"thresholds: {dict(thresholds)}",
                "the folder as the training wrote it",
            )
        if kind in thresholds:
            chosen = values.squeeze(-1) >= _float32_from(thresholds[kind])
        else:
            chosen = values.argmax(-1)
        decisions[decision] = chosen.astype(dtype)
    return decisions


def _float32_from(threshold: float) -> np.float32:
    """The smallest float32 that is no smaller: it decides float32 scores alike."""
    rounded = np.float32(threshold)
    too_small = float(rounded) < threshold
    return np.nextafter(rounded, np.float32(np.inf)) if too_small else rounded


def _facts(description, size: SizeRule, thresholds, image_classes) -> dict[str, str]:
    kept = description["preprocessing"]
    return {
        "jaxseg": metadata.version("jaxseg"),
        "size_rule": size.text,
        "image_size": json.dumps(kept["image_size"]),
        "resize": kept["resize"],
        "classes": json.dumps(description["classes"]),
        "image_classes": json.dumps(image_classes),
        "thresholds": json.dumps(thresholds),
    }
