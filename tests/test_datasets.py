"""Scan functions: what they list for each layout, and what they say of a wrong one."""

import inspect
from pathlib import Path

import pytest

from jaxseg.datasets import DATASETS
from jaxseg.datasets.crack_segmentation import find_photo
from jaxseg.errors import InputError

SEGMENTATION = dict(
    image_dir="images",
    mask_dir="masks",
    mask_suffix="",
    foreground="bright",
    classes=("background", "crack"),
    classes_file="",
    group_pattern="",
)
CLASSIFICATION = dict(classes=(), group_pattern="")
NAMED = dict(classes=("background", "crack"), classes_file="", group_pattern="")
KEYS = dict(
    folder_segmentation=SEGMENTATION,
    folder_classification=CLASSIFICATION,
    massachusetts_roads=dict(max_blank=0.05),
    labelme=NAMED | dict(line_width=3),
    pascal_voc=NAMED,
    dagm2007=dict(class_id=1),
    severstal=dict(mask_size=(256, 1600)),
    coco=dict(annotations="a.json", image_dir="", classes=(), group_pattern=""),
)


def plant(root: Path, *names: str) -> Path:
    """Makes empty files; scan functions read names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def scan(dataset: str, root: Path, **keys):
    return DATASETS[dataset](root, **keys)


def facts(found, *fields: str) -> list[tuple]:
    return [tuple(getattr(record, name) for name in fields) for record in found.records]


def refuse(dataset: str, root: Path, **keys) -> InputError:
    with pytest.raises(InputError) as caught:
        scan(dataset, root, **keys)
    return caught.value


def test_config_keys_are_keyword_only_annotated_and_without_defaults():
    for name, function in DATASETS.items():
        root, *keys = inspect.signature(function).parameters.values()
        assert root.annotation is Path, name
        for key in keys:
            assert key.kind is key.KEYWORD_ONLY, name
            assert key.default is key.empty, name
            assert key.annotation is not key.empty, name


SDNET = ("D/CD/7001-2.jpg", "D/UD/7001-1.jpg", "W/CW/7001-9.jpg", "W/UW/7002-1_2.jpg")


@pytest.mark.parametrize("nested", ["", "SDNET2018", "SDNET2018/SDNET2018"])
def test_sdnet_lists_surface_label_and_photo_at_any_nesting(tmp_path, nested):
    plant(tmp_path / nested, *SDNET)
    found = scan("sdnet2018", tmp_path)
    assert facts(found, "id", "label", "group", "source", "mask", "split") == [
        ("D/CD/7001-2", 1, "D/7001", "D", None, None),
        ("D/UD/7001-1", 0, "D/7001", "D", None, None),
        ("W/CW/7001-9", 1, "W/7001", "W", None, None),
        ("W/UW/7002-1_2", 0, "W/7002", "W", None, None),
    ]
    assert found.classes == ("uncracked", "cracked")
    assert "10.1016/j.dib.2018.11.015" in found.citation
    assert found.licence == "CC BY 4.0"


def test_sdnet_leaves_out_contradictory_pairs_only_where_both_files_are_there(tmp_path):
    plant(tmp_path, *SDNET, "D/CD/7039-112.jpg", "D/UD/7039-112_2.jpg")
    plant(tmp_path, "W/CW/7074-105.jpg")
    found = scan("sdnet2018", tmp_path)
    ids = {record.id for record in found.records}
    assert len(ids) == len(SDNET) + 1
    assert "W/CW/7074-105" in ids
    assert len(found.notes) == 1
    assert "D/CD/7039-112, D/UD/7039-112_2" in found.notes[0]


def test_sdnet_names_the_right_folder_from_above_and_below(tmp_path):
    root = plant(tmp_path / "set", *SDNET)
    fix = f"--config.data.dir='{root}'"
    for wrong in (root.parent, root / "W", root / "W" / "CW"):
        assert refuse("sdnet2018", wrong).fix == fix
    assert refuse("sdnet2018", tmp_path / "sett").fix == fix


def test_sdnet_refuses_a_surface_with_one_class(tmp_path):
    error = refuse("sdnet2018", plant(tmp_path, "P/CP/001-1.jpg"))
    assert str(tmp_path / "P" / "UP") in error.found


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("CRACK500_20160222_081011_1281_721", "CRACK500_20160222_081011"),
        ("GAPS384_train_0552_1_641", "GAPS384_train_0552"),
        (
            "Rissbilder_for_Florian_9S6A2886_166_145_3216_3619",
            "Rissbilder_for_Florian_9S6A2886",
        ),
        ("Volker_DSC01692_316_1370_932_1128", "Volker_DSC01692"),
        (
            "noncrack_noncrack_concrete_wall_20_71",
            "noncrack_noncrack_concrete_wall_20",
        ),
        ("noncrack_00338", "noncrack_00338"),
        ("DeepCrack_11231-3", "DeepCrack_11231"),
        ("CFD_013", "CFD_013"),
        ("forest_013", "CFD_013"),
        ("cracktree200_6774", "cracktree200_6774"),
        ("Sylvie_Chambon_319", "Sylvie_Chambon_319"),
        ("masonry_a_101_4", "masonry_a_101"),
        ("whatever", "whatever"),
    ],
)
def test_crops_of_one_photograph_share_a_group(name, photo):
    assert find_photo(name) == photo


def test_crack_segmentation_pairs_names_with_two_extensions(tmp_path):
    plant(
        tmp_path,
        "train/images/noncrack_noncrack_concrete_wall_1_2.jpg.jpg",
        "train/masks/noncrack_noncrack_concrete_wall_1_2.jpg.jpg",
        "test/images/Sylvie_Chambon_3.jpg",
        "test/masks/Sylvie_Chambon_3.png",
        "images/Sylvie_Chambon_3.jpg",
    )
    found = scan("crack_segmentation", tmp_path)
    name = "noncrack_noncrack_concrete_wall_1"
    assert facts(found, "id", "split", "source", "group", "label") == [
        ("test/Sylvie_Chambon_3", "test", "Sylvie_Chambon", "Sylvie_Chambon_3", None),
        (f"train/{name}_2", "train", "noncrack", name, None),
    ]
    assert found.records[0].mask == tmp_path / "test/masks/Sylvie_Chambon_3.png"


def test_crack_segmentation_names_the_folder_above(tmp_path):
    plant(tmp_path, "train/images/a.jpg", "test/images/b.jpg")
    error = refuse("crack_segmentation", tmp_path / "train")
    assert error.fix == f"--config.data.dir='{tmp_path}'"


def test_classes_are_sorted_folders_or_in_the_order_of_the_config(tmp_path):
    plant(tmp_path, "b/1.JPG", "a/deep/2.png", "c/3.tif", "a/.hidden.png", "README.md")
    found = scan("folder_classification", tmp_path, **CLASSIFICATION)
    assert found.classes == ("a", "b", "c")
    assert facts(found, "id", "label") == [("a/deep/2", 0), ("b/1", 1), ("c/3", 2)]
    keys = dict(classes=("c", "a"), group_pattern=r"\d")
    found = scan("folder_classification", tmp_path, **keys)
    assert facts(found, "id", "label", "group") == [
        ("a/deep/2", 1, "2"),
        ("c/3", 0, "3"),
    ]
    assert found.notes == ("Folders that were not read: b.",)


def test_class_folders_inside_split_folders_fix_the_split(tmp_path):
    plant(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    found = scan("folder_classification", tmp_path, **CLASSIFICATION)
    assert facts(found, "id", "split", "label") == [
        ("test/a/3", "test", 0),
        ("test/b/4", "test", 1),
        ("train/a/1", "train", 0),
        ("train/b/2", "train", 1),
    ]


def test_wrong_class_folders_are_refused_with_the_fix(tmp_path):
    root = plant(tmp_path / "set", "intact/1.png", "cracked/2.png")
    for given, fixed in (
        (("intact", "craked"), ("intact", "cracked")),
        (("no", "yes"), ("cracked", "intact")),
        (("intact",), ("cracked", "intact")),
    ):
        error = refuse("folder_classification", root, classes=given, group_pattern="")
        assert error.fix == f'--config.data.classes="{fixed}"'
    for wrong in (tmp_path, root / "intact"):
        error = refuse("folder_classification", wrong, **CLASSIFICATION)
        assert error.fix == f"--config.data.dir='{root}'"


def test_class_without_images_is_refused(tmp_path):
    plant(tmp_path, "a/1.png", "b/2.png", "c/notes.txt")
    error = refuse("folder_classification", tmp_path, **CLASSIFICATION)
    assert "c 0" in error.expected
    assert error.fix == """--config.data.classes="('a', 'b')\""""


