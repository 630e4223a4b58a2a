import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg import ops
from jaxseg.fourier import fourier_conv
from jaxseg.tracing import traced_for

NONE = ((0, 0), (0, 0))
ONE = ((1, 1), (1, 1))

# (height, width), kernel, stride, padding
CONVOLUTIONS = [
    ((7, 9), 3, 1, ONE),
    ((7, 9), 3, 1, NONE),
    ((8, 5), 3, 1, ((0, 2), (2, 1))),
    ((6, 7), 2, 1, ((0, 1), (0, 1))),
    ((9, 8), 5, 1, ((2, 2), (2, 2))),
    ((9, 7), 7, 1, ((3, 3), (3, 3))),
    ((5, 6), 1, 1, NONE),
    ((7, 6), 1, 2, NONE),
    ((5, 5), 1, 1, ONE),
    ((9, 8), 3, 2, ONE),
    ((8, 8), 3, 2, ((0, 1), (0, 1))),
    ((11, 9), 2, 2, NONE),
    ((13, 12), 7, 2, ((3, 3), (3, 3))),
    ((10, 11), 3, 3, ONE),
    ((11, 13), 5, 3, ((2, 1), (0, 3))),
    ((9, 11), 2, 3, NONE),
    # Fewer pixels than taps.
    ((1, 1), 3, 1, ONE),
    ((2, 2), 3, 1, ONE),
    ((4, 1), 3, 1, ONE),
    ((2, 3), 3, 1, ((0, 2), (2, 1))),
    ((4, 4), 5, 1, ((2, 2), (2, 2))),
]


def numbers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def plain_conv(image, kernel, stride, padding):
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def with_gradients(function, *inputs):
    """(value, gradients of a weighted sum of it for each input)."""
    value, pull_back = jax.vjp(function, *inputs)
    weights = jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
    return value, *pull_back(weights.astype(value.dtype))


def assert_equal(ours, plain, inputs, tolerance):
    """Values and gradients, compiled; each relative to its largest number."""
    compiled = jax.jit(
        lambda *inputs: (with_gradients(ours, *inputs), with_gradients(plain, *inputs))
    )
    for found, wanted in zip(*compiled(*inputs), strict=True):
        assert found.dtype == wanted.dtype
        found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


def conv_case(size, side, dtype):
    image = jnp.asarray(numbers(2, *size, 3), dtype)
    return image, jnp.asarray(numbers(side, side, 3, 4, seed=1), dtype)


@pytest.mark.parametrize(("size", "side", "stride", "padding"), CONVOLUTIONS)
def test_conv_equals_the_plain_form(size, side, stride, padding):
    assert_equal(
        functools.partial(ops.conv, stride=stride, padding=padding),
        functools.partial(plain_conv, stride=stride, padding=padding),
        conv_case(size, side, jnp.float32),
        tolerance=2e-6,
    )


@pytest.mark.parametrize(
    ("size", "side", "stride", "padding"),
    [CONVOLUTIONS[k] for k in (0, 6, 9, 12, 17)],
)
def test_conv_equals_the_plain_form_in_bfloat16(size, side, stride, padding):
    assert_equal(
        functools.partial(ops.conv, stride=stride, padding=padding),
        functools.partial(plain_conv, stride=stride, padding=padding),
        conv_case(size, side, jnp.bfloat16),
        tolerance=2e-2,  # 8 bits of mantissa, summed in another order
    )


@pytest.mark.parametrize(("channels", "features"), [(3, 5), (5, 3)])
@pytest.mark.parametrize(
    ("shape", "stride", "padding"),
    [
        ((1, 40, 36), 1, ONE),  # some rows at a time
        ((3, 6, 200), 1, ((0, 2), (2, 1))),  # parts of a row
        ((2, 23, 37), 1, NONE),  # a size without divisors
        ((2, 80, 46), 2, ONE),
        ((600, 2, 3), 1, ONE),
    ],
)
def test_conv_of_many_pixels_equals_the_plain_form(
    shape, stride, padding, channels, features
):
    image = jnp.asarray(numbers(*shape, channels))
    kernel = jnp.asarray(numbers(3, 3, channels, features, seed=1))
    assert_equal(
        functools.partial(ops.conv, stride=stride, padding=padding),
        functools.partial(plain_conv, stride=stride, padding=padding),
        (image, kernel),
        tolerance=5e-6,
    )


