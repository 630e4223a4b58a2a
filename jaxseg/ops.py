"""Array operations whose plain form is slow on some backend.

Layout NHWC and HWIO; padding is explicit, `((top, bottom), (left, right))`. Every
function equals its plain `lax` form, values and gradients, to rounding; the plain form
is the oracle in the tests. Models call these and never `lax.conv_*` directly.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.cpu_conv import (
    FEW_PIXELS,
    Padding,
    canonical_conv,
    pad,
    plain_conv,
    pointwise_conv,
    tap,
)
from jaxseg.fourier import fourier_conv
from jaxseg.tracing import target, translatable
from jaxseg.types import Array


def same_padding(kernel: int) -> Padding:
    """Zero padding that keeps the size at stride 1; even kernels pad one more after."""
    before = (kernel - 1) // 2
    return ((before, kernel - 1 - before),) * 2


@translatable
def conv(image: Array, kernel: Array, *, stride: int = 1, padding: Padding) -> Array:
    """2-D convolution (cross-correlation).

    Args:
      image: [N, H, W, C].
      kernel: [kh, kw, C, D], same dtype.
      stride: pixels, in both directions.
      padding: zeros around the image.

    Returns:
      [N, h, w, D].
    """
    if jax.default_backend() != "cpu" or target():
        return plain_conv(image, kernel, stride, padding)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return pointwise_conv(image[:, ::stride, ::stride], kernel[0, 0])
    if stride == 1 and _pays_as_spectrum(image, kernel):
        return fourier_conv(image, kernel, padding)
    return canonical_conv(image, kernel, stride, padding)


@translatable
def depthwise_conv(
    image: Array, kernel: Array, *, stride: int = 1, padding: Padding
) -> Array:
    """Convolution of every channel with a kernel of its own.

    Args:
      image: [N, H, W, C].
      kernel: [kh, kw, C], same dtype.
      stride: pixels, in both directions.
      padding: zeros around the image.

    Returns:
      [N, h, w, C].
    """
    settings = {"stride": stride, "padding": padding}
    if target() == "any platform":
        return lax.platform_dependent(
            image,
            kernel,
            cpu=functools.partial(_shifted_depthwise, **settings),
            default=functools.partial(_plain_depthwise, **settings),
        )
    if jax.default_backend() != "cpu" or target() == "accelerator":
        return _plain_depthwise(image, kernel, **settings)
    return _shifted_depthwise(image, kernel, stride, padding)


@translatable
def max_pool(image: Array, window: int, stride: int, padding: int = 0) -> Array:
    """Max-pool [N, H, W, C] -> [N, h, w, C]; sizes that do not fit are floored.

    A maximum over strided slices, rows first: its gradient is elementwise, where that
    of `lax.reduce_window` is a scatter (10 to 30 times slower on CPU). Differs: tied
    maxima share the gradient; PyTorch gives it to the first.
    """
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = jnp.finfo(image.dtype).min
    if padding:
        image = jnp.pad(image, border, constant_values=lowest)
    return _pool_axis(_pool_axis(image, window, stride, axis=1), window, stride, axis=2)


@translatable
def global_max(image: Array) -> Array:
    """The largest pixel of every channel: [N, H, W, C] -> [N, C].

    Its gradient goes to the first such pixel. That of `jnp.max` looks for pixels equal
    to the maximum, and is NaN where the compiler has rounded the two differently.
    """
    flat = image.reshape(image.shape[0], -1, image.shape[-1])
    place = flat.argmax(axis=1, keepdims=True)
    return jnp.take_along_axis(flat, place, axis=1)[:, 0]


@jax.custom_jvp
def relu(x: Array) -> Array:
    """max(x, 0), whose gradient looks at the result: the next layer keeps it anyway.

    That of `jax.nn.relu` looks at `x`, which is then kept beside it.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    y = relu(x)
    if x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu" and not target():
        # XLA:CPU would keep `x` all the same, and take the maximum at every use; in
        # float32 that is faster than reading it.
        y = lax.optimization_barrier(y)
    return y, jnp.where(y > 0, tangent, 0)


