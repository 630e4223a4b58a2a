"""A model folder as a network, a task, weights and preprocessing, checked.

`export` reads and writes the files; this module knows what they mean.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from jaxseg import export
from jaxseg.config import Spec
from jaxseg.errors import InputError, shorten
from jaxseg.models import MODELS
from jaxseg.schema import flatten, freeze, keys_of, matches, takes_loss
from jaxseg.tasks import TASKS, Task, Thresholds, num_outputs
from jaxseg.thresholds import Threshold

_PIXELS = "preprocessing."
KEYS = {
    "model.name": str,
    "task.name": str,
    "classes": tuple[str, ...],
    f"{_PIXELS}image_size": tuple[int, int],
    f"{_PIXELS}source_size": tuple[float, float],
    f"{_PIXELS}channels": Literal[1, 3],
    f"{_PIXELS}resize": Literal["none", "bilinear, antialiased"],
    f"{_PIXELS}mean": tuple[float, ...],
    f"{_PIXELS}std": tuple[float, ...],
}
"""Keys of model.json that the weights cannot be used without, and their types."""


MAX_SIDE = 2**16
"""Pixels of a side that a network may be asked for."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What was done to the images of the training.

    Attributes:
      image_size: (H, W) that the network saw, pixels.
      channels: 1 or 3.
      mean, std: per channel, of pixels in [0, 1].
      resized: to `image_size`; else windows of this size were cut out.
      source_size: (h, w) of the images before, the median; pixels.
      mm_per_pixel: of the images before; None where it is not known.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resized: bool
    source_size: tuple[float, float]
    mm_per_pixel: float | None = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
      network: name in MODELS and its keys.
      task: without its loss; it turns outputs into probabilities.
      thresholds: of validation or by hand, 'mask' and/or 'image'; {} where the
        largest probability decides.
      variables: arrays on the host, as `model.apply` takes them.
      digest: changes with any of the files.
    """

    network: Spec
    task: Task
    thresholds: Thresholds
    preprocessing: Preprocessing
    variables: dict[str, Any]
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        return self.task.classes

    def build(self, dtype: jnp.dtype) -> nn.Module:
        """The network, computing in `dtype`."""
        make = MODELS[self.network.name]
        return make(num_outputs(self.classes), dtype, **self.network.kwargs)


def restore(folder: Path) -> Trained:
    """Reads a model folder.

    Raises:
      InputError: it is none, or damaged, or of a newer version; the weights are not
        those of the network that it describes.
    """
    variables, description = export.load_model(folder)
    refuse_wrong_keys(folder, description)
    kept = {key: freeze(value) for key, value in description["preprocessing"].items()}
    trained = Trained(
        network=_spec(description["model"]),
        task=_task(_spec(description["task"]), freeze(description["classes"])),
        thresholds={
            kind: Threshold(**chosen)
            for kind, chosen in description["thresholds"].items()
        },
        preprocessing=Preprocessing(
            kept["image_size"],
            kept["channels"],
            kept["mean"],
            kept["std"],
            resized=kept["resize"] != "none",
            source_size=kept["source_size"],
            mm_per_pixel=kept.get("mm_per_pixel"),
        ),
        variables=variables,
        digest=_digest(folder),
    )
    _refuse_other_weights(folder, trained)
    return trained


def refuse_wrong_keys(folder: Path, description: Mapping[str, Any]) -> None:
    """Raises InputError naming every key that is missing or of the wrong kind."""
    flat = flatten(description)
    problems = [
        f"{key}: {flat.get(key, 'missing')!r}"
        for key, hint in KEYS.items()
        if key not in flat or not matches(flat[key], hint)
    ]
    if not problems:
        problems += _wrong_names("model", description["model"], MODELS)
        problems += _wrong_names("task", description["task"], TASKS)
        problems += _wrong_values(description)
    if problems:
        raise InputError(
            "a model.json that this version of jaxseg wrote",
            "\n  ".join([f"{folder / export.DESCRIPTION}:", *problems]),
            "the model/ folder of a finished run, as it was written",
        )


def _wrong_names(group: str, spec: Mapping[str, Any], choices: Mapping) -> list[str]:
    """A network or task that is not known, or not with these keys."""
    name = spec["name"]
    if name not in choices:
        return [f"{group}.name: {name!r} is none of {', '.join(choices)}"]
    hints = {key: h for key, h in keys_of(choices[name]).items()}
    given = {key: value for key, value in spec.items() if key != "name"}
    different = hints.keys() ^ given.keys()
    different |= {k for k in hints.keys() & given if not matches(given[k], hints[k])}
    return [
        f"{group}.{key}: {given.get(key, 'missing')!r}" for key in sorted(different)
    ]


def _wrong_values(description: Mapping[str, Any]) -> list[str]:
    kept, problems = description["preprocessing"], []
    if {len(kept["mean"]), len(kept["std"])} != {kept["channels"]}:
        problems.append(f"{_PIXELS}mean and std: not {kept['channels']} numbers each")
    for key in ("image_size", "source_size", "std"):
        if min(kept[key], default=0) <= 0 or max(kept[key]) > MAX_SIDE:
            problems.append(f"{_PIXELS}{key}: {kept[key]!r}")
    scale = kept.get("mm_per_pixel")  # since it was added to the format
    if scale is not None and not (matches(scale, float) and scale > 0):
        problems.append(f"{_PIXELS}mm_per_pixel: {scale!r}")
    if len(description["classes"]) < 2:
        problems.append("classes: fewer than two")
    thresholds = description.get("thresholds")
    if not isinstance(thresholds, Mapping):
        return [*problems, f"thresholds: {thresholds!r}"]
    names = {field.name for field in dataclasses.fields(Threshold)}
    for kind, chosen in thresholds.items():
        known = kind in ("mask", "image") and isinstance(chosen, Mapping)
        value = chosen.get("value") if known and chosen.keys() == names else None
        if not matches(value, float) or not 0 <= value <= 1:
            problems.append(f"thresholds.{kind}: {chosen!r}")
    return problems


def _spec(group: Mapping[str, Any]) -> Spec:
    kwargs = {key: freeze(value) for key, value in group.items() if key != "name"}
    return Spec(group["name"], kwargs)


def _task(spec: Spec, classes: tuple[str, ...]) -> Task:
    make = TASKS[spec.name]
    return make(classes, *[None] * takes_loss(make), **spec.kwargs)


def _refuse_other_weights(folder: Path, trained: Trained) -> None:
    kept = trained.preprocessing
    model, key = trained.build(jnp.float32), jax.random.key(0)
    size = (1, *kept.image_size, kept.channels)
    image = jax.ShapeDtypeStruct(size, jnp.float32)
    try:
        shapes = jax.eval_shape(partial(model.init, train=False), key, image)
    except InputError:
        raise
    except Exception as error:  # layers refuse impossible numbers as they like
        raise InputError(
            "a network that can be built",
            f"{folder / export.DESCRIPTION}: {type(error).__name__}: {error}",
            "the model/ folder of a finished run, as it was written",
        ) from None
    wanted = {k: leaf.shape for k, leaf in flatten_dict(shapes, sep="/").items()}
    given = {
        k: leaf.shape for k, leaf in flatten_dict(trained.variables, sep="/").items()
    }
    both = wanted.keys() & given.keys()
    problems = [
        f"{len(names)} {kind}: {shorten(names, 8)}"
        for kind, names in (
            ("missing", sorted(wanted.keys() - given)),
            ("unknown", sorted(given.keys() - wanted)),
            (
                "of another shape",
                [
                    f"{k} {given[k]} for {wanted[k]}"
                    for k in sorted(both)
                    if given[k] != wanted[k]
                ],
            ),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"the weights of the {trained.network.name} that model.json describes",
            "\n  ".join([f"{folder / export.WEIGHTS}:", *problems]),
            "both files of one run, as they were written",
        )


def _digest(folder: Path) -> str:
    """sha256 of both files, in hexadecimal."""
    digest = hashlib.sha256()
    for name in (export.DESCRIPTION, export.WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
