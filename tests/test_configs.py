"""Every shipped config builds on data of its layout and traces a step at full size."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxseg import experiment, parsing
from jaxseg.train_state import inference_variables

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
LAYOUTS = {
    "sdnet": "sdnet2018",
    "sdnet_small": "sdnet2018",
    "folder_segmentation": "folder_segmentation",
    "folder_classification": "folder_classification",
    "coffee_leaf": "coffee_leaf",
    "road": "road",
    "speedlines": "speedlines",
    "speedlines_b0": "speedlines",
    "speedlines_b1": "speedlines",
    "speedlines_encoder": "speedlines",
    "crack_segmentation": "crack_segmentation",
    "crack_segmentation_unet": "crack_segmentation",
    "kolektor_sdd2": "kolektor_sdd2",
    "kolektor_sdd": "kolektor_sdd",
    "dagm2007": "dagm2007",
    "severstal": "severstal",
    "labelme": "labelme",
    "coco": "coco",
    "pascal_voc": "pascal_voc",
}
# Published numbers; those of speedlines_b0 and _b1 without moving statistics.
PARAMETERS = {
    "coffee_leaf": 7_699_011,
    "road": 1_941_105,
    "crack_segmentation": 15_638_813,
    "kolektor_sdd2": 15_638_813,
    "kolektor_sdd": 15_637_213,
    "dagm2007": 15_637_213,
    "severstal": 15_637_213,
    "speedlines": 24_436_369,
    "speedlines_b0": 10_071_501,
    "speedlines_b1": 12_577_137,
}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_coffee_leaves(root):
    """24 photos with a spot of each disease, and their label images."""
    for i in range(24):
        mask = np.zeros((40, 60), np.uint8)
        mask[i : i + 4, 5:9], mask[i : i + 4, 30:50] = 1, 2
        write(root / f"leaf{i}.JPG", np.full((40, 60, 3), 10 * i, np.uint8))
        write(root / f"leaf{i}_gt.png", mask)


def write_roads(root):
    """24 tiles that are a little larger than one window, with a road each."""
    for i in range(24):
        mask = np.zeros((140, 150), np.uint8)
        mask[5 * i : 5 * i + 7] = 255
        image = np.full((140, 150, 3), 10 * i, np.uint8)
        write(root / "training" / "input" / f"img-{i}.png", image)
        write(root / "training" / "output" / f"img-{i}.png", mask)


BOX = [[3, 2], [30, 2], [30, 20], [3, 20]]


def write_labelme(root):
    """24 photos with a polygon each."""
    shape = dict(label="crack", points=BOX, shape_type="polygon")
    for i in range(24):
        write(root / f"{i}.png", np.full((40, 60, 3), 10 * i, np.uint8))
        content = dict(imagePath=f"{i}.png", imageHeight=40, imageWidth=60)
        text = json.dumps(content | dict(shapes=[shape]))
        (root / f"{i}.json").write_text(text)


def write_coco(root):
    """24 photos with a polygon each."""
    for i in range(24):
        write(root / "images" / f"{i}.png", np.full((40, 60, 3), 10 * i, np.uint8))
    images = [dict(id=i, file_name=f"{i}.png", height=40, width=60) for i in range(24)]
    polygon = [[number for point in BOX for number in point]]
    annotations = [
        dict(id=i, image_id=i, category_id=3, segmentation=polygon) for i in range(24)
    ]
    categories = [dict(id=3, name="crack")]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "annotations.json").write_text(json.dumps(content))


def write_voc(root):
    """24 photos in two lists, with a person each."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9], mask[9] = 15, 255
    for i in range(24):
        image = np.full((40, 60, 3), 10 * i, np.uint8)
        write(root / "JPEGImages" / f"{i}.jpg", image)
        write(root / "SegmentationClass" / f"{i}.png", mask)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, numbers in (("train", range(18)), ("val", range(18, 24))):
        (lists / f"{name}.txt").write_text("\n".join(map(str, numbers)))


def write_speedlines(root):
    """24 walls with a dark line, which is black on white in the label."""
    for i in range(24):
        image = np.full((80, 90, 3), 150 + i, np.uint8)
        label = np.full((80, 90), 255, np.uint8)
        label[3 * i : 3 * i + 3] = 0
        image[label == 0] = 40
        write(root / "image" / f"{i}.png", image)
        write(root / "label" / f"{i}.png", label)


