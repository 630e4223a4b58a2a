import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import benchmark_twin

from jaxseg import tasks
from jaxseg.data.targets import downsize
from jaxseg.errors import InputError
from jaxseg.models.segdecnet import FeatureNorm, enlarge, segdecnet


def network(adjust_gradient=True, variant="released", dtype=jnp.float32):
    return segdecnet(1, dtype, adjust_gradient=adjust_gradient, variant=variant)


def shapes_of(model, size, channels=3):
    image = jnp.zeros((2, *size, channels))
    return jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("channels", "number"), [(3, 15_638_813), (1, 15_637_213)])
def test_the_network_has_the_published_parameters(channels, number):
    outputs, variables = shapes_of(network(), (640, 232), channels)
    assert count(variables["params"]) == number
    assert outputs["seg_map"].shape == (2, 80, 29, 1)
    assert outputs["seg_logits"].shape == (2, 640, 232, 1)
    assert outputs["cls_logits"].shape == (2, 1)
    parts = {name: count(leaf) for name, leaf in variables["params"].items()}
    volume = sum(n for name, n in parts.items() if name.startswith("volume"))
    assert volume == (15_416_608 if channels == 3 else 15_415_008)
    assert parts["mask_conv"] + parts["mask_norm"] == 1_026
    assert (
        sum(n for name, n in parts.items() if name.startswith("decision_")) == 221_112
    )
    assert parts["decision"] == 67


def test_the_paper_has_one_more_layer():
    _, variables = shapes_of(network(variant="paper"), (128, 128))
    assert count(variables["params"]) == 15_638_813 + 32 * 32 * 25 + 2 * 32


def test_numbers_start_as_xavier_and_pytorch_have_them():
    def init():
        image = jnp.zeros((1, 128, 128, 3))
        return network().init(jax.random.key(0), image, train=False)["params"]

    for name, numbers in flatten_dict(jax.jit(init)(), sep="/").items():
        if name.startswith("decision/"):  # from 66 features
            assert (np.abs(numbers) <= 66**-0.5).all(), name
        elif name.endswith("kernel"):
            height, width, fan_in, fan_out = numbers.shape
            wanted = (2 / (height * width * (fan_in + fan_out))) ** 0.5
            spread = 5 / (2 * numbers.size) ** 0.5  # five deviations of a deviation
            assert numbers.std() == pytest.approx(wanted, rel=spread), name
            if numbers.size > 1e6:  # a normal has tails
                assert (np.abs(numbers) > 2.5 * wanted).mean() > 0.012, name
        else:
            assert (numbers == (1 if name.endswith("scale") else 0)).all(), name


def test_feature_norm_divides_by_the_root_of_the_deviation():
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 4, 3)).astype(np.float32)
    scale, bias = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 3.0])
    params = {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}
    found = FeatureNorm().apply({"params": params}, x)
    wanted = np.empty_like(x)
    for sample in range(2):
        for channel in range(3):
            pixels = x[sample, :, :, channel].astype(np.float64)
            deviation = np.sqrt(((pixels - pixels.mean()) ** 2).sum() / (20 - 1))
            normed = (pixels - pixels.mean()) / np.sqrt(deviation + 0.001)
            wanted[sample, :, :, channel] = scale[channel] * normed + bias[channel]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_constant_channel_has_a_finite_gradient():
    x = jnp.ones((1, 4, 4, 2)).at[..., 1].set(jnp.arange(16.0).reshape(1, 4, 4))
    params = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    weights = jnp.cos(jnp.arange(16.0)).reshape(1, 4, 4, 1)

    def weighted(x):
        return (FeatureNorm().apply({"params": params}, x) * weights).sum()

    found = jax.grad(weighted)(x)
    # (x - mean) / sqrt(0.001), the deviation held at 0
    centred = (weights - weights.mean())[0, :, :, 0] / np.sqrt(0.001)
    np.testing.assert_allclose(found[0, :, :, 0], centred, rtol=1e-5, atol=1e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("size", "fitting"),
    [
        ((120, 120), (128, 120)),
        ((128, 130), (128, 136)),
        ((64, 64), (128, 64)),
        ((56, 1024), (64, 1024)),
    ],
)
def test_a_size_without_a_decision_map_is_refused(size, fitting):
    with pytest.raises(InputError) as refusal:
        shapes_of(network(), size)
    assert refusal.value.fix == f'--config.data.image_size="{fitting}"'
    shapes_of(network(), fitting)


def test_a_narrow_strip_has_a_deviation_in_every_map():
    shapes, _ = shapes_of(network(), (64, 128))
    assert shapes["seg_map"].shape == (2, 8, 16, 1)


def test_more_than_two_classes_are_refused():
    with pytest.raises(InputError, match="two classes"):
        segdecnet(3, jnp.float32, adjust_gradient=True, variant="released")


# One program for all that a compiled network must show: it takes a while to compile.


def numbers(path, leaf):
    """Weights that keep activations of order 1, without a random generator of XLA."""
    name = path[-1].key
    seed = zlib.crc32("/".join(entry.key for entry in path).encode())
    rng = np.random.default_rng(seed)
    if name == "kernel":
        deviation = np.sqrt(1 / np.prod(leaf.shape[:-1]))
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)
    low, high = (0.5, 1.5) if name == "scale" else (-0.2, 0.2)
    return rng.uniform(low, high, leaf.shape).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.tree.map_with_path(numbers, shapes_of(network(), (128, 136))[1])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(size=(2, 128, 136, 3)).astype(np.float32)


