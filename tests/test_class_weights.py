"""Class weights: from the pixels of the training part, capped, printed, recorded."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg import experiment, parsing, run
from jaxseg.class_weights import balance, describe, resolve
from jaxseg.errors import InputError

CLASSES = ("background", "leaf", "rust")


def test_weights_are_the_inverse_shares_up_to_the_limit():
    assert balance((970, 20, 10), 1000.0) == (1.0, 48.5, 97.0)
    assert balance((970, 20, 10), 50.0) == (1.0, 48.5, 50.0)
    assert balance((20, 0, 40), 8.0) == (2.0, 8.0, 1.0)


def test_weighted_classes_have_equal_shares_where_nothing_is_capped():
    counts = np.array([5000, 37, 911])
    weighed = counts * balance(counts, 1e6)
    np.testing.assert_allclose(weighed, 5000)


def test_only_what_asks_for_it_is_resolved():
    terms = {
        "cross_entropy": {"weight": 1.0, "class_weights": {"balanced_up_to": 3}},
        "dice": {"weight": 2.0, "smooth": 1.0},
    }
    resolved = resolve(terms, (80, 40, 1))
    assert resolved["cross_entropy"] == dict(weight=1.0, class_weights=(1.0, 2.0, 3.0))
    assert resolved["dice"] == terms["dice"]
    text = describe(resolved, CLASSES)
    assert text == "class weights: background 1, leaf 2, rust 3"
    fixed = {"cross_entropy": {"weight": 1.0, "class_weights": ()}}
    assert resolve(fixed, (1, 1, 1)) == fixed
    assert describe(fixed, CLASSES) == ""


@pytest.mark.parametrize(
    "asked",
    [
        {"balanced_up_to": 0.5},
        {"balanced_up_to": float("nan")},
        {"balanced_up_to": "10"},
        {"balanced_up_to": True},
        {"balanced": 10.0},
        {"balanced_up_to": 10.0, "cap": 3.0},
        {},
    ],
)
def test_another_request_is_refused_with_the_line_to_write(asked):
    with pytest.raises(InputError) as caught:
        resolve({"cross_entropy": {"class_weights": asked}}, (1, 1, 1))
    line = "--config.loss.cross_entropy.class_weights=\"{'balanced_up_to': 10.0}\""
    assert caught.value.fix == line


# A run: three classes, of which two are rare.


def write_leaves(root, count=24, size=32):
    """Green leaves with a brown and an orange spot: 97 % background.

    In `train` the spots are twice as high as in `val`, so the parts' shares differ.
    """
    random = np.random.default_rng(0)
    for i in range(count):
        split, height = ("train", 4) if i < 2 * count // 3 else ("val", 2)
        mask = np.zeros((size, size), np.uint8)
        for value in (1, 2):
            # Brown spots in the upper half, orange ones in the lower one.
            top = random.integers(0, size // 2 - height) + (value - 1) * size // 2
            left = random.integers(0, size - 4)
            mask[top : top + height, left : left + 4] = value
        colours = np.array([[60, 140, 60], [110, 80, 40], [230, 140, 30]])
        noise = random.normal(0, 12, (size, size, 3))
        image = (colours[mask] + noise).clip(0, 255).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            path = root / split / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def shipped(name):
    """The record of a config file."""
    path = Path(__file__).parents[1] / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


def recipe(folder, count=24, **changes):
    """The shipped coffee recipe on small images of `write_leaves`."""
    tree = shipped("coffee_leaf")
    root = write_leaves(folder / "leaves", count)
    tree["data"] |= dict(dir=str(root), image_dir="images", mask_dir="masks")
    tree["data"] |= dict(mask_suffix="", classes=CLASSES, image_size=(32, 32))
    tree["model"] |= dict(widths=(8, 16), dropout=(0.0, 0.0))
    tree["optim"]["learning_rate"] = 5e-3
    tree["loss"] = changes.pop("loss", tree["loss"])
    tree["train"] |= dict(batch_size=8, precision="float32", **changes)
    return tree


def train(folder, capsys, **changes):
    """Metrics of a run of the recipe, and what it printed."""
    parsed = parsing.parse(recipe(folder, **changes), experiment.SCHEMAS)
    return run.run(parsed, folder / "run"), capsys.readouterr().out


def test_impatience_without_weights_ends_at_background_alone_and_is_told(
    tmp_path, capsys
):
    """The reported failure: high accuracy, and not one diseased pixel found."""
    plain = dict(cross_entropy=dict(weight=1.0, class_weights=()))
    metrics, words = train(tmp_path, capsys, loss=plain, early_stop=2, epochs=100)
    assert metrics["pixel_accuracy"] == metrics["background_accuracy"] > 0.96
    assert metrics["recall/leaf/pooled"] == metrics["recall/rust/pooled"] == 0
    for name in CLASSES[1:]:
        assert f"WARNING: the class {name} is never predicted" in words
    assert "(background)" in words  # the accuracy without a model, beside the other
    assert "epoch 100/100" not in words
    assert "class weights" not in words


def test_the_shipped_recipe_finds_the_rare_classes(tmp_path, capsys):
    metrics, words = train(tmp_path, capsys, count=60, epochs=8)
    assert metrics["iou/leaf/pooled"] > 0.1
    assert metrics["iou/rust/pooled"] > 0.1
    assert "never predicted" not in words
    assert "class weights: background 1, leaf 10, rust 10" in words
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    asked = record["config"]["loss"]["cross_entropy"]["class_weights"]
    assert asked == {"balanced_up_to": 10.0}
    assert record["loss"]["cross_entropy"]["class_weights"] == [1.0, 10.0, 10.0]


def test_weights_come_from_the_training_part_alone(tmp_path):
    """A spot is 16 of 1024 pixels in train, 8 in val."""
    tree = recipe(tmp_path)
    tree["loss"]["cross_entropy"]["class_weights"] = dict(balanced_up_to=1000.0)
    built = experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))
    weights = built.loss["cross_entropy"]["class_weights"]
    assert weights == (1.0, (1024 - 32) / 16, (1024 - 32) / 16)


def test_masks_that_are_not_in_use_do_not_weigh(tmp_path):
    """All training images have spots; the one mask in use has larger ones."""
    tree = recipe(tmp_path)
    mask = np.zeros((32, 32), np.uint8)
    mask[:4], mask[4] = 1, 2
    Image.fromarray(mask).save(tmp_path / "leaves" / "train" / "masks" / "0.png")
    (tmp_path / "used.txt").write_text("train/0\n")
    tree["data"]["segmented_file"] = str(tmp_path / "used.txt")
    tree["loss"]["cross_entropy"]["class_weights"] = dict(balanced_up_to=1000.0)
    built = experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))
    weights = built.loss["cross_entropy"]["class_weights"]
    assert weights == (1.0, 27 / 4, 27.0)


def test_without_masks_the_images_of_each_class_are_counted(tmp_path):
    counts = {"intact": 24, "stained": 12, "cracked": 6}
    for value, (name, count) in enumerate(counts.items()):
        for i in range(count):
            for split in ("train", "val"):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shade = (40 * value + i, int(split == "val"), i)
                Image.new("RGB", (8, 8), shade).save(path)
    tree = shipped("folder_classification")
    tree["data"] |= dict(dir=str(tmp_path), image_size=(32, 32))
    tree["data"]["classes"] = tuple(counts)
    tree["train"] |= dict(batch_size=8, monitor="loss")
    weights = dict(balanced_up_to=3.0)
    tree["loss"] = dict(cross_entropy=dict(weight=1.0, class_weights=weights))
    built = experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))
    assert built.loss["cross_entropy"]["class_weights"] == (1.0, 2.0, 3.0)
