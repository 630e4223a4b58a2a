"""Convolutions in the forms that XLA:CPU runs fast; each equals `plain_conv`.

Layout NHWC and HWIO; padding is `((top, bottom), (left, right))`.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]

FEW_PIXELS = 512
"""The patches under all taps of so many pixels stay in the cache."""


def plain_conv(image: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def canonical_conv(image, kernel, stride, padding):
    """`plain_conv` whose gradients XLA:CPU runs fast, too.

    The stock gradients are several times slower, and 35 times inside `lax.scan`.
    """
    if stride == 1 and _has_few_pixels(image, kernel):
        return _row_by_row(image, list(kernel), padding)
    return plain_conv(image, kernel, stride, padding)


def _conv_forward(image, kernel, stride, padding):
    return canonical_conv(image, kernel, stride, padding), (image, kernel)


def _conv_backward(stride, padding, saved, grad):
    image, kernel = saved
    if stride == 1 and _has_few_pixels(image, kernel):
        by_rows = functools.partial(_row_by_row, padding=padding)
        image_grad, rows = jax.vjp(by_rows, image, list(kernel))[1](grad)
        return image_grad, jnp.stack(rows)
    return (
        _image_gradient(image, kernel, stride, padding, grad),
        _kernel_gradient(image, kernel, stride, padding, grad),
    )


canonical_conv.defvjp(_conv_forward, _conv_backward)


@jax.custom_vjp
def pointwise_conv(image: Array, kernel: Array) -> Array:
    """[N, H, W, C] by [C, D], a matrix product: its kernel gradient is 3x faster."""
    return jnp.einsum("nhwc,cd->nhwd", image, kernel)


def _pointwise_backward(saved, grad):
    image, kernel = saved
    # The product for the kernel wants `grad` transposed, and XLA would compute it anew
    # in that order, with all that led to it: a sixth of the step of EfficientNet-B0.
    grad = lax.optimization_barrier(grad)
    return (
        jnp.einsum("nhwd,cd->nhwc", grad, kernel),
        jnp.einsum("nhwc,nhwd->cd", image, grad),
    )


pointwise_conv.defvjp(
    lambda image, kernel: (pointwise_conv(image, kernel), (image, kernel)),
    _pointwise_backward,
)


def _has_few_pixels(image: Array, kernel: Array) -> bool:
    """Whether a convolution of stride 1 is faster as a matrix product.

    Fewer pixels than taps are not for the fast kernels of XLA:CPU: 3x3 taps, 512 to 512
    channels, on 64 images of 2x2 pixels take 1,200 ms, the products 16 (one core). Up
    to FEW_PIXELS they save a third to two thirds of the time in float32.
    """
    pixels, taps = math.prod(image.shape[1:3]), math.prod(kernel.shape[:2])
    few = image.shape[0] * pixels <= FEW_PIXELS and image.dtype != jnp.bfloat16
    return pixels < taps or few


def _row_by_row(image: Array, kernel: Sequence[Array], padding: Padding) -> Array:
    """A convolution by the rows [kw, C, D] of a kernel, a matrix product each.

    A row meets only the rows of the image that it sees: a 15x15 kernel on 16x16 pixels
    has a quarter less to multiply. The kernel is not copied, the image kw times.
    """
    (kw, c, d), (_, h, w, _) = kernel[0].shape, image.shape
    (top, bottom), sides = padding
    out_h, out_w = h + top + bottom - len(kernel) + 1, w + sum(sides) - kw + 1
    image = pad(image, ((0, 0), sides))
    shifted = [image[:, :, j : j + out_w] for j in range(kw)]
    patches = jnp.concatenate(shifted, axis=3)
    parts = []
    for i, row in enumerate(kernel):
        first, last = max(0, top - i), min(out_h, h + top - i)
        if first >= last:
            continue
        seen = patches[:, first + i - top : last + i - top]
        product = jnp.einsum("nhwk,kd->nhwd", seen, row.reshape(kw * c, d))
        parts.append(pad(product, ((first, out_h - last), (0, 0))))
    return functools.reduce(jnp.add, parts)


def _image_gradient(image, kernel, stride, padding, grad):
    if stride > 1:
        dense = functools.partial(_space_to_depth_conv, stride=stride, padding=padding)
        return jax.vjp(lambda image: dense(image, kernel), image)[1](grad)[0]
    full = _full(kernel.shape, padding)
    return plain_conv(grad, kernel[::-1, ::-1].swapaxes(2, 3), 1, full)


def _kernel_gradient(image, kernel, stride, padding, grad):
    if image.dtype != jnp.bfloat16:
        return _sum_over_pixels(image, kernel.shape[:2], stride, padding, grad)
    # In bfloat16 oneDNN's convolution is faster.
    if stride > 1:
        dense = functools.partial(_space_to_depth_conv, stride=stride, padding=padding)
        return jax.vjp(lambda kernel: dense(image, kernel), kernel)[1](grad)[0]
    # Channels play the batch and the batch the channels: [C,H,W,N] * [h,w,N,D].
    as_batch = image.transpose(3, 1, 2, 0)
    as_kernel = grad.transpose(1, 2, 0, 3)
    turned = plain_conv(as_batch, as_kernel, 1, padding)  # [C, kh, kw, D]
    return turned.transpose(1, 2, 0, 3)


def _sum_over_pixels(
    image: Array, taps: tuple[int, int], stride: int, padding: Padding, grad: Array
) -> Array:
    """The gradient [kh, kw, C, D] of a kernel as matrix products of patches and `grad`.

    About FEW_PIXELS pixels are taken at a time, so their patches are read while they
    are in the cache: two to eight times as fast as a convolution of the image by
    `grad`. As the images of a batch may lie on several devices, only rows and columns
    are cut, and every device has a sum of its own.
    """
    (kh, kw), (n, h, w, d), c = taps, grad.shape, image.shape[-1]
    if d < c and stride == 1:  # the smaller side makes the patches
        turned = _sum_over_pixels(grad, taps, 1, _full(taps, padding), image)
        return turned[::-1, ::-1].swapaxes(2, 3)
    image = pad(image, padding)
    rows = _divisor_near(h, FEW_PIXELS / (n * w))
    columns = _divisor_near(w, FEW_PIXELS / (n * rows))
    window = (n, (rows - 1) * stride + kh, (columns - 1) * stride + kw, c)
    devices = math.gcd(n, jax.device_count())
    matrix = (devices, n // devices * rows * columns, -1)

    def add(sums, start):
        part = lax.dynamic_slice(image, start * stride, window)
        seen = [tap(part, i, j, rows, columns, stride) for i, j in np.ndindex(kh, kw)]
        patches = jnp.stack(seen, axis=3).reshape(matrix)
        part = lax.dynamic_slice(grad, start, (n, rows, columns, d))
        return sums + jnp.einsum("gpd,gpk->gdk", part.reshape(matrix), patches), None

    starts = itertools.product([0], range(0, h, rows), range(0, w, columns), [0])
    zeros = jnp.zeros((devices, d, kh * kw * c), image.dtype)
    sums, _ = lax.scan(add, zeros, np.array(list(starts), np.int32))
    return sums.sum(0).T.reshape(kh, kw, c, d)


def _divisor_near(size: int, wanted: float) -> int:
    """The divisor of `size` by which `wanted` is multiplied or divided least."""
    divisors = [k for k in range(1, size + 1) if size % k == 0]
    return min(divisors, key=lambda k: abs(math.log(k / wanted)))


def _full(taps: Sequence[int], padding: Padding) -> Padding:
    """The padding of the way back: of an output, to reach every pixel of the input."""
    (top, bottom), (left, right) = padding
    kh, kw = taps[:2]
    return (kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right)


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
    return canonical_conv(image, kernel, 1, ((0, 0), (0, 0)))


def _pad_to(image: Array, padding: Padding, rows: int, columns: int) -> Array:
    """Zeros before as asked, and after (or a crop) so that the size is as given."""
    config = [(0, 0, 0)]
    for size, (before, _), wanted in zip(
        image.shape[1:3], padding, (rows, columns), strict=True
    ):
        config.append((before, wanted - size - before, 0))
    return lax.pad(image, jnp.zeros((), image.dtype), [*config, (0, 0, 0)])


def pad(image: Array, padding: Padding) -> Array:
    """Zeros around an image; negative numbers crop it."""
    config = [(0, 0, 0), *((*border, 0) for border in padding), (0, 0, 0)]
    return lax.pad(image, jnp.zeros((), image.dtype), config)


def tap(padded: Array, i: int, j: int, h: int, w: int, stride: int) -> Array:
    """The pixels [N, h, w, C] that tap (i, j) of a kernel sees."""
    n, _, _, c = padded.shape
    stop = (n, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, c)
    return lax.slice(padded, (0, i, j, 0), stop, (1, stride, stride, 1))
