import importlib.util
import json
import sys
import types

import jax
import jax.numpy as jnp
import make_parity_arrays as parity
import numpy as np
import pytest
import tiny_models as tiny
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from jaxseg import export, pretrained, weight_files
from jaxseg.config import Model, Spec
from jaxseg.errors import InputError
from jaxseg.models import MODELS
from jaxseg.pretrained import IMAGENET, load_start, save_smp
from jaxseg.weight_files import read_safetensors

UNET = dict(
    skips="blocks",
    decoder_widths=(256, 128, 64, 32, 16),
    bn_group=None,
    drop_path=0.0,
    image_head=False,
    adjust_gradient=False,
)
CLASSIFIER = dict(bn_group=None, drop_path=0.0, dropout=0.0)
ENCODERS = {
    "smp resnet34": "resnet34",
    "smp efficientnet-b0": "smp_efficientnet_b0",
    "smp efficientnet-b1": "smp_efficientnet_b1",
    "torchvision resnet18": "resnet18",
    "timm efficientnet_b1": "efficientnet_b1",
    "timm tf_efficientnet_b0": "tf_efficientnet_b0",
}


@pytest.fixture(scope="module")
def arrays():
    return dict(np.load(parity.PATH))


def spec_of(name):
    if name.startswith("smp"):
        return Spec("encoder_unet", dict(UNET, encoder=ENCODERS[name]))
    return Spec("classifier", dict(CLASSIFIER, encoder=ENCODERS[name]))


def build(spec, outputs=1):
    return MODELS[spec.name](outputs, jnp.float32, **spec.kwargs)


def template_of(spec, channels=3, outputs=1):
    image = jnp.zeros((1, 64, 64, channels))
    return jax.eval_shape(
        lambda: build(spec, outputs).init(jax.random.key(0), image, train=False)
    )


def data_of(mean=IMAGENET[0], std=IMAGENET[1]):
    return types.SimpleNamespace(mean=mean, std=std, channels=len(mean))


def state_of(arrays, name):
    """The state dict that the library's network was given."""
    shapes = json.loads(str(arrays[f"{name}/shapes"]))
    return {key: parity.weight(key, tuple(shape)) for key, shape in shapes.items()}


@pytest.fixture
def weights(arrays, tmp_path):
    """Writes the weights of a network as a file; returns its path."""

    def write(name, **changes):
        path = tmp_path / "weights.safetensors"
        state = state_of(arrays, name)
        save_file({k: v for k, v in (state | changes).items() if v is not None}, path)
        return path

    return write


def start_of(spec, path):
    """A whole network of smp."""
    return Model(spec, init=f"smp:{path}")


def close(found, wanted):
    scale = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * scale)


# Parity with the libraries, through committed arrays.


def features_of(spec, variables, image, train=False):
    """(logits, five features, new statistics)."""
    logits, updated = jax.jit(
        lambda variables, image: build(spec).apply(
            variables,
            image,
            train=train,
            capture_intermediates=lambda module, method: (
                (module.name, method) == ("encoder", "__call__")
            ),
            mutable=["intermediates", "batch_stats"],
        )
    )(variables, image)
    features = updated["intermediates"]["encoder"]["__call__"][0]
    return logits, features, updated["batch_stats"]


@pytest.mark.parametrize("name", parity.UNETS)
def test_a_whole_unet_of_smp_gives_its_features_logits_and_statistics(
    arrays, weights, name
):
    spec = spec_of(name)
    variables = load_start(start_of(spec, weights(name)), data_of(), template_of(spec))
    image = parity.picture(64, 96)
    logits, features, _ = features_of(spec, variables, image)
    close(logits["seg_logits"][:, ::2, ::2, 0], arrays[f"{name}/logits"])
    for level, feature in enumerate(features):
        found = parity.summarize(np.asarray(feature).transpose(0, 3, 1, 2))
        close(found, arrays[f"{name}/feature_{level}"])
    if name == "smp efficientnet-b1":  # b0 with more blocks; compiles for seconds
        return
    logits, _, statistics = features_of(spec, variables, image, train=True)
    close(logits["seg_logits"][:, ::4, ::4, 0], arrays[f"{name}/train_logits"])
    compared = 0
    for path, leaf in flatten_dict({"batch_stats": statistics}, sep="/").items():
        theirs = pretrained._smp_name(path, *pretrained._smp_naming(spec))
        if f"{name}/{theirs}" in arrays:
            close(leaf, arrays[f"{name}/{theirs}"])
            compared += 1
    assert compared >= 8


