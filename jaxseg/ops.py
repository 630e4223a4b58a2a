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

from jaxseg.fourier import fourier_conv
from jaxseg.tracing import target, translatable
from jaxseg.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]


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
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        # As a matrix product its weight gradient is 3x faster on CPU.
        return jnp.einsum("nhwc,cd->nhwd", image[:, ::stride, ::stride], kernel[0, 0])
    if jax.default_backend() != "cpu" or target():
        return _plain_conv(image, kernel, stride, padding)
    if stride == 1 and math.prod(image.shape[1:3]) < math.prod(kernel.shape[:2]):
        return _patches_conv(image, kernel, padding)
    if stride == 1 and _pays_as_spectrum(image, kernel):
        return fourier_conv(image, kernel, padding)
    return _canonical_conv(image, kernel, stride, padding)


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


@translatable
def conv_transpose_2x2(image: Array, kernel: Array) -> Array:
    """Transposed convolution, 2x2, stride 2: one matrix product and depth-to-space.

    Args:
      image: [N, H, W, C].
      kernel: [2, 2, C, D]; kernel[i, j] makes the output pixels (2y + i, 2x + j).

    Returns:
      [N, 2H, 2W, D].
    """
    n, h, w, _ = image.shape
    blocks = jnp.einsum("nhwc,ijcd->nhiwjd", image, kernel)  # [N, H, 2, W, 2, D]
    return blocks.reshape(n, 2 * h, 2 * w, kernel.shape[-1])


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
    value and gradients of 8 images take a sixth of the time of `_canonical_conv` in
    float32 and a half in bfloat16, those of one image a half in float32. One image in
    bfloat16, or 16x16 pixels, have too few pixels to earn the spectrum of the kernel.
    Sums of 15 convolutions of one row, or of matrix products with a row of patches, are
    in between. docs/benchmarks.md and `scripts/benchmark.py conv` have figures.
    """
    num_pixels = math.prod(image.shape[:3])
    enough = 1_024 if image.dtype == jnp.float32 else 8_192
    return math.prod(kernel.shape[:2]) >= 15 * 15 and num_pixels >= enough


def _patches_conv(image: Array, kernel: Array, padding: Padding) -> Array:
    """One matrix product with the patches under the kernel, for fewer pixels than taps.

    There XLA:CPU leaves its fast kernels: 3x3 taps, 512 to 512 channels, on 64 images
    of 2x2 pixels take 1,050 ms, and their gradients as long; like this 18 and 31 ms
    (one core, float32). Below a ResNet it is the size that images of 64x64 have.
    """
    kh, kw, c, d = kernel.shape
    image = _pad(image, padding)
    h, w = image.shape[1] - kh + 1, image.shape[2] - kw + 1
    patches = jnp.stack(
        [_tap(image, i, j, h, w, 1) for i, j in np.ndindex(kh, kw)], axis=3
    )  # [N, h, w, taps, C]
    return jnp.einsum("nhwtc,tcd->nhwd", patches, kernel.reshape(kh * kw, c, d))


def _plain_conv(image: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _canonical_conv(image, kernel, stride, padding):
    """`_plain_conv` whose gradients are forward convolutions in NHWC and HWIO.

    XLA:CPU takes its fast kernels only for that form: the stock gradients are 2 to 3
    times slower in bfloat16 and 35 times slower inside `lax.scan`.
    """
    return _plain_conv(image, kernel, stride, padding)


def _conv_forward(image, kernel, stride, padding):
    return _plain_conv(image, kernel, stride, padding), (image, kernel)


def _conv_backward(stride, padding, saved, grad):
    image, kernel = saved
    if stride == 1:
        return _stride_1_gradients(image, kernel, padding, grad)
    dense = functools.partial(_space_to_depth_conv, stride=stride, padding=padding)
    return jax.vjp(dense, image, kernel)[1](grad)


_canonical_conv.defvjp(_conv_forward, _conv_backward)


def _stride_1_gradients(image, kernel, padding, grad):
    kh, kw = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    full = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    image_grad = _plain_conv(grad, flipped, 1, full)
    # Channels play the batch and the batch the channels: [C,H,W,N] * [h,w,N,D].
    as_batch = image.transpose(3, 1, 2, 0)
    as_kernel = grad.transpose(1, 2, 0, 3)
    kernel_grad = _plain_conv(as_batch, as_kernel, 1, padding)  # [C, kh, kw, D]
    return image_grad, kernel_grad.transpose(1, 2, 0, 3)


def _space_to_depth_conv(image, kernel, stride, padding):
    """A strided convolution as one of stride 1 over stride² times the channels."""
    kh, kw, c, d = kernel.shape
    h = (image.shape[1] + sum(padding[0]) - kh) // stride + 1
    w = (image.shape[2] + sum(padding[1]) - kw) // stride + 1
    taps = (-(-kh // stride), -(-kw // stride))
    rows, columns = (h + taps[0] - 1) * stride, (w + taps[1] - 1) * stride
    image = _pad_to(image, padding, rows, columns)
    kernel = jnp.pad(
        kernel,
        ((0, taps[0] * stride - kh), (0, taps[1] * stride - kw), (0, 0), (0, 0)),
    )
    image = image.reshape(-1, rows // stride, stride, columns // stride, stride, c)
    image = image.transpose(0, 1, 3, 2, 4, 5)
    image = image.reshape(*image.shape[:3], stride * stride * c)
    kernel = kernel.reshape(taps[0], stride, taps[1], stride, c, d)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, stride * stride * c, d)
    return _canonical_conv(image, kernel, 1, ((0, 0), (0, 0)))


def _pad_to(image: Array, padding: Padding, rows: int, columns: int) -> Array:
    """Zeros before as asked, and after (or a crop) so that the size is as given."""
    config = [(0, 0, 0)]
    for size, (before, _), wanted in zip(
        image.shape[1:3], padding, (rows, columns), strict=True
    ):
        config.append((before, wanted - size - before, 0))
    return lax.pad(image, jnp.zeros((), image.dtype), [*config, (0, 0, 0)])


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
    image = _pad(image, padding)
    taps = (
        _tap(image, i, j, h, w, stride) * kernel[i, j].reshape(1, 1, 1, -1)
        for i, j in np.ndindex(kernel.shape[:2])
    )
    return functools.reduce(jnp.add, taps)


def _depthwise_forward(image, kernel, stride, padding):
    return _shifted_depthwise(image, kernel, stride, padding), (image, kernel)


def _depthwise_backward(stride, padding, saved, grad):
    image, kernel = saved
    kh, kw = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    padded = _pad(image, padding)
    wide = grad.astype(jnp.float32)
    h, w = grad.shape[1:3]
    kernel_grad = [
        (_tap(padded, i, j, h, w, stride) * wide).sum((0, 1, 2))
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


def _pad(image: Array, padding: Padding) -> Array:
    """Zeros around an image; negative numbers crop it."""
    config = [(0, 0, 0), *((*border, 0) for border in padding), (0, 0, 0)]
    return lax.pad(image, jnp.zeros((), image.dtype), config)


def _tap(padded: Array, i: int, j: int, h: int, w: int, stride: int) -> Array:
    """The pixels [N, h, w, C] that tap (i, j) of a kernel sees."""
    n, _, _, c = padded.shape
    stop = (n, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, c)
    return lax.slice(padded, (0, i, j, 0), stop, (1, stride, stride, 1))
