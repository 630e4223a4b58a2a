"""Heads: features to float32 logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.errors import InputError
from jaxseg.models.layers import Conv
from jaxseg.types import Array


class MaskHead(nn.Module):
    """[N, H, W, D] -> logits per pixel [N, H, W, num_outputs] float32.

    Computed in the dtype of the features.
    """

    num_outputs: int
    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        logits = Conv(
            self.num_outputs,
            self.kernel,
            dtype=x.dtype,
            kernel_init=nn.initializers.glorot_uniform(),
        )(x)
        return logits.astype(jnp.float32)


class ImageHead(nn.Module):
    """[N, h, w, D] -> logits per image [N, num_outputs] float32, by the mean.

    Attributes:
      dropout: rate of the mean.
    """

    num_outputs: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        pooled = x.astype(jnp.float32).mean(axis=(1, 2))  # [N, D]
        pooled = nn.Dropout(self.dropout)(pooled, deterministic=not train)
        return nn.Dense(self.num_outputs)(pooled)


class DecisionHead(nn.Module):
    """Features and the logits of the mask -> one logit per image [N, 1] float32.

    A linear function of max F, mean F, max S and mean S over the pixels, in this order:
    the largest logit of the mask alone tells most images apart.

    Attributes:
      adjust_gradient: the decision never changes the features and the mask.

    Source: the decision network of https://arxiv.org/abs/2104.06064. Differs: without
    its convolutions; the features of an encoder are deep enough.
    """

    adjust_gradient: bool

    @nn.compact
    def __call__(self, features: Array, seg_logits: Array) -> Array:
        maps = (features.astype(jnp.float32), seg_logits)
        if self.adjust_gradient:
            maps = jax.lax.stop_gradient(maps)
        pooled = [pool for x in maps for pool in (ops.global_max(x), x.mean((1, 2)))]
        return nn.Dense(1)(jnp.concatenate(pooled, axis=-1))  # [N, 2D + 2K] -> [N, 1]


def check_stride(size: tuple[int, int], stride: int) -> None:
    """Refuses an image size that the network cannot halve often enough.

    Raises:
      InputError: with the next larger size that fits.
    """
    if any(side % stride for side in size):
        fitting = tuple(-(-side // stride) * stride for side in size)
        raise InputError(
            f"an image size (H, W) divisible by {stride}, the stride of this network",
            f"{tuple(size)}",
            f'--config.data.image_size="{fitting}"',
        )
