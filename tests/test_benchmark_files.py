"""`benchmark.py step --batches files`: both sides see the training part of a config."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import benchmark_files  # noqa: E402
import benchmark_step  # noqa: E402
import benchmark_twin  # noqa: E402
import command_line  # noqa: E402

from jaxseg import parallel  # noqa: E402
from jaxseg.datasets import synthetic  # noqa: E402
from jaxseg.errors import InputError  # noqa: E402
from jaxseg.vocabulary import SCHEMAS  # noqa: E402

CONFIG = SCRIPTS.parent / "configs" / "folder_segmentation.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny U-Net on some rendered photographs."""
    folder = tmp_path_factory.mktemp("files")
    synthetic.write_segmentation(folder, synthetic.segmentation_crops(12, 0))
    overrides = [
        f"data.dir={folder}",
        f"data.cache_dir={folder / 'cache'}",
        "data.group_pattern=([a-z]+_[0-9]+)_.*",
        "data.image_size=(16, 16)",
        "model.widths=(4, 6)",
        "model.dropout=(0.0, 0.0)",
        "train.precision=float32",
        "train.batch_size=8",
    ]
    return command_line.load_config(CONFIG, overrides, SCHEMAS)


@pytest.fixture(scope="module")
def files(run):
    return benchmark_files.open_files(run)


def make_ours(run):
    program = benchmark_step.make_program(run, {})
    return benchmark_step.Ours(program, benchmark_step.make_batch(program))


@pytest.mark.parametrize(("steps_per_call", "made"), [(1, 3), (2, 4)])
def test_steps_from_files_are_those_of_the_batches_of_the_loader(
    run, files, steps_per_call, made
):
    """In whole calls: two and one are 4 steps in calls of two."""
    several = dataclasses.replace(run.train, steps_per_call=steps_per_call)
    fed, by_hand = make_ours(dataclasses.replace(run, train=several)), make_ours(run)
    one_batch = fed.inputs
    contestant = files.contestant(fed)
    assert contestant(2) > 0
    assert contestant(1) > 0
    assert fed.inputs is one_batch
    for batch in files.loader.batches(0, made):
        arrays = {k: np.copy(batch[k]) for k in ("image", "mask", "label", "index")}
        arrays["stop"] = np.zeros(8, bool)
        by_hand.inputs = parallel.put_steps([arrays], by_hand.mesh)
        by_hand.advance()
        files.loader.give_back(batch)
    assert int(fed.state.step) == made
    jax.tree.map(np.testing.assert_array_equal, fed.state.params, by_hand.state.params)


def test_the_listing_has_the_images_of_the_training_part_with_their_masks(run, files):
    listing = files.listing_for({})
    images, masks = map(Path, listing["images"]), map(Path, listing["masks"])
    assert len(listing["images"]) == files.loader.num_samples > 8
    for image, mask, label in zip(images, masks, listing["labels"], strict=True):
        assert (image.stem, image.parent.name) == (mask.stem, "images")
        with Image.open(mask) as opened:
            assert np.asarray(opened).any() == label
    assert (*listing["size"], listing["batch_size"]) == (16, 16, 8)


def test_targets_of_segdecnet_are_not_for_a_dataloader(files):
    with pytest.raises(InputError, match="SegDecNet"):
        files.listing_for({"seg_target": np.zeros(1)})
    with pytest.raises(InputError, match="windows"):
        files._replace(obstacle="windows of them (data.crop)").listing_for({})


def test_pytorch_reads_an_image_with_its_mask_flipped_or_not(tmp_path):
    torch_files = pytest.importorskip("torch_files", reason="torch is not installed")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 6, 3), np.uint8)
    mask = rng.integers(0, 2, (4, 6), np.uint8) * np.uint8(255)
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    listing = {
        "images": [str(tmp_path / "image.png")],
        "masks": [str(tmp_path / "mask.png")],
        "labels": [1],
        "size": [4, 6],
    }
    torch_files.torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        item = torch_files.Files(listing, hflip=0.5)[0]
        step = 1 if np.array_equal(item["image"], image) else -1
        seen.add(step)
        np.testing.assert_array_equal(item["image"], image[:, ::step])
        np.testing.assert_array_equal(item["mask"], mask[:, ::step] > 0)
        assert item["label"] == 1
    assert seen == {1, -1}


def test_the_child_process_reads_the_files(run, files):
    pytest.importorskip("torch", reason="torch is not installed")
    ours = make_ours(run)
    weights = benchmark_twin.port_weights("unet", ours.weights())
    batch = benchmark_step.make_batch(benchmark_step.make_program(run, {}))
    json.dumps(files.listing)  # paths and numbers alone
    opened = benchmark_twin.open_twin(
        sys.executable, "unet", weights, batch, False, files.listing
    )
    with opened as twin:
        assert all("DataLoader" in rung for rung in twin.rungs)
        assert all(twin.run(rung, 1) > 0 for rung in twin.rungs)