def test_conv_by_a_plain_loop():
    image, kernel = numbers(1, 5, 4, 2), numbers(3, 3, 2, 3, seed=1)
    padded = np.pad(image, ((0, 0), (1, 0), (0, 2), (0, 0)))  # top 1, right 2
    wanted = np.zeros((1, 2, 2, 3))
    for y in range(2):
        for x in range(2):
            window = padded[0, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            wanted[0, y, x] = np.einsum("ijc,ijcd->d", window, kernel)
    found = ops.conv(image, kernel, stride=2, padding=((1, 0), (0, 2)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_inside_a_scan_equals_the_plain_form(stride):
    images = jnp.asarray(numbers(3, 2, 6, 6, 2))
    kernel = jnp.asarray(numbers(3, 3, 2, 2, seed=1))

    def in_scan(conv):
        def total(images, kernel):
            def add(sum_, image):
                return sum_ + conv(image, kernel, stride=stride, padding=ONE), None

            size = 6 // stride
            return lax.scan(add, jnp.zeros((2, size, size, 2)), images)[0]

        return total

    assert_equal(in_scan(ops.conv), in_scan(plain_conv), (images, kernel), 2e-6)


# One tile, several tiles of one height, tiles that reach beyond the image.
SPECTRA = [
    ((16, 18), (15, 15), ((7, 7), (7, 7))),
    ((40, 19), (5, 4), ((2, 2), (1, 2))),
    ((37, 21), (3, 15), ((0, 4), (7, 0))),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "taps", "padding"), SPECTRA)
def test_a_product_of_spectra_equals_the_plain_form(size, taps, padding, dtype):
    image = numbers(2, *size, 3, dtype=dtype)
    kernel = numbers(*taps, 3, 4, dtype=dtype, seed=1)

    def plain(image, kernel):
        return plain_conv(image, kernel, 1, padding)

    def ours(image, kernel):
        return fourier_conv(image, kernel, padding)

    tolerance = 5e-6 if dtype == jnp.float32 else 2e-2
    assert_equal(ours, plain, (image, kernel), tolerance)


def test_large_kernels_over_many_pixels_are_convolved_as_spectra():
    def primitives(size, side, dtype=jnp.float32):
        image = jnp.zeros((*size, 2), dtype)
        kernel = jnp.zeros((side, side, 2, 3), dtype)
        convolve = functools.partial(ops.conv, padding=ops.same_padding(side))
        return str(jax.make_jaxpr(convolve)(image, kernel))

    as_spectrum = [
        "complex64" in text or "c64" in text
        for text in (
            primitives((1, 80, 29), 15),
            primitives((1, 16, 16), 15),
            primitives((8, 16, 16), 15),
            primitives((8, 80, 29), 5),
            primitives((1, 80, 29), 15, jnp.bfloat16),
            primitives((8, 80, 29), 15, jnp.bfloat16),
        )
    ]
    assert as_spectrum == [True, False, True, False, False, True]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_same_padding_keeps_the_size_and_pads_even_kernels_after(side):
    (top, bottom), (left, right) = ops.same_padding(side)
    assert top + bottom == left + right == side - 1
    assert bottom - top == right - left == (side + 1) % 2


def plain_max_pool(image, window, stride, padding=0):
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(
        image, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), border
    )


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [
        ((6, 8), 2, 2, 0),
        ((7, 9), 2, 2, 0),
        ((8, 8), 3, 2, 1),
        ((7, 6), 3, 2, 1),
        ((10, 8), 3, 3, 0),
        ((5, 6), 2, 1, 0),
    ],
)
def test_max_pool_equals_the_plain_form(size, window, stride, padding):
    shape = (2, *size, 3)
    order = np.random.default_rng(0).permutation(np.prod(shape))  # no two are equal
    image = jnp.asarray(order.reshape(shape) - 100.0, jnp.float32)
    assert_equal(
        lambda image: ops.max_pool(image, window, stride, padding),
        lambda image: plain_max_pool(image, window, stride, padding),
        (image,),
        tolerance=1e-6,
    )


