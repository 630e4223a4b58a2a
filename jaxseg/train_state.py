"""The state of training: arrays only, so that a checkpoint needs no code."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from optax.contrib import ReduceLROnPlateauState

from jaxseg import optim
from jaxseg.types import Array


@flax.struct.dataclass
class Ema:
    """Exponential moving average of the weights and of the batch-norm statistics."""

    variables: dict[str, Any]
    count: Array  # int32, updates so far


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes. No functions, no random keys.

    Attributes:
      step: int32, updates so far.
      params: the `params` collection.
      batch_stats: the `batch_stats` collection; {} for networks without batch norm.
      opt_state: of the optax chain.
      plateau: its `scale` multiplies the updates.
      ema: None when it is off.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: ReduceLROnPlateauState
    ema: Ema | None


def init_train_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    image_shape: tuple[int, int, int],
    seed: int,
    use_ema: bool,
) -> TrainState:
    """A state before the first step; pure, so it can be traced or evaluated by shape.

    Args:
      image_shape: (H, W, C).
    """
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(jax.random.key(seed), image, train=False)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    averaged = {"params": params, "batch_stats": batch_stats}
    copy = jax.tree.map(jnp.copy, averaged)  # donated buffers must not be shared
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        plateau=optim.init_plateau(),
        ema=Ema(copy, jnp.zeros((), jnp.int32)) if use_ema else None,
    )


def start_from(state: TrainState, loaded: dict[str, Any]) -> TrainState:
    """The state with the loaded leaves in place of its own, in the average too.

    Args:
      loaded: arrays nested like {'params': …, 'batch_stats': …}, some of the leaves.
    """

    def merge(tree, part):
        if not isinstance(tree, dict):
            # A copy for each device: donated buffers must not be shared.
            return jax.make_array_from_callback(
                part.shape, tree.sharding, lambda _: jnp.array(part)
            )
        return tree | {name: merge(tree[name], part[name]) for name in part}

    def merged(variables):
        return merge(variables, loaded)

    variables = merged({"params": state.params, "batch_stats": state.batch_stats})
    ema = state.ema
    if ema is not None:
        ema = ema.replace(variables=merged(ema.variables))
    return state.replace(**variables, ema=ema)


def inference_variables(state: TrainState) -> dict[str, Any]:
    """What evaluation and export use: the moving average if there is one."""
    if state.ema is not None:
        return state.ema.variables
    return {"params": state.params, "batch_stats": state.batch_stats}


def update_ema(ema: Ema, params: Any, batch_stats: Any, decay: float) -> Ema:
    """average = d average + (1 - d) value, d = min(decay, (1 + n) / (10 + n)).

    n counts the updates: the first ones weigh more, so the average forgets the
    initialisation. Source: TensorFlow's ExponentialMovingAverage with `num_updates`.
    """
    n = ema.count.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + n) / (10.0 + n))
    values = {"params": params, "batch_stats": batch_stats}
    blended = jax.tree.map(lambda a, b: d * a + (1.0 - d) * b, ema.variables, values)
    return Ema(blended, ema.count + 1)
