import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AxisType

from jaxseg import parallel
from jaxseg.errors import InputError
from jaxseg.models import (
    MODELS,
    classifier,
    encoder_unet,
    layers,
    segdecnet,
    simple_cnn,
    unet,
)
from jaxseg.models.heads import DecisionHead
from jaxseg.models.resnet import BLOCKS, BasicBlock, ResNetEncoder
from jaxseg.models.unet import DoubleConv


def unet_of(widths, num_outputs=1, dtype=jnp.float32, **changes):
    keys = dict(
        norm="none",
        bn_group=None,
        activation="relu",
        dropout=(0.0,) * len(widths),
        decoder="transpose",
        head_kernel=1,
        image_head=False,
        adjust_gradient=False,
    )
    return unet(num_outputs, dtype, widths=widths, **{**keys, **changes})


def classifier_of(encoder, num_outputs=1, dtype=jnp.float32):
    return classifier(
        num_outputs, dtype, encoder=encoder, bn_group=None, drop_path=0.0, dropout=0.0
    )


def encoder_unet_of(encoder, num_outputs=1, dtype=jnp.float32, **changes):
    keys = dict(
        skips="blocks",
        decoder_widths=(256, 128, 64, 32, 16),
        bn_group=None,
        drop_path=0.0,
        image_head=False,
        adjust_gradient=False,
    )
    return encoder_unet(num_outputs, dtype, encoder=encoder, **{**keys, **changes})


def shapes_of(model, size=(32, 32), channels=3):
    """(outputs, variables) by shape; nothing is computed."""
    image = jnp.zeros((2, *size, channels))
    return jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )


