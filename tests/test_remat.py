"""Recomputing what was not kept changes the memory of a step, not its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxseg.models import MODELS
from jaxseg.models.layers import resting_norms

PYRAMID = dict(skips="blocks", decoder_widths=(16, 8, 8, 4, 4))
HEAD = dict(image_head=True, adjust_gradient=False)
NETWORKS = {
    "unet": dict(
        widths=(4, 8, 8),
        norm="batch",
        bn_group=2,
        activation="relu",
        dropout=(0.2, 0.0, 0.2),
        decoder="transpose",
        head_kernel=1,
        **HEAD,
    ),
    "encoder_unet": dict(
        encoder="resnet18", bn_group=2, drop_path=0.2, **PYRAMID, **HEAD
    ),
    "classifier": dict(
        encoder="efficientnet_b0", bn_group=None, drop_path=0.2, dropout=0.1
    ),
    "segdecnet": dict(adjust_gradient=True, variant="released"),
}
NUM_BLOCKS = {"unet": 5, "encoder_unet": 8 + 5, "classifier": 16, "segdecnet": 9}


def network(name, remat):
    return MODELS[name](1, jnp.float32, **NETWORKS[name]).clone(remat=remat)


def random_like(shapes):
    """Numbers by NumPy: initialising compiles for many seconds."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree.map_with_path(fill, shapes)


@functools.cache
def gradient_and_statistics(name, remat):
    """Of the sum of squares of all outputs, with dropout, on 4 images of 32 x 32."""
    model = network(name, remat)
    image = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = random_like(jax.eval_shape(init, image))

    def objective(params):
        outputs, updated = model.apply(
            {**variables, "params": params},
            image,
            train=True,
            rngs={"dropout": jax.random.key(3)},
            mutable=["batch_stats"],
        )
        return sum((x**2).mean() for x in jax.tree.leaves(outputs)), updated

    return jax.jit(jax.grad(objective, has_aux=True))(variables["params"])


@pytest.mark.parametrize("remat", ["norms", "blocks"])
@pytest.mark.parametrize("name", ["unet", "encoder_unet"])
def test_gradient_and_statistics_are_the_same(name, remat):
    expected = jax.tree.leaves(gradient_and_statistics(name, "none"))
    found = jax.tree.leaves(gradient_and_statistics(name, remat))
    largest = max(np.abs(leaf).max() for leaf in expected)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_is_on_its_own(name):
    image = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)
    model = network(name, "blocks")
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = jax.eval_shape(init, image)
    found = jax.make_jaxpr(functools.partial(model.apply, train=False))(
        variables, image
    )
    names = [equation.primitive.name for equation in found.eqns]
    assert names.count("remat2") + names.count("checkpoint") == NUM_BLOCKS[name]


def test_less_is_kept_and_convolutions_are_done_twice_for_blocks_only():
    """Bytes between the passes, in bfloat16, and operations as the compiler counts."""
    kept, operations = {}, {}
    for remat in ("none", "norms", "blocks"):
        keys = NETWORKS["unet"] | dict(widths=(16, 32, 64), dropout=(0.0,) * 3)
        model = MODELS["unet"](1, jnp.bfloat16, **keys).clone(remat=remat)
        image = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
        init = functools.partial(model.init, jax.random.key(0), train=False)
        variables = jax.eval_shape(init, image)

        def objective(params, rest, image, model=model):
            outputs, _ = model.apply(
                {**rest, "params": params}, image, train=True, mutable=["batch_stats"]
            )
            return outputs["seg_logits"].sum()

        arguments = (
            variables["params"],
            {"batch_stats": variables["batch_stats"]},
            image,
        )
        backward = jax.eval_shape(
            lambda *arguments, f=objective: jax.vjp(f, *arguments)[1], *arguments
        )
        residuals = jax.tree.leaves(backward)
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)
        compiled = jax.jit(jax.grad(objective)).lower(*arguments).compile()
        operations[remat] = compiled.cost_analysis()["flops"]
    assert kept["norms"] < 0.7 * kept["none"]
    assert kept["blocks"] < 0.7 * kept["norms"]
    assert operations["norms"] < 1.05 * operations["none"]
    assert 1.2 * operations["none"] < operations["blocks"] < 1.4 * operations["none"]


@pytest.mark.parametrize("remat", ["none", "norms", "blocks"])
def test_norms_rest_by_name_whatever_is_kept(remat):
    model = network("unet", remat)
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = random_like(jax.eval_shape(init, image))
    with resting_norms(lambda name: name.startswith("encoder_1/")):
        _, updated = model.apply(
            variables,
            image,
            train=True,
            rngs={"dropout": jax.random.key(3)},
            mutable=["batch_stats"],
        )
    statistics = variables["batch_stats"], updated["batch_stats"]
    same = jax.tree.map(np.array_equal, *statistics)
    resting = {name for name, is_same in flatten_dict(same, sep="/").items() if is_same}
    wanted = {n for n in flatten_dict(same, sep="/") if n.startswith("encoder_1/")}
    assert resting == wanted != set()