@pytest.mark.parametrize("name", parity.PYRAMIDS)
def test_an_encoder_gives_the_features_of_its_library(arrays, weights, name):
    spec = spec_of(name)
    template = template_of(spec)
    start = Model(spec, encoder_weights=str(weights(name)))
    loaded = load_start(start, data_of(), template)
    assert loaded["params"].keys() == {"encoder"}
    head = {"Dense_0": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}}
    size = template["params"]["image_head"]["Dense_0"]["kernel"].shape
    head["Dense_0"]["kernel"] = np.ones(size, np.float32)
    loaded["params"]["image_head"] = head
    _, features, _ = features_of(spec, loaded, parity.picture(*parity.PYRAMIDS[name]))
    if name.startswith("timm"):
        features = features[1:]
    levels = sorted(key for key in arrays if key.startswith(f"{name}/feature_"))
    for level, feature in zip(levels, features, strict=True):
        found = parity.summarize(np.asarray(feature).transpose(0, 3, 1, 2))
        close(found, arrays[level])


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in parity.LIBRARIES),
    reason="the PyTorch libraries are not installed",
)
@pytest.mark.parametrize("name", [*parity.UNETS, *parity.PYRAMIDS])
def test_the_committed_arrays_are_those_of_the_libraries(arrays, name):
    for key, array in parity.compute(name, parity.import_libraries()).items():
        if key == "shapes":
            assert json.loads(str(array)) == json.loads(str(arrays[f"{name}/shapes"]))
        else:
            close(arrays[f"{name}/{key}"], array)


# Published numbers of parameters.


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("smp resnet34", 0),
        # the 1x1 convolution to 1280 channels and its norm, which smp never runs
        ("smp efficientnet-b0", 320 * 1280 + 2 * 1280),
        ("smp efficientnet-b1", 320 * 1280 + 2 * 1280),
    ],
)
def test_unets_have_the_parameters_of_smp(arrays, name, unused):
    published = {
        "smp resnet34": 24_436_369,
        "smp efficientnet-b0": 6_251_469,
        "smp efficientnet-b1": 8_757_105,
    }[name]
    assert arrays[f"{name}/num_parameters"] == published
    assert count(template_of(spec_of(name))["params"]) == published - unused


@pytest.mark.parametrize(
    ("encoder", "total", "statistics"),
    [
        ("tf_efficientnet_b0", 10_115_501, 44_000),
        ("tf_efficientnet_b1", 12_641_169, 64_032),
    ],
)
def test_unets_on_expansions_have_the_parameters_of_keras(encoder, total, statistics):
    keys = dict(UNET, encoder=encoder, skips="expansions")
    variables = template_of(Spec("encoder_unet", keys))
    assert count(variables["batch_stats"]) == statistics
    assert count(variables) == total


# Back to PyTorch.


@pytest.mark.parametrize("name", ["smp resnet34", "smp efficientnet-b0"])
def test_a_state_dict_survives_the_way_here_and_back(arrays, weights, tmp_path, name):
    spec = spec_of(name)
    variables = load_start(start_of(spec, weights(name)), data_of(), template_of(spec))
    save_smp(tmp_path / "back.safetensors", spec, variables)
    back, state = load_file(tmp_path / "back.safetensors"), state_of(arrays, name)
    assert back.keys() == state.keys()
    for key, array in back.items():
        assert array.shape == state[key].shape
        if not key.startswith(("encoder._conv_head", "encoder._bn1")):
            np.testing.assert_array_equal(array, state[key])


def test_an_export_into_no_folder_is_refused(tmp_path):
    spec = spec_of("smp resnet34")
    nothing = {"params": {"mask_head": {"Conv_0": {"bias": np.zeros(1, np.float32)}}}}
    with pytest.raises(InputError, match="a file that can be written"):
        save_smp(tmp_path / "none" / "x.safetensors", spec, nothing)


def test_keras_forms_cannot_go_to_smp(tmp_path):
    spec = Spec("encoder_unet", dict(UNET, encoder="resnet34", image_head=True))
    with pytest.raises(InputError, match="that segmentation_models"):
        save_smp(tmp_path / "x.safetensors", spec, {})
    assert not list(tmp_path.iterdir())


# The stem for other numbers of channels.


