"""A trained network in use, against a plain restatement with Pillow and NumPy."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_models import photo, save_tiny

import jaxseg
from jaxseg import infer
from jaxseg.errors import InputError

BOTH = {"mask": 0.5, "image": 0.5}
KINDS = {
    "segmentation": (tiny.UNET, tiny.SEGMENTATION, tiny.BINARY, (32, 48)),
    "three classes": (tiny.UNET, tiny.SEGMENTATION, tiny.THREE, (32, 48)),
    "joint": (tiny.JOINT_UNET, tiny.JOINT, tiny.BINARY, (32, 48)),
    "segdec": (tiny.SEGDECNET, tiny.SEGDEC, tiny.BINARY, (128, 128)),
    "encoder_unet": (tiny.ENCODER_UNET, tiny.SEGMENTATION, tiny.BINARY, (32, 32)),
    "classifier": (tiny.CLASSIFIER, tiny.CLASSIFICATION, tiny.BINARY, (32, 32)),
    "simple_cnn": (tiny.SIMPLE_CNN, tiny.CLASSIFICATION, tiny.THREE, (16, 16)),
}


def resize(image, size):
    return np.asarray(
        Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def apply(model, variables, image):
    """Probabilities of one image [H, W, C] uint8, by name of the logits."""
    normal = (image / 255 - np.array(tiny.MEAN)) / np.array(tiny.STD)
    run = jax.jit(lambda x: model.apply(variables, x, train=False))
    outputs = run(normal[None].astype(np.float32))
    return {
        name: (sigmoid if outputs[name].shape[-1] == 1 else softmax)(outputs[name][0])
        for name in ("seg_logits", "cls_logits")
        if name in outputs
    }


def enlarged(probs, size):
    return np.asarray(jax.image.resize(probs, (*size, probs.shape[-1]), "bilinear"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_says_what_the_network_says(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # no seven images of filling
    network, task, classes, size = KINDS[kind]
    image = photo(70, 91)
    options = dict(image_size=size, thresholds=BOTH)
    model, variables = save_tiny(tmp_path, network, task, classes, **options)
    expected = apply(model, variables, resize(image, size))
    if "seg_logits" in expected and len(classes) == 2:
        # Thresholds in the middle of the scores, so that both decisions occur.
        middle = float(np.median(expected["seg_logits"]))
        options["thresholds"] = {"mask": middle, "image": 0.5}
        save_tiny(tmp_path, network, task, classes, **options)
    result = jaxseg.load(tmp_path, precision="float32").predict(image)
    assert result.classes == classes
    close = dict(rtol=1e-4, atol=1e-5)
    if "seg_logits" in expected:
        probs = enlarged(expected["seg_logits"], (70, 91))
        np.testing.assert_allclose(result.probabilities, probs, **close)
        assert result.probabilities.dtype == np.float32
        assert result.mask.dtype == np.uint8
        if len(classes) == 2:
            sure = np.abs(probs[..., 0] - result.mask_threshold) > 1e-4
            decided = probs[..., 0] >= middle
            assert 0.01 < decided.mean() < 0.99
        else:
            ordered = np.sort(probs, axis=-1)
            sure, decided = ordered[..., -1] - ordered[..., -2] > 1e-4, probs.argmax(-1)
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(result.mask[sure], decided[sure])
    else:
        assert result.mask is None
        assert result.probabilities is None
    if "cls_logits" in expected:
        probs = expected["cls_logits"]
        np.testing.assert_allclose(result.image_probabilities, probs, **close)
        assert result.score == pytest.approx(probs.max(), rel=1e-4)
        index = int(probs[0] >= 0.5) if len(probs) == 1 else int(probs.argmax())
    else:
        foreground = expected["seg_logits"]
        foreground = foreground[..., 0] if len(classes) == 2 else 1 - foreground[..., 0]
        assert result.score == pytest.approx(foreground.max(), rel=1e-4)
        index = 1
    names = ("clean", "defect") if result.mask is not None else classes
    assert (result.decision, result.found) == (names[index], index > 0)


def test_the_decision_follows_the_threshold(tmp_path):
    image = photo(32, 48) // 4
    model, variables = save_tiny(tmp_path / "a", thresholds={"mask": 0.5})
    highest = apply(model, variables, image)["seg_logits"].max()
    for value, found in ((highest - 1e-3, True), (highest + 1e-3, False)):
        save_tiny(tmp_path / "a", thresholds={"mask": float(value)})
        result = jaxseg.load(tmp_path / "a", precision="float32").predict(image)
        assert result.threshold == result.mask_threshold == value
        assert (result.found, bool(result.mask.any())) == (found, found)
        assert result.decision == ("defect" if found else "clean")


@pytest.mark.parametrize("size", [(120, 202), (9, 50), (64, 64)])
def test_a_network_of_windows_sees_the_whole_image(tmp_path, size):
    options = dict(image_size=(16, 16), resized=False, thresholds={"mask": 0.5})
    model, variables = save_tiny(tmp_path, **options)
    predictor = jaxseg.load(tmp_path, tile=64, overlap=28, precision="float32")
    image = photo(*size)
    result = predictor.predict(image)
    even = np.pad(image, ((0, -size[0] % 2), (0, -size[1] % 2), (0, 0)), "reflect")
    whole = apply(model, variables, even)["seg_logits"][: size[0], : size[1]]
    # What is outside is zeros for the whole image and a reflection for a tile.
    inside = slice(0, size[0] - 10), slice(0, size[1] - 10)
    if min(size) > 20:
        np.testing.assert_allclose(
            result.probabilities[inside], whole[inside], atol=1e-5
        )
        assert np.std(whole) > 1e-3
    assert result.mask.shape == size
    np.testing.assert_array_equal(result.mask, result.probabilities[..., 0] >= 0.5)
    assert result.score == pytest.approx(result.probabilities.max(), rel=1e-6)


def test_tiles_keep_the_scale_of_the_training(tmp_path):
    options = dict(image_size=(16, 24), source_size=(32, 72), thresholds=BOTH)
    model, variables = save_tiny(tmp_path, **options)
    image = photo(130, 330)
    predictor = jaxseg.load(tmp_path, tile=128, precision="float32")
    result = predictor.predict(image)
    small = resize(image, (65, 110))  # 130 / 2 and 330 / 3
    even = np.pad(small, ((0, 63), (0, 18), (0, 0)), "reflect")  # one tile
    whole = apply(model, variables, even)["seg_logits"][:65, :110]
    expected = enlarged(whole, (130, 330))
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    assert result.score == pytest.approx(whole.max(), rel=1e-4)


def test_an_image_is_defective_where_one_of_its_tiles_is(tmp_path):
    options = dict(image_size=(32, 32), resized=False, thresholds=BOTH)
    model, variables = save_tiny(tmp_path, tiny.JOINT_UNET, tiny.JOINT, **options)
    predictor = jaxseg.load(tmp_path, overlap=0, precision="float32")
    # The image decision depends on the size of the tile: it stays that of the training.
    assert predictor.plan.size == (32, 32)
    image = photo(64, 96)
    scores = [
        apply(model, variables, image[y : y + 32, x : x + 32])["cls_logits"][0]
        for y in (0, 32)
        for x in (0, 32, 64)
    ]
    result = predictor.predict(image)
    assert result.score == pytest.approx(max(scores), rel=1e-4)
    assert result.found == (max(scores) >= 0.5)


def test_large_tiles_where_their_size_does_not_matter(tmp_path):
    options = dict(image_size=(64, 64), resized=False, thresholds={"mask": 0.5})
    sizes = {}
    for name, network in (
        ("plain", tiny.UNET),
        ("group norm", {**tiny.UNET, "norm": "group"}),
    ):
        save_tiny(tmp_path, network, **options)
        sizes[name] = jaxseg.load(tmp_path).plan.size
    assert sizes == {"plain": (512, 512), "group norm": (64, 64)}


def test_flips_are_averaged(tmp_path):
    image, size = photo(32, 48), (32, 48)
    model, variables = save_tiny(tmp_path, thresholds={"mask": 0.5})
    result = jaxseg.load(tmp_path, flips=True, precision="float32").predict(image)
    expected = np.zeros((*size, 1))
    for y in (1, -1):
        for x in (1, -1):
            turned = apply(model, variables, image[::y, ::x])["seg_logits"]
            expected += turned[::y, ::x] / 4
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    plain = jaxseg.load(tmp_path, precision="float32").predict(image)
    assert np.abs(plain.probabilities - expected).max() > 1e-3


def test_several_images_are_the_images_one_by_one(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path, batch_size=8, precision="float32")
    images = np.stack([photo(40, 40, seed=seed) for seed in range(11)])
    results = predictor.predict(images)
    assert len(results) == 11
    for image, result in zip(images, results, strict=True):
        alone = predictor.predict(image)
        np.testing.assert_allclose(alone.probabilities, result.probabilities, atol=1e-6)
    assert predictor.step._cache_size() == 1


def test_threads_share_a_predictor(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path, precision="float32")
    images = [photo(30 + seed, 50 - seed, seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(predictor.predict, images))
    for image, result in zip(images, together, strict=True):
        alone = predictor.predict(image)
        np.testing.assert_array_equal(alone.probabilities, result.probabilities)
        np.testing.assert_array_equal(alone.mask, result.mask)


def test_a_path_is_read_as_in_training(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path, precision="float32")
    grey = photo(20, 30, channels=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rows are columns from the right
    Image.fromarray(grey[..., 0]).save(tmp_path / "a.png", exif=exif)
    result = predictor.predict(tmp_path / "a.png")
    upright = np.rot90(np.repeat(grey, 3, axis=-1), k=-1)
    expected = predictor.predict(np.ascontiguousarray(upright))
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)


def test_probabilities_may_be_left_out(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    result = jaxseg.load(tmp_path).predict(photo(20, 20), probabilities=False)
    assert result.probabilities is None
    assert result.mask.shape == (20, 20)


def test_a_grey_network_takes_grey_images(tmp_path):
    save_tiny(tmp_path, channels=1, thresholds={"mask": 0.5})
    predictor = jaxseg.load(tmp_path)
    image = photo(20, 30, channels=1)
    flat, deep = predictor.predict(image[..., 0]), predictor.predict(image)
    np.testing.assert_array_equal(flat.probabilities, deep.probabilities)


@pytest.mark.parametrize("size", [(71, 40), (35, 90), (12, 9)])
@pytest.mark.parametrize("rows", [1, 4, 50])
def test_strips_are_resized_as_they_come(monkeypatch, size, rows):
    probs = np.random.default_rng(1).uniform(size=(37, 21, 2)).astype("f4")
    [(_, whole)] = infer.enlarge(probs, size)
    monkeypatch.setattr(infer, "STRIP_PIXELS", 5 * size[1])
    taken = []

    def coming():
        for top in range(0, 37, rows):
            taken.append(top)
            yield top, probs[top : top + rows]

    strips = infer.enlarge_strips(coming(), 37, size)
    top, first = next(strips)
    assert top == 0
    if rows == 1:  # no more than the first strip is made of
        assert len(taken) <= 5 * 37 / size[0] + max(37 / size[0], 1) + 4
    joined = np.concatenate([first, *(strip for _, strip in strips)])
    np.testing.assert_allclose(joined, whole, atol=2e-6)


@pytest.mark.parametrize("size", [(13, 9), (50, 77), (20, 5)])
def test_strips_of_an_enlargement_are_the_whole_of_it(monkeypatch, size):
    probs = np.random.default_rng(0).random((20, 31, 2), np.float32)
    whole = list(infer.enlarge(probs, size))
    assert len(whole) == 1
    monkeypatch.setattr(infer, "STRIP_PIXELS", 3 * size[1])
    strips = list(infer.enlarge(probs, size))
    assert [top for top, _ in strips] == list(range(0, size[0], 3))
    joined = np.concatenate([strip for _, strip in strips])
    np.testing.assert_allclose(joined, whole[0][1], atol=1e-6)
    np.testing.assert_allclose(joined, enlarged(probs, size), atol=1e-5)


REFUSED_IMAGES = {
    "grey for RGB": (np.zeros((8, 8), np.uint8), "np.repeat(image[..., None], 3"),
    "grey [H, W, 1]": (np.zeros((8, 8, 1), np.uint8), "np.repeat(image, 3, axis=-1)"),
    "alpha": (np.zeros((8, 8, 4), np.uint8), "image[..., :3]"),
    "float": (np.ones((8, 8, 3), np.float32), "(255 * image).round()"),
    "16 bit": (np.ones((8, 8, 3), np.uint16), "Image.open(path)"),
    "nothing": (np.zeros((0, 8, 3), np.uint8), "another"),
    "video": (np.zeros((1, 1, 8, 8, 3), np.uint8), "image[..., :3]"),
}


@pytest.mark.parametrize("kind", REFUSED_IMAGES)
def test_other_images_are_refused_with_the_way_out(tmp_path, kind):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    image, fix = REFUSED_IMAGES[kind]
    with pytest.raises(InputError) as caught:
        jaxseg.load(tmp_path).predict(image)
    assert fix in caught.value.fix


def test_colour_is_refused_by_a_grey_network(tmp_path):
    save_tiny(tmp_path, channels=1, thresholds={"mask": 0.5})
    with pytest.raises(InputError, match="grey images") as caught:
        jaxseg.load(tmp_path).predict(photo(8, 8))
    assert '.convert("L")' in caught.value.fix


@pytest.mark.parametrize("name", ["missing.png", "text.png", "."])
def test_a_path_of_no_image_is_refused(tmp_path, name):
    save_tiny(tmp_path / "model", thresholds={"mask": 0.5})
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="an image file"):
        jaxseg.load(tmp_path / "model").predict(tmp_path / name)


def edit(folder, change):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


CHANGES = {
    "format 2": (lambda d: d.update(format=2), "format 2"),
    "unknown network": (lambda d: d["model"].update(name="resnet"), "model.name"),
    "unknown task": (lambda d: d["task"].update(name="detection"), "task.name"),
    "lost key": (lambda d: d["model"].pop("widths"), "model.widths: 'missing'"),
    "new key": (lambda d: d["model"].update(wings=2), "model.wings: 2"),
    "other type": (lambda d: d["model"].update(widths="4"), "model.widths: '4'"),
    "one class": (lambda d: d.update(classes=["wall"]), "classes"),
    "no preprocessing": (lambda d: d.pop("preprocessing"), "preprocessing.mean"),
    "two means": (
        lambda d: d["preprocessing"].update(mean=[0.1, 0.2]),
        "mean and std: not 3",
    ),
    "other resize": (
        lambda d: d["preprocessing"].update(resize="cubic"),
        "preprocessing.resize: 'cubic'",
    ),
    "zero deviation": (
        lambda d: d["preprocessing"].update(std=[0, 1, 1]),
        "preprocessing.std",
    ),
    "threshold 7": (
        lambda d: d["thresholds"]["mask"].update(value=7),
        "thresholds.mask",
    ),
    "no thresholds": (lambda d: d.pop("thresholds"), "thresholds: None"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_description_is_refused(tmp_path, kind):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    change, named = CHANGES[kind]
    edit(tmp_path, change)
    with pytest.raises(InputError) as caught:
        jaxseg.load(tmp_path)
    assert named in caught.value.found


def test_a_description_that_is_no_json_is_refused(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    for text in ("{", "[1]"):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(InputError, match=r"model\.json"):
            jaxseg.load(tmp_path)


def test_changed_weights_are_refused(tmp_path):
    save_tiny(tmp_path / "good", thresholds={"mask": 0.5})
    weights = load_file(tmp_path / "good" / "model.safetensors")
    name = "params/mask_head/Conv_0/bias"
    for change, found in (
        ({name: None}, f"1 missing: {name}"),
        ({"params/more": np.zeros(1)}, "1 unknown: params/more"),
        ({name: np.zeros(2, "f4")}, f"1 of another shape: {name} (2,) for (1,)"),
    ):
        folder = tmp_path / "bad"
        shutil.copytree(tmp_path / "good", folder, dirs_exist_ok=True)
        changed = {k: v for k, v in (weights | change).items() if v is not None}
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(InputError) as caught:
            jaxseg.load(folder)
        assert found in caught.value.found


def test_damaged_weights_and_empty_folders_are_refused(tmp_path):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="a whole model"):
        jaxseg.load(tmp_path)
    with pytest.raises(InputError, match="a model folder"):
        jaxseg.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"tile": 33}, "--tile 32"),
        ({"tile": 64, "overlap": 64}, "--overlap 16"),
        ({"overlap": 8}, "--tile"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tmp_path, options, fix):
    save_tiny(tmp_path, thresholds={"mask": 0.5})
    with pytest.raises(InputError) as caught:
        jaxseg.load(tmp_path, **options)
    assert caught.value.fix == fix


def test_tiles_are_refused_where_the_network_cannot_have_them(tmp_path):
    save_tiny(tmp_path / "a", tiny.SEGDECNET, tiny.SEGDEC, image_size=(128, 128))
    with pytest.raises(InputError) as caught:
        jaxseg.load(tmp_path / "a", tile=64)
    assert caught.value.fix == "--tile without a number"
    options = dict(classes=tiny.BINARY, image_size=(16, 16))
    save_tiny(tmp_path / "b", tiny.SIMPLE_CNN, tiny.CLASSIFICATION, **options)
    with pytest.raises(InputError, match="tiles of") as caught:
        jaxseg.load(tmp_path / "b", tile=32)
    assert caught.value.fix == "--tile without a number"
