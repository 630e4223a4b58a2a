"""The sets of the SegDecNet papers: layouts, masks, and what is refused.

Every layout is made small, with noise for photos and known pixels for defects.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import Data, Spec
from jaxseg.data.check import check
from jaxseg.data.images import open_picture, read_mask
from jaxseg.data.mask_values import encode_mask
from jaxseg.data.splits import make_split
from jaxseg.datasets import DATASETS
from jaxseg.datasets.drawing import BadShape, Blank, Drawing, make_runs
from jaxseg.errors import InputError

ROOT = Path(__file__).parents[1]
SIZE = (12, 20)
RNG = np.random.default_rng(0)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def photo(size=SIZE):
    return RNG.integers(0, 256, size, dtype=np.uint8)


def spot(row, size=SIZE, value=255):
    mask = np.zeros(size, np.uint8)
    mask[row % size[0], 2:7] = value
    return mask


def plant(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def scan(name, root, **keys):
    return DATASETS[name](root, **keys)


def refuse(name, root, **keys) -> InputError:
    with pytest.raises(InputError) as caught:
        scan(name, root, **keys)
    return caught.value


def checked(listing, on_corrupt="fail"):
    return check(
        listing,
        palette=(),
        on_corrupt=on_corrupt,
        workers=2,
        progress=lambda items, total, description: items,
    )


def pixels_of(record, encoding):
    return encode_mask(read_mask(record.mask.read_bytes())[0], encoding)


# KolektorSDD.


def kolektor(root, items=6, parts=4):
    """Part 1 of every item has a defect."""
    for item in range(1, items + 1):
        for part in range(parts):
            folder = root / f"kos{item:02d}"
            save(folder / f"Part{part}.jpg", photo())
            mask = spot(item) if part == 1 else spot(0, value=0)
            save(folder / f"Part{part}_label.bmp", mask)
    return root


def test_kolektor_groups_by_item_and_leaves_one_photo_out(tmp_path):
    root = kolektor(tmp_path)
    kolektor_21 = ("kos21/Part6.jpg", "kos21/Part6_label.bmp", "kos21/Part7.jpg")
    plant(root, *kolektor_21, "ReadMe.txt", "other/Part0.jpg")
    found = scan("kolektor_sdd", root)
    assert len(found.records) == 6 * 4 + 1
    by_id = {record.id: record for record in found.records}
    assert by_id["kos21/Part6"].mask == root / "kos21" / "Part6_label.bmp"
    assert "kos21/Part7" not in by_id
    assert [name for name, _ in found.skipped] == ["kos21/Part7"]
    assert "kos21/Part7 is left out" in found.notes[0]
    assert {record.group for record in found.records} == {
        *(f"kos{item:02d}" for item in range(1, 7)),
        "kos21",
    }


def test_kolektor_labels_come_from_the_masks(tmp_path):
    done = checked(scan("kolektor_sdd", kolektor(tmp_path)))
    labels = {item.record.id: item.label for item in done.records}
    assert sum(labels.values()) == 6
    assert all(label == ("Part1" in name) for name, label in labels.items())
    defect = next(item.record for item in done.records if item.label)
    item = int(defect.group[3:])
    np.testing.assert_array_equal(pixels_of(defect, done.encoding), spot(item, value=1))


def settings(**changes) -> Data:
    options = dict(
        dir="",
        image_size=SIZE,
        channels=1,
        mean=(0.0,),
        std=(1.0,),
        split="kfold",
        split_seed=0,
        val_fraction=0.25,
        test_fraction=0.0,
        sampling="shuffle",
        cache="none",
        augment={},
        source=Spec("kolektor_sdd", {}),
        num_folds=3,
    )
    return Data(**options | changes)


def test_three_folds_test_every_item_once_and_keep_items_whole(tmp_path):
    records = checked(scan("kolektor_sdd", kolektor(tmp_path, items=12))).records
    groups = np.array([item.record.group for item in records])
    tested = []
    for fold in range(3):
        split = make_split(records, settings(fold=fold))
        parts = {p: {*groups[split.indices(p)]} for p in ("train", "val", "test")}
        assert [len(parts[p]) for p in ("train", "val", "test")] == [6, 2, 4]
        assert len(set.union(*parts.values())) == 12
        tested += sorted(parts["test"])
    assert len(tested) == len({*tested}) == 12


@pytest.mark.parametrize(
    ("name", "words", "fix"),
    [
        ("kos01/Part9.jpg", "1 images without one: kos01/Part9", "Part9.jpg' .."),
        ("kos01/Part9_label.bmp", "1 masks without one: kos01/Part9", "Part9_label"),
    ],
)
def test_kolektor_photos_and_masks_must_pair(tmp_path, name, words, fix):
    error = refuse("kolektor_sdd", plant(kolektor(tmp_path, items=1), name))
    assert words in error.found
    assert fix in error.fix


def test_kolektor_names_the_right_folder(tmp_path):
    root = kolektor(tmp_path / "KolektorSDD-boxes", items=1)
    fix = f"--config.data.dir='{root}'"
    assert refuse("kolektor_sdd", tmp_path).fix == fix
    assert refuse("kolektor_sdd", root / "kos01").fix == fix


# DAGM 2007.


def dagm(root, *class_ids, images=6):
    """So many images a part; 0002, 0005, 0008, ... have a defect."""
    for class_id in class_ids:
        for part in ("Train", "Test"):
            folder = root / f"Class{class_id}" / part
            for number in range(images):
                save(folder / f"{number:04d}.PNG", photo())
            for number in range(2, images, 3):
                mask = spot(number + class_id)
                save(folder / "Label" / f"{number:04d}_label.PNG", mask)
            (folder / "Label" / "Labels.txt").write_text("1\n")
    return root


def test_dagm_lists_one_class_with_its_own_split(tmp_path):
    found = scan("dagm2007", dagm(tmp_path, 1, 2, 10), class_id=10)
    assert len(found.records) == 12
    labels = {record.id: record.label for record in found.records}
    assert sorted(name for name, label in labels.items() if label) == [
        f"Class10/{part}/{number}"
        for part in ("Test", "Train")
        for number in ("0002", "0005")
    ]
    splits = {r.split: r.id.split("/")[1] for r in found.records}
    assert splits == {"train": "Train", "test": "Test"}
    assert len({record.group for record in found.records}) == 12


def test_dagm_images_without_a_label_image_are_clean(tmp_path):
    done = checked(scan("dagm2007", dagm(tmp_path, 3), class_id=3))
    assert [item.label for item in done.records] == [0, 0, 1, 0, 0, 1] * 2
    for item in done.records:
        number = int(item.record.id[-4:])
        mask = spot(number + 3, value=1) if item.label else spot(0, value=0)
        np.testing.assert_array_equal(pixels_of(item.record, done.encoding), mask)


def test_dagm_classes_that_are_not_there_name_those_that_are(tmp_path):
    dagm(tmp_path, 2, 10)
    plant(tmp_path, "Class3/Train/1.PNG")
    for class_id in (1, 3):
        error = refuse("dagm2007", tmp_path, class_id=class_id)
        assert f"Class{class_id} with Train and Test" in error.expected
        assert error.found.endswith("holds Class2, Class10")
        assert error.fix == "--config.data.class_id=2"
    error = refuse("dagm2007", tmp_path / "Class2", class_id=2)
    assert error.fix == f"--config.data.dir='{tmp_path}'"


def test_dagm_label_images_need_their_image(tmp_path):
    plant(dagm(tmp_path, 1), "Class1/Test/Label/0009_label.PNG")
    error = refuse("dagm2007", tmp_path, class_id=1)
    assert "1 masks without one: Class1/Test/0009" in error.found


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_blank_mask_has_the_size_of_the_image_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6 and 8 are turned by 90 degrees
    path = save(tmp_path / f"a{suffix}", photo(), exif=exif)
    mask = read_mask(Blank(path).read_bytes())[0]
    size = open_picture(path.read_bytes())[1].size
    assert size == (SIZE if orientation < 5 else SIZE[::-1])
    np.testing.assert_array_equal(mask, np.zeros(size, np.uint8))


def test_a_blank_mask_overlooks_a_broken_exif_block(tmp_path):
    path = save(tmp_path / "a.png", photo(), exif=b"Exif\0\0garbage!")
    assert read_mask(Blank(path).read_bytes())[0].shape == SIZE


# crack_segmentation, sorted by label.


def sorted_cracks(root, suffix=".jpg"):
    parts = (("train", 6), ("test", 4), ("val", 2))
    for i, (part, count) in enumerate(parts):
        for number in range(count):
            for label in ("positive", "negative"):
                folder, name = root / f"{part}_{label}", f"{100 * i + number}"
                save(folder / f"{name}.jpg", photo((32, 32)), quality=90)
                mask = spot(3 * number, (32, 32)) * (label == "positive")
                save(folder / f"{name}_GT{suffix}", mask)
    return root


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_sorted_cracks_take_label_and_split_from_the_folder(tmp_path, suffix):
    found = scan("crack_segmentation", sorted_cracks(tmp_path, suffix))
    assert len(found.records) == 2 * (6 + 4 + 2)
    for record in found.records:
        folder, name = record.id.split("/")
        assert record.label == int(folder.endswith("_positive"))
        assert record.split == folder.split("_")[0]
        assert record.mask == tmp_path / folder / f"{name}_GT{suffix}"
        assert (record.group, record.source) == (record.id, "")
    done = checked(found)
    assert sum(item.label for item in done.records) == 12


def test_sorted_cracks_keep_photographs_that_their_names_tell(tmp_path):
    name = "CRACK500_20160222_081011_1281_721"
    for folder in ("train_positive", "train_negative", "test_negative"):
        plant(tmp_path, f"{folder}/1.jpg", f"{folder}/1_GT.jpg")
    plant(tmp_path, f"test_positive/{name}.jpg", f"test_positive/{name}_GT.png")
    found = scan("crack_segmentation", tmp_path)
    known = next(r for r in found.records if r.id == f"test_positive/{name}")
    assert (known.group, known.source) == ("CRACK500_20160222_081011", "CRACK500")


def test_sorted_cracks_whose_mask_contradicts_the_folder(tmp_path):
    root = sorted_cracks(tmp_path)
    save(root / "train_positive" / "3_GT.jpg", np.zeros((32, 32), np.uint8))
    save(root / "test_negative" / "101_GT.jpg", spot(4, (32, 32)))
    listing = scan("crack_segmentation", root)
    with pytest.raises(InputError) as caught:
        checked(listing)
    assert "2 contradict them" in caught.value.found
    assert "train_positive/3: its label is a defect" in caught.value.found
    assert len(checked(listing, "skip").records) == 22


def test_cracks_without_negatives_are_another_layout(tmp_path):
    plant(tmp_path, "train_positive/1.jpg", "test_positive/1.jpg")
    error = refuse("crack_segmentation", tmp_path)
    assert "train_negative, train_positive" in error.expected
    assert "the folders test_positive, train_positive" in error.found


# Severstal, and run lengths.


def encode(mask):
    """Run lengths of a mask [h, w], pixel by pixel."""
    flat, runs, start = mask.T.ravel(), [], None
    for position, value in enumerate([*flat, 0], start=1):
        if value and start is None:
            start = position
        elif not value and start is not None:
            runs += [start, position - start]
            start = None
    return " ".join(map(str, runs))


def decode(text, size):
    """The rule of the competition in NumPy: pixels from 1, down the columns."""
    numbers = np.array(text.split(), np.int64)
    flat = np.zeros(size[0] * size[1], np.uint8)
    for start, length in numbers.reshape(-1, 2):
        flat[start - 1 : start - 1 + length] = 1
    return flat.reshape(size, order="F")


def draw(text, size=SIZE):
    drawing = Drawing("a.csv", size, (make_runs(1, text, size),))
    return read_mask(drawing.read_bytes())[0]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_runs_are_drawn_as_the_rule_says(share):
    for seed in range(5):
        mask = (np.random.default_rng(seed).random(SIZE) < share).astype(np.uint8)
        mask[3, 3] = 1
        text = encode(mask)
        np.testing.assert_array_equal(decode(text, SIZE), mask)
        np.testing.assert_array_equal(draw(text), mask)


def test_a_run_goes_down_the_first_column_first():
    np.testing.assert_array_equal(draw("2 3", (3, 2)), [[0, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(draw("1 6", (3, 2)), np.ones((3, 2)))
    np.testing.assert_array_equal(draw("1 1 2 1", (2, 1)), [[1], [1]])  # touching runs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3", "3 number.s., no pairs"),
        ("", "0 number"),
        ("0 2", "'0 2' begins before pixel 1"),
        ("240 2", "'240 2' leaves the 12 x 20 pixels"),
        ("999999999999 2", "leaves the 12 x 20"),
        ("5 0", "'5 0' is empty"),
        ("5 4 8 2", "'8 2' begins before pixel 9"),
        ("50 4 8 2", "'8 2' begins before pixel 54"),
        ("1 x", "no whole numbers"),
        ("1.0 2", "no whole numbers"),
        ("1 -2", "no whole numbers"),
        ("nan", "no whole numbers"),
        ("1 " + 20 * "9", "no whole numbers"),
    ],
)
def test_runs_that_cannot_be_drawn_say_why(text, words):
    with pytest.raises(BadShape, match=words):
        make_runs(1, text, SIZE)


MASKS = {  # file -> class -> mask
    "a.jpg": {1: spot(3, value=1), 3: spot(7, value=1)},
    "b.jpg": {2: spot(5, value=1)},
    "c.jpg": {},
    "d.jpg": {},
}


def severstal(root, older=False, rows=(), header=None, copies=1):
    """The images of MASKS; with copies, as many more of the same annotation."""
    masks = {f"{'_' * i}{name}": MASKS[name] for i in range(copies) for name in MASKS}
    for name in masks:
        save(root / "train_images" / name, photo())
    with (root / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        if older:
            writer.writerow(header or ["ImageId_ClassId", "EncodedPixels"])
            writer.writerows(
                (f"{name}_{k}", encode(found[k]) if k in found else "")
                for name, found in masks.items()
                if name != "d.jpg"
                for k in (1, 2, 3, 4)
            )
        else:
            writer.writerow(header or ["ImageId", "ClassId", "EncodedPixels"])
            writer.writerows(
                (name, k, encode(mask))
                for name, found in masks.items()
                for k, mask in found.items()
            )
        writer.writerows(rows)
    return root


@pytest.mark.parametrize("older", [False, True])
def test_severstal_draws_all_kinds_as_one_class(tmp_path, older):
    found = scan("severstal", severstal(tmp_path, older), mask_size=SIZE)
    assert [record.id for record in found.records] == ["a", "b", "c", "d"]
    done = checked(found)
    assert [item.label for item in done.records] == [1, 1, 0, 0]
    for item in done.records:
        wanted = np.zeros(SIZE, np.uint8)
        for mask in MASKS[f"{item.record.id}.jpg"].values():
            wanted |= mask
        np.testing.assert_array_equal(pixels_of(item.record, done.encoding), wanted)


def test_both_files_of_severstal_give_the_same_records(tmp_path):
    new = scan("severstal", severstal(tmp_path), mask_size=SIZE)
    old = scan("severstal", severstal(tmp_path, older=True), mask_size=SIZE)
    assert new.records == old.records


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("a.jpg", 4, "1 2 3"), "train.csv line 5 (a.jpg): 3 number(s), no pairs"),
        (("a.jpg", 4, "241 1"), "'241 1' leaves the 12 x 20 pixels"),
        (("a.jpg", 4, "4 3 5 1"), "'5 1' begins before pixel 7"),
        (("x.jpg", 4, "1 2"), "1 missing: 'x.jpg'"),
        (("", 4, "1 2"), "1 missing: ''"),
    ],
)
def test_severstal_rows_that_cannot_be(tmp_path, row, words):
    root = severstal(tmp_path, rows=[row])
    error = refuse("severstal", root, mask_size=SIZE)
    assert words in error.found
    assert "train.csv" in error.fix


@pytest.mark.parametrize("header", [["image", "mask"], ["ImageId", "EncodedPixels"]])
def test_severstal_with_another_header(tmp_path, header):
    error = refuse("severstal", severstal(tmp_path, header=header), mask_size=SIZE)
    assert "ImageId,ClassId,EncodedPixels or ImageId_ClassId" in error.expected
    assert ",".join(header) in error.found


def test_severstal_with_a_file_that_is_no_csv(tmp_path):
    root = severstal(tmp_path)
    (root / "train.csv").write_bytes(b"\x80\x04\xff\xfe" * 9)
    error = refuse("severstal", root, mask_size=SIZE)
    assert "train.csv" in error.found
    (root / "train.csv").write_bytes(b"")
    assert refuse("severstal", root, mask_size=SIZE).found == "''"
    (root / "train.csv").unlink()
    assert "the file train.csv" in refuse("severstal", root, mask_size=SIZE).expected


def test_severstal_images_of_another_size(tmp_path):
    root = severstal(tmp_path)
    save(root / "train_images" / "c.jpg", photo((6, 10)))
    with pytest.raises(InputError) as caught:
        checked(scan("severstal", root, mask_size=SIZE))
    assert "c: image 6 x 10, mask 12 x 20" in caught.value.found
    assert "--config.data.mask_size=" in caught.value.fix