def random_variables(model, seed=0, **shape):
    """Numbers in place of every variable, by NumPy; no two layers are alike."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name, fan_in = path[-1].key, math.prod(leaf.shape[:-1])
        if name == "kernel":
            return rng.normal(0, math.sqrt(2 / fan_in), leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    variables = shapes_of(model, **shape)[1]
    return jax.tree.map_with_path(fill, variables)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Published numbers of parameters.

U512, U1024 = (64, 128, 256, 512), (64, 128, 256, 512, 1024)

PUBLISHED = {
    # three classes, 3x3 head, without and with the 1024 level
    "coffee leaf": (7_699_011, unet_of(U512, 3, head_kernel=3)),
    "coffee leaf, upsampled": (
        7_699_011,
        unet_of(U512, 3, head_kernel=3, decoder="upsample"),
    ),
    "coffee leaf, version 2": (31_033_411, unet_of(U1024, 3, head_kernel=3)),
    "road": (1_941_105, unet_of((16, 32, 64, 128, 256))),
    "original widths": (31_031_745, unet_of(U1024)),
    "half widths": (7_760_097, unet_of((32, 64, 128, 256, 512))),
    "SDNET2018": (
        412_849,
        simple_cnn(1, jnp.float32, bn_group=None, dropout=0.5),
    ),
    # torchvision's 11,689,512 less its head of 512 * 1000 + 1000, plus 512 + 1
    "ResNet-18": (11_177_025, classifier_of("resnet18")),
    # torchvision's 21,797,672 less the same head is 21,284,672. By hand, convolutions
    # and their norms (2 numbers a channel): stem 9,408 + 128; stage 1 with 3 blocks
    # 221,952; stage 2 with 4: 1,116,416; stage 3 with 6: 6,822,400; stage 4 with 3:
    # 13,114,368; sum 21,284,672. One logit adds 512 + 1.
    "ResNet-34": (21_285_185, classifier_of("resnet34")),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_number_of_parameters(name):
    number, model = PUBLISHED[name]
    params = shapes_of(model, size=(64, 64))[1]["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == number


# Outputs.

TINY = {
    "unet": unet_of((4, 8), 3, jnp.bfloat16, image_head=True, norm="batch"),
    "encoder_unet": encoder_unet_of("resnet18", 3, jnp.bfloat16, image_head=True),
    "classifier": classifier_of("tf_efficientnet_b0", 3, jnp.bfloat16),
    "simple_cnn": simple_cnn(3, jnp.bfloat16, bn_group=None, dropout=0.5),
    "segdecnet": segdecnet(1, jnp.bfloat16, adjust_gradient=True, variant="released"),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_float32_and_of_the_documented_shape(name, channels):
    outputs, variables = shapes_of(TINY[name], size=(128, 160), channels=channels)
    wanted = {
        "unet": {"seg_logits": (2, 128, 160, 3), "cls_logits": (2, 1)},
        "encoder_unet": {"seg_logits": (2, 128, 160, 3), "cls_logits": (2, 1)},
        "classifier": {"cls_logits": (2, 3)},
        "simple_cnn": {"cls_logits": (2, 3)},
        "segdecnet": {
            "seg_map": (2, 16, 20, 1),
            "seg_logits": (2, 128, 160, 1),
            "cls_logits": (2, 1),
        },
    }
    assert {key: logits.shape for key, logits in outputs.items()} == wanted[name]
    leaves = jax.tree.leaves((outputs, variables))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("model", "size", "fitting"),
    [
        (unet_of((4, 8, 8)), (30, 33), "(32, 36)"),
        (unet_of((4, 8, 8, 8, 8)), (224, 225), "(224, 240)"),
        (TINY["simple_cnn"], (63, 64), "(64, 64)"),
    ],
)
def test_a_size_that_cannot_be_halved_is_refused_with_one_that_can(
    model, size, fitting
):
    with pytest.raises(InputError) as refusal:
        shapes_of(model, size=size)
    assert fitting in refusal.value.fix
    assert str(size) in refusal.value.found


def test_the_features_of_a_resnet_halve_and_widen():
    features, _ = shapes_of(ResNetEncoder(18, None, 0.0), size=(64, 96))
    wanted = [(2, 64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    assert [feature.shape[:3] for feature in features] == wanted
    assert [feature.shape[3] for feature in features] == [64, 64, 128, 256, 512]


def test_a_block_whose_last_norm_is_silent_passes_its_input_on():
    block = BasicBlock(4, 1, None, 0.0, jnp.float32)
    variables = random_variables(block, size=(6, 5), channels=4)
    norm = variables["params"]["layer_2"]["norm"]
    norm.update(scale=np.zeros(4, np.float32), bias=np.zeros(4, np.float32))
    stats = variables["batch_stats"]["layer_2"]["norm"]
    stats.update(mean=np.zeros(4, np.float32))
    image = pictures(2, 6, 5, 4)
    found = jax.jit(functools.partial(block.apply, train=False))(variables, image)
    np.testing.assert_allclose(found, np.maximum(image, 0), rtol=0, atol=1e-6)


def test_every_skip_reaches_the_output():
    widths = (2, 3, 4)
    model = unet_of(widths, activation="linear")
    variables = random_variables(model)
    image = pictures(1, 8, 8, 3)

    @jax.jit
    @jax.grad
    def gradient(params):
        return (model.apply({"params": params}, image, train=False)["seg_logits"]).sum()

    params = variables["params"]
    grads = gradient(params)
    for level, width in enumerate(widths[:-1]):
        channels = kernel_use(grads, level)
        assert len(channels) == 2 * width
        assert (channels > 0).all()
    silent = jax.tree.map(np.zeros_like, params["up_0"])  # what comes from below is 0
    channels = kernel_use(gradient({**params, "up_0": silent}), level=0)
    assert (channels[: widths[0]] > 0).all()  # the skip comes first
    assert (channels[widths[0] :] == 0).all()


def kernel_use(grads, level):
    """How much each input channel of a decoder block matters."""
    return np.abs(grads[f"decoder_{level}"]["Conv_0"]["kernel"]).sum(axis=(0, 1, 3))


def test_only_a_linear_network_adds_up():
    a, b = pictures(1, 8, 8, 3), pictures(1, 8, 8, 3, seed=1)
    excess = {}
    for activation in layers.ACTIVATIONS:
        model = unet_of((4,), activation=activation)  # one level: no max-pool
        run = jax.jit(functools.partial(model.apply, train=False))
        variables = random_variables(model)
        at_a, at_b, at_both, at_zero = (
            run(variables, image)["seg_logits"] for image in (a, b, a + b, 0 * a)
        )
        excess[activation] = float(jnp.abs(at_both + at_zero - at_a - at_b).max())
    assert excess.pop("linear") < 1e-4
    assert min(excess.values()) > 0.1


def test_activations_by_hand():
    x = jnp.array([-1.0, 0.0, 2.0])
    wanted = {
        "relu": [0.0, 0.0, 2.0],
        "elu": [math.exp(-1) - 1, 0.0, 2.0],
        "linear": [-1.0, 0.0, 2.0],
    }
    assert set(wanted) == set(layers.ACTIVATIONS)
    for name, values in wanted.items():
        np.testing.assert_allclose(layers.ACTIVATIONS[name](x), values, atol=1e-6)


def test_dropout_acts_in_training_only():
    image = np.ones((2, 8, 8, 4), np.float32)
    outputs = {}
    for rate in (0.0, 0.5):
        block = DoubleConv(4, "none", None, "relu", rate, jnp.float32)
        variables = random_variables(block, size=(8, 8), channels=4)
        run = jax.jit(functools.partial(block.apply, train=rate > 0))
        keys = (jax.random.key(seed, impl="rbg") for seed in (0, 1))
        outputs[rate] = [run(variables, image, rngs={"dropout": key}) for key in keys]
        still = jax.jit(functools.partial(block.apply, train=False))(variables, image)
        np.testing.assert_allclose(still, outputs[0.0][0], atol=1e-6)
    assert (outputs[0.5][0] != outputs[0.5][1]).any()


def test_kernels_start_with_the_variance_of_he():
    image = jnp.zeros((1, 8, 8, 32))
    for layer, fan_in in (
        (layers.Conv(64), 9 * 32),
        (layers.ConvTranspose2x2(64), 32),  # every output pixel sees one tap
    ):
        key = jax.random.key(0, impl="rbg")  # threefry compiles for seconds
        kernel = layer.init(key, image)["params"]["kernel"]
        assert float(kernel.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)


# Norms.


def mesh_of(num_devices):
    devices = jax.devices()[:num_devices]
    return jax.make_mesh(
        (num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def run_norm(variables, image, bn_group, num_devices):
    """(output, updated statistics) of a training step of the norm."""
    mesh = mesh_of(num_devices)
    norm = layers.GhostBatchNorm(bn_group)
    run = jax.jit(
        functools.partial(norm.apply, train=True, mutable=["batch_stats"]),
        in_shardings=(parallel.replicated(mesh), parallel.split_batch(mesh)),
    )
    output, updated = run(variables, image)
    return np.asarray(output), jax.device_get(updated["batch_stats"])


def norm_case():
    """16 images of different brightness: 2 a device, where there are 8."""
    image = pictures(16, 3, 4, 2) + np.arange(16)[:, None, None, None] / 16
    params = {"scale": np.float32([0.5, 2.0]), "bias": np.float32([0.1, -0.3])}
    stats = {"mean": np.float32([1.0, 2.0]), "var": np.float32([3.0, 4.0])}
    return image.astype(np.float32), {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("bn_group", [1, 2, 8, None])
def test_groups_are_normalised_apart_whatever_the_number_of_devices(bn_group):
    image, variables = norm_case()
    params, old = variables["params"], variables["batch_stats"]
    groups = np.split(image.astype(np.float64), 16 // (bn_group or 16))
    means = np.stack([group.mean(axis=(0, 1, 2)) for group in groups])
    variances = np.stack([group.var(axis=(0, 1, 2)) for group in groups])
    unbiased = np.stack([group.var(axis=(0, 1, 2), ddof=1) for group in groups])
    wanted = np.concatenate(
        [
            params["scale"] * (group - mean) / np.sqrt(var + 1e-5) + params["bias"]
            for group, mean, var in zip(groups, means, variances, strict=True)
        ]
    )
    for num_devices in (1, 8):
        output, new = run_norm(variables, image, bn_group, num_devices)
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)
        running = 0.9 * old["mean"] + 0.1 * means.mean(axis=0)
        np.testing.assert_allclose(new["mean"], running, rtol=0, atol=1e-5)
        running = 0.9 * old["var"] + 0.1 * unbiased.mean(axis=0)
        np.testing.assert_allclose(new["var"], running, rtol=0, atol=1e-5)


def test_evaluation_uses_the_running_statistics():
    image, variables = norm_case()
    params, stats = variables["params"], variables["batch_stats"]
    found = layers.GhostBatchNorm(4).apply(variables, image, train=False)
    centred = (image - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    wanted = params["scale"] * centred + params["bias"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_norm_keeps_the_dtype_and_its_statistics_float32():
    image, variables = norm_case()
    run = jax.eval_shape(
        lambda: layers.GhostBatchNorm(4, dtype=jnp.bfloat16).apply(
            variables, image.astype(jnp.bfloat16), train=True, mutable=["batch_stats"]
        )
    )
    assert run[0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(run[1])} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("channels", "num_groups"), [(12, 4), (64, 32), (5, 1)])
def test_group_norm_by_numpy(channels, num_groups):
    image = pictures(2, 4, 3, channels)
    params = {"scale": pictures(channels), "bias": pictures(channels, seed=1)}
    variables = {"params": {"GroupNorm_0": params}}
    found = jax.jit(layers.GroupNorm().apply)(variables, image)
    grouped = image.reshape(2, 12, num_groups, -1)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    var = grouped.var(axis=(1, 3), keepdims=True)
    wanted = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(image.shape)
    wanted = wanted * params["scale"] + params["bias"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


# PyTorch as the oracle, with the weights carried over.


@pytest.fixture
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


def test_the_norm_equals_that_of_pytorch(torch):
    image, variables = norm_case()
    norm = torch.nn.BatchNorm2d(2, momentum=0.1)
    params, stats = variables["params"], variables["batch_stats"]
    values = dict(
        weight=params["scale"],
        bias=params["bias"],
        running_mean=stats["mean"],
        running_var=stats["var"],
    )
    norm.load_state_dict(
        {name: torch.tensor(value) for name, value in values.items()}, strict=False
    )
    wanted = to_numpy(norm(to_torch(torch, image)))
    output, new = run_norm(variables, image, None, 1)
    np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(new["mean"], norm.running_mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(new["var"], norm.running_var, rtol=0, atol=1e-5)


def to_torch(torch, image):
    return torch.tensor(image).permute(0, 3, 1, 2)


def to_numpy(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def torch_conv(torch, params, x, stride=1, padding=0):
    """Convolution with the kernel and bias, if there is one, of a Flax layer."""
    kernel = torch.tensor(params["kernel"]).permute(3, 2, 0, 1)
    bias = torch.tensor(params["bias"]) if "bias" in params else None
    return torch.nn.functional.conv2d(x, kernel, bias, stride, padding)


def torch_norm(torch, params, stats, x):
    values = stats["mean"], stats["var"], params["scale"], params["bias"]
    return torch.nn.functional.batch_norm(x, *map(torch.tensor, values))


def torch_unet(torch, variables, image, depth, decoder):
    """The U-Net of the paper, zero-padded, with norms, in evaluation."""
    params, stats = variables["params"], variables["batch_stats"]
    functional = torch.nn.functional

    def block(name, x):
        for i in range(2):
            x = torch_conv(torch, params[name][f"Conv_{i}"], x, padding=1)
            norm = f"GhostBatchNorm_{i}"
            x = torch_norm(torch, params[name][norm], stats[name][norm], x).relu()
        return x

    def upsample(name, x):
        if decoder == "transpose":
            kernel = torch.tensor(params[name]["kernel"]).permute(2, 3, 0, 1)
            bias = torch.tensor(params[name]["bias"])
            return functional.conv_transpose2d(x, kernel, bias, stride=2)
        x = functional.pad(functional.interpolate(x, scale_factor=2), (0, 1, 0, 1))
        return torch_conv(torch, params[name], x)

    x, skips = to_torch(torch, image), []
    for level in range(depth):
        x = functional.max_pool2d(x, 2) if level else x
        x = block(f"encoder_{level}", x)
        skips.append(x)
    for level in reversed(range(depth - 1)):
        x = torch.cat([skips[level], upsample(f"up_{level}", x)], dim=1)
        x = block(f"decoder_{level}", x)
    return torch_conv(torch, params["mask_head"]["Conv_0"], x, padding=1)


@pytest.mark.parametrize("decoder", ["transpose", "upsample"])
def test_the_unet_equals_one_in_pytorch(torch, decoder):
    model = unet_of((3, 4, 5), 2, norm="batch", decoder=decoder, head_kernel=3)
    variables, image = random_variables(model), pictures(2, 16, 24, 3)
    run = jax.jit(functools.partial(model.apply, train=False))
    found = run(variables, image)["seg_logits"]
    wanted = to_numpy(torch_unet(torch, variables, image, 3, decoder))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def torch_resnet(torch, variables, image, strides):
    """Stem, one basic block per stride, mean, dense: torchvision's `forward`."""
    params, stats = variables["params"], variables["batch_stats"]["encoder"]
    encoder = params["encoder"]

    def conv_norm(path, x, stride, padding):
        layer, statistics = encoder, stats
        for name in path:
            layer, statistics = layer[name], statistics[name]
        x = torch_conv(torch, layer["conv"], x, stride, padding)
        return torch_norm(torch, layer["norm"], statistics["norm"], x)

    x = conv_norm(["stem"], to_torch(torch, image), 2, 3).relu()
    x = torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    for stage, stride in enumerate(strides, start=1):
        name = f"stage_{stage}_block_1"
        y = conv_norm([name, "layer_1"], x, stride, 1).relu()
        y = conv_norm([name, "layer_2"], y, 1, 1)
        if "projection" in encoder[name]:
            x = conv_norm([name, "projection"], x, stride, 0)
        x = (x + y).relu()
    head = params["image_head"]["Dense_0"]
    mean = x.mean(dim=(2, 3))
    return mean @ torch.tensor(head["kernel"]) + torch.tensor(head["bias"])