def test_one_channel_sums_the_stem(weights):
    spec = spec_of("torchvision resnet18")
    path = weights("torchvision resnet18")
    start = Model(spec, encoder_weights=str(path))
    data = data_of((float(np.mean(IMAGENET[0])),), (float(np.mean(IMAGENET[1])),))
    grey = load_start(start, data, template_of(spec, channels=1))
    found = grey["params"]["encoder"]["stem"]["conv"]["kernel"]
    published = load_file(path)["conv1.weight"]  # [64, 3, 7, 7]
    wanted = published.sum(axis=1).transpose(1, 2, 0)[:, :, None]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_more_channels_fill_the_stem_in_turn(weights):
    spec = spec_of("torchvision resnet18")
    path = weights("torchvision resnet18")
    mean, std = ((float(np.mean(values)),) * 5 for values in IMAGENET)
    start = Model(spec, encoder_weights=str(path))
    five = load_start(start, data_of(mean, std), template_of(spec, channels=5))
    found = five["params"]["encoder"]["stem"]["conv"]["kernel"]  # [7, 7, 5, 64]
    published = load_file(path)["conv1.weight"].transpose(2, 3, 1, 0)
    for channel in range(5):
        wanted = published[:, :, channel % 3] * 3 / 5
        np.testing.assert_allclose(found[:, :, channel], wanted, rtol=0, atol=1e-6)


# Our own models.


def own_model(folder, spec, mean=IMAGENET[0]):
    shapes = template_of(spec)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    kept = {
        "image_size": (64, 64),
        "source_size": (64.0, 64.0),
        "channels": 3,
        "resize": "bilinear, antialiased",
        "mean": mean,
        "std": IMAGENET[1],
    }
    description = {
        "model": {"name": spec.name, **spec.kwargs},
        "task": tiny.CLASSIFICATION,
        "classes": tiny.BINARY,
        "thresholds": {},
        "preprocessing": kept,
    }
    export.save_model(folder, variables, description)


def test_a_unet_starts_from_the_encoder_of_a_classifier(tmp_path):
    own_model(tmp_path / "model", spec_of("timm tf_efficientnet_b0"))
    spec = Spec("encoder_unet", dict(UNET, encoder="tf_efficientnet_b0"))
    start = Model(spec, encoder_init=str(tmp_path / "model"))
    loaded = load_start(start, data_of(), template_of(spec))
    wanted = template_of(spec)["params"]["encoder"]
    assert loaded["params"].keys() == {"encoder"}
    assert loaded["batch_stats"].keys() == {"encoder"}
    assert jax.tree.map(np.shape, loaded["params"]["encoder"]) == jax.tree.map(
        lambda leaf: leaf.shape, wanted
    )
    assert all((leaf == 0.5).all() for leaf in jax.tree.leaves(loaded))


def test_a_network_starts_from_a_whole_one(tmp_path):
    spec = spec_of("torchvision resnet18")
    own_model(tmp_path / "model", spec)
    loaded = load_start(
        Model(spec, init=str(tmp_path / "model")), data_of(), template_of(spec)
    )
    assert jax.tree.structure(loaded) == jax.tree.structure(template_of(spec))


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = spec_of("torchvision resnet18")
    own_model(tmp_path / "model", spec)
    for start in (Model(spec, init="~/model"), Model(spec, encoder_init="~/model")):
        assert load_start(start, data_of(), template_of(spec))


def test_a_head_for_other_classes_starts_anew(tmp_path, capsys):
    spec = spec_of("smp resnet34")
    own_model(tmp_path / "model", spec)
    template = template_of(spec, outputs=3)
    start = Model(spec, init=str(tmp_path / "model"))
    loaded = load_start(start, data_of(), template)
    assert template["params"].keys() - loaded["params"].keys() == {"mask_head"}
    assert "starts anew, for other classes: params/mask_head" in capsys.readouterr().out


TRANSPOSED = Spec("unet", {key: v for key, v in tiny.UNET.items() if key != "name"})


@pytest.mark.parametrize(
    ("key", "value"), [("decoder", "upsample"), ("activation", "elu")]
)
def test_weights_that_would_compute_something_else_are_refused(tmp_path, key, value):
    own_model(tmp_path / "model", TRANSPOSED)
    other = Spec("unet", TRANSPOSED.kwargs | {key: value})
    shapes = [jax.tree.map(np.shape, template_of(spec)) for spec in (TRANSPOSED, other)]
    assert shapes[0] == shapes[1]  # nothing else tells them apart
    error = refusal_of(Model(other, init=str(tmp_path / "model")), template_of(other))
    assert error.expected.endswith(f"config.model.{key}={TRANSPOSED.kwargs[key]}")
    assert error.found == f"config.model.{key}={value}"