def test_group_is_the_first_group_or_the_whole_match(tmp_path):
    plant(tmp_path, "a/wall7_1.png", "b/wall7_2.png")
    for pattern, group in ((r"wall(\d+)_", "7"), (r"wall\d+", "wall7")):
        keys = dict(classes=(), group_pattern=pattern)
        found = scan("folder_classification", tmp_path, **keys)
        assert {record.group for record in found.records} == {group}


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "unterminated"), ("wall", "1 of them: b/roof_2")]
)
def test_group_pattern_that_does_not_fit_is_refused(tmp_path, pattern, words):
    plant(tmp_path, "a/wall_1.png", "b/roof_2.png")
    keys = dict(classes=(), group_pattern=pattern)
    assert words in refuse("folder_classification", tmp_path, **keys).found


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        (("images/p1_1.jpg", "masks/p1_1.png"), {}),
        (("images/p1_1.jpg", "masks/p1_1_gt.png"), dict(mask_suffix="_gt")),
        (
            ("p1_1.JPG", "p1_1_gt.png"),
            dict(image_dir=".", mask_dir=".", mask_suffix="_gt"),
        ),
        (("p1_1.jpg", "p1_1.png"), dict(image_dir=".", mask_dir=".")),
        (("p1_1.png", "masks/p1_1.png"), dict(image_dir=".")),
    ],
)
def test_pairs_in_two_folders_or_side_by_side(tmp_path, files, keys):
    plant(tmp_path, *files)
    keys = SEGMENTATION | dict(group_pattern=r"(p\d+)_") | keys
    found = scan("folder_segmentation", tmp_path, **keys)
    assert facts(found, "id", "label", "group", "split") == [("p1_1", None, "p1", None)]
    assert found.records[0].image == tmp_path / files[0]
    assert found.records[0].mask == tmp_path / files[1]


