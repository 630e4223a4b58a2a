"""LabelMe, COCO and PASCAL VOC: what is drawn, and what is refused with which words."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.check import check
from jaxseg.data.images import read_mask
from jaxseg.data.mask_values import encode_mask
from jaxseg.data.prepare import prepare
from jaxseg.data.stored import fingerprint
from jaxseg.datasets import DATASETS
from jaxseg.datasets.coco import decode_runs
from jaxseg.datasets.drawing import BadShape, Drawing, Shape, make_shape
from jaxseg.errors import InputError
from jaxseg.types import IGNORE

SIZE = (20, 30)
CLASSES = ("background", "leaf", "rust")
BOX = [[4, 2], [9, 2], [9, 7], [4, 7]]  # x, y: 6 x 6 pixels with its outline


def pixels_of(drawing):
    """Class ids, by the reader that masks on the disk go through."""
    return read_mask(drawing.read_bytes())[0]


def draw(*shapes, size=SIZE):
    return pixels_of(Drawing("a.json", size, shapes))


def shape(kind, points, class_id=1, width=1):
    return make_shape(kind, class_id, points, SIZE, width)[0]


def box_mask(top, left, bottom, right, value=1):
    mask = np.zeros(SIZE, np.uint8)
    mask[top : bottom + 1, left : right + 1] = value
    return mask


# Shapes.


@pytest.mark.parametrize(
    ("kind", "points"), [("polygon", BOX), ("rectangle", [[9, 7], [4, 2]])]
)
def test_boxes_hold_their_outline(kind, points):
    np.testing.assert_array_equal(draw(shape(kind, points)), box_mask(2, 4, 7, 9))


def test_a_circle_holds_the_pixels_within_its_radius():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(x - 12, y - 10)
    mask = draw(shape("circle", [[12, 10], [17, 10]]))
    assert (mask[distance <= 4.5] == 1).all()
    assert (mask[distance >= 5.8] == 0).all()


@pytest.mark.parametrize("width", [1, 3, 5])
def test_a_line_is_as_wide_as_the_config_says(width):
    mask = draw(shape("line", [[3, 10], [25, 10]], width=width))
    assert (mask[:, 5:20].sum(axis=0) == width).all()
    assert mask[10, 5] == 1


def test_later_shapes_lie_over_earlier_ones():
    mask = draw(shape("polygon", BOX), shape("rectangle", [[6, 4], [20, 9]], 2))
    assert (mask[4:10, 6:21] == 2).all()
    assert (mask == 1).sum() == 36 - 4 * 4


def test_what_reaches_outside_is_clipped_and_reported():
    inside, outside = make_shape("polygon", 1, BOX, SIZE)
    assert not outside
    inside, outside = make_shape("rectangle", 1, [[-5, -5], [2, 3]], SIZE)
    assert outside
    np.testing.assert_array_equal(draw(inside), box_mask(0, 0, 3, 2))
    on_edge = make_shape("rectangle", 1, [[0, 0], [30, 20]], SIZE)
    assert not on_edge[1]
    assert draw(on_edge[0]).all()


@pytest.mark.parametrize(
    ("kind", "points", "words"),
    [
        ("polygon", BOX[:2], "a polygon of 2 point"),
        ("circle", BOX[:3], "a circle of 3 point"),
        ("polygon", [[40, 2], [50, 2], [50, 9]], "outside the image of 20 x 30"),
        ("polygon", [[1, -9], [5, -9], [5, -3]], "outside the image"),
        ("polygon", [[1, "2"], [5, 9], [5, 3]], "no pairs of numbers"),
        ("polygon", [[1, float("nan")], [5, 9], [5, 3]], "no pairs of numbers"),
        ("polygon", [[1, 2, 3], [5, 9], [5, 3]], "no pairs of numbers"),
        ("polygon", None, "no pairs of numbers"),
    ],
)
def test_shapes_that_cannot_be_drawn_say_why(kind, points, words):
    with pytest.raises(BadShape, match=words):
        make_shape(kind, 1, points, SIZE)


def test_runs_go_down_the_columns():
    # A 2 x 3 mask [[0, 1, 1], [1, 1, 0]], read down: 0 1, 1 1, 1 0.
    mask = draw(Shape("runs", 2, (1, 4, 1)), size=(2, 3))
    np.testing.assert_array_equal(mask, [[0, 2, 2], [2, 2, 0]])


def test_the_text_form_of_runs_is_that_of_the_coco_tools():
    # From pycocotools 2.0.11, encode: ones in rows 1, 2 of columns 1..3, and at (3, 4).
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 1:4], mask[3, 4] = 1, 1
    drawn = draw(Shape("runs", 1, decode_runs("5220002O")), size=(4, 5))
    np.testing.assert_array_equal(drawn, mask)
    for broken in ("5220002o", "52 2"):
        with pytest.raises(BadShape, match="run lengths"):
            decode_runs(broken)


# LabelMe.


def save_image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def labelme_file(path, *shapes, size=SIZE, with_image=True, **fields):
    """A label file and its image, whose name differs from that of the file."""
    if with_image:
        save_image(path.with_suffix(".jpg"), size, seed=len(path.stem))
    content = dict(
        imagePath=f"..\\photos\\{path.stem}.jpg",
        imageHeight=size[0],
        imageWidth=size[1],
        imageData=None,
        shapes=list(shapes),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | fields))


def labelled(label, points=BOX, shape_type="polygon"):
    return dict(label=label, points=points, shape_type=shape_type)


def scan_labelme(root, **keys):
    defaults = dict(classes=CLASSES, classes_file="", line_width=3, group_pattern="")
    return DATASETS["labelme"](root, **defaults | keys)


def refuse(function, *arguments, **keys):
    with pytest.raises(InputError) as caught:
        function(*arguments, **keys)
    return caught.value


def test_labelme_draws_labels_and_ignores_what_it_is_told_to(tmp_path):
    labelme_file(
        tmp_path / "b.json",
        labelled("leaf"),
        labelled("rust", [[15, 3], [15, 15]], "line"),
        labelled("__ignore__", [[20, 0], [29, 4]], "rectangle"),
    )
    labelme_file(tmp_path / "deep" / "aa.json")
    save_image(tmp_path / "unseen.jpg")
    found = scan_labelme(tmp_path)
    assert [r.id for r in found.records] == ["b", "deep/aa"]
    assert [r.split for r in found.records] == [None, None]
    assert found.records[0].image == tmp_path / "b.jpg"
    mask = pixels_of(found.records[0].mask)
    expected = box_mask(2, 4, 7, 9)
    expected[3:16, 14:17] = 2
    expected[0:5, 20:30] = IGNORE
    np.testing.assert_array_equal(mask, expected)
    assert not pixels_of(found.records[1].mask).any()
    assert "1 images without a JSON file are left out: unseen.jpg" in found.notes


def test_labelme_folders_fix_the_split(tmp_path):
    for split in ("train", "val", "test"):
        labelme_file(tmp_path / split / "x_1.json", labelled("leaf"))
    found = scan_labelme(tmp_path, group_pattern=r"(.+)_\d+$")
    assert [(r.split, r.group) for r in found.records] == [
        ("test", "x"),
        ("train", "x"),
        ("val", "x"),
    ]


def test_labelme_says_what_it_clips(tmp_path):
    labelme_file(tmp_path / "a.json", labelled("leaf", [[-9, 0], [5, 0], [5, 5]]))
    (note,) = [n for n in scan_labelme(tmp_path).notes if "clipped" in n]
    assert note.startswith("1 shapes reach outside")
    assert "a.json shape 1 (leaf)" in note


def test_labels_that_are_no_class_come_with_the_line_that_adds_them(tmp_path):
    labelme_file(tmp_path / "a.json", labelled("leaf"), labelled("mould"))
    labelme_file(tmp_path / "bb.json", labelled("mould"), labelled("Rust"))
    error = refuse(scan_labelme, tmp_path)
    assert "3 shapes of other ones: mould (2), Rust (1)" in error.found
    classes = ("background", "leaf", "rust", "Rust", "mould")
    assert f'--config.data.classes="{classes}"' in error.fix


def test_labelme_s_own_list_of_labels_names_the_classes(tmp_path):
    labelme_file(tmp_path / "a.json", labelled("leaf"), labelled("__ignore__", BOX))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nleaf\nrust\n")
    found = scan_labelme(tmp_path, classes_file="labels.txt")
    assert found.classes == ("_background_", "leaf", "rust")
    assert found.notes[0] == "3 classes from labels.txt: _background_, leaf, rust"
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\n")
    error = refuse(scan_labelme, tmp_path, classes_file="labels.txt")
    assert error.found == "('_background_',)"


def test_bad_shapes_are_listed_all_at_once(tmp_path):
    labelme_file(
        tmp_path / "a.json",
        labelled("leaf", BOX[:2]),
        labelled("leaf", [[90, 90], [95, 90], [95, 95]]),
        labelled("rust", BOX, "mask"),
    )
    error = refuse(scan_labelme, tmp_path)
    assert error.found.startswith("3 that cannot: ")
    for words in (
        "a.json shape 1 (leaf): a polygon of 2",
        "a.json shape 2 (leaf): lies outside",
        "a.json shape 3 (rust): the type 'mask' is not one of polygon, rectangle",
    ):
        assert words in error.found


def test_an_embedded_image_is_no_image(tmp_path):
    fields = dict(with_image=False, imageData="aGVsbG8=")
    labelme_file(tmp_path / "a.json", labelled("leaf"), **fields)
    error = refuse(scan_labelme, tmp_path)
    assert "only embedded in it as imageData" in error.found
    assert "labelme_export_json" in error.fix


def test_a_label_file_of_another_image_size_is_refused(tmp_path):
    labelme_file(tmp_path / "a.json", labelled("leaf"), imageWidth=31)
    error = refuse(checked, scan_labelme(tmp_path))
    assert "a: image 20 x 30, mask 20 x 31" in error.found
    assert "annotations again" in error.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ('{"shapes": [], "imageHeight": null}', "imageHeight and imageWidth"),
        ('{"shapes": 3, "imageHeight": 9, "imageWidth": 9}', "no list"),
    ],
)
def test_broken_label_files_are_named(tmp_path, text, words):
    labelme_file(tmp_path / "a.json", labelled("leaf"))
    (tmp_path / "b.json").write_text(text)
    error = refuse(scan_labelme, tmp_path)
    assert words in error.found
    assert "b.json" in error.found


def test_a_folder_without_label_files_names_the_one_with_them(tmp_path):
    labelme_file(tmp_path / "set" / "a.json", labelled("leaf"))
    save_image(tmp_path / "other" / "a.jpg")
    error = refuse(scan_labelme, tmp_path / "other")
    assert "LabelMe's JSON files" in error.expected
    assert refuse(scan_labelme, tmp_path / "set", line_width=0).found == "0"


def test_a_change_of_one_point_changes_fingerprint_and_content(tmp_path):
    labelme_file(tmp_path / "a.json", labelled("leaf"))
    before = scan_labelme(tmp_path)
    labelme_file(tmp_path / "a.json", labelled("leaf", [*BOX[:3], [4, 9]]))
    after = scan_labelme(tmp_path)
    assert fingerprint(before) == fingerprint(before) != fingerprint(after)
    assert checked(before).content_hash != checked(after).content_hash


def checked(listing):
    return check(
        listing,
        palette=(),
        on_corrupt="fail",
        workers=1,
        progress=lambda items, total, text: items,
    )


def test_drawings_are_prepared_like_mask_files(tmp_path):
    labelme_file(tmp_path / "set" / "a.json", labelled("leaf"))
    labelme_file(tmp_path / "set" / "bb.json", labelled("rust"))
    found = scan_labelme(tmp_path / "set")
    records = prepare(checked(found), tmp_path / "cache")
    for index, value in enumerate((1, 2)):
        mask, _ = read_mask(records[index]["mask"])
        np.testing.assert_array_equal(mask, box_mask(2, 4, 7, 9, value))


# COCO.


def coco(root, annotations, *, categories=("leaf", "rust"), name="annotations.json"):
    """Two images of 20 x 30; category ids 7, 9, ... as COCO has gaps too."""
    for index in (1, 2):
        save_image(root / "images" / f"{index}.png", seed=index)
    content = dict(
        images=[
            dict(id=i, file_name=f"{i}.png", height=SIZE[0], width=SIZE[1])
            for i in (1, 2)
        ],
        categories=[dict(id=7 + 2 * i, name=name) for i, name in enumerate(categories)],
        annotations=[
            dict(id=10 + i, image_id=image, category_id=category, segmentation=s)
            for i, (image, category, s) in enumerate(annotations)
        ],
    )
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    return root


def scan_coco(root, **keys):
    defaults = dict(
        annotations="annotations.json",
        image_dir="images",
        classes=(),
        group_pattern="",
    )
    return DATASETS["coco"](root, **defaults | keys)


FLAT_BOX = [number for point in BOX for number in point]


def test_coco_draws_polygons_and_both_kinds_of_runs(tmp_path):
    height, width = SIZE
    column = dict(size=[height, width], counts=[height * 3, height, height * 26])
    packed = dict(size=[4, 5], counts="5220002O")
    root = coco(
        tmp_path,
        [
            (1, 7, [FLAT_BOX, [20, 10, 22, 10, 22, 12, 20, 12]]),
            (2, 9, column),
        ],
    )
    found = scan_coco(root)
    assert found.classes == CLASSES
    first, second = (pixels_of(record.mask) for record in found.records)
    expected = box_mask(2, 4, 7, 9) + box_mask(10, 20, 12, 22)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, box_mask(0, 3, 19, 3, value=2))
    error = refuse(scan_coco, coco(tmp_path, [(1, 7, packed)]))
    assert "annotation 10 (leaf): run lengths of a mask of [4, 5]" in error.found
    assert checked(found).encoding.kind == "ids"


def test_coco_classes_may_be_in_another_order_but_not_left_out(tmp_path):
    root = coco(tmp_path, [(1, 7, [FLAT_BOX]), (2, 9, [FLAT_BOX])])
    found = scan_coco(root, classes=("background", "rust", "leaf"))
    assert [pixels_of(r.mask).max() for r in found.records] == [2, 1]
    error = refuse(scan_coco, root, classes=("background", "rust"))
    assert "1 shapes of other ones: leaf (1)" in error.found
    assert f'--config.data.classes="{("background", "rust", "leaf")}"' in error.fix


def test_coco_files_by_split_fix_it(tmp_path):
    for split in ("train", "val"):
        coco(tmp_path, [(1, 7, [FLAT_BOX])], name=f"instances_{split}.json")
    found = scan_coco(tmp_path, annotations="instances_{split}.json")
    assert [(r.id, r.split) for r in found.records] == [
        ("train/1", "train"),
        ("train/2", "train"),
        ("val/1", "val"),
        ("val/2", "val"),
    ]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([FLAT_BOX[:4]], "a polygon of 2 point(s)"),
        ([FLAT_BOX[:5]], "no list of x, y"),
        ([[40, 2, 50, 2, 50, 9]], "lies outside the image"),
        ([], "has no segmentation, only a box"),
        (None, "has no segmentation, only a box"),
        (dict(size=[20, 30], counts=[5, 6]), "do not fill 20 x 30"),
        (dict(size=[20, 30], counts=[-1, 601]), "do not fill 20 x 30"),
        (dict(size=[20, 30], counts=None), "do not fill 20 x 30"),
    ],
)
def test_coco_objects_that_cannot_be_drawn_say_why(tmp_path, segmentation, words):
    error = refuse(scan_coco, coco(tmp_path, [(2, 9, segmentation)]))
    assert "annotations.json annotation 10 (rust): " in error.found
    assert words in error.found


def test_coco_files_that_are_missing_or_of_another_kind_are_named(tmp_path):
    root = coco(tmp_path, [(1, 7, [FLAT_BOX])])
    error = refuse(scan_coco, root, annotations="labels.json")
    assert error.fix == "--config.data.annotations='annotations.json'"
    error = refuse(scan_coco, root, image_dir="photos")
    assert "2 missing" in error.found
    assert "data.image_dir" in error.expected
    (root / "annotations.json").write_text('[{"image_id": 1, "caption": "a leaf"}]')
    assert "without a list of images" in refuse(scan_coco, root).found
    content = dict(
        images=[dict(id=1, file_name="1.png")], annotations=[], categories=[]
    )
    (root / "annotations.json").write_text(json.dumps(content))
    assert "images[0] without id, file_name, height" in refuse(scan_coco, root).found
    coco(tmp_path, [(3, 7, [FLAT_BOX])])
    assert (
        "1 annotations of images that it does not list" in refuse(scan_coco, root).found
    )


def places_in(node, path=()):
    """The path to every value of a JSON tree."""
    yield path
    items = node.items() if isinstance(node, dict) else ()
    items = enumerate(node) if isinstance(node, list) else items
    for key, value in items:
        yield from places_in(value, (*path, key))


def replaced(node, path, value):
    if not path:
        return value
    copied = node.copy()
    copied[path[0]] = replaced(node[path[0]], path[1:], value)
    return copied


@pytest.mark.parametrize("value", [None, True, -1, 10**12, 0.5, "x", [1], [[1]], {}])
@pytest.mark.parametrize("form", ["labelme", "coco"])
def test_any_value_in_any_place_is_drawn_or_refused(tmp_path, form, value):
    if form == "labelme":
        line = labelled("rust", [[1, 2], [3, 9]], "line")
        labelme_file(tmp_path / "a.json", labelled("leaf"), line)
        path, scan = tmp_path / "a.json", scan_labelme
    else:
        runs = dict(size=list(SIZE), counts=[100, 500])
        coco(tmp_path, [(1, 7, [FLAT_BOX]), (2, 9, runs)])
        path, scan = tmp_path / "annotations.json", scan_coco
    tree = json.loads(path.read_text())
    for place in places_in(tree):
        path.write_text(json.dumps(replaced(tree, place, value)))
        try:
            records = scan(tmp_path).records
        except InputError:
            continue
        for record in records:
            mask = pixels_of(record.mask)
            assert mask.shape == record.mask.size
            assert mask.max() <= 2


# PASCAL VOC.

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * (252 * 3) + [224, 224, 192]


def voc(root, lists, names=("a", "b", "c", "d")):
    """Photos and palette masks with both classes and a border of 255."""
    for index, name in enumerate(names):
        save_image(root / "JPEGImages" / f"{name}.jpg", seed=index)
        mask = box_mask(2, 4, 7, 9) + box_mask(10, 20, 12, 22, value=2)
        mask[:, 0] = 255
        picture = Image.fromarray(mask)
        picture.putpalette(PALETTE)
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(members) + "\n")
    return root


def scan_voc(root, **keys):
    defaults = dict(classes=CLASSES, classes_file="", group_pattern="")
    return DATASETS["pascal_voc"](root, **defaults | keys)


def test_voc_lists_fix_the_split_and_the_border_counts_nowhere(tmp_path):
    lists = dict(train=["a", "c"], val=["b"], test=["gone"], trainval=["a", "b", "c"])
    found = scan_voc(voc(tmp_path, lists))
    assert [(r.id, r.split) for r in found.records] == [
        ("a", "train"),
        ("b", "val"),
        ("c", "train"),
    ]
    assert found.skipped == (("gone", "no file of this name in JPEGImages"),)
    assert "1 names without photo or label image are left out: gone" in found.notes
    result = checked(found)
    raw, _ = read_mask(found.records[0].mask.read_bytes())
    mask = encode_mask(raw, result.encoding)
    assert (mask[:, 0] == IGNORE).all()
    assert [(mask == value).sum() for value in (1, 2)] == [36, 9]
    assert result.records[0].class_pixels == (600 - 20 - 45, 36, 9)
    assert result.skipped == found.skipped


def test_voc_without_lists_takes_every_label_image(tmp_path):
    found = scan_voc(voc(tmp_path, {}))
    assert [(r.id, r.split) for r in found.records] == [(n, None) for n in "abcd"]


def test_voc_names_may_hold_spaces(tmp_path):
    names = ("photo (1)", "photo (2)")
    root = voc(tmp_path, dict(train=["photo (1)  ", ""], val=["photo (2)"]), names)
    found = scan_voc(root)
    assert [(r.id, r.split) for r in found.records] == [
        ("photo (1)", "train"),
        ("photo (2)", "val"),
    ]
    assert not found.skipped


def test_voc_index_255_is_no_class_even_where_it_is_the_only_other_one(tmp_path):
    found = scan_voc(voc(tmp_path, {}), classes=("background", "leaf"))
    for record in found.records:
        mask = box_mask(0, 0, 3, 3, value=255)
        Image.fromarray(mask).save(record.mask)
    error = refuse(checked, found)
    assert "no mask has a foreground pixel" in error.found


def test_voc_refuses_other_layouts_and_names_in_two_lists(tmp_path):
    root = voc(tmp_path / "VOC2012", dict(train=["a", "b"], val=["b", "c"]))
    error = refuse(scan_voc, root)
    assert "1 of val.txt stand in another one too: b" in error.found
    assert refuse(scan_voc, tmp_path).fix == f"--config.data.dir='{root}'"
    voc(root, dict(train=["x"], val=["y"]))
    assert "none with both: x, y" in refuse(scan_voc, root).found


def test_voc_classes_beyond_the_list_come_with_the_line_that_names_them(tmp_path):
    found = scan_voc(voc(tmp_path, {}), classes=("background", "leaf"))
    error = refuse(checked, found)
    assert f'--config.data.classes="{("background", "leaf", "class_2")}"' in error.fix
