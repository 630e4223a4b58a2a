"""ResNet-18 and ResNet-34 as feature pyramids, and as classifiers.

Source: https://arxiv.org/abs/1512.03385, table 1, in the form of torchvision: 7x7 stem,
3x3 max-pool, projection shortcuts at the strided blocks, batch-norm epsilon 1e-5.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.models.heads import ImageHead
from jaxseg.models.layers import Conv, GhostBatchNorm, he_normal_fan_out
from jaxseg.types import Array, Outputs

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ConvNorm(nn.Module):
    """Convolution without bias, padded by half its kernel, and batch norm."""

    channels: int
    kernel: int
    stride: int
    bn_group: int | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        x = Conv(
            self.channels,
            self.kernel,
            self.stride,
            padding=self.kernel // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
            name="conv",
        )(x)
        return GhostBatchNorm(self.bn_group, dtype=self.dtype, name="norm")(
            x, train=train
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual: [N, H, W, C] -> [N, H/s, W/s, channels]."""

    channels: int
    stride: int
    bn_group: int | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def conv_norm(kernel, stride, name):
            return ConvNorm(
                self.channels, kernel, stride, self.bn_group, self.dtype, name=name
            )

        residual = x
        x = nn.relu(conv_norm(3, self.stride, "layer_1")(x, train=train))
        x = conv_norm(3, 1, "layer_2")(x, train=train)
        if residual.shape != x.shape:
            residual = conv_norm(1, self.stride, "projection")(residual, train=train)
        return nn.relu(x + residual)


class ResNetEncoder(nn.Module):
    """Features at the strides 2, 4, 8, 16, 32 with 64, 64, 128, 256, 512 channels."""

    depth: int
    bn_group: int | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, ...]:
        x = ConvNorm(64, 7, 2, self.bn_group, self.dtype, name="stem")(
            image.astype(self.dtype), train=train
        )
        features = [nn.relu(x)]
        x = ops.max_pool(features[0], window=3, stride=2, padding=1)
        for stage, num_blocks in enumerate(BLOCKS[self.depth]):
            for block in range(num_blocks):
                x = BasicBlock(
                    64 * 2**stage,
                    2 if stage and not block else 1,
                    self.bn_group,
                    self.dtype,
                    name=f"stage_{stage + 1}_block_{block + 1}",
                )(x, train=train)
            features.append(x)
        return tuple(features)


class ResNetClassifier(nn.Module):
    """`cls_logits` [N, num_outputs] from the mean of the deepest features."""

    num_outputs: int
    depth: int
    bn_group: int | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        encoder = ResNetEncoder(self.depth, self.bn_group, self.dtype, name="encoder")
        deepest = encoder(image, train=train)[-1]
        return {"cls_logits": ImageHead(self.num_outputs, name="image_head")(deepest)}


def resnet(
    num_outputs: int,
    dtype: jnp.dtype,
    *,
    depth: Literal[18, 34],
    bn_group: int | None,
) -> ResNetClassifier:
    """The ResNet classifier of a config."""
    return ResNetClassifier(num_outputs, depth, bn_group, dtype)
