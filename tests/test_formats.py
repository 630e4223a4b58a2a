"""Exported files against the model they come from, and what is refused."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors import safe_open

import jaxseg
from jaxseg import export, formats
from jaxseg.config import Spec
from jaxseg.data.images import decode_image, resize_image
from jaxseg.errors import InputError
from jaxseg.formats import examples, onnx_file, stablehlo
from jaxseg.formats.finished import read_finished
from jaxseg.formats.sizes import size_rule
from jaxseg.models import MODELS

ROOT = Path(__file__).parents[1]
NO_RATES = dict(bn_group=None, drop_path=0.0)
UNET = dict(
    widths=(4, 6, 8),
    norm="batch",
    bn_group=None,
    activation="elu",
    dropout=(0.0, 0.1, 0.2),
    decoder="transpose",
    head_kernel=1,
    image_head=True,
    adjust_gradient=False,
)
ON_ENCODER = dict(
    NO_RATES,
    skips="blocks",
    decoder_widths=(32, 24, 16, 12, 8),
    image_head=False,
    adjust_gradient=False,
)
SEGDECNET = dict(adjust_gradient=True, variant="released")
RULE = dict(min_recall=0.95, threshold="max_f1")
SEGDEC = dict(
    RULE,
    name="segdec",
    delta=1.0,
    soft_label=True,
    dilate=1,
    dynamic=True,
    weight_max=1.0,
    weight_per_component=False,
    weight_power=1.0,
    weighted=True,
)
JOINT = dict(RULE, name="joint", mask_weight=1.0, image_weight=0.2)
MASKS, IMAGES = dict(RULE, name="segmentation"), dict(RULE, name="classification")

# network, keys, task, classes, size of training, another size
MODELS_TO_EXPORT = {
    "unet": ("unet", UNET, JOINT, 2, (32, 48), (36, 40)),
    "unet of three classes": (
        "unet",
        dict(UNET, norm="group", activation="relu", decoder="upsample")
        | dict(head_kernel=3, image_head=False),
        MASKS,
        3,
        (16, 16),
        (24, 20),
    ),
    "resnet34": (
        "encoder_unet",
        dict(ON_ENCODER, encoder="resnet34"),
        MASKS,
        2,
        (64, 64),
        (32, 96),
    ),
    "efficientnet_b0": (
        "encoder_unet",
        dict(ON_ENCODER, encoder="smp_efficientnet_b0"),
        MASKS,
        2,
        (64, 64),
        (32, 96),
    ),
    "segdecnet": ("segdecnet", SEGDECNET, SEGDEC, 2, (128, 128), (136, 152)),
    "classifier": (
        "classifier",
        dict(NO_RATES, encoder="resnet18", dropout=0.1),
        IMAGES,
        3,
        (64, 64),
        (32, 96),
    ),
    "simple_cnn": (
        "simple_cnn",
        dict(bn_group=None, dropout=0.5),
        IMAGES,
        2,
        (20, 12),
        (20, 12),
    ),
}
MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)


def save(folder, name, keys, task, num_classes, size, channels=3):
    """A model folder with random weights, and thresholds that no float32 equals."""
    module = MODELS[name](1 if num_classes == 2 else num_classes, jnp.float32, **keys)
    image = jnp.zeros((1, *size, channels))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    variables = jax.tree.map_with_path(draw, shapes)
    heads = {"image"} if name in ("classifier", "simple_cnn") else {"mask"}
    heads |= {"image"} if task["name"] in ("joint", "segdec") else set()
    description = {
        "model": {"name": name, **keys},
        "task": task,
        "classes": ["background", "crack", "spall"][:num_classes],
        "preprocessing": {
            "image_size": size,
            "source_size": size,
            "channels": channels,
            "resize": "bilinear, antialiased",
            "scale": 255,
            "mean": MEAN[:channels],
            "std": STD[:channels],
        },
        "thresholds": {
            head: {"value": 0.45 + 1e-9, "rule": "max_f1", "note": ""}
            for head in heads
            if num_classes == 2
        },
    }
    export.save_model(folder, variables, description)
    return module, variables


def pixels(count, size, channels=3):
    # Smooth, so that neighbouring pixels do not average out to the same everywhere.
    rng = np.random.default_rng(7)
    small = rng.integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
    repeat = [-(-side // 4) for side in size]
    large = small.repeat(repeat[0], axis=1).repeat(repeat[1], axis=2)
    return np.ascontiguousarray(large[:, : size[0], : size[1]])


def probabilities(logits):
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def oracle(module, variables, images):
    """Normalisation, activation and decision in NumPy around the bare network."""
    normalised = ((images / 255.0 - MEAN) / STD).astype(np.float32)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(
        variables, normalised
    )
    wanted = {}
    for output, name, decision in (
        ("seg_logits", "mask_probs", "mask"),
        ("cls_logits", "image_probs", "decision"),
    ):
        if output in logits:
            probs = probabilities(np.asarray(logits[output], np.float64))
            wanted[name] = probs
            wanted[decision] = (
                probs[..., 0] >= 0.45 if probs.shape[-1] == 1 else probs.argmax(-1)
            )
    return wanted


def refuse_differences(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].shape == wanted[name].shape
        if name.endswith("probs"):
            # Else the test could not fail.
            assert ((wanted[name] > 0.01) & (wanted[name] < 0.99)).mean() > 0.5
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4)
        else:
            assert found[name].dtype == {"mask": np.uint8, "decision": np.int32}[name]
            assert (found[name] != wanted[name]).mean() < 1e-3  # within rounding


@pytest.mark.parametrize("name", MODELS_TO_EXPORT)
def test_files_compute_what_the_network_computes(name, tmp_path):
    network, keys, task, num_classes, size, other = MODELS_TO_EXPORT[name]
    module, variables = save(tmp_path, network, keys, task, num_classes, size)
    model = read_finished(tmp_path)
    onnx_file.write(model, tmp_path / "a.onnx")
    by_onnx = onnx_file.read(tmp_path / "a.onnx")
    for images in (pixels(1, size), pixels(3, other)):
        wanted = oracle(module, variables, images)
        refuse_differences(by_onnx(images), wanted)
    # To compile takes seconds: the network with the most operations stands for all.
    if name == "efficientnet_b0":
        stablehlo.write(model, tmp_path / "a.stablehlo")
        refuse_differences(stablehlo.read(tmp_path / "a.stablehlo")(images), wanted)


def test_grey_images_have_one_channel(tmp_path):
    keys = dict(bn_group=None, dropout=0.5)
    save(tmp_path, "simple_cnn", keys, IMAGES, 2, (8, 8), channels=1)
    _, example = formats.export_model(tmp_path, "onnx", tmp_path / "a.onnx", None)
    (image,) = onnx.load(tmp_path / "a.onnx").graph.input
    sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert sizes == [0, 8, 8, 1]
    assert "(1, 8, 8, 1)" in example


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 1 / 3, 0.9, 1e-3, 0.0, 1.0])
def test_float32_scores_are_decided_as_float64_ones(threshold):
    from jaxseg.formats.finished import _float32_from

    near = np.float32(threshold)
    steps = [np.nextafter(near, np.float32(end)) for end in (-np.inf, np.inf)]
    for score in (near, *steps):
        assert (score >= _float32_from(threshold)) == (float(score) >= threshold)


@pytest.mark.parametrize(
    ("network", "keys", "trained", "text"),
    [
        ("unet", {"widths": (4,)}, (33, 7), "sides must be multiples of 1"),
        ("unet", {"widths": (4, 8, 16)}, (32, 48), "sides must be multiples of 4"),
        ("encoder_unet", {}, (64, 64), "sides must be multiples of 32"),
        ("segdecnet", {}, (640, 232), "sides must be multiples of 8, from 128 on"),
        ("segdecnet", {}, (64, 1024), "H = 64 and W = 1024: this network has one size"),
        ("classifier", {}, (96, 64), "sides must be multiples of 32"),
        ("classifier", {}, (100, 64), "H = 100 and W = 64: this network has one size"),
        ("simple_cnn", {}, (64, 32), "H = 64 and W = 32: this network has one size"),
    ],
)
def test_the_size_rule_of_a_network(network, keys, trained, text):
    assert size_rule(Spec(network, keys), trained).text == text


# Whole exports.


@pytest.fixture
def model(tmp_path):
    """The folder of a small U-Net with a mask and an image decision."""
    save(tmp_path / "model", "unet", UNET, JOINT, 2, (32, 48))
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path):
    """Two photographs in folders."""
    for name, image in zip(("a/1.png", "b/2.jpg"), pixels(2, (50, 70)), strict=True):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def script():
    """The module scripts/export.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        path = ROOT / "scripts" / "export.py"
        spec = importlib.util.spec_from_file_location("export_script", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def arguments(model, kind, out, *more):
    return ["--model", str(model), "--format", kind, "--out", str(out), *more]


@pytest.mark.parametrize(
    ("kind", "with_photos"), [("onnx", True), ("stablehlo", True), ("onnx", False)]
)
def test_the_printed_example_runs_as_it_is(
    kind, with_photos, model, photos, script, tmp_path, capsys
):
    out = tmp_path / "a file"
    more = ["--images", str(photos)] if with_photos else []
    script.run(arguments(model, kind, out, *more))
    notes, _, example = capsys.readouterr().out.partition("\nto use it:\n\n")
    assert ("noise" in notes) != with_photos
    assert "on 3 at 32x48 and" in notes
    assert "on 1 at 36x56" in notes
    # What is printed depends on the file, numpy, pillow and one runtime alone.
    alone = (
        "import sys\nfor name in ('jaxseg', 'flax', 'onnx'): sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", alone + example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if with_photos:
        photo = Image.open(photos / "a" / "1.png").convert("RGB")
        image = np.asarray(photo.resize((48, 32), Image.Resampling.BILINEAR))[None]
    else:
        image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    found = read_finished(model)
    outputs = jax.jit(lambda v, x: found.forward(v, x))(found.variables, image)
    share = (np.asarray(outputs["mask"]) == 1).mean()
    decision = ["clean", "defect"][int(outputs["decision"][0])]
    assert f"crack: {share:.2%} of the pixels" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{decision} [")


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["none", "bilinear, antialiased"])
def test_the_example_opens_a_photo_as_training_does(tmp_path, mode, channels, resize):
    path = tmp_path / "photo.png"
    depth, kind = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
    shape = (40, 70, 3) if mode == "RGB" else (40, 70)
    Image.fromarray(
        np.random.default_rng(0).integers(0, depth, shape).astype(kind)
    ).save(path)
    model = types.SimpleNamespace(
        image_size=(32, 48),
        channels=channels,
        facts={"resize": resize},
        description={},
        outputs=(),
    )
    text = examples.of_network("{imports}import numpy as np\n{image}")
    names = {}
    exec(text(model, tmp_path / "out", path), names)
    whole = decode_image(path.read_bytes(), channels)
    fitted = whole[:32, :48] if resize == "none" else resize_image(whole, (32, 48))
    np.testing.assert_array_equal(names["image"], fitted[None])


def test_the_script_offers_every_format(script, capsys):
    with pytest.raises(SystemExit):
        script.run(arguments("model", "none of them", "a"))
    choices = capsys.readouterr().err.split("(choose from ")[1]
    offered = [choice.strip(" ')\n") for choice in choices.split(",")]
    assert offered == list(formats.FORMATS)


def test_the_facts_are_in_the_file_or_beside_it(model, tmp_path):
    formats.export_model(model, "onnx", tmp_path / "a.onnx", None)
    formats.export_model(model, "stablehlo", tmp_path / "a.stablehlo", None)
    proto = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(proto, full_check=True)
    facts = {prop.key: prop.value for prop in proto.metadata_props}
    assert facts["jaxseg"] == jaxseg.__version__
    assert facts["size_rule"] == "sides must be multiples of 4"
    assert json.loads(facts["classes"]) == ["background", "crack"]
    assert json.loads(facts["image_classes"]) == ["clean", "defect"]
    assert json.loads(facts["thresholds"]) == {
        "image": 0.45 + 1e-9,
        "mask": 0.45 + 1e-9,
    }
    assert "multiples of 4" in proto.graph.input[0].doc_string
    assert json.loads((tmp_path / "a.stablehlo.json").read_text()) == facts


def test_the_file_of_weights_holds_arrays_and_description(model, tmp_path):
    _, example = formats.export_model(model, "safetensors", tmp_path / "a.st", None)
    variables, description = export.load_model(model)
    with safe_open(tmp_path / "a.st", framework="numpy") as file:
        assert json.loads(file.metadata()["model.json"]) == description
        assert "[kh, kw, in, out]" in file.metadata()["layout"]
        assert f"mean {list(MEAN)}" in file.metadata()["input"]
        assert len(file.keys()) == len(jax.tree.leaves(variables))
        kernel = file.get_tensor("params/mask_head/Conv_0/kernel")
    wanted = variables["params"]["mask_head"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel, wanted)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True
    )
    assert "params/mask_head/Conv_0/kernel (1, 1, 4, 1)" in done.stdout


# What is refused leaves nothing behind.


def refusal_of(model, kind, out, images=None):
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(InputError) as refusal:
        formats.export_model(model, kind, out, images)
    assert sorted(out.parent.rglob("*")) == before
    return refusal.value


@pytest.mark.parametrize("network", ["segdecnet", "unet"])
def test_a_network_that_the_library_lacks_has_no_state_dict(network, tmp_path):
    name, keys, task, num_classes, size, _ = MODELS_TO_EXPORT[network]
    save(tmp_path / "model", name, keys, task, num_classes, size)
    error = refusal_of(tmp_path / "model", "pytorch", tmp_path / "a.safetensors")
    assert "that segmentation_models.pytorch has" in error.expected
    assert error.fix.startswith("--format onnx")


@pytest.mark.parametrize(
    ("kind", "package"), [("onnx", "onnxruntime"), ("stablehlo", "flatbuffers")]
)
def test_missing_packages_are_named(kind, package, model, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == package else find(name),
    )
    error = refusal_of(model, kind, tmp_path / "a")
    assert error.found == f"{package} not installed"
    assert error.fix == f'pip install "jaxseg[{kind}]"'


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_a_folder_is_not_overwritten(kind, model, tmp_path):
    (tmp_path / "taken").mkdir()
    assert "is a folder" in refusal_of(model, kind, tmp_path / "taken").found


def test_a_folder_in_the_place_of_the_facts_is_not_overwritten(model, tmp_path):
    (tmp_path / "a.json").mkdir()
    assert "a.json: is a folder" in refusal_of(model, "stablehlo", tmp_path / "a").found


def test_a_place_that_cannot_be_written_is_refused(model, tmp_path):
    error = refusal_of(model, "safetensors", tmp_path / "model" / "model.json" / "a")
    assert "Not a directory" in error.found
    with pytest.raises(InputError, match="No such file or directory"):
        formats.export_model(model, "onnx", tmp_path / "none" / "a.onnx", None)
    assert not (tmp_path / "none").exists()


def test_images_that_are_none_are_refused(model, tmp_path):
    out = tmp_path / "a.onnx"
    assert "no folder" in refusal_of(model, "onnx", out, tmp_path / "none").found
    (tmp_path / "photos").mkdir()
    assert "no image in" in refusal_of(model, "onnx", out, tmp_path / "photos").found
    (tmp_path / "photos" / "a.png").write_bytes(b"no picture")
    assert (
        "a.png is not an image"
        in refusal_of(model, "onnx", out, tmp_path / "photos").found
    )


def change(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_network_of_another_version_is_refused(model, tmp_path):
    change(model, model={"name": "resnet", "depth": 18})
    error = refusal_of(model, "onnx", tmp_path / "a.onnx")
    assert "'resnet' is none of unet" in error.found


def test_weights_of_another_network_are_refused(model, tmp_path):
    change(model, model={"name": "unet", **UNET, "widths": (4, 6, 7)})
    error = refusal_of(model, "onnx", tmp_path / "a.onnx")
    assert "of another shape" in error.found


def test_two_classes_without_a_threshold_are_refused(model, tmp_path):
    change(model, thresholds={"image": {"value": 0.5, "rule": "max_f1", "note": ""}})
    error = refusal_of(model, "onnx", tmp_path / "a.onnx")
    assert "a threshold for the mask" in error.expected


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda outputs: outputs["mask_probs"].__iadd__(0.002), "differ by 0.002"),
        (lambda outputs: outputs["mask_probs"].fill(np.nan), "differ by nan"),
        (lambda outputs: outputs["mask"].fill(7), "mask does not follow from"),
        (lambda outputs: outputs.pop("decision"), "the outputs "),
    ],
)
def test_a_file_that_computes_something_else_is_not_kept(
    spoil, text, model, tmp_path, monkeypatch, script, capsys
):
    read = formats.FORMATS["stablehlo"].read

    def spoilt(path):
        def run(images):
            outputs = {key: np.array(x) for key, x in read(path)(images).items()}
            spoil(outputs)
            return outputs

        return run

    changed = dataclasses.replace(formats.FORMATS["stablehlo"], read=spoilt)
    monkeypatch.setitem(formats.FORMATS, "stablehlo", changed)
    (tmp_path / "a").write_text("an older file")
    with pytest.raises(SystemExit) as end:
        script.run(arguments(model, "stablehlo", tmp_path / "a"))
    assert end.value.code == 1
    assert text in capsys.readouterr().err
    assert (tmp_path / "a").read_text() == "an older file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "model"]