def in_pytorch(params):
    """The benchmark's statement of the formulas with these parameters."""
    networks = pytest.importorskip("torch_networks", reason="torch is not installed")
    network = networks.SegDecNet()
    ported = {name: networks.torch.from_numpy(w) for name, w in port(params).items()}
    network = network.to(ported["decision.bias"].dtype)
    network.load_state_dict(ported)
    return network


def port(params):
    """Parameters or their gradients by their names in PyTorch."""
    weights = {k: np.asarray(w) for k, w in flatten_dict(params, sep="/").items()}
    return {
        name: np.ascontiguousarray(w)
        for name, w in benchmark_twin.port_weights("segdecnet", weights).items()
    }


def test_the_network_equals_the_formulas_in_pytorch(variables, image):
    twin = in_pytorch(variables["params"])
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        logits, decision = twin(torch.from_numpy(image).permute(0, 3, 1, 2))
    run = jax.jit(lambda v, x: network().apply(v, x, train=False))
    found = run(variables, image)
    np.testing.assert_allclose(found["seg_map"][..., 0], logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["cls_logits"][:, 0], decision, rtol=0, atol=1e-4)


SHARES, DELTA, PROGRESS = (1 - 0.25, 0.4 * 0.25), 0.4, 0.25


def one_by_one_in_pytorch(params, image, target, weight):
    """Sum of the losses, and of the gradients of as many backward passes."""
    twin = in_pytorch(params)
    torch = pytest.importorskip("torch")
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    loss = 0.0
    for n in range(len(image)):
        one = torch.from_numpy(image[n : n + 1]).permute(0, 3, 1, 2)
        logits, decision = twin(one)
        wanted, share = torch.from_numpy(target[n]), torch.from_numpy(weight[n])
        seg_loss = (share * entropy(logits[0], wanted, reduction="none")).mean()
        dec_loss = entropy(decision[0], wanted.max())
        single = SHARES[0] * seg_loss + SHARES[1] * dec_loss
        single.backward()
        loss += float(single.detach())
    return loss, {name: w.grad.numpy() for name, w in twin.named_parameters()}


def test_a_batch_has_the_gradient_of_its_images_one_by_one_in_pytorch(
    variables, image, monkeypatch
):
    """Both in double precision: in single a ReLU or a max-pool near a tie takes the
    other side, here as there, which alone moves gradients below by some per cent.
    """
    rng = np.random.default_rng(2)
    arrays = {
        "params": variables["params"],
        "image": image,
        "target": rng.uniform(size=(2, 16, 17)),
        "weight": rng.uniform(0, 3, size=(2, 16, 17)),
    }
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), arrays)
    loss, exact = one_by_one_in_pytorch(**arrays)
    task = tasks.segdec(
        ("background", "crack"),
        delta=DELTA,
        soft_label=True,
        dynamic=True,
        weighted=True,
        weight_power=1.0,
        weight_max=1.0,
        weight_per_component=False,
        dilate=1,
        threshold="max_f1",
        min_recall=0.9,
    )
    batch = {
        "mask": np.ones((2, 128, 136), np.uint8),
        "label": np.ones(2, np.int32),
        "seg_target": arrays["target"],
        "seg_weight": arrays["weight"],
        "progress": np.full(2, PROGRESS),
    }

    def objective(params):
        model = network(adjust_gradient=True, dtype=jnp.float64)
        outputs = model.apply({"params": params}, arrays["image"], train=True)
        return task.losses(outputs, batch)["loss"].sum()

    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)  # which the layers ask for by name
        found, grads = jax.jit(jax.value_and_grad(objective))(arrays["params"])
    assert float(found) == pytest.approx(loss, rel=1e-6)
    for name, mine in port(grads).items():
        away = np.linalg.norm(mine - exact[name]) / np.linalg.norm(exact[name])
        assert away < 1e-6, name


def test_with_adjustment_the_decision_never_moves_the_segmentation(variables, image):
    def gradient(adjust_gradient):
        def decision(params):
            model = network(adjust_gradient)
            outputs = model.apply({"params": params}, image[:1, :, :128], train=True)
            return outputs["cls_logits"].sum()

        return flatten_dict(jax.jit(jax.grad(decision))(variables["params"]), sep="/")

    adjusted, free = gradient(True), gradient(False)
    for name, leaf in adjusted.items():
        is_decision = name.startswith("decision")
        assert (np.abs(leaf).max() > 0) == is_decision, name
        if not is_decision and name != "mask_norm/bias":
            assert np.abs(free[name]).max() > 0, name


def test_the_enlarged_map_lies_where_its_target_was_made():
    """Coarse targets of blobs, enlarged, are centred on the blobs to half a pixel."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        y, x = rng.uniform(40, 88, 2)
        rows, columns = np.indices((128, 128))
        blob = ((rows - y) ** 2 + (columns - x) ** 2 < 10**2).astype(np.float32)
        coarse = jnp.asarray(downsize(blob))[None, ..., None]
        large = np.asarray(enlarge(coarse))[0, ..., 0]
        found = [(large * axis).sum() / large.sum() for axis in (rows, columns)]
        expected = [(blob * axis).sum() / blob.sum() for axis in (rows, columns)]
        np.testing.assert_allclose(found, np.subtract(expected, 0.5), atol=0.2)


def test_the_enlarged_map_repeats_its_edge():
    flat = np.asarray(enlarge(jnp.full((1, 3, 4, 1), 2.0)))
    np.testing.assert_array_equal(flat, np.full((1, 24, 32, 1), 2.0))
