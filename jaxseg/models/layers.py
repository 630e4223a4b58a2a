"""Building blocks of all networks: convolution, norm, activation.

Images are NHWC. `dtype` is the compute dtype; parameters and the statistics of norms
are float32 whatever it is.
"""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxseg import ops
from jaxseg.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": ops.relu,
    "elu": nn.elu,
    "linear": lambda x: x,
}

he_normal = nn.initializers.he_normal()
he_uniform = nn.initializers.he_uniform()
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

Border = int | Literal["tensorflow"] | None
"""Zeros around an image: so many on every side; None keeps the size at stride 1 (even
kernels pad one more after, as Keras does); 'tensorflow' gives ceil(size / stride), with
the odd zero after, so a strided kernel stands elsewhere than with kernel // 2."""


REMAT = {
    "norms": jax.checkpoint_policies.save_only_these_names("conv"),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
"""What stays of the inside of a block in memory for the gradient."""


def call_block(block: nn.Module, x: Array, *, remat: str, **options):
    """`block(x, **options)`, of which the gradient computes again what is not kept.

    Args:
      remat: 'none' keeps everything; 'norms' the outputs of convolutions, so norms and
        activations are done twice; 'blocks' the input only, so all is done twice.
    """
    if remat == "none":
        return block(x, **options)
    lifted = nn.remat(lambda block, x: block(x, **options), policy=REMAT[remat])
    return lifted(block, x)


class Conv(nn.Module):
    """Convolution [N, H, W, C] -> [N, h, w, channels].

    Attributes:
      channels: output channels.
      kernel: side in pixels.
      stride: pixels.
      padding: see `Border`.
      use_bias: adds a bias, initially 0.
      dtype: of the computation.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: Border = None
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = he_normal

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = ops.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=_border(self.padding, x.shape[1:3], self.kernel, self.stride),
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.channels,))
            x = x + _per_channel(bias.astype(self.dtype))
        return checkpoint_name(x, "conv")


class DepthwiseConv(nn.Module):
    """A kernel of its own for every channel: [N, H, W, C] -> [N, h, w, C], no bias.

    Attributes: as of `Conv`.
    """

    kernel: int
    stride: int = 1
    padding: Border = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.normal(math.sqrt(2.0) / self.kernel)  # He, fan-out
        shape = (self.kernel, self.kernel, x.shape[-1])
        kernel = self.param("kernel", init, shape, jnp.float32)
        x = ops.depthwise_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=_border(self.padding, x.shape[1:3], self.kernel, self.stride),
        )
        return checkpoint_name(x, "conv")


class ConvTranspose2x2(nn.Module):
    """Doubles the size: [N, H, W, C] -> [N, 2H, 2W, channels], with bias."""

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (2, 2, x.shape[-1], self.channels)
        init = nn.initializers.variance_scaling(
            2.0, "fan_in", "normal", in_axis=2, out_axis=3, batch_axis=(0, 1)
        )
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x = ops.conv_transpose_2x2(x.astype(self.dtype), kernel.astype(self.dtype))
        return checkpoint_name(x + _per_channel(bias.astype(self.dtype)), "conv")


class GhostBatchNorm(nn.Module):
    """Batch norm with statistics over fixed groups of `bn_group` images.

    y = scale (x - mean) / sqrt(var + eps) + bias, with mean and biased variance over
    one group of images and all its pixels. The running averages move by the mean of the
    groups' means and unbiased variances. A result depends on the config only: groups
    are consecutive images of the global batch, however many devices share it.

    Attributes:
      bn_group: images per group; None is the whole batch.
      momentum: weight of the old running value (PyTorch's momentum 0.1 is 0.9 here).
      epsilon: added to the variance.
      scale_init: e.g. zeros for the last norm of a residual block.

    Source: https://arxiv.org/abs/1502.03167; groups https://arxiv.org/abs/1705.08741,
    algorithm 1. Differs: running averages over groups move once, not once per group.
    """

    bn_group: int | None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        old_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        old_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            mean, var = _per_channel(old_mean.value), _per_channel(old_var.value)
            return _affine(x, mean, var, scale, bias, self.epsilon)
        size = self.bn_group or x.shape[0]
        groups = x.reshape(x.shape[0] // size, -1, *x.shape[1:])  # [G, g, H, W, C]
        wide = groups.astype(jnp.float32)
        pixels = (1, 2, 3)
        mean = wide.mean(pixels, keepdims=True)  # [G, 1, 1, 1, C]
        var = jnp.maximum((wide**2).mean(pixels, keepdims=True) - mean**2, 0.0)
        if not self.is_initializing():
            count = size * x.shape[1] * x.shape[2]
            over_groups = (0, *pixels)
            unbiased = var.mean(over_groups) * (count / max(count - 1, 1))
            new_mean = mean.mean(over_groups)
            old_mean.value = _blend(old_mean.value, new_mean, self.momentum)
            old_var.value = _blend(old_var.value, unbiased, self.momentum)
        return _affine(groups, mean, var, scale, bias, self.epsilon).reshape(x.shape)


def resting_norms(rests: Callable[[str], bool]):
    """A context in which some `GhostBatchNorm`s use and keep the statistics they have.

    Args:
      rests: whether the norm with this parameter does, e.g. 'encoder/stem/norm/scale'.
    """

    def call(method, args, options, context):
        module = context.module
        if isinstance(module, GhostBatchNorm) and context.method_name == "__call__":
            name = "/".join((*module.path, "scale"))
            options = options | {"train": options["train"] and not rests(name)}
        return method(*args, **options)

    return nn.intercept_methods(call)


class ConvNorm(nn.Module):
    """Convolution without bias, and batch norm.

    Attributes:
      conv: makes the convolution, given its name.
      norm: makes the batch norm, given its name.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        return self.norm(name="norm")(self.conv(name="conv")(x), train=train)


class GroupNorm(nn.Module):
    """Group norm of groups of channels, independent of the batch.

    Source: https://arxiv.org/abs/1803.08494; at most 32 groups, fewer for few channels.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        num_groups = next(g for g in (32, 16, 8, 4, 2, 1) if x.shape[-1] % g == 0)
        return nn.GroupNorm(num_groups, epsilon=1e-5, dtype=self.dtype)(x)


def _affine(x, mean, var, scale, bias, epsilon) -> Array:
    """(x - mean) / sqrt(var + eps) * scale + bias as one multiply-add in float32."""
    shape = (1,) * (x.ndim - 1) + scale.shape
    multiplier = scale.reshape(shape) * jax.lax.rsqrt(var + epsilon)
    offset = bias.reshape(shape) - mean * multiplier
    return (x.astype(jnp.float32) * multiplier + offset).astype(x.dtype)


def _border(padding: Border, size, kernel: int, stride: int) -> ops.Padding:
    if padding is None:
        return ops.same_padding(kernel)
    if padding != "tensorflow":
        return ((padding, padding),) * 2
    totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in size]
    return tuple((total // 2, total - total // 2) for total in totals)


def _per_channel(vector: Array) -> Array:
    """[C] as [1, 1, 1, C]: rank promotion is never left to chance."""
    return vector.reshape(1, 1, 1, -1)


def _blend(old: Array, new: Array, momentum: float) -> Array:
    return momentum * old + (1.0 - momentum) * new