def write_kolektor(root):
    """40 surfaces, every second with a defect; 16 of them for the test."""
    for i in range(40):
        folder = root / ("test" if i % 5 > 2 else "train")
        mask = np.zeros((64, 24), np.uint8)
        mask[i : i + 4, 5:9] = 255 * (i % 2)
        write(folder / f"{i}.png", np.full((64, 24, 3), 6 * i, np.uint8))
        write(folder / f"{i}_GT.png", mask)


def write_kolektor_items(root):
    """12 items of two photos, the second with a defect."""
    for i in range(24):
        folder, name = root / f"kos{i // 2:02d}", f"Part{i % 2}"
        mask = np.zeros((64, 24), np.uint8)
        mask[i : i + 4, 5:9] = 255 * (i % 2)
        write(folder / f"{name}.jpg", np.full((64, 24), 10 * i, np.uint8))
        write(folder / f"{name}_label.bmp", mask)


def write_dagm(root):
    """24 textures of one class, every second with a defect."""
    for i in range(24):
        folder = root / "Class1" / ("Test" if i % 3 == 2 else "Train")
        mask = np.zeros((32, 32), np.uint8)
        mask[i : i + 4, 5:9] = 255
        write(folder / f"{i:04d}.PNG", np.full((32, 32), 10 * i, np.uint8))
        if i % 2:
            write(folder / "Label" / f"{i:04d}_label.PNG", mask)


def write_severstal(root):
    """24 plates of full size, every second with a defect."""
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(24):
        image = np.full((256, 1600), 10 * i, np.uint8)
        write(root / "train_images" / f"{i}.jpg", image)
        rows += [f"{i}.jpg,{1 + i % 4},{256 * i + 1} 99"] * (i % 2)
    (root / "train.csv").write_text("\n".join(rows))


WRITERS = {
    "kolektor_sdd2": write_kolektor,
    "kolektor_sdd": write_kolektor_items,
    "dagm2007": write_dagm,
    "severstal": write_severstal,
    "speedlines": write_speedlines,
    "coffee_leaf": write_coffee_leaves,
    "road": write_roads,
    "labelme": write_labelme,
    "coco": write_coco,
    "pascal_voc": write_voc,
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Renders one set per layout, once."""
    folder = tmp_path_factory.mktemp("layouts")

    def render(layout):
        out = folder / layout
        if layout in WRITERS and not out.is_dir():
            WRITERS[layout](out)
        elif not out.is_dir():
            script = [sys.executable, str(ROOT / "scripts" / "make_synthetic.py")]
            options = ["--layout", layout, "--out", str(out), "--num", "24"]
            subprocess.run([*script, *options], check=True, capture_output=True)
        return out

    return render


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_and_its_step_has_stable_shapes(path, data_dir, tmp_path):
    tree = load(path)
    if path.stem in LAYOUTS:
        tree["data"]["dir"] = str(data_dir(LAYOUTS[path.stem]))
    else:
        tree["data"] |= dict(dir=str(tmp_path), num_photos=24)
    tree["train"]["precision"] = "float32"
    if tree["train"]["batch_size"] % 8:
        tree["train"]["batch_size"] = 8  # devices
    run = parsing.parse(tree, experiment.SCHEMAS)
    built = experiment.build_experiment(run)
    state = jax.eval_shape(built.init)
    leaves = jax.tree.leaves(state.params)
    number = sum(leaf.size for leaf in leaves)
    assert number == PARAMETERS.get(path.stem, number)
    phase = built.phases[-1]
    batch, call = phase.abstract_batch, built.train_calls[phase.size.image_size]
    inputs = built.abstract_inputs(phase, 2)
    new_state, logs = jax.eval_shape(call, state, {}, inputs)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new_state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert logs["loss"].shape == (2,)
    counts = jax.eval_shape(built.eval_step, inference_variables(state), batch)
    counts = {name: np.zeros(x.shape, x.dtype) for name, x in counts.items()}
    thresholds = built.task.choose_thresholds(counts)
    assert set(built.task.headline) <= set(built.task.summarize(counts, thresholds))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_short_and_names_its_command(path):
    text = path.read_text()
    assert f"--config configs/{path.name}" in text
    body = text.split('"""', 2)[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 80
    assert "import" not in body.replace("from ml_collections import ConfigDict", "")