def test_the_resnet_equals_one_in_pytorch(torch, monkeypatch):
    monkeypatch.setitem(BLOCKS, 18, (1, 1))  # two stages show all there is
    model = classifier_of("resnet18", 3)
    variables, image = random_variables(model), pictures(2, 31, 33, 3)
    found = jax.jit(functools.partial(model.apply, train=False))(variables, image)
    wanted = torch_resnet(torch, variables, image, strides=(1, 2))
    np.testing.assert_allclose(found["cls_logits"], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_decision_pools_features_and_mask(num_outputs):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    logits = rng.normal(size=(2, 6, 8, num_outputs)).astype(np.float32)
    kernel = rng.normal(size=(2 * 5 + 2 * num_outputs, 1)).astype(np.float32)
    params = {"Dense_0": {"kernel": kernel, "bias": np.array([0.5], np.float32)}}
    found = DecisionHead(False).apply({"params": params}, features, logits)
    pixels = (0, 1)
    wanted = [
        np.concatenate([f.max(pixels), f.mean(pixels), s.max(pixels), s.mean(pixels)])
        @ kernel
        + 0.5
        for f, s in zip(features, logits, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", ["unet", "encoder_unet"])
def test_an_adjusted_decision_moves_nothing_but_its_head(network, monkeypatch):
    monkeypatch.setitem(BLOCKS, 18, (1, 1, 1, 1))
    image = pictures(2, 32, 32, 3)

    def gradient(adjust_gradient):
        keys = dict(image_head=True, adjust_gradient=adjust_gradient)
        if network == "unet":
            model = unet_of((4, 8), norm="batch", **keys)
        else:
            keys["decoder_widths"] = (8, 8, 4, 4, 4)
            model = encoder_unet_of("resnet18", **keys)
        variables = random_variables(model)

        def decision(params):
            outputs, _ = model.apply(
                {**variables, "params": params}, image, train=True, mutable=True
            )
            return outputs["cls_logits"].sum()

        grads = jax.jit(jax.grad(decision))(variables["params"])
        return flatten_dict(grads, sep="/")

    adjusted, free = gradient(True), gradient(False)
    for name, leaf in adjusted.items():
        is_head = name.startswith("image_head")
        assert (np.abs(leaf).max() > 0) == is_head, name
    parts = {name.split("/")[0] for name, leaf in free.items() if np.any(leaf)}
    assert parts == {name.split("/")[0] for name in free}
