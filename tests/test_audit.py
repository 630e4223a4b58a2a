"""What is told of a data set agrees with counts made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import Crop, Data, Spec
from jaxseg.data import audit
from jaxseg.data.cache import Decoder
from jaxseg.data.check import CheckedRecord
from jaxseg.data.images import resize_mask
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.data.splits import Split
from jaxseg.datasets.record import Record


def settings(**changes):
    values = dict(
        dir="data",
        image_size=(32, 32),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        split="grouped",
        split_seed=0,
        val_fraction=0.25,
        test_fraction=0.25,
        sampling="shuffle",
        cache="none",
        augment={},
        source=Spec("folder_segmentation", {}),
    )
    return Data(**values | changes)


class Drawn:
    """A mask file that is not on the disk."""

    def __init__(self, mask, path):
        self.path = path
        Image.fromarray(mask).save(self.path)

    def read_bytes(self):
        return self.path.read_bytes()


class Resized:
    """A source whose samples are masks, resized as the cache does."""

    def __init__(self, masks, size):
        self.decoder = Decoder(size, 3, MaskEncoding("ids"))
        self.masks = [resize_mask(mask, size) for mask in masks]

    def read(self, positions, out):
        for row, position in enumerate(positions):
            out["mask"][row] = self.masks[position]


def labelled(labels, *, groups=None, size=(32, 32), source="", looks=()):
    groups = groups or [f"g{i}" for i in range(len(labels))]
    return tuple(
        CheckedRecord(
            Record(f"r{i}", None, None, label, group, None, source),
            f"sha{i}",
            "",
            size,
            label,
            (),
            dict(looks).get(i, ""),
        )
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    )


def classifier(records, classes=("intact", "cracked")):
    return SimpleNamespace(records=records, classes=classes)


def with_masks(masks, folder, size=(32, 32), classes=("background", "crack")):
    records = tuple(
        CheckedRecord(
            Record(f"r{i}", None, Drawn(mask, folder / f"{i}.png"), None, f"g{i}"),
            f"sha{i}",
            f"sha{i}",
            mask.shape,
            int(mask.any()),
            tuple(np.bincount(mask.ravel(), minlength=len(classes)).tolist()),
        )
        for i, mask in enumerate(masks)
    )
    return SimpleNamespace(
        records=records,
        classes=classes,
        ids=[checked.record.id for checked in records],
        labels=np.array([checked.label for checked in records]),
        source=Resized(masks, size),
    )


def halves(count):
    """Train and val in equal shares."""
    return Split(("train", "val") * (count // 2))


def table(found, title):
    (one,) = [table for table in found.tables if table.title.startswith(title)]
    return one


def test_counts_by_part_and_class():
    records = labelled([0, 1, 1, 0, 0, 1], groups=["a", "a", "b", "c", "c", "d"])
    split = Split(("train", "train", "train", "val", "val", "test"))
    found = audit.audit(classifier(records), split, settings())
    images = table(found, "images")
    assert images.header == ("part", "images", "groups", "intact", "cracked")
    assert images.rows == (
        ("train", 3, 2, 1, 2),
        ("val", 2, 1, 2, 0),
        ("test", 1, 1, 0, 1),
        ("all", 6, 4, 3, 3),
    )
    assert [t.title for t in found.tables] == ["images", "sizes of the files"]


def test_sources_have_a_table_where_there_are_some():
    records = labelled([0, 1], source="deck") + labelled([1], source="wall")
    found = audit.audit(classifier(records), Split(("train",) * 3), settings())
    assert table(found, "sources").rows == (("deck", 2, 2, 1, 1), ("wall", 1, 1, 0, 1))


def test_many_sizes_are_summed_up():
    few = labelled([0] * 5) + labelled([1], size=(10, 20))
    sizes = table(audit.audit(classifier(few), halves(6), settings()), "sizes")
    assert sizes.rows == (("32 x 32", 5), ("10 x 20", 1))
    many = few + tuple(labelled([0], size=(50 + i, 90 - i))[0] for i in range(8))
    sizes = table(audit.audit(classifier(many), halves(14), settings()), "sizes")
    assert sizes.rows[0] == ("32 x 32", 5)
    assert len(sizes.rows) == 4
    assert sum(row[1] for row in sizes.rows) == 14
    assert sizes.rows[3] == ("others: 51..57 x 83..89", 7)


def test_pixels_and_regions(tmp_path):
    """A line of one pixel, a square of 5 that touches the border, an empty mask."""
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[0, 10, 4:14] = 1
    masks[1, :5, :5] = 1
    masks[2, 20:26, 20:22] = 1
    dataset = with_masks(masks, tmp_path)
    split = Split(("train", "val", "train", "train"))
    found = audit.audit(dataset, split, settings())
    percent = 100 / 32**2
    rows = table(found, "pixels").rows
    assert rows[1][:2] == ("crack", 3)
    np.testing.assert_allclose(rows[1][2:], (22 / 3 * percent, 25 * percent))
    shapes, change = audit.measure_shapes(dataset)
    assert sorted(shapes) == [(1, 10, True), (1, 12, True), (1, 25, False)]
    assert change == (3, 3)
    (row,) = table(found, "regions").rows
    assert row[:2] == ("crack", 3)
    assert row[3] == 12
    assert row[5] == pytest.approx(200 / 3)


def test_a_region_cut_by_the_border_is_not_thin(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :2] = 1
    shapes, _ = audit.measure_shapes(with_masks([mask], tmp_path))
    assert shapes == [(1, 64, False)]


def test_touching_corners_join_and_classes_part(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[3, 3] = mask[4, 4] = 1
    mask[4, 3] = 2
    dataset = with_masks([mask], tmp_path, classes=("background", "a", "b"))
    shapes, _ = audit.measure_shapes(dataset)
    assert sorted(shapes) == [(1, 2, True), (2, 1, True)]


def test_lines_that_vanish_by_resizing_are_told(tmp_path):
    masks = np.zeros((2, 256, 256), np.uint8)
    masks[:, 8:250:16] = 1  # 16 lines each; every eighth row is looked at, from 4
    dataset = with_masks(masks, tmp_path)
    found = audit.audit(dataset, halves(2), settings())
    (note,) = [note for note in found.notes if "regions of the masks" in note]
    assert note.startswith("WARNING: resizing to (32, 32) turns 32 regions")
    assert "into 0" in note
    kept = audit.audit(with_masks(masks, tmp_path, (256, 256)), halves(2), settings())
    assert not [note for note in kept.notes if "regions of the masks" in note]


def test_a_random_split_that_would_leak():
    """Two photos with 20 crops each: chance keeps none of them together."""
    records = labelled([0, 1] * 20, groups=["a"] * 20 + ["b"] * 20)
    assert "100% of the val and test" in "".join(
        audit.audit(classifier(records), halves(40), settings()).notes
    )
    apart = audit.audit(classifier(labelled([0, 1] * 20)), halves(40), settings())
    assert "split=random" not in "".join(apart.notes)


def test_lookalikes_leak_too():
    looks = {i: "r0" for i in range(1, 40)}
    records = labelled([0, 1] * 20, looks=looks)
    notes = audit.audit(classifier(records), halves(40), settings()).notes
    assert "100% of the val and test" in "".join(notes)


def test_few_images_and_rare_classes():
    records = labelled([0] * 200 + [1] * 40)
    split = Split(("train",) * 100 + ("val",) * 100 + ("train",) * 25 + ("val",) * 15)
    notes = audit.audit(classifier(records), split, settings()).notes
    assert any("few images in the val part, 15 (cracked):" in note for note in notes)
    assert any("5.0 times as many images" in note for note in notes)
    evened = settings(sampling="balanced")
    assert len(audit.audit(classifier(records), split, evened).notes) == len(notes) - 1
    balanced = labelled([0, 0, 1, 1] * 50)
    assert audit.audit(classifier(balanced), halves(200), settings()).notes == ()


def test_no_clean_image(tmp_path):
    masks = np.ones((2, 32, 32), np.uint8)
    notes = audit.audit(with_masks(masks, tmp_path), halves(2), settings()).notes
    assert any("no image is clean" in note for note in notes)


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((300, 600), (256, 256), '--config.data.image_size="(192, 352)" keeps it'),
        ((100, 100), (256, 256), "enlarged 2.6 times"),
        ((300, 330), (256, 256), None),
    ],
)
def test_advice_on_sizes(size, image_size, expected):
    records = labelled([0, 0, 1, 1] * 50, size=size)
    data = settings(image_size=image_size)
    notes = audit.audit(classifier(records), halves(200), data).notes
    assert bool(notes) == bool(expected)
    if expected:
        assert expected in notes[0]
    windows = settings(image_size=image_size, crop=Crop(1, 0.5))
    assert audit.audit(classifier(records), halves(200), windows).notes == ()