def test_what_matters_in_training_alone_may_change(tmp_path):
    own_model(tmp_path / "model", TRANSPOSED)
    changes = dict(bn_group=4, dropout=(0.5, 0.5), adjust_gradient=True)
    other = Spec("unet", TRANSPOSED.kwargs | changes)
    start = Model(other, init=str(tmp_path / "model"))
    assert load_start(start, data_of(), template_of(other))


def test_an_encoder_of_another_form_is_refused(tmp_path):
    own_model(tmp_path / "model", spec_of("timm tf_efficientnet_b0"))
    spec = Spec("encoder_unet", dict(UNET, encoder="efficientnet_b0"))
    start = Model(spec, encoder_init=str(tmp_path / "model"))
    error = refusal_of(start, template_of(spec))
    assert error.expected.endswith("config.model.encoder=tf_efficientnet_b0")
    assert error.found == "config.model.encoder=efficientnet_b0"


def test_a_foreign_description_is_refused(tmp_path):
    export.save_model(tmp_path / "model", {"params": {"a": np.ones(1)}}, {})
    spec = spec_of("torchvision resnet18")
    error = refusal_of(Model(spec, init=str(tmp_path / "model")), template_of(spec))
    assert "model.name: 'missing'" in error.found


def test_no_start_is_none():
    assert load_start(Model(Spec("unet", {})), data_of(), {"params": {}}) is None


# The hub.


