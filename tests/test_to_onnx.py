"""Primitives and layouts, through onnxruntime, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from jaxseg import ops
from jaxseg.errors import InputError
from jaxseg.to_onnx import to_onnx

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
PIXELS = IMAGE / np.float32(255)
IDENTITY = np.eye(3, dtype=np.float32)[
    None, None
]  # a 1x1 convolution that does nothing


def translate(function, shape=("n", "2*h", "2*w", 3)):
    """The ONNX model of `function(float image)`, with symbolic sizes."""
    symbols = [str(dim) for dim in shape]
    least = [f"{dim[-1]} >= 2" for dim in symbols if dim[-1] in "hw"]
    dims = jax.export.symbolic_shape(", ".join(symbols), constraints=least)
    return to_onnx(
        lambda _, image: {"y": function(image.astype(jnp.float32) / 255)},
        {},
        jax.ShapeDtypeStruct(dims, jnp.uint8),
        doc="a test",
        facts={"jaxseg": "0"},
    )


def run(model, image=IMAGE):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"image": image})[0]


def count(model, op):
    return sum(node.op_type == op for node in model.graph.node)


def channels_first(x):
    """The same numbers, stored as a convolution leaves them."""
    return ops.conv(x, IDENTITY, padding=((0, 0), (0, 0)))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# What JAX is told, and the same in NumPy.
FUNCTIONS = {
    "affine": (lambda x: 2 * x - 0.5, lambda x: 2 * x - 0.5),
    "per channel": (
        lambda x: x * jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3),
        lambda x: x * [1, 2, 3],
    ),
    "relu": (lambda x: jax.nn.relu(x - 0.5), lambda x: np.maximum(x - 0.5, 0)),
    "another maximum": (lambda x: jnp.maximum(x, 0.25), lambda x: np.maximum(x, 0.25)),
    "elu": (
        lambda x: jax.nn.elu(x - 0.5),
        lambda x: np.where(x > 0.5, x - 0.5, np.expm1(x - 0.5)),
    ),
    "elu of another slope": (
        lambda x: jax.nn.elu(x - 0.5, 0.25),
        lambda x: np.where(x > 0.5, x - 0.5, 0.25 * np.expm1(x - 0.5)),
    ),
    "silu": (jax.nn.silu, lambda x: x / (1 + np.exp(-x))),
    "sigmoid": (jax.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "softmax": (jax.nn.softmax, softmax),
    "powers": (lambda x: x**2 + x**3, lambda x: x**2 + x**3),
    "roots": (
        lambda x: jnp.sqrt(x) + jax.lax.rsqrt(x + 1),
        lambda x: x**0.5 + (x + 1) ** -0.5,
    ),
    "choice": (
        lambda x: jnp.where(x > 0.5, x, 0.0),
        lambda x: np.where(x > 0.5, x, 0),
    ),
    "argmax": (lambda x: x.argmax(-1), lambda x: x.argmax(-1)),
    "mean of pixels": (lambda x: x.mean(axis=(1, 2)), lambda x: x.mean((1, 2))),
    "mean, kept": (
        lambda x: x - x.mean(axis=(1, 2), keepdims=True),
        lambda x: x - x.mean((1, 2), keepdims=True),
    ),
    "sum of rows": (lambda x: x.sum(axis=1), lambda x: x.sum(1)),
    "sum of channels": (lambda x: x.sum(axis=3), lambda x: x.sum(3)),
    "maximum of columns": (lambda x: x.max(axis=2), lambda x: x.max(2)),
    "dense": (
        lambda x: x @ jnp.arange(12.0).reshape(3, 4),
        lambda x: x @ np.arange(12.0).reshape(3, 4),
    ),
    "concatenation of rows": (
        lambda x: jnp.concatenate([x, 2 * x], axis=1),
        lambda x: np.concatenate([x, 2 * x], 1),
    ),
    "concatenation of channels": (
        lambda x: jnp.concatenate([x, 2 * x], axis=-1),
        lambda x: np.concatenate([x, 2 * x], -1),
    ),
    "reshape": (
        lambda x: x.reshape(x.shape[0], -1, 3),
        lambda x: x.reshape(len(x), -1, 3),
    ),
    "depth to space": (
        lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2], 3),
        lambda x: x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2], 3),
    ),
    "squeezed": (
        lambda x: x.sum(-1, keepdims=True).squeeze(-1),
        lambda x: x.sum(-1),
    ),
    "slice": (lambda x: jax.lax.slice_in_dim(x, 1, 3, axis=3), lambda x: x[..., 1:3]),
    "slice from both ends": (
        lambda x: jax.lax.slice_in_dim(x, 1, -2, axis=1),
        lambda x: x[:, 1:-2],
    ),
    "last row": (
        lambda x: jax.lax.slice_in_dim(x, -1, None, axis=1),
        lambda x: x[:, -1:],
    ),
    "one number for all": (
        lambda x: jnp.broadcast_to(x.sum(axis=(1, 2, 3), keepdims=True), x.shape),
        lambda x: np.broadcast_to(x.sum((1, 2, 3), keepdims=True), x.shape),
    ),
    "size": (lambda x: x * (x.shape[1] * x.shape[2] - 1), lambda x: x * 47),
    "half a size": (lambda x: x * (x.shape[1] // 4), lambda x: x * 1),
    "square of a size": (lambda x: x * x.shape[1] ** 2, lambda x: x * 36),
}


@pytest.mark.parametrize("first", [False, True], ids=["as JAX", "channels first"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_the_numbers_of_numpy(name, first):
    function, oracle = FUNCTIONS[name]
    model = translate(lambda x: function(channels_first(x) if first else x))
    wanted = np.asarray(oracle(PIXELS.astype(np.float64)))
    found = run(model)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


CALLS = {
    "conv": lambda x: ops.conv(
        x, kernel(3, 3, 3, 5), stride=2, padding=((0, 1), (2, 1))
    ),
    "depthwise_conv": lambda x: ops.depthwise_conv(
        x, kernel(5, 5, 3), stride=2, padding=((1, 2), (2, 1))
    ),
    "max_pool": lambda x: ops.max_pool(x - 1, 3, 2, padding=1),
    "max_pool of an odd size": lambda x: ops.max_pool(ops.max_pool(x, 2, 2), 2, 2),
    "global_max": ops.global_max,
    "conv_transpose_2x2": lambda x: ops.conv_transpose_2x2(x, kernel(2, 2, 3, 5)),
    "upsample_nearest": ops.upsample_nearest,
    "upsample_bilinear": lambda x: ops.upsample_bilinear(x, 8),
}


def kernel(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_ops_gives_its_numbers(name):
    """`test_ops` compares the calls themselves with their plain forms."""
    wanted = CALLS[name](jnp.asarray(PIXELS))
    np.testing.assert_allclose(run(translate(CALLS[name])), wanted, rtol=0, atol=1e-5)


def test_between_convolutions_nothing_is_transposed():
    def network(x):
        for _ in range(3):
            x = jax.nn.relu(channels_first(x) * 2)
            x = jnp.concatenate([x, ops.upsample_nearest(ops.max_pool(x, 2, 2))], -1)
            x = ops.conv(x, kernel(1, 1, 6, 3), padding=((0, 0), (0, 0)))
        return x

    assert count(translate(network), "Transpose") == 2  # on the way in and out


def test_what_does_not_depend_on_the_image_is_computed_at_once():
    scale = np.float32([1, 2, 3])
    model = translate(lambda x: x * jax.lax.rsqrt(scale * 4.0).reshape(1, 1, 1, 3))
    assert count(model, "Sqrt") == 0
    np.testing.assert_allclose(run(model), PIXELS / np.sqrt(4 * scale), rtol=1e-5)


def test_sizes_are_free_and_named():
    model = translate(lambda x: x.sum(-1))
    (image,), (y,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [
        *"NHW",
        3,
    ]
    assert [d.dim_param for d in y.type.tensor_type.shape.dim] == [*"NHW"]
    assert run(model, np.zeros((5, 2, 4, 3), np.uint8)).shape == (5, 2, 4)


def test_a_fixed_size_stays_fixed():
    model = translate(lambda x: x.reshape(x.shape[0], -1), ("n", 6, 8, 3))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 6, 8, 3]
    np.testing.assert_allclose(run(model), PIXELS.reshape(2, -1), rtol=1e-6)


def test_an_unknown_primitive_is_named():
    with pytest.raises(InputError, match="the primitive 'cumsum'") as refusal:
        translate(lambda x: jnp.cumsum(x, axis=3))
    assert "--format stablehlo" in refusal.value.fix
