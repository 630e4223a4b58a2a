"""SegDecNet: where the defect is, and from that whether there is one.

Source: J. Bozic, D. Tabernik, D. Skocaj, Mixed supervision for surface-defect
detection, Computers in Industry 2021, https://arxiv.org/abs/2104.06064. Differs from
the paper as the authors' published runs do: without the second 5x5 convolution before
the first pooling (`variant='paper'` has it), and the norm divides by the root of the
deviation. Differs from those runs: colours are in the order red, green, blue, there
reversed; `adjust_gradient=False` lets the decision change the segmentation from the
first epoch on, there from the eleventh.
"""

import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.errors import InputError
from jaxseg.models.layers import Conv, call_block
from jaxseg.types import Array, Outputs

STRIDE = 8
DECISION_STRIDE = 64
"""Pixels of the image for one of the decision's last map."""

xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
"""Not cut off at two deviations, as `glorot_normal` is."""


class FeatureNorm(nn.Module):
    """scale (x - mean) / sqrt(std + 0.001) + bias, per sample and channel.

    Mean and unbiased deviation (divided by n - 1) are over the pixels of [N, H, W, C];
    note the root of the deviation. Computed in float32. A constant channel, as a dead
    ReLU leaves behind, has the deviation 0 with the gradient 0, as in PyTorch.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape).reshape(1, 1, 1, -1)
        bias = self.param("bias", nn.initializers.zeros, shape).reshape(1, 1, 1, -1)
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=(1, 2), keepdims=True)
        num_pixels = x.shape[1] * x.shape[2]
        var = (centred**2).sum(axis=(1, 2), keepdims=True) / (num_pixels - 1)
        varies = var > 0
        std = jnp.where(varies, jnp.sqrt(jnp.where(varies, var, 1.0)), 0.0)
        y = scale * centred * jax.lax.rsqrt(std + 0.001) + bias
        return y.astype(self.dtype)


class ConvFeature(nn.Module):
    """Convolution without bias, `FeatureNorm`, ReLU."""

    channels: int
    kernel: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(
            self.channels,
            self.kernel,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=xavier_normal,
            name="conv",
        )(x)
        return ops.relu(FeatureNorm(self.dtype, name="norm")(x))


class SegDecNet(nn.Module):
    """`seg_map` [N, H/8, W/8, 1] and, from it, `cls_logits` [N, 1].

    `seg_logits` [N, H, W, 1] are the map enlarged bilinearly, for metrics and pictures.

    Nothing couples the samples of a batch. For H and W see `check_size`.

    Attributes:
      adjust_gradient: the decision never changes the segmentation.
      variant: 'released', or 'paper' with one more layer.
      dtype: of the convolutions.
      remat: see `call_block`.
    """

    adjust_gradient: bool
    variant: str
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    stride = STRIDE
    is_local = False  # FeatureNorm takes its statistics over the whole image

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        del train  # the same in both
        check_size(image.shape[1:3])
        volume = self._volume(image)  # [N, H/8, W/8, 1024]
        with jax.named_scope("segmentation"):
            x = Conv(
                1,
                1,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=xavier_normal,
                name="mask_conv",
            )(volume)
            seg_map = FeatureNorm(name="mask_norm")(x)  # [N, H/8, W/8, 1] float32
        return {
            "seg_map": seg_map,
            "seg_logits": enlarge(seg_map),
            "cls_logits": self._decide(volume, seg_map),
        }

    def _volume(self, image: Array) -> Array:
        def block(channels, kernel, name):
            layer = ConvFeature(channels, kernel, self.dtype, name=name)
            return functools.partial(call_block, layer, remat=self.remat)

        x = block(32, 5, name="volume_0_0")(image.astype(self.dtype))
        if self.variant == "paper":
            x = block(32, 5, name="volume_0_1")(x)
        for level, num_layers in enumerate((3, 4), start=1):
            x = ops.max_pool(x, 2, 2)
            for layer in range(num_layers):
                x = block(64, 5, name=f"volume_{level}_{layer}")(x)
        return block(1024, 15, name="volume_3_0")(ops.max_pool(x, 2, 2))

    def _decide(self, volume: Array, seg_map: Array) -> Array:
        if self.adjust_gradient:
            volume, seg_map = jax.lax.stop_gradient((volume, seg_map))
        x = jnp.concatenate([volume, seg_map.astype(self.dtype)], axis=-1)
        for layer, channels in enumerate((8, 16, 32)):
            x = ops.max_pool(x, 2, 2)  # odd sizes are floored
            x = ConvFeature(channels, 5, self.dtype, name=f"decision_{layer}")(x)
        x = x.astype(jnp.float32)
        features = [
            ops.global_max(x),
            x.mean(axis=(1, 2)),
            ops.global_max(seg_map),
            seg_map.mean(axis=(1, 2)),
        ]
        uniform = _uniform(1 / 66**0.5)
        dense = nn.Dense(1, kernel_init=uniform, bias_init=uniform, name="decision")
        return dense(jnp.concatenate(features, axis=-1))  # [N, 66] -> [N, 1]


def enlarge(seg_map: Array) -> Array:
    """[N, h, w, 1] -> [N, 8h, 8w, 1], linear between the middles of the windows.

    Value k is learnt from a window centred on pixel 8k, not on the middle of a block of
    8, so the map is moved by half a block (and half a pixel, which is left).
    """
    x = seg_map
    for axis in (1, 2):
        last = jax.lax.slice_in_dim(x, -1, None, axis=axis)
        x = jnp.concatenate([x, last], axis=axis)
    x, half = ops.upsample_bilinear(x, STRIDE), STRIDE // 2
    for axis in (1, 2):
        x = jax.lax.slice_in_dim(x, half, -half, axis=axis)
    return x


def check_size(size: tuple[int, int]) -> None:
    """Refuses sides that are no multiples of 8, or too small.

    The decision's last map needs two pixels, or `FeatureNorm` has no deviation.

    Raises:
      InputError: with a size that fits.
    """
    num_pixels = math.prod(side // DECISION_STRIDE for side in size)
    if num_pixels > 1 and not any(side % STRIDE for side in size):
        return
    fitting = [max(-(-side // STRIDE) * STRIDE, DECISION_STRIDE) for side in size]
    if max(fitting) < 2 * DECISION_STRIDE:
        fitting[fitting.index(max(fitting))] = 2 * DECISION_STRIDE
    raise InputError(
        f"an image size (H, W) of multiples of {STRIDE}, both at least "
        f"{DECISION_STRIDE} and one {2 * DECISION_STRIDE}: a smaller decision map has "
        "a single pixel, whose deviation is undefined",
        f"{tuple(size)}",
        f'--config.data.image_size="{tuple(fitting)}"',
    )


def segdecnet(
    num_outputs: int,
    dtype: jnp.dtype,
    *,
    adjust_gradient: bool,
    variant: Literal["released", "paper"],
) -> SegDecNet:
    """The SegDecNet of a config.

    Raises:
      InputError: more than two classes.
    """
    if num_outputs != 1:
        raise InputError(
            "two classes for a segdecnet: the background and the defect",
            f"{num_outputs} classes",
            "--config.model.name=encoder_unet with its keys",
        )
    return SegDecNet(adjust_gradient, variant, dtype)


def _uniform(limit: float):
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