def test_max_pool_never_chooses_the_padding():
    image = np.full((1, 4, 4, 1), -1e30, np.float32)
    assert (ops.max_pool(image, 3, 2, padding=1) == -1e30).all()


def test_tied_maxima_share_the_gradient():
    grad = jax.grad(lambda image: ops.max_pool(image, 2, 2).sum())
    same = grad(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(same[0, :, :, 0], np.full((2, 2), 0.25))
    pair = grad(jnp.array([[3.0, 3.0], [1.0, 2.0]]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(pair[0, :, :, 0], [[0.5, 0.5], [0.0, 0.0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_passes_the_gradient_of_what_is_above_zero(dtype):
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-6, 3.0, np.nan], dtype)
    value, pull_back = jax.vjp(jax.jit(ops.relu), x)
    (gradient,) = pull_back(jnp.arange(1, 7, dtype=dtype))
    assert value.dtype == gradient.dtype == dtype
    wanted = np.maximum(np.float32(x), 0)  # NaN stays one
    np.testing.assert_array_equal(np.float32(value), wanted)
    np.testing.assert_array_equal(np.float32(gradient), [0, 0, 0, 4, 5, 0])


def test_conv_transpose_by_a_plain_loop():
    image, kernel = numbers(2, 3, 2, 4), numbers(2, 2, 4, 3, seed=1)
    wanted = np.zeros((2, 6, 4, 3))
    for y, x, i, j in np.ndindex(3, 2, 2, 2):
        wanted[:, 2 * y + i, 2 * x + j] = image[:, y, x] @ kernel[i, j]
    found = ops.conv_transpose_2x2(image, kernel)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_conv_transpose_equals_the_plain_form():
    def plain(image, kernel):  # lax counts the taps of a transpose from the far end
        return lax.conv_transpose(image, kernel[::-1, ::-1], (2, 2), "VALID")

    inputs = jnp.asarray(numbers(2, 5, 3, 4)), jnp.asarray(numbers(2, 2, 4, 3, seed=1))
    assert_equal(ops.conv_transpose_2x2, plain, inputs, tolerance=2e-6)


def plain_depthwise(image, kernel, stride, padding):
    return lax.conv_general_dilated(
        image,
        kernel[:, :, None],
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=image.shape[-1],
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_depthwise_conv_equals_the_plain_form(size, kernel, stride, padding, dtype):
    image = jnp.asarray(numbers(2, *size, 3), dtype)
    taps = jnp.asarray(numbers(kernel, kernel, 3, seed=1), dtype)
    assert_equal(
        lambda image, taps: ops.depthwise_conv(
            image, taps, stride=stride, padding=padding
        ),
        lambda image, taps: plain_depthwise(
            image.astype(jnp.float32), taps.astype(jnp.float32), stride, padding
        ).astype(dtype),
        (image, taps),
        tolerance=2e-6 if dtype == jnp.float32 else 2e-2,
    )


def test_upsample_nearest_repeats_pixels():
    image = numbers(2, 3, 4, 2)
    np.testing.assert_array_equal(
        ops.upsample_nearest(image), image.repeat(2, axis=1).repeat(2, axis=2)
    )


def test_the_gradient_of_upsample_nearest_adds_four_pixels():
    grad = jax.grad(lambda image: (ops.upsample_nearest(image) * weights).sum())
    weights = jnp.arange(16.0).reshape(1, 4, 4, 1)
    found = grad(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(found[0, :, :, 0], [[10, 18], [42, 50]])


def test_global_max_gives_its_gradient_to_the_first_maximum():
    image = np.array([[3.0, 1.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    value, pull_back = jax.vjp(ops.global_max, jnp.float32(image))
    assert value.tolist() == [[3.0]]
    grad = pull_back(jnp.full((1, 1), 5.0))[0]
    np.testing.assert_array_equal(grad[0, :, :, 0], [[5.0, 0.0], [0.0, 0.0]])
    many = numbers(2, 5, 4, 3)
    np.testing.assert_array_equal(ops.global_max(many), many.max(axis=(1, 2)))


def test_upsample_bilinear_interpolates_between_centres_of_pixels():
    image = numbers(2, 3, 5, 2)
    wanted = image.astype(np.float64)
    for axis, size in ((1, 3), (2, 5)):
        places = (np.arange(4 * size) + 0.5) / 4 - 0.5  # np.interp repeats the edges

        def along(line, places=places, size=size):
            return np.interp(places, np.arange(size), line)

        wanted = np.apply_along_axis(along, axis, wanted)
    found = ops.upsample_bilinear(image, 4)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


CALLS = {
    "conv": (lambda x: ops.conv(x, numbers(3, 3, 4, 2), stride=2, padding=ONE)),
    "depthwise_conv": (lambda x: ops.depthwise_conv(x, numbers(3, 3, 4), padding=ONE)),
    "max_pool": (lambda x: ops.max_pool(x, 2, stride=2)),
    "global_max": ops.global_max,
    "conv_transpose_2x2": (lambda x: ops.conv_transpose_2x2(x, numbers(2, 2, 4, 3))),
    "upsample_nearest": ops.upsample_nearest,
    "upsample_bilinear": (lambda x: ops.upsample_bilinear(x, 2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_for_a_translation_every_call_stays_whole(name):
    image = numbers(2, 6, 8, 4)
    with traced_for("translation"):
        closed = jax.make_jaxpr(lambda x: CALLS[name](x))(image)
    names = [eqn.params.get("name") for eqn in closed.jaxpr.eqns]
    assert names == [f"jaxseg.{name}"]
    (whole,) = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, image)
    np.testing.assert_array_equal(whole, jax.jit(CALLS[name])(image))
    assert "composite" not in str(jax.make_jaxpr(lambda x: CALLS[name](x))(image))


def test_settings_of_a_call_are_attributes():
    with traced_for("translation"):
        closed = jax.make_jaxpr(lambda x: ops.max_pool(x, 2, stride=2))(
            numbers(2, 6, 8, 4)
        )
    attributes = closed.jaxpr.eqns[0].params["attributes"]
    settings = {key: jax.tree.unflatten(tree, flat) for key, flat, tree in attributes}
    assert settings == {"window": 2, "stride": 2, "padding": 0}


@pytest.mark.parametrize("platforms", [("cpu",), ("cuda",), ("cpu", "cuda", "tpu")])
def test_for_any_platform_a_depthwise_conv_leaves_its_form_open(platforms):
    image, kernel = numbers(2, 7, 9, 3), numbers(5, 5, 3, seed=1)
    padding = ((2, 2), (2, 2))
    with traced_for("any platform"):
        exported = jax.export.export(
            jax.jit(lambda x: ops.depthwise_conv(x, kernel, stride=2, padding=padding)),
            platforms=platforms,
        )(image)
    is_grouped = "feature_group_count = 3" in exported.mlir_module()
    assert is_grouped == ("cuda" in platforms)
    if "cpu" in platforms:
        wanted = lax.conv_general_dilated(
            image,
            kernel[:, :, None],
            (2, 2),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )
        np.testing.assert_allclose(exported.call(image), wanted, rtol=0, atol=1e-5)
