"""From stored pixels to what the network reads."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxseg.types import Batch


def make_normalize(
    mean: Sequence[float], std: Sequence[float]
) -> Callable[[Batch], Batch]:
    """(image / 255 - mean) / std as float32, per channel; the mask becomes int32."""
    multiplier = 1.0 / (255.0 * jnp.asarray(std, jnp.float32))
    offset = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    shape = (1, 1, 1, len(mean))
    multiplier, offset = multiplier.reshape(shape), offset.reshape(shape)

    def normalize(batch: Batch) -> Batch:
        batch = dict(batch)
        batch["image"] = batch["image"].astype(jnp.float32) * multiplier - offset
        if "mask" in batch:
            batch["mask"] = batch["mask"].astype(jnp.int32)
        return batch

    return normalize