class Hub(types.ModuleType):
    """Stands for huggingface_hub: a folder of downloaded files, or no network."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.asked = folder, []

    def hf_hub_download(self, repo, name):
        self.asked.append((repo, name))
        if self.folder is None:
            raise OSError("We couldn't connect to the hub\nlong story")
        return str(self.folder / name)


def test_weights_come_from_the_hub(weights, monkeypatch):
    path = weights("timm efficientnet_b1").rename
    folder = weights("timm efficientnet_b1").parent
    path(folder / "model.safetensors")
    half = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "config.json").write_text(json.dumps(half))
    hub = Hub(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    spec = spec_of("timm efficientnet_b1")
    start = Model(spec, encoder_weights="hf:timm/efficientnet_b1.ra4_e3600_r240_in1k")
    with pytest.raises(InputError) as refusal:
        load_start(start, data_of(), template_of(spec))
    assert '--config.data.mean="(0.5, 0.5, 0.5)"' in refusal.value.fix
    loaded = load_start(start, data_of((0.5,) * 3, (0.5,) * 3), template_of(spec))
    assert loaded["params"].keys() == {"encoder"}
    repo = "timm/efficientnet_b1.ra4_e3600_r240_in1k"
    assert hub.asked[:2] == [(repo, "model.safetensors"), (repo, "config.json")]


@pytest.mark.parametrize(
    ("hub", "text"),
    [(Hub(None), "OSError: We couldn't connect to the hub"), (None, "not installed")],
)
def test_without_network_or_package_the_hub_is_refused(monkeypatch, hub, text):
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    spec = spec_of("torchvision resnet18")
    with pytest.raises(InputError) as refusal:
        load_start(Model(spec, encoder_weights="hf:a/b"), data_of(), template_of(spec))
    assert text in refusal.value.found
    assert "encoder_weights=PATH.safetensors" in refusal.value.fix


# Bad files.


def refusal_of(start, template, data=None):
    with pytest.raises(InputError) as refusal:
        load_start(start, data or data_of(), template)
    return refusal.value


@pytest.mark.parametrize("head", [b"PK\x03\x04rest", b"\x80\x02}q\x00."])
def test_a_pickle_is_never_opened(tmp_path, head, monkeypatch):
    path = tmp_path / "resnet34.pth"
    path.write_bytes(head * 100)
    monkeypatch.setattr(weight_files, "load_file", lambda path: pytest.fail("opened"))
    with pytest.raises(InputError, match="is a pickle") as refusal:
        read_safetensors(path)
    assert "weights_only=True" in refusal.value.fix


def header_of(length):
    """A safetensors file of one number whose header has this length."""
    entry = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(entry).encode().ljust(length)
    return length.to_bytes(8, "little") + header + np.float32(7).tobytes()


@pytest.mark.parametrize("length", [0x80, 0x4B50])  # \x80 and PK, as pickles begin
def test_a_header_that_begins_like_a_pickle_is_none(tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(header_of(length))
    assert read_safetensors(tmp_path / "a.safetensors")["a"].tolist() == [7.0]


def test_a_truncated_file_is_refused(weights):
    path = weights("torchvision resnet18")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"a whole \.safetensors file"):
        read_safetensors(path)


def test_text_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec")
    with pytest.raises(InputError, match=r"a whole \.safetensors file"):
        read_safetensors(tmp_path / "a.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(tmp_path, dtype):
    save_file({"a": np.ones(3, dtype)}, tmp_path / "a.safetensors")
    assert read_safetensors(tmp_path / "a.safetensors")["a"].dtype == np.float32


def test_bfloat16_becomes_float32(tmp_path):
    save_file({"a": np.ones(3, jnp.bfloat16)}, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 1.0)


def test_every_name_that_does_not_match_is_listed_both_ways(weights):
    wrong = {
        "conv1.weight": None,
        "layer1.0.bn1.bias": None,
        "layer9.weight": np.ones(3, np.float32),
        "layer2.0.conv1.weight": np.ones((128, 64, 5, 5), np.float32),
    }
    spec = spec_of("torchvision resnet18")
    path = weights("torchvision resnet18", **wrong)
    error = refusal_of(Model(spec, encoder_weights=str(path)), template_of(spec))
    assert "2 missing: " in error.found
    assert "conv1.weight" in error.found
    assert "layer1.0.bn1.bias" in error.found
    assert "1 unknown: layer9.weight" in error.found
    assert "1 of another shape: layer2.0.conv1.weight" in error.found


def test_weights_of_another_depth_are_refused(weights):
    spec = Spec("classifier", dict(CLASSIFIER, encoder="resnet34"))
    path = weights("torchvision resnet18")
    error = refusal_of(Model(spec, encoder_weights=str(path)), template_of(spec))
    # 8 blocks more, of 2 convolutions and 2 norms with 4 vectors each
    assert "80 missing: layer1.2." in error.found


def test_weights_of_another_family_are_refused(weights):
    for name, other in (
        ("torchvision resnet18", "timm tf_efficientnet_b0"),
        ("timm tf_efficientnet_b0", "torchvision resnet18"),
    ):
        spec, path = spec_of(name), weights(other)
        error = refusal_of(Model(spec, encoder_weights=str(path)), template_of(spec))
        assert f"names of {other.split()[0]}" in error.found


def test_weights_of_another_architecture_are_refused(weights):
    path = weights("timm tf_efficientnet_b0")
    described = {"architecture": "tf_efficientnet_b0"}
    (path.parent / "config.json").write_text(json.dumps(described))
    spec = Spec("classifier", dict(CLASSIFIER, encoder="efficientnet_b0"))
    error = refusal_of(Model(spec, encoder_weights=str(path)), template_of(spec))
    assert error.fix == "--config.model.encoder=tf_efficientnet_b0"


def test_weights_of_one_form_are_refused_by_another(arrays, tmp_path):
    state = state_of(arrays, "smp efficientnet-b0")
    encoder = {
        key.removeprefix("encoder."): value
        for key, value in state.items()
        if key.startswith("encoder.")
    }
    save_file(encoder, tmp_path / "b0.safetensors")
    weights = str(tmp_path / "b0.safetensors")
    for encoder in ("efficientnet_b0", "tf_efficientnet_b0"):
        spec = Spec("classifier", dict(CLASSIFIER, encoder=encoder))
        error = refusal_of(Model(spec, encoder_weights=weights), template_of(spec))
        assert error.fix == "--config.model.encoder=smp_efficientnet_b0"
    spec = Spec("classifier", dict(CLASSIFIER, encoder="smp_efficientnet_b0"))
    loaded = load_start(
        Model(spec, encoder_weights=weights), data_of(), template_of(spec)
    )
    assert "top" in loaded["params"]["encoder"]


def test_a_network_without_an_encoder_cannot_start_from_one(weights):
    path = weights("torchvision resnet18")
    start = Model(Spec("simple_cnn", {}), encoder_weights=str(path))
    template = {"params": {"Conv_0": {"bias": np.zeros(3)}}}
    assert "config.model.name=simple_cnn" in refusal_of(start, template).found


def test_other_pixels_than_the_model_saw_are_refused(tmp_path):
    own_model(tmp_path / "model", spec_of("torchvision resnet18"), mean=(0.5,) * 3)
    spec = spec_of("torchvision resnet18")
    start = Model(spec, encoder_init=str(tmp_path / "model"))
    error = refusal_of(start, template_of(spec))
    assert '--config.data.mean="(0.5, 0.5, 0.5)"' in error.fix
