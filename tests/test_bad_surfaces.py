"""Bad input for the sets of the SegDecNet papers, from the command line."""

from functools import partial

import numpy as np
import pytest
from test_bad_input import assert_message, call, scripts, unchanged_jax
from test_surface_datasets import (
    ROOT,
    SIZE,
    dagm,
    kolektor,
    photo,
    save,
    severstal,
    sorted_cracks,
    spot,
)

assert all((call, scripts, unchanged_jax))  # fixtures


def options(config, root, *overrides):
    keys = ("data.image_size=(128,136)", "train.batch_size=8", *overrides)
    if config == "severstal":
        keys = (f"data.mask_size={SIZE}", *keys)
    path = ROOT / "configs" / f"{config}.py"
    return ["--config", path, *(f"--config.{k}" for k in (f"data.dir={root}", *keys))]


@pytest.fixture
def refuse(call, tmp_path):
    """Runs train.py, which must refuse and leave nothing; gives the message."""

    def run(config, root, *overrides):
        workdir = tmp_path / "runs"
        given = options(config, root, *overrides)
        code, error = call("train", *given, "--workdir", workdir)
        assert_message(code, error)
        assert not workdir.exists()
        return error

    return run


@pytest.mark.parametrize(
    ("config", "make", "counts"),
    [
        # A third of twelve items of four photos; one of the other eight.
        (
            "kolektor_sdd",
            partial(kolektor, items=12),
            "48 images: 28 train, 4 val, 16 test",
        ),
        ("dagm2007", lambda root: dagm(root, 1, images=24), ", 24 test"),
        ("severstal", partial(severstal, copies=8), "- 32 images: "),
        ("crack_segmentation", sorted_cracks, "24 images: 12 train, 4 val, 8 test"),
    ],
)
def test_check_data_says_what_a_set_is_like(
    scripts, capsys, tmp_path, config, make, counts
):
    root = make(tmp_path / "data")
    arguments = [*options(config, root), "--out", tmp_path / "seen"]
    scripts["check_data"].run([*map(str, arguments)])
    out = capsys.readouterr().out
    assert "- cite " in out
    assert counts in out
    assert {path.name for path in tmp_path.iterdir()} == {"data", "seen"}


def test_no_negatives(refuse, tmp_path):
    root = tmp_path / "data"
    for item in range(1, 13):
        save(root / f"kos{item:02d}" / "Part1.jpg", photo())
        save(root / f"kos{item:02d}" / "Part1_label.bmp", spot(item))
    error = refuse("kolektor_sdd", root)
    assert "none of them clean" in error
    assert "--config.task.name=segmentation" in error


def test_positives_without_a_mask_pixel(refuse, tmp_path):
    root = sorted_cracks(tmp_path / "data")
    save(root / "train_positive" / "3_GT.jpg", np.zeros((32, 32), np.uint8))
    error = refuse("crack_segmentation", root)
    assert "train_positive/3: its label is a defect, and its mask is all" in error
    assert "--config.data.on_corrupt=skip" in error


def test_a_mask_of_another_size_than_its_image(refuse, tmp_path):
    root = kolektor(tmp_path / "data")
    save(root / "kos03" / "Part2_label.bmp", np.zeros((6, 10), np.uint8))
    assert "kos03/Part2: image 12 x 20, mask 6 x 10" in refuse("kolektor_sdd", root)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.fold=3", "config.data.fold: expected 0 to 2, found 3"),
        ("data.num_folds=1", "config.data.num_folds: expected at least 2"),
        ("data.num_folds=20", "12 group(s), none for fold 12, 13"),
        ("data.num_segmented=9", "--config.data.num_segmented=7"),
        ("data.num_segmented=0", "--config.task.dynamic=false --config.task.weighted"),
        ("data.segmented_file=none.txt", "no file none.txt"),
        ("data.split=published", "--config.data.split=grouped"),
    ],
)
def test_values_that_do_not_fit_kolektor(refuse, tmp_path, override, words):
    root = kolektor(tmp_path / "data", items=12)
    assert words in refuse("kolektor_sdd", root, override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.class_id=11", "--config.data.class_id=1"),
        ("data.class_id=0", "config.data.class_id: expected more than 0, found 0"),
        ("data.class_id=one", "config.data.class_id: expected int, found 'one'"),
    ],
)
def test_classes_that_dagm_does_not_have(refuse, tmp_path, override, words):
    assert words in refuse("dagm2007", dagm(tmp_path / "data", 1), override)


def test_a_class_without_a_defect(refuse, tmp_path):
    root = dagm(tmp_path / "data", 1)
    for part in ("Train", "Test"):
        for path in (root / "Class1" / part / "Label").glob("*.PNG"):
            path.unlink()
    assert "no mask has a foreground pixel" in refuse("dagm2007", root)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("a.jpg", 4, "1 2 3"), "3 number(s), no pairs of start and length"),
        (("a.jpg", 4, "240 2"), "'240 2' leaves the 12 x 20 pixels"),
        (("a.jpg", 4, "9 3 4 2"), "'4 2' begins before pixel 12"),
        (("a.jpg", 4, "9 3 10 2"), "'10 2' begins before pixel 12"),
        (("a.jpg", 4, "many"), "no whole numbers"),
        (("lost.jpg", 4, "1 2"), "1 missing: 'lost.jpg'"),
    ],
)
def test_rows_of_severstal(refuse, tmp_path, row, words):
    error = refuse("severstal", severstal(tmp_path / "data", rows=[row]))
    assert words in error


def test_the_header_of_severstal(refuse, tmp_path):
    root = severstal(tmp_path / "data", header=["image", "class", "mask"])
    error = refuse("severstal", root)
    assert "the columns ImageId,ClassId,EncodedPixels or" in error


def test_severstal_images_of_another_size(refuse, tmp_path):
    error = refuse("severstal", severstal(tmp_path / "data"), "data.mask_size=(12,21)")
    assert "a: image 12 x 20, mask 12 x 21" in error
    assert "--config.data.mask_size='(H, W)'" in error