@translatable
def conv_transpose_2x2(image: Array, kernel: Array) -> Array:
    """Transposed convolution, 2x2, stride 2: one matrix product and depth-to-space.

    Args:
      image: [N, H, W, C].
      kernel: [2, 2, C, D]; kernel[i, j] makes the output pixels (2y + i, 2x + j).

    Returns:
      [N, 2H, 2W, D].
    """
    (n, h, w, c), d = image.shape, kernel.shape[-1]
    # Not by einsum, which multiplies the other way round and turns image and product.
    matrix = kernel.transpose(2, 0, 1, 3).reshape(c, 4 * d)
    blocks = (image.reshape(-1, c) @ matrix).reshape(n, h, w, 2, 2, d)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, d)


@translatable
def upsample_nearest(image: Array) -> Array:
    """Every pixel four times: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, h, w, c = image.shape
    repeated = jnp.broadcast_to(image[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return repeated.reshape(n, 2 * h, 2 * w, c)


@translatable
def upsample_bilinear(image: Array, factor: int) -> Array:
    """[N, H, W, C] -> [N, factor H, factor W, C]; pixels are areas, edges repeat."""
    n, h, w, c = image.shape
    return jax.image.resize(image, (n, factor * h, factor * w, c), "bilinear")


def _pays_as_spectrum(image: Array, kernel: Array) -> bool:
    """Whether a convolution of stride 1 is faster as a product of spectra, on CPU.

    So it is for SegDecNet's 15x15 convolution of 64 to 1024 channels at 80x29 pixels:
    value and gradients of one image take a sixth of the time of `canonical_conv` in
    float32, a third of that of a product per row of the kernel; in bfloat16 one takes
    as long, and 8 a half. Too few pixels do not earn the spectrum of the kernel.
    """
    num_pixels = math.prod(image.shape[:3])
    least = FEW_PIXELS if image.dtype == jnp.float32 else 8_192
    return math.prod(kernel.shape[:2]) >= 15 * 15 and num_pixels > least


def _pool_axis(image: Array, window: int, stride: int, axis: int) -> Array:
    size = (image.shape[axis] - window) // stride + 1
    slices = [
        lax.slice_in_dim(image, i, i + (size - 1) * stride + 1, stride, axis)
        for i in range(window)
    ]
    return functools.reduce(jnp.maximum, slices)


def _plain_depthwise(image: Array, kernel: Array, stride: int, padding: Padding):
    return lax.conv_general_dilated(
        image,
        kernel[:, :, None],
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=image.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_depthwise(image, kernel, stride, padding):
    """`_plain_depthwise` as one multiply-add per tap, and gradients of that form.

    XLA:CPU runs grouped convolutions one channel at a time, 5 to 30 times slower.
    """
    h, w = (
        (size + sum(border) - taps) // stride + 1
        for size, border, taps in zip(
            image.shape[1:3], padding, kernel.shape[:2], strict=True
        )
    )
    image = pad(image, padding)
    taps = (
        tap(image, i, j, h, w, stride) * kernel[i, j].reshape(1, 1, 1, -1)
        for i, j in np.ndindex(kernel.shape[:2])
    )
    return functools.reduce(jnp.add, taps)


def _depthwise_forward(image, kernel, stride, padding):
    return _shifted_depthwise(image, kernel, stride, padding), (image, kernel)


def _depthwise_backward(stride, padding, saved, grad):
    image, kernel = saved
    kh, kw = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    padded = pad(image, padding)
    wide = grad.astype(jnp.float32)
    h, w = grad.shape[1:3]
    kernel_grad = [
        (tap(padded, i, j, h, w, stride) * wide).sum((0, 1, 2))
        for i, j in np.ndindex(kh, kw)
    ]
    kernel_grad = jnp.stack(kernel_grad).reshape(kernel.shape).astype(kernel.dtype)
    # The image gradient: a forward convolution of the gradient, zeros between strides.
    rows, columns = (
        size + sum(border) - taps + 1
        for size, border, taps in zip(image.shape[1:3], padding, (kh, kw), strict=True)
    )
    spread = [(0, 0, 0)]
    for size, wanted in ((h, rows), (w, columns)):
        spread.append((0, wanted - (size - 1) * stride - 1, stride - 1))
    grad = lax.pad(grad, jnp.zeros((), grad.dtype), [*spread, (0, 0, 0)])
    full = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    return _shifted_depthwise(grad, kernel[::-1, ::-1], 1, full), kernel_grad


_shifted_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
