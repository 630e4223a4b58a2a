"""ResNet-18 and ResNet-34 as feature pyramids.

Source: https://arxiv.org/abs/1512.03385, table 1, in the form of torchvision: 7x7 stem,
3x3 max-pool, projection shortcuts at the strided blocks, batch-norm epsilon 1e-5.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.models.layers import (
    Conv,
    ConvNorm,
    GhostBatchNorm,
    call_block,
    he_normal_fan_out,
)
from jaxseg.types import Array

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual: [N, H, W, C] -> [N, H/s, W/s, channels].

    Attributes:
      drop_path: probability that a sample skips the two convolutions in training.
    """

    channels: int
    stride: int
    bn_group: int | None
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def conv_norm(kernel, stride, name):
            return _conv_norm(
                self.channels, kernel, stride, self.bn_group, self.dtype, name
            )

        residual = x
        x = ops.relu(conv_norm(3, self.stride, "layer_1")(x, train=train))
        x = conv_norm(3, 1, "layer_2")(x, train=train)
        if residual.shape != x.shape:
            residual = conv_norm(1, self.stride, "projection")(residual, train=train)
        x = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))(
            x, deterministic=not train
        )
        return ops.relu(x + residual)


class ResNetEncoder(nn.Module):
    """Features at the strides 2, 4, 8, 16, 32 with 64, 64, 128, 256, 512 channels.

    Attributes:
      drop_path: block i of n is skipped by a sample with drop_path * i / n.
      remat: see `call_block`.
    """

    depth: int
    bn_group: int | None
    drop_path: float
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, ...]:
        stem = _conv_norm(64, 7, 2, self.bn_group, self.dtype, "stem")
        features = [ops.relu(stem(image.astype(self.dtype), train=train))]
        x = ops.max_pool(features[0], window=3, stride=2, padding=1)
        repeats = BLOCKS[self.depth]
        for stage, num_blocks in enumerate(repeats):
            for block in range(num_blocks):
                residual_block = BasicBlock(
                    64 * 2**stage,
                    2 if stage and not block else 1,
                    self.bn_group,
                    self.drop_path * (sum(repeats[:stage]) + block) / sum(repeats),
                    self.dtype,
                    name=f"stage_{stage + 1}_block_{block + 1}",
                )
                x = call_block(residual_block, x, train=train, remat=self.remat)
            features.append(x)
        return tuple(features)


def _conv_norm(channels, kernel, stride, bn_group, dtype, name) -> ConvNorm:
    conv = functools.partial(
        Conv,
        channels,
        kernel,
        stride,
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=he_normal_fan_out,
    )
    norm = functools.partial(GhostBatchNorm, bn_group, dtype=dtype)
    return ConvNorm(conv, norm, name=name)
