"""The ways to compute SegDecNet's 15x15 convolution, as contestants of `benchmark.py`.

Each is timed with its gradients for the image and for the kernel.
"""

import time
from collections.abc import Callable

import numpy as np

SIDE, CHANNELS, FEATURES = 15, 64, 1024


def make_contestants(
    batch_size: int, size: tuple[int, int], precision: str
) -> dict[str, Callable[[int], float]]:
    """name -> (steps -> seconds)."""
    import jax.numpy as jnp

    from jaxseg import cpu_conv, fourier, ops

    padding = ops.same_padding(SIDE)
    ways = {
        "product of spectra": lambda x, k: fourier.fourier_conv(x, k, padding),
        "direct": lambda x, k: cpu_conv.canonical_conv(x, k, 1, padding),
    }
    generator = np.random.default_rng(0)
    shapes = (
        (batch_size, *size, CHANNELS),
        (SIDE, SIDE, CHANNELS, FEATURES),
        (batch_size, *size, FEATURES),
    )
    arrays = [jnp.asarray(generator.normal(size=s), precision) for s in shapes]
    return {name: _contestant(way, *arrays) for name, way in ways.items()}


def _contestant(way: Callable, image, kernel, grad) -> Callable[[int], float]:
    import jax

    @jax.jit
    def value_and_gradients(image, kernel, grad):
        value, pull_back = jax.vjp(way, image, kernel)
        return value, *pull_back(grad)

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(value_and_gradients(image, kernel, grad))
        return time.perf_counter() - started

    return run
