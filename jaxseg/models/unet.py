"""The plain U-Net family, from configuration.

Source: https://arxiv.org/abs/1505.04597. Differs: zero padding keeps the size, so the
mask is as large as the image.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.errors import InputError
from jaxseg.models.heads import DecisionHead, MaskHead, check_stride
from jaxseg.models.layers import (
    ACTIVATIONS,
    Conv,
    ConvTranspose2x2,
    GhostBatchNorm,
    GroupNorm,
    call_block,
)
from jaxseg.types import Array, Outputs


class DoubleConv(nn.Module):
    """Conv 3x3, norm, activation, dropout; conv 3x3, norm, activation.

    A norm takes the place of the bias. [N, H, W, C] -> [N, H, W, channels].
    """

    channels: int
    norm: str
    bn_group: int | None
    activation: str
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        for layer in range(2):
            x = Conv(self.channels, use_bias=self.norm == "none", dtype=self.dtype)(x)
            if self.norm == "batch":
                x = GhostBatchNorm(self.bn_group, dtype=self.dtype)(x, train=train)
            elif self.norm == "group":
                x = GroupNorm(dtype=self.dtype)(x)
            x = ACTIVATIONS[self.activation](x)
            if layer == 0 and self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class UNet(nn.Module):
    """U-Net with one mask and, if wanted, one image decision.

    The sides of the image must be multiples of `2 ** (len(widths) - 1)`.

    Attributes:
      num_outputs: K of `seg_logits` [N, H, W, K] (1 for binary).
      widths: channels per level, full resolution first.
      norm: after every 3x3 convolution.
      bn_group: images per batch-norm group; None is the global batch.
      activation: after every 3x3 convolution; 'linear' leaves max-pool as the only
        non-linearity (the published coffee-leaf network).
      dropout: rate per level, between its two convolutions; the decoder mirrors it.
      decoder: 'transpose' (2x2, stride 2) or 'upsample' (nearest, then a 2x2
        convolution; the same number of parameters).
      head_kernel: side of the last convolution.
      image_head: adds `cls_logits` [N, 1] from the deepest features and the mask.
      adjust_gradient: the image head never changes the rest.
      dtype: of the computation.
      remat: see `call_block`.
    """

    num_outputs: int
    widths: tuple[int, ...]
    norm: str
    bn_group: int | None
    activation: str
    dropout: tuple[float, ...]
    decoder: str
    head_kernel: int
    image_head: bool
    adjust_gradient: bool
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @property
    def stride(self) -> int:
        return 2 ** (len(self.widths) - 1)

    @property
    def is_local(self) -> bool:
        """No output depends on the size of the image, only on what is near."""
        return self.norm != "group" and not self.image_head

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        check_stride(image.shape[1:3], self.stride)
        skips = []
        x = image.astype(self.dtype)
        for level in range(len(self.widths)):
            with jax.named_scope(f"encoder_{level}"):
                x = ops.max_pool(x, 2, 2) if level else x
                block = self._block(level, "encoder")
                x = call_block(block, x, train=train, remat=self.remat)
                skips.append(x)  # [N, H / 2^level, W / 2^level, widths[level]]
        for level in reversed(range(len(self.widths) - 1)):
            with jax.named_scope(f"decoder_{level}"):
                x = self._upsample(level, x)
                x = jnp.concatenate([skips[level], x], axis=-1)
                block = self._block(level, "decoder")
                x = call_block(block, x, train=train, remat=self.remat)
        mask_head = MaskHead(self.num_outputs, self.head_kernel, name="mask_head")
        outputs = {"seg_logits": mask_head(x)}
        if self.image_head:
            head = DecisionHead(self.adjust_gradient, name="image_head")
            outputs["cls_logits"] = head(skips[-1], outputs["seg_logits"])
        return outputs

    def _block(self, level: int, side: str) -> DoubleConv:
        return DoubleConv(
            self.widths[level],
            self.norm,
            self.bn_group,
            self.activation,
            self.dropout[level],
            self.dtype,
            name=f"{side}_{level}",
        )

    def _upsample(self, level: int, x: Array) -> Array:
        channels, name = self.widths[level], f"up_{level}"
        if self.decoder == "transpose":
            return ConvTranspose2x2(channels, dtype=self.dtype, name=name)(x)
        x = ops.upsample_nearest(x)
        return Conv(channels, kernel=2, dtype=self.dtype, name=name)(x)


def unet(
    num_outputs: int,
    dtype: jnp.dtype,
    *,
    widths: tuple[int, ...],
    norm: Literal["none", "batch", "group"],
    bn_group: int | None,
    activation: Literal["relu", "elu", "linear"],
    dropout: tuple[float, ...],
    decoder: Literal["transpose", "upsample"],
    head_kernel: Literal[1, 3],
    image_head: bool,
    adjust_gradient: bool,
) -> UNet:
    """The U-Net of a config.

    Raises:
      InputError: no width, or not one dropout rate per width.
    """
    if not widths or len(dropout) != len(widths):
        raise InputError(
            "config.model.widths and .dropout with one number per level",
            f"widths={widths}, dropout={dropout}",
            f'--config.model.dropout="{(0.0,) * len(widths)}"'
            if widths
            else '--config.model.widths="(32, 64, 128, 256, 512)"',
        )
    return UNet(
        num_outputs,
        widths,
        norm,
        bn_group,
        activation,
        dropout,
        decoder,
        head_kernel,
        image_head,
        adjust_gradient,
        dtype,
    )
