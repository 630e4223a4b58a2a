"""jaxseg's operations beside XLA's plain forms, as contestants of `benchmark.py`.

Each is timed with its gradients, alone: what a compiler makes of it between its
neighbours in a network may be better or worse.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg import ops
from jaxseg.cpu_conv import plain_conv

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Case(NamedTuple):
    """An operation in two forms that take the same arrays.

    Attributes:
      image: (H, W, C).
      kernel: its shape; None where there is none.
    """

    ours: Callable
    plain: Callable
    image: tuple[int, int, int]
    kernel: tuple[int, ...] | None = None


def make_cases() -> dict[str, Case]:
    """Layers of the U-Nets, encoders and SegDecNet at common sizes, by name."""
    return {
        "3x3, 3 to 32 channels, 128x128": _conv((128, 128, 3), 3, 32),
        "3x3, 32 to 32, 128x128": _conv((128, 128, 32), 3, 32),
        "3x3, 128 to 64, 64x64": _conv((64, 64, 128), 3, 64),
        "3x3, 128 to 128, 32x32": _conv((32, 32, 128), 3, 128),
        "3x3, 256 to 256, 16x16": _conv((16, 16, 256), 3, 256),
        "3x3, 512 to 512, 8x8": _conv((8, 8, 512), 3, 512),
        "3x3, 512 to 512, 2x2": _conv((2, 2, 512), 3, 512),
        "3x3 stride 2, 64 to 128, 32x32": _conv((32, 32, 64), 3, 128, stride=2),
        "7x7 stride 2, 3 to 64, 128x128": _conv((128, 128, 3), 7, 64, stride=2),
        "1x1, 96 to 24, 32x32": _conv((32, 32, 96), 1, 24),
        "5x5, 64 to 64, 64x64": _conv((64, 64, 64), 5, 64),
        "15x15, 64 to 1024, 16x16": _conv((16, 16, 64), 15, 1024),
        "15x15, 64 to 1024, 80x29": _conv((80, 29, 64), 15, 1024),
        "depthwise 3x3, 144, 32x32": _depthwise((32, 32, 144), 3),
        "depthwise 5x5 stride 2, 144, 32x32": _depthwise((32, 32, 144), 5, stride=2),
        "max-pool 2x2, 32, 128x128": _max_pool((128, 128, 32), 2, 2),
        "max-pool 3x3 stride 2, 64, 64x64": _max_pool((64, 64, 64), 3, 2),
        "transposed 2x2, 128 to 64, 32x32": Case(
            ops.conv_transpose_2x2, _plain_transpose, (32, 32, 128), (2, 2, 128, 64)
        ),
        "nearest x2, 64, 64x64": Case(
            ops.upsample_nearest, _plain_nearest, (64, 64, 64)
        ),
    }


def make_contestants(
    case: Case, batch_size: int, precision: str
) -> dict[str, Callable[[int], float]]:
    """'jaxseg' and 'plain form' -> (steps -> seconds)."""
    generator = np.random.default_rng(0)
    shapes = [(batch_size, *case.image)] + ([case.kernel] if case.kernel else [])
    inputs = [jnp.asarray(generator.normal(size=s), precision) for s in shapes]
    forms = {"jaxseg": case.ours, "plain form": case.plain}
    return {name: _contestant(form, inputs) for name, form in forms.items()}


def with_gradients(form: Callable, *inputs) -> tuple:
    """Value, and the gradients of the sum of its squares for all inputs."""
    value, pull_back = jax.vjp(form, *inputs)
    return value, *pull_back(2 * value)


def _contestant(form: Callable, inputs: list) -> Callable[[int], float]:
    compiled = jax.jit(partial(with_gradients, form))

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(compiled(*inputs))
        return time.perf_counter() - started

    return run


def _conv(image: tuple[int, int, int], side: int, features: int, stride=1) -> Case:
    settings = {"stride": stride, "padding": ops.same_padding(side)}
    ours, plain = partial(ops.conv, **settings), partial(plain_conv, **settings)
    return Case(ours, plain, image, (side, side, image[-1], features))


def _depthwise(image: tuple[int, int, int], side: int, stride: int = 1) -> Case:
    padding, channels = ops.same_padding(side), image[-1]

    def plain(image, kernel):
        return lax.conv_general_dilated(
            image,
            kernel[:, :, None],
            (stride, stride),
            padding,
            dimension_numbers=LAYOUT,
            feature_group_count=channels,
        )

    ours = partial(ops.depthwise_conv, stride=stride, padding=padding)
    return Case(ours, plain, image, (side, side, channels))


def _max_pool(image: tuple[int, int, int], window: int, stride: int) -> Case:
    def plain(image):
        size, strides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(image, -jnp.inf, lax.max, size, strides, "VALID")

    return Case(partial(ops.max_pool, window=window, stride=stride), plain, image)


def _plain_transpose(image, kernel):
    # lax.conv_transpose turns the kernel around.
    turned = kernel[::-1, ::-1]
    return lax.conv_transpose(image, turned, (2, 2), "VALID", dimension_numbers=LAYOUT)


def _plain_nearest(image):
    n, h, w, c = image.shape
    return jax.image.resize(image, (n, 2 * h, 2 * w, c), "nearest")