@pytest.mark.parametrize(
    ("places", "keys"),
    [
        ("{}/images/a.png {}/masks/a.png", {}),
        ("images/{}/a.png masks/{}/a.png", ("images/{split}", "masks/{split}")),
        ("{}/a.png {}annot/a.png", ("{split}", "{split}annot")),
    ],
)
def test_split_folders_above_or_below_fix_the_split(tmp_path, places, keys):
    for split in ("train", "val"):
        plant(tmp_path, *places.format(split, split).split())
    keys = dict(zip(("image_dir", "mask_dir"), keys, strict=False))
    found = scan("folder_segmentation", tmp_path, **SEGMENTATION | keys)
    assert facts(found, "id", "split") == [("train/a", "train"), ("val/a", "val")]


def test_images_and_masks_that_do_not_pair_are_counted_and_named(tmp_path):
    plant(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png")
    assert "1 images without a mask: b" in refuse_pairs(tmp_path).found
    plant(tmp_path, "masks/b.png", "masks/c.png")
    assert "1 masks without an image: c" in refuse_pairs(tmp_path).found


def refuse_pairs(root: Path, **keys) -> InputError:
    return refuse("folder_segmentation", root, **SEGMENTATION | keys)


def test_the_suffix_of_the_masks_is_guessed(tmp_path):
    plant(tmp_path, "images/a.jpg", "images/a_1.jpg", "masks/a_label.png")
    plant(tmp_path, "masks/a_1_label.png", "x/a.png", "x/a_GT.png")
    fix = refuse_pairs(tmp_path, image_dir="x", mask_dir="x").fix
    assert fix == "--config.data.mask_suffix='_GT'"
    assert refuse_pairs(tmp_path).fix == "--config.data.mask_suffix='_label'"
    plant(tmp_path, "masks/a.png")
    fix = refuse_pairs(tmp_path, mask_suffix="_gt").fix
    assert fix == "--config.data.mask_suffix=''"


def test_missing_mask_folder_names_the_nearest(tmp_path):
    plant(tmp_path, "images/a.jpg", "Masks_all/a.png")
    assert refuse_pairs(tmp_path).fix == "--config.data.mask_dir='Masks_all'"
    error = refuse_pairs(tmp_path / "images", mask_dir="Masks_all")
    assert error.fix == f"--config.data.dir='{tmp_path}'"


def test_two_images_with_one_id_are_refused(tmp_path):
    plant(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png")
    assert "both have the id 'a'" in refuse_pairs(tmp_path).found


def test_segmentation_needs_two_class_names(tmp_path):
    plant(tmp_path, "images/a.jpg", "masks/a.png")
    error = refuse_pairs(tmp_path, classes=())
    assert error.fix == """--config.data.classes="('background', 'crack')\""""


@pytest.mark.parametrize("dataset", sorted(set(DATASETS) - {"synthetic"}))
def test_missing_empty_and_unpacked_roots_are_refused(tmp_path, dataset):
    keys = KEYS.get(dataset, {})
    (tmp_path / "empty").mkdir()
    plant(tmp_path, "set.zip")
    for name, words in (
        ("none", "does not exist"),
        ("empty", "has no file in it"),
        ("set.zip", "is a file"),
    ):
        error = refuse(dataset, tmp_path / name, **keys)
        assert words in error.found
        assert "--config.data.dir=" in error.fix


def test_a_pattern_sees_through_split_and_class_folders(tmp_path):
    names = [f"{p}/{c}/wall7_{i}.png" for p, c, i in (
        ("train", "intact", 1), ("train", "cracked", 2), ("test", "intact", 3),
        ("test", "cracked", 4),
    )]  # fmt: skip
    plant(tmp_path, *names)
    options = CLASSIFICATION | dict(group_pattern=r"(.+)_\d+$")
    found = scan("folder_classification", tmp_path, **options)
    assert {record.group for record in found.records} == {"wall7"}
    assert found.notes == ()


def test_a_set_without_groups_says_so(tmp_path):
    plant(tmp_path, "a/1.png", "b/2.png")
    (note,) = scan("folder_classification", tmp_path, **CLASSIFICATION).notes
    assert "each image is a group of its own" in note
    assert "--config.data.group_pattern=" in note


def test_many_files_that_are_no_images_are_noted_once(tmp_path):
    plant(tmp_path, "a/1.png", "b/2.png", *(f"a/{n}.txt" for n in range(12)))
    found = scan("folder_classification", tmp_path, **CLASSIFICATION)
    assert found.notes[0] == "12 files are no images and were ignored: .txt 12."


# Names of the classes, and projects of the MVTec Deep Learning Tool.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "background\n\nleaf miner \nrust\n"),
        ("classes.json", '{"2": "rust", "0": "background", "1": "leaf miner"}'),
        ("classes.json", '["background", "leaf miner", "rust"]'),
    ],
)
def test_a_file_names_the_classes(tmp_path, name, text):
    plant(tmp_path, "a.JPG", "a_gt.png")
    (tmp_path / name).write_text(text)
    keys = SEGMENTATION | dict(image_dir=".", mask_dir=".", mask_suffix="_gt")
    for place in (name, str(tmp_path / name)):
        found = scan("folder_segmentation", tmp_path, **keys | dict(classes_file=place))
        assert found.classes == ("background", "leaf miner", "rust")
        assert "background, leaf miner, rust" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"0": "background", "2": "rust"}', "('2', 'rust')"),
        ('{"0": "background", "1": 7}', "('1', 7)"),
        ("7", ""),
        ("{", "Expecting"),
        ('["background"]', "('background',)"),
        ('["background", "rust", "rust"]', "'rust', 'rust'"),
    ],
)
def test_a_file_that_names_no_classes_is_refused(tmp_path, text, words):
    plant(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "classes.json").write_text(text)
    keys = SEGMENTATION | dict(classes_file="classes.json")
    error = refuse("folder_segmentation", tmp_path, **keys)
    assert words in error.found
    assert "one name per line" in error.fix


