"""Schedules, the update rule, and the learning rate that drops on a plateau."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ReduceLROnPlateauState, reduce_on_plateau

from jaxseg.config import Optim, Part, Plateau
from jaxseg.types import Array

StepAt = Callable[[float], int]
"""Steps before a moment of the training, in epochs."""


def make_schedule(
    optim: Optim, *, step_at: StepAt, epochs: int
) -> Callable[[Array], Array]:
    """Learning rate as a function of the step, before any plateau.

    Linear warm-up from 0 over `warmup_epochs`; then constant, a half cosine to 0 at the
    last step, or `decay_factor` at each of the `milestones` (epochs).
    """
    warmup, total = step_at(optim.warmup_epochs), step_at(epochs)
    if optim.schedule == "cosine":
        main = optax.cosine_decay_schedule(optim.learning_rate, max(total - warmup, 1))
    elif optim.schedule == "step":
        steps = [step_at(epoch) - warmup for epoch in optim.milestones]
        main = optax.piecewise_constant_schedule(
            optim.learning_rate, dict.fromkeys(steps, optim.decay_factor)
        )
    else:
        main = optax.constant_schedule(optim.learning_rate)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, optim.learning_rate, warmup)
    return optax.join_schedules([ramp, main], [warmup])


def make_optimizer(
    optim: Optim, schedule: Callable[[Array], Array], *, step_at: StepAt
) -> optax.GradientTransformation:
    """The optax chain: clip, precondition, decay, scale by the schedule.

    `adam` adds the decay to the gradient (L2), `adamw` and `sgd` to the update
    (decoupled). Norms, biases and other vectors are never decayed. Each of
    `optim.parts` has its own multiple of the schedule, 0 until its first epoch; only
    weights rest until then: batch-norm statistics go on following the images.
    """
    decay = optax.add_decayed_weights(optim.weight_decay, mask=decayed)
    chain = []
    if optim.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(optim.clip_norm))
    if optim.name == "sgd":
        chain += [optax.trace(optim.momentum)] if optim.momentum else []
    if optim.name == "adam" and optim.weight_decay:
        chain.append(decay)
    if optim.name in ("adam", "adamw"):
        chain.append(optax.scale_by_adam())
    if optim.name in ("adamw", "sgd") and optim.weight_decay:
        chain.append(decay)
    if not optim.parts:
        return optax.chain(*chain, optax.scale_by_learning_rate(schedule))
    whole = Part(rate=1.0, from_epoch=0)
    scales = {
        name: optax.scale_by_learning_rate(
            _part_schedule(schedule, part, step_at(part.from_epoch))
        )
        for name, part in {"": whole, **optim.parts}.items()
    }
    return optax.chain(*chain, optax.partition(scales, partial(_labels, optim.parts)))


def detach_frozen(params, parts: Mapping[str, Part]):
    """Parameters of which those that never train cost no backward pass."""

    def detach(path, leaf):
        return jax.lax.stop_gradient(leaf) if is_frozen(_name(path), parts) else leaf

    return jax.tree.map_with_path(detach, params)


def is_frozen(name: str, parts: Mapping[str, Part]) -> bool:
    """Whether a parameter, e.g. 'encoder/stem/norm/scale', never trains."""
    part = _part_of(name, parts)
    return bool(part) and not parts[part].rate


def unknown_parts(params, parts: Mapping[str, Part]) -> list[str]:
    """Names in `parts` that no parameter begins with."""
    used = set(jax.tree.leaves(_labels(parts, params)))
    return [name for name in parts if name not in used]


def _part_schedule(schedule, part: Part, first_step: int):
    def scaled(step):
        return jnp.where(step >= first_step, part.rate * schedule(step), 0.0)

    return scaled


def _labels(parts: Iterable[str], params):
    """The part that every parameter belongs to, '' for the rest."""
    return jax.tree.map_with_path(lambda path, _: _part_of(_name(path), parts), params)


def _part_of(name: str, parts: Iterable[str]) -> str:
    return max(filter(name.startswith, parts), key=len, default="")


def _name(path: tuple) -> str:
    return "/".join(entry.key for entry in path)


def decayed(params) -> dict:
    """True for the leaves that weight decay applies to: kernels, not vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def init_plateau() -> ReduceLROnPlateauState:
    """The state before any epoch: scale 1."""
    return reduce_on_plateau().init(jnp.zeros((), jnp.float32))


def advance_plateau(
    plateau: Plateau,
    state: ReduceLROnPlateauState,
    value: float,
    *,
    learning_rate: float,
    mode: str,
) -> ReduceLROnPlateauState:
    """Counts one epoch with the Keras rules; the new scale is `state.scale`.

    Improvement is `value < best - min_delta`, for mode 'max' of the negated value; the
    rate is multiplied by `factor` after `patience` epochs without it, then the next
    `cooldown` - 1 epochs are not counted: a cooldown of 1 is as one of 0. A metric that
    is not a number is never an improvement.

    Source: https://keras.io/api/callbacks/reduce_lr_on_plateau, run by
    `optax.contrib.reduce_on_plateau`, whose cooldown lasts one epoch longer and whose
    patience begins at 1.
    """
    smallest = float(jnp.finfo(jnp.float32).tiny)  # optax wants a positive tolerance
    transform = reduce_on_plateau(
        factor=plateau.factor,
        patience=max(plateau.patience, 1),
        rtol=0.0,
        atol=max(plateau.min_delta, smallest),
        cooldown=max(plateau.cooldown - 1, 0),
        min_scale=min(plateau.min_learning_rate / learning_rate, 1.0),
    )
    cost = value if mode == "min" else -value
    cost = cost if math.isfinite(cost) else math.inf
    _, state = transform.update(jnp.zeros(()), state, value=jnp.float32(cost))
    return state
