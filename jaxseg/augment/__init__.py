"""Augmentation and normalisation on the device, inside the compiled step.

`data.augment` names what is done; the rest costs nothing. Whatever the order in the
config, an image goes through

    crop, scale, shear, rotate, translate, hflip, vflip, rot90, transpose
    one of elastic, grid, optical
    brightness, contrast, gamma, gain, color, blur, noise, jpeg, dropout
    one of mixup, cutmix (classifiers only)

Each is done to a sample with its probability p; of 'one of' at most one, so their p sum
to at most 1. hflip, vflip, rot90 and transpose alone move pixels exactly. With any
other map all are composed, and image and mask are sampled once, together (`resample`).
Arrays keep their dtypes: the image is rounded to uint8 after its own changes, and once
more after it was mixed.

The random numbers of a sample come from (seed, step, `index`), not from its place in
the batch: the same on any number of devices, after a resume and in any order. The index
is the position in the whole set or, of a random window (`data.crop`), its number in the
epoch. A sample that comes twice in a batch is changed differently each time. What else
is named does not change the numbers of an augmentation.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.augment.geometry import DISTORTIONS, LINEAR, MOVES, compose
from jaxseg.augment.mixing import MIXES, partners
from jaxseg.augment.normalize import make_normalize
from jaxseg.augment.photometry import PHOTOMETRY
from jaxseg.augment.resample import Pixels, move, places, resample
from jaxseg.augment.shrink import shrink
from jaxseg.errors import InputError
from jaxseg.types import Array, Batch

__all__ = [
    "AUGMENTS",
    "MOVES",
    "make_augment",
    "make_normalize",
    "moving",
    "refuse_misfits",
    "shrink",
]

AUGMENTS = {**LINEAR, **MOVES, **DISTORTIONS, **PHOTOMETRY, **MIXES}

# Rows of `Draws`. Another order makes other trainings.
STREAMS = {
    name: row for row, name in enumerate((*AUGMENTS, "distortion", "mix", "partner"))
}

# What moves with the image; targets do in flips and quarter turns only.
PIXELS = ("image", "mask", "seg_target", "seg_weight")

Named = Mapping[str, Mapping[str, Any]]  # name -> `p` and the keys of its function


class Draws(NamedTuple):
    """The random numbers of a sample, a row for each of `STREAMS`.

    Drawn all at once: with a generator for each the step would compile for seconds.
    """

    coins: Array  # [S] float32, uniform in [0, 1)
    keys: Array  # [S]


class Change(NamedTuple):
    """One augmentation of a config."""

    row: int  # of Draws
    p: float
    function: Callable  # with the keys of the config bound


Changes = dict[str, Change]


def make_augment(named: Named) -> Callable[[Array, Batch], Batch]:
    """The random changes that a config names.

    Args:
      named: `data.augment` of a config; {} and a p of 0 change nothing.

    Returns:
      `augment(key, batch) -> batch` for a batch with `index`; the key is that of the
      step. With mixup or cutmix the batch gets `other_label` and `label_share`.
    """
    chosen = {name: dict(group) for name, group in named.items() if group["p"] > 0}
    changes = {
        name: Change(STREAMS[name], group.pop("p"), partial(AUGMENTS[name], **group))
        for name, group in chosen.items()
    }

    def augment(key: Array, batch: Batch) -> Batch:
        if not changes:
            return batch
        draws = _draw(key, batch["index"])
        pixels = {name: batch[name] for name in PIXELS if name in batch}
        batch = {**batch, **jax.vmap(partial(_change_sample, changes))(draws, pixels)}
        return _mix(changes, draws, batch) if _of(MIXES, changes) else batch

    return augment


def refuse_misfits(
    named: Named, *, image_size: tuple[int, int], channels: int, task: str
) -> None:
    """What a single key cannot know.

    Raises:
      InputError: quarter turns of oblong images, colours of grey ones, probabilities
        that sum to more than 1, or mixed images for a task with masks.
    """
    likely = {name: group["p"] for name, group in named.items() if group["p"] > 0}

    def refuse(name: str, expected: str, found: str, p: float = 0.0) -> None:
        raise InputError(expected, found, f"--config.data.augment.{name}.p={p:g}")

    for name in ("rot90", "transpose"):
        if name in likely and image_size[0] != image_size[1]:
            found = f"config.data.image_size={image_size}"
            refuse(name, f"a square image size for {name}", found)
    if "color" in likely and channels != 3:
        found = f"config.data.channels={channels}"
        refuse("color", "images of three channels for color", found)
    for name in MIXES:
        if name in likely and task != "classification":
            expected = f"config.task.name=classification for {name}; it mixes no masks"
            refuse(name, expected, f"config.task.name={task}")
    for family in (DISTORTIONS, MIXES):
        present = {name: likely[name] for name in family if name in likely}
        excess = math.fsum(present.values()) - 1
        if excess > 1e-9:
            listed = ", ".join(f"{name}.p={p:g}" for name, p in present.items())
            name = max(present, key=present.get)
            expected = f"probabilities of {', '.join(family)} that sum to at most 1"
            found = f"{listed}, of which at most one is done to a sample"
            refuse(name, expected, found, max(present[name] - excess, 0.0))


def moving(named: Named) -> list[str]:
    """Names of the augmentations that move pixels."""
    movers = {**LINEAR, **MOVES, **DISTORTIONS}
    return [name for name, group in named.items() if name in movers and group["p"] > 0]


def _draw(key: Array, index: Array) -> Draws:
    """[N, S] each: from the sample, and how often it came before in this batch."""
    earlier = jnp.tril(index[:, None] == index[None, :], -1).sum(axis=1)

    def draw_sample(sample, repeat):
        own_key = jax.random.fold_in(jax.random.fold_in(key, sample), repeat)
        keys = jax.random.split(own_key, len(STREAMS) + 1)
        return Draws(jax.random.uniform(keys[-1], (len(STREAMS),)), keys[:-1])

    return jax.vmap(draw_sample)(index, earlier)


def _of(family: Mapping[str, Callable], changes: Changes) -> list[Change]:
    """The changes of a family, in its order."""
    return [changes[name] for name in family if name in changes]


def _pick(family: Mapping[str, Callable], changes: Changes, coin: Array):
    """Pairs (whether this is the one that is done, change) of a family."""
    picked = _of(family, changes)
    ends = np.cumsum([0.0, *(change.p for change in picked)])
    return [
        ((ends[k] <= coin) & (coin < ends[k + 1]), change)
        for k, change in enumerate(picked)
    ]


def _change_sample(changes: Changes, draws: Draws, pixels: Pixels) -> Pixels:
    """One sample, moved and recoloured; dtypes stay."""
    size = pixels["image"].shape[:2]
    moves = frozenset(changes.keys() & MOVES.keys())
    if changes.keys() & (LINEAR.keys() | DISTORTIONS.keys()):
        matrix, shift = _linear(changes, draws, size), _distort(changes, draws, size)
        pixels = resample(pixels, *places(matrix, shift, size))
    elif moves:
        pixels = move(pixels, _linear(changes, draws, size), names=moves)
    image = pixels["image"]
    for change in _of(PHOTOMETRY, changes):
        changed = change.function(draws.keys[change.row], image.astype(jnp.float32))
        changed = jnp.clip(changed, 0, 255)
        image = jnp.where(draws.coins[change.row] < change.p, changed, image)
    return {**pixels, "image": _to_uint8(image)}


def _linear(changes: Changes, draws: Draws, size: tuple[int, int]) -> Array:
    """[3, 3] of everything but the distortions."""
    matrices = []
    for change in _of({**LINEAR, **MOVES}, changes):
        matrix = change.function(draws.keys[change.row], size)
        done = draws.coins[change.row] < change.p
        matrices.append(jnp.where(done, matrix, jnp.eye(3)))
    return compose(matrices)


def _distort(
    changes: Changes, draws: Draws, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Rows and columns to add before the linear map, by at most one distortion."""
    shift_y, shift_x = jnp.zeros((1, 1)), jnp.zeros((1, 1))
    for done, change in _pick(DISTORTIONS, changes, draws.coins[STREAMS["distortion"]]):
        y, x = change.function(draws.keys[change.row], size)
        shift_y, shift_x = jnp.where(done, y, shift_y), jnp.where(done, x, shift_x)
    return shift_y, shift_x


def _mix(changes: Changes, draws: Draws, batch: Batch) -> Batch:
    """Every sample with another one of the batch."""

    def mix_one(draws, image, other):
        image, other = image.astype(jnp.float32), other.astype(jnp.float32)
        mixed, share = image, jnp.ones(())
        for done, change in _pick(MIXES, changes, draws.coins[STREAMS["mix"]]):
            new, new_share = change.function(draws.keys[change.row], image, other)
            mixed = jnp.where(done, new, mixed)
            share = jnp.where(done, new_share, share)
        return _to_uint8(mixed), share

    other = partners(draws.coins[:, STREAMS["partner"]])
    image, share = jax.vmap(mix_one)(draws, batch["image"], batch["image"][other])
    mixed = {"image": image, "other_label": batch["label"][other], "label_share": share}
    return {**batch, **mixed}


def _to_uint8(image: Array) -> Array:
    """Rounded, half up; uint8 is left alone."""
    if image.dtype == jnp.uint8:
        return image
    return jnp.floor(jnp.clip(image, 0, 255) + 0.5).astype(jnp.uint8)
