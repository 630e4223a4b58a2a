"""The pure steps: train, evaluate, judge, predict. Compiled elsewhere (`parallel`)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.config import Part
from jaxseg.models.layers import resting_norms
from jaxseg.optim import detach_frozen, is_frozen
from jaxseg.tasks import Task
from jaxseg.train_state import TrainState, update_ema
from jaxseg.types import Array, Batch, Outputs, PerExample

Logs = dict[str, Array]


def split_key(seed: int, step: Array) -> tuple[Array, Array]:
    """The keys of a step for augmentation and for dropout."""
    key_augment, key_dropout = jax.random.split(
        jax.random.fold_in(jax.random.key(seed), step)
    )
    return key_augment, key_dropout


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    augment: Callable[[Array, Batch], Batch],
    normalize: Callable[[Batch], Batch],
    *,
    seed: int,
    accumulate: int,
    ema_decay: float | None,
    parts: Mapping[str, Part],
    reduction: str,
    progress: Callable[[Array], Array],
) -> Callable[[TrainState, Batch], tuple[TrainState, Logs]]:
    """Builds the update `(state, batch) -> (state, logs)`.

    The objective is the mean loss of the batch, or with `reduction` 'sum' the sum; the
    logs have the means of `Task.losses`. With `accumulate` micro-batches the gradients
    are averaged over them; images k, k + accumulate, k + 2 accumulate ... are the k-th,
    and batch norm sees one of them at a time. Where the loss or the gradient is not
    finite the step counts and changes nothing else, and `skipped` in the logs is true.

    Args:
      parts: those of `optim.make_optimizer`; where the rate is 0, batch norms use and
        keep the statistics that they start with.
      progress: step -> share of the training that was done before its epoch.
    """

    def objective(params, batch_stats, batch, key):
        params = detach_frozen(params, parts)
        batch = normalize(batch)  # here, so that only a micro-batch is ever float
        with resting_norms(partial(is_frozen, parts=parts)):
            outputs, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                batch["image"],
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
        logs = jax.tree.map(jnp.mean, task.losses(outputs, batch))
        return logs["loss"], (logs, updated.get("batch_stats", {}))

    gradient = jax.value_and_grad(objective, has_aux=True)
    differentiate = _make_differentiate(gradient, accumulate)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Logs]:
        key_augment, key_dropout = split_key(seed, state.step)
        batch = augment(key_augment, batch)
        num_images = batch["image"].shape[0]
        batch = {**batch, "progress": jnp.full(num_images, progress(state.step))}
        logs, batch_stats, grads = differentiate(state, batch, key_dropout)
        is_finite = jnp.isfinite(logs["loss"]) & jnp.isfinite(optax.tree.norm(grads))
        if reduction == "sum":
            grads = jax.tree.map(lambda g: num_images * g, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # Scaling finished updates scales decoupled weight decay with them, as a lower
        # learning rate would.
        updates = jax.tree.map(lambda u: state.plateau.scale * u, updates)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = update_ema(ema, params, batch_stats, ema_decay)
        updated = state.replace(
            params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
        )
        # By element, no branch: XLA can join it to the loops that write the update.
        kept = jax.tree.map(partial(jnp.where, is_finite), updated, state)
        return kept.replace(step=state.step + 1), {**logs, "skipped": ~is_finite}

    return train_step


def _make_differentiate(gradient: Callable, accumulate: int) -> Callable:
    """`(state, batch, key) -> (logs, batch_stats, grads)`, in micro-batches or not."""

    def whole_batch(state, batch, key):
        (_, (logs, batch_stats)), grads = gradient(
            state.params, state.batch_stats, batch, key
        )
        return logs, batch_stats, grads

    # Not of consecutive images, those of one device: each brings its part of each.
    def split(x):
        return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

    def in_parts(state, batch, key):
        parts = jax.tree.map(split, batch)

        def add(carry, inputs):
            batch_stats, grads = carry
            part, part_key = inputs
            (_, (logs, batch_stats)), part_grads = gradient(
                state.params, batch_stats, part, part_key
            )
            grads = jax.tree.map(jnp.add, grads, part_grads)
            return (batch_stats, grads), logs

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        keys = jax.random.split(key, accumulate)
        (batch_stats, grads), logs = jax.lax.scan(
            add, (state.batch_stats, zeros), (parts, keys)
        )
        grads = jax.tree.map(lambda g: g / accumulate, grads)
        return jax.tree.map(jnp.mean, logs), batch_stats, grads

    return whole_batch if accumulate == 1 else in_parts


def make_train_call(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Logs]],
    gather: Callable[[Batch, Batch], Batch] | None,
) -> Callable[[TrainState, Batch, Batch], tuple[TrainState, Logs]]:
    """Builds `(state, data, inputs) -> (state, logs)`, some steps in one program.

    Args:
      gather: `(data, inputs of one step) -> batch`; None where they are the batch.

    Returns:
      A function of `inputs` [K, N, ...] that makes K steps; its logs are [K]. The logs
      have `stop`, the mean of the rows of `stop` in the inputs: over all processes, in
      the same collective as the gradient.
    """

    def train_call(state: TrainState, data: Batch, inputs: Batch):
        def one_step(state, chosen):
            stop = jnp.mean(chosen["stop"], dtype=jnp.float32)
            batch = {name: x for name, x in chosen.items() if name != "stop"}
            state, logs = train_step(state, gather(data, batch) if gather else batch)
            return state, {**logs, "stop": stop}

        return jax.lax.scan(one_step, state, inputs)

    return train_call


def make_eval_step(
    model: nn.Module, task: Task, normalize: Callable[[Batch], Batch]
) -> Callable[[Any, Batch], PerExample]:
    """Builds `(variables, batch) -> per-example counts`, with `valid` among them."""

    def eval_step(variables, batch: Batch) -> PerExample:
        batch = normalize(batch)
        outputs = model.apply(variables, batch["image"], train=False)
        return _count(task, outputs, batch)

    return eval_step


def make_judge_step(
    model: nn.Module, task: Task, normalize: Callable[[Batch], Batch]
) -> Callable[[Any, Batch], tuple[PerExample, Outputs]]:
    """Builds `(variables, batch) -> (counts of the eval step, decided masks)`.

    For a task with masks. `best` [N, H, W] uint8 is the most probable class, `score`
    [N, H, W] float32 its probability; in a binary set `best` is 0 and the score is that
    of the foreground.
    """

    def judge_step(variables, batch: Batch) -> tuple[PerExample, Outputs]:
        batch = normalize(batch)
        outputs = model.apply(variables, batch["image"], train=False)
        probs = task.probabilities(outputs)["mask_probs"]
        best = probs.argmax(-1).astype(jnp.uint8)
        return _count(task, outputs, batch), {"best": best, "score": probs.max(-1)}

    return judge_step


def _count(task: Task, outputs: Outputs, batch: Batch) -> PerExample:
    return {
        "valid": batch["valid"],
        **task.losses(outputs, batch),
        **task.counts(outputs, batch),
    }


def make_predict_step(
    model: nn.Module, task: Task, normalize: Callable[[Batch], Batch]
) -> Callable[[Any, Batch], Outputs]:
    """Builds `(variables, batch) -> probabilities` of pixels and images."""

    def predict_step(variables, batch: Batch) -> Outputs:
        image = normalize({"image": batch["image"]})["image"]
        return task.probabilities(model.apply(variables, image, train=False))

    return predict_step
