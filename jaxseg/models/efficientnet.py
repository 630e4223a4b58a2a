"""EfficientNet-B0 and -B1 as feature pyramids.

Source: https://arxiv.org/abs/1905.11946, table 1; B1 is deeper by the factor 1.1. Three
forms are in use, whose weights are not interchangeable:

    form         padding of strided kernels  batch-norm epsilon  momentum
    timm         kernel // 2                 1e-5                0.9
    tensorflow   ceil(size / 2), odd after   1e-3                0.99
    smp          of a 224 (B1: 240) image    1e-3                0.99

'tensorflow' is that of Keras and of timm's `tf_` models. 'smp' is that of
segmentation_models.pytorch, which computes the padding once, for the size of the
original training images: equal to 'tensorflow' at sizes divisible by 32, but for stage
6 of B1, where 240 / 16 is odd.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.models.layers import (
    Border,
    Conv,
    ConvNorm,
    DepthwiseConv,
    GhostBatchNorm,
    call_block,
    he_normal_fan_out,
)
from jaxseg.types import Array


class Stage(NamedTuple):
    kernel: int
    channels: int
    expansion: int
    stride: int


STAGES = (
    Stage(3, 16, 1, 1),
    Stage(3, 24, 6, 2),
    Stage(5, 40, 6, 2),
    Stage(3, 80, 6, 2),
    Stage(5, 112, 6, 1),
    Stage(5, 192, 6, 2),
    Stage(3, 320, 6, 1),
)
REPEATS = {"b0": (1, 2, 2, 3, 3, 4, 1), "b1": (2, 3, 3, 4, 4, 5, 2)}
TOP_CHANNELS = 1280

Norm = functools.partial


class SqueezeExcite(nn.Module):
    """Scales channels by a gate made from their means: [N, H, W, C] -> the same.

    Source: https://arxiv.org/abs/1709.01507.
    """

    reduced: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        mean = x.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)
        gate = nn.Dense(self.reduced, dtype=self.dtype, name="reduce")(mean)
        gate = nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(nn.silu(gate))
        return x * nn.sigmoid(gate)


class MBConv(nn.Module):
    """Inverted residual with depthwise convolution and squeeze-and-excite.

    Returns:
      [N, H/s, W/s, channels], and the activation of the expansion [N, H, W, expansion
      C], which is the input itself where nothing is expanded.
    """

    stage: Stage
    stride: int
    padding: Border
    norm: Norm
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        stage, inputs, num_channels = self.stage, x, x.shape[-1]
        if stage.expansion != 1:
            expanded = num_channels * stage.expansion
            x = self._pointwise(expanded, "expand")(x, train=train)
            x = nn.silu(x)
        expansion = x
        depthwise = functools.partial(
            DepthwiseConv, stage.kernel, self.stride, self.padding, self.dtype
        )
        x = ConvNorm(depthwise, self.norm, name="depthwise")(x, train=train)
        x = nn.silu(x)
        x = SqueezeExcite(max(num_channels // 4, 1), self.dtype, name="squeeze")(x)
        x = self._pointwise(stage.channels, "project")(x, train=train)
        if x.shape == inputs.shape:
            x = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))(
                x, deterministic=not train
            )
            x = x + inputs
        return x, expansion

    def _pointwise(self, channels: int, name: str) -> ConvNorm:
        return ConvNorm(_conv(channels, 1, dtype=self.dtype), self.norm, name=name)


class EfficientNetEncoder(nn.Module):
    """Features at the strides 2, 4, 8, 16, 32.

    Attributes:
      depth: 'b0' or 'b1'.
      form: 'timm', 'tensorflow' or 'smp', see above.
      skips: 'blocks', the last outputs of their size with 32 (the stem), 24, 40, 112
        channels, though 'smp' takes the first with 112 in B0; or 'expansions',
        activations inside the strided blocks with 96, 144, 240, 672.
      top: ends in the 1x1 convolution to 1280 channels, else in 320.
      drop_path: block i of n is skipped by a sample with drop_path * i / n.
      remat: see `call_block`.
    """

    depth: str
    form: str
    skips: str
    top: bool
    bn_group: int | None
    drop_path: float
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> tuple[Array, ...]:
        norm = self._norm()
        stem = _conv(32, 3, stride=2, padding=self._padding(0, 3), dtype=self.dtype)
        x = ConvNorm(stem, norm, name="stem")(image.astype(self.dtype), train=train)
        x = nn.silu(x)
        blocks, expansions, done = [x], [], 0
        for number, (stage, repeats) in enumerate(
            zip(STAGES, REPEATS[self.depth], strict=True), start=1
        ):
            for block in range(1, repeats + 1):
                inverted = MBConv(
                    stage,
                    stage.stride if block == 1 else 1,
                    self._padding(number, stage.kernel),
                    norm,
                    self.drop_path * done / sum(REPEATS[self.depth]),
                    self.dtype,
                    name=f"stage_{number}_block_{block}",
                )
                x, expansion = call_block(inverted, x, train=train, remat=self.remat)
                done += 1
                if (number, block) in self._skip_blocks():
                    blocks.append(x)
                if block == 1 and stage.stride == 2:
                    expansions.append(expansion)
        if self.top:
            top = _conv(TOP_CHANNELS, 1, dtype=self.dtype)
            x = nn.silu(ConvNorm(top, norm, name="top")(x, train=train))
        return (*(expansions if self.skips == "expansions" else blocks), x)

    def _skip_blocks(self) -> set[tuple[int, int]]:
        """(stage, block) whose outputs are skips."""
        _, second, third, _, fifth, *_ = REPEATS[self.depth]
        is_first = (self.form, self.depth) == ("smp", "b0")
        return {(2, second), (3, third), (5, 1 if is_first else fifth)}

    def _padding(self, stage: int, kernel: int) -> Border:
        is_odd_there = (self.form, self.depth, stage) == ("smp", "b1", 6)
        return kernel // 2 if self.form == "timm" or is_odd_there else "tensorflow"

    def _norm(self) -> Norm:
        epsilon, momentum = (1e-5, 0.9) if self.form == "timm" else (1e-3, 0.99)
        return functools.partial(
            GhostBatchNorm,
            self.bn_group,
            momentum=momentum,
            epsilon=epsilon,
            dtype=self.dtype,
        )


def _conv(channels: int, kernel: int, **keys) -> functools.partial:
    return functools.partial(
        Conv,
        channels,
        kernel,
        use_bias=False,
        kernel_init=he_normal_fan_out,
        **keys,
    )
