"""Schemas read off signatures: which keys a function takes; whether a value fits."""

import ast
import dataclasses
import difflib
import fnmatch
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

# Bounds of numbers, of each number of a tuple; None is within all of them. `*` stands
# for any name.
POSITIVE = {
    "train.batch_size",
    "train.epochs",
    "train.early_stop",
    "train.accumulate",
    "train.log_every",
    "train.save_every",
    "train.steps_per_call",
    "optim.learning_rate",
    "optim.decay_factor",
    "optim.clip_norm",
    "model.widths",
    "model.decoder_widths",
    "model.bn_group",
    "data.image_size",
    "task.dilate",
    "task.weight_max",
    "data.std",
    "loss.cldice.iterations",
    "data.mm_per_pixel",
    "data.crop.per_image",
    "data.class_id",
    "data.num_positives",
    "data.mask_size",
    "data.augment.crop.share",
    "data.augment.*.factor",
    "data.augment.*.alpha",
    "data.augment.gamma.exponent",
    "data.augment.elastic.sigma",
    "data.augment.grid.steps",
    "data.augment.dropout.holes",
}
NOT_NEGATIVE = {
    "seed",
    "train.profile_steps",
    "data.split_seed",
    "data.workers",
    "data.num_segmented",
    "train.max_skipped",
    "task.weight_power",
    "task.delta",
    "task.mask_weight",
    "task.image_weight",
    "loss.*.weight",
    "loss.*.pos_weight",
    "loss.*.class_weights",
    "loss.*.smooth",
    "loss.*.gamma",
    "loss.focal_constant.alpha",
    "loss.tversky.alpha",
    "loss.tversky.beta",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "optim.milestones",
    "optim.plateau.patience",
    "optim.plateau.min_delta",
    "optim.plateau.cooldown",
    "optim.plateau.min_learning_rate",
    "data.augment.*.degrees",
    "data.augment.*.std",
    "data.augment.*.shift",
    "data.augment.optical.limit",
    "data.augment.blur.sigma",
    "data.augment.color.*",
}
SHARES = {
    "task.min_recall",
    "model.dropout",
    "model.drop_path",
    "data.crop.foreground_share",
    "data.max_blank",
    "data.augment.*.p",
    "data.augment.*.share",
    "data.augment.gain.per_channel",
    "data.augment.brightness.shift",
    "optim.momentum",
    "train.ema_decay",
    "loss.focal.alpha",
}
# What else there is: (expected, smallest, largest) by key.
RANGES = {
    "train.preview": ("0 to 32", 0, 32),
    "data.augment.scale.factor": ("at least 0.5, or pixels are skipped", 0.5, math.inf),
    "data.augment.shear.degrees": ("0 to 45", 0, 45),
    "data.augment.grid.limit": ("0 to 0.9, so that cells keep a width", 0, 0.9),
    "data.augment.jpeg.quality": ("1 to 100", 1, 100),
}
# Pairs (lowest, highest).
ORDERED = {
    "train.profile_steps",
    "data.augment.crop.share",
    "data.augment.dropout.share",
    "data.augment.*.factor",
    "data.augment.gamma.exponent",
    "data.augment.color.saturation",
    "data.augment.blur.sigma",
    "data.augment.noise.std",
    "data.augment.jpeg.quality",
}


def keys_of(function: Callable) -> dict[str, Any]:
    """The config keys of a function: its keyword-only parameters and their types."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def takes_loss(task: Callable) -> bool:
    """Whether a task learns by the losses of the config; else it has its own."""
    return "loss" in inspect.signature(task).parameters


def matches(value: Any, hint: Any) -> bool:
    """Whether a config value has the annotated type; an int is a float, a list a tuple.

    >>> matches((2, 3), tuple[int, int]), matches(True, int), matches(None, int | None)
    (True, False, True)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(matches(value, option) for option in arguments)
    if origin is Literal:
        return any(
            type(value) is type(option) and value == option for option in arguments
        )
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        if arguments[-1] is Ellipsis:
            return all(matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(matches, value, arguments))
    if hint is None or hint is type(None):
        return value is None
    if hint is Any:
        return True
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, hint)
    accepted = (float, int) if hint is float else hint
    return isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))


def out_of_bounds(flat: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers of a config, e.g. of `flatten`."""
    problems = []
    for key, value in flat.items():
        numbers = value if isinstance(value, Sequence) else (value,)
        numbers = [n for n in numbers if isinstance(n, int | float)]
        for expected, keys, holds in (
            ("a finite number", "*", all(map(math.isfinite, numbers))),
            ("more than 0", POSITIVE, all(n > 0 for n in numbers)),
            ("at least 0", NOT_NEGATIVE, all(n >= 0 for n in numbers)),
            ("0 to 1", SHARES, all(0 <= n <= 1 for n in numbers)),
            *(
                (expected, [name], all(low <= n <= high for n in numbers))
                for name, (expected, low, high) in RANGES.items()
            ),
            ("the smaller number first", ORDERED, numbers == sorted(numbers)),
        ):
            if not holds and any(fnmatch.fnmatchcase(key, name) for name in keys):
                problems.append(f"{key}: expected {expected}, found {value}")
                break
    return problems


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; leaves are everything that is no mapping."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_literal(text: str) -> Any:
    """A Python literal if it reads as one, else the text; true, false, none, nan too.

    >>> parse_literal("(96, 96)"), parse_literal("none"), parse_literal("3e-4")
    ((96, 96), None, 0.0003)
    """
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return float(text) if text.lower() in ("nan", "inf", "-inf") else text


def freeze(value: Any) -> Any:
    """Lists become tuples, as a frozen dataclass wants them."""
    if isinstance(value, list | tuple):
        return tuple(map(freeze, value))
    return dict(value) if isinstance(value, Mapping) else value


def type_name(hint: Any) -> str:
    """An annotation as a person would say it."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def nearest(name: str, choices: Iterable[str]) -> str:
    """'; did you mean …?' with the most similar choice, or nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""