def test_more_classes_than_a_byte_can_tell_apart_are_refused(tmp_path):
    """255 of the 256 values: the last one counts nowhere."""
    plant(tmp_path, "images/a.jpg", "masks/a.png")
    keys = SEGMENTATION | dict(classes=tuple(f"c{i}" for i in range(255)))
    assert len(scan("folder_segmentation", tmp_path, **keys).classes) == 255
    keys["classes"] += ("c255",)
    error = refuse("folder_segmentation", tmp_path, **keys)
    assert error.found == "256 names in data.classes"


def test_a_missing_file_of_classes_is_refused(tmp_path):
    plant(tmp_path, "images/a.jpg", "masks/a.png")
    keys = SEGMENTATION | dict(classes_file="names.txt")
    error = refuse("folder_segmentation", tmp_path, **keys)
    assert "names.txt" in error.found
    assert error.fix.startswith("--config.data.classes_file=FILE")


@pytest.mark.parametrize("project", ["leaves.dltp", "leaves.HDICT"])
def test_a_project_without_label_images_is_refused_with_the_way_out(tmp_path, project):
    plant(tmp_path, "a.JPG", "b.JPG", project)
    keys = SEGMENTATION | dict(image_dir=".", mask_dir=".", mask_suffix="_gt")
    error = refuse("folder_segmentation", tmp_path, **keys)
    assert project in error.found
    assert "export the dataset together with its label images" in error.fix
    error = refuse("folder_segmentation", tmp_path / project, **keys)
    assert project in error.found
    plant(tmp_path, "a_gt.png", "b_gt.png")
    found = scan("folder_segmentation", tmp_path, **keys)
    assert f"{project} is not read: the label images are" in found.notes


@pytest.mark.parametrize(
    ("foreground", "values"), [("bright", "auto"), ("dark", "dark")]
)
def test_the_foreground_is_bright_or_dark(tmp_path, foreground, values):
    plant(tmp_path, "image/1.png", "label/1.png")
    keys = SEGMENTATION | dict(image_dir="image", mask_dir="label")
    found = scan("folder_segmentation", tmp_path, **keys | dict(foreground=foreground))
    assert found.mask_values == values
