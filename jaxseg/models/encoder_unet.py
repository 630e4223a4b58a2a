"""U-Net on a published encoder, the form of segmentation_models.

Source: https://github.com/qubvel/segmentation_models and its PyTorch edition, `Unet`:
nearest upsampling, concatenation (the skip second), twice convolution, batch norm and
ReLU; a 3x3 head. Skips from 'blocks' are those of the PyTorch edition, 'expansions'
with the 1280-channel top those of Keras.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.errors import InputError
from jaxseg.models.encoders import STRIDE, EncoderName, Skips, make_encoder
from jaxseg.models.heads import DecisionHead, MaskHead, check_stride
from jaxseg.models.layers import (
    Conv,
    ConvNorm,
    GhostBatchNorm,
    call_block,
    he_uniform,
)
from jaxseg.types import Array, Outputs


class DecoderBlock(nn.Module):
    """Twice conv 3x3, norm, ReLU: [N, H, W, C] -> [N, H, W, channels]."""

    channels: int
    bn_group: int | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        conv = functools.partial(
            Conv,
            self.channels,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_uniform,
        )
        norm = functools.partial(GhostBatchNorm, self.bn_group, dtype=self.dtype)
        for layer in ("layer_1", "layer_2"):
            x = ops.relu(ConvNorm(conv, norm, name=layer)(x, train=train))
        return x


class EncoderUNet(nn.Module):
    """U-Net with an encoder of `models.encoders`; sides are multiples of 32.

    Attributes:
      num_outputs: K of `seg_logits` [N, H, W, K] (1 for binary).
      encoder: name of the encoder.
      skips: 'blocks' or 'expansions' (EfficientNet, with its top).
      decoder_widths: channels from the stride 16 up to full resolution.
      bn_group: images per batch-norm group; None is the global batch.
      drop_path: see the encoder.
      image_head: adds `cls_logits` [N, 1] from the deepest features and the mask.
      adjust_gradient: the image head never changes the rest.
      remat: see `layers.call_block`.
    """

    num_outputs: int
    encoder: str
    skips: str
    decoder_widths: tuple[int, ...]
    bn_group: int | None
    drop_path: float
    image_head: bool
    adjust_gradient: bool
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    stride = STRIDE

    @property
    def is_local(self) -> bool:
        """No output depends on the size of the image; squeeze-excite averages it."""
        return self.encoder.startswith("resnet") and not self.image_head

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        check_stride(image.shape[1:3], self.stride)
        encoder = make_encoder(
            self.encoder,
            self.dtype,
            skips=self.skips,
            top=self.skips == "expansions",
            bn_group=self.bn_group,
            drop_path=self.drop_path,
            remat=self.remat,
        )
        *skips, deepest = encoder(image, train=train)
        x = deepest
        for channels in self.decoder_widths:
            level = len(skips)
            with jax.named_scope(f"decoder_{level}"):
                x = ops.upsample_nearest(x)
                if skips:
                    x = jnp.concatenate([x, skips.pop()], axis=-1)
                block = DecoderBlock(
                    channels, self.bn_group, self.dtype, name=f"decoder_{level}"
                )
                x = call_block(block, x, train=train, remat=self.remat)
        outputs = {"seg_logits": MaskHead(self.num_outputs, 3, name="mask_head")(x)}
        if self.image_head:
            head = DecisionHead(self.adjust_gradient, name="image_head")
            outputs["cls_logits"] = head(deepest, outputs["seg_logits"])
        return outputs


def encoder_unet(
    num_outputs: int,
    dtype: jnp.dtype,
    *,
    encoder: EncoderName,
    skips: Skips,
    decoder_widths: tuple[int, ...],
    bn_group: int | None,
    drop_path: float,
    image_head: bool,
    adjust_gradient: bool,
) -> EncoderUNet:
    """The U-Net on an encoder of a config.

    Raises:
      InputError: not one decoder width per feature of the encoder.
    """
    if len(decoder_widths) != 5:
        raise InputError(
            "config.model.decoder_widths with 5 numbers, from stride 16 to full size",
            f"{decoder_widths}",
            '--config.model.decoder_widths="(256, 128, 64, 32, 16)"',
        )
    return EncoderUNet(
        num_outputs,
        encoder,
        skips,
        decoder_widths,
        bn_group,
        drop_path,
        image_head,
        adjust_gradient,
        dtype,
    )
