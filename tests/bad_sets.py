"""Data sets with a defect each, and in which words the data check tells of it.

`BAD[name]` has what makes the folder, the config that reads it, further settings, and
pieces of the message, of the fixing line too.
"""

import dataclasses
import json
import shutil
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SEG, CLS = "folder_segmentation", "folder_classification"
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
TRIANGLE = ([2, 2], [20, 2], [20, 20])


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


def photo(i):
    """A different picture for every i."""
    return np.roll(NOISE, i, axis=0)[:32, :32]


def stripe(i, value=255):
    mask = np.zeros((32, 32), np.uint8)
    mask[5 + i % 20] = value
    return mask


def pairs(root, count=24, value=255):
    """root/images and root/masks, two pictures of each photo."""
    for i in range(count):
        name = f"photo{i // 2}_{i}.png"
        write(root / "images" / name, photo(i))
        write(root / "masks" / name, stripe(i, value))
    return root


def classes(root, **counts):
    """One folder per class with so many images."""
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write(root / name / f"{label}_{i}.png", photo(i) // (label + 1))
    return root


def shapes(root, *points, label="crack", size=(32, 32), kind="polygon", count=24):
    """LabelMe files of photos, all with one shape."""
    shape = dict(label=label, points=points, shape_type=kind)
    for i in range(count):
        write(root / f"{i}.png", photo(i))
        content = dict(imagePath=f"{i}.png", imageHeight=size[0], imageWidth=size[1])
        text = json.dumps(content | dict(shapes=[shape], imageData=None))
        (root / f"{i}.json").write_text(text)
    return root


def coco(root, count=24, **changes):
    """images/ and annotations.json; `changes` to every annotation."""
    images, annotations = [], []
    for i in range(count):
        write(root / "images" / f"{i}.png", photo(i))
        images.append(dict(id=i, file_name=f"{i}.png", height=32, width=32))
        points = [2, 2, 20, 2, 20, 20]
        item = dict(id=i, image_id=i, category_id=1, segmentation=[points])
        annotations.append(item | changes)
    content = dict(images=images, annotations=annotations)
    content["categories"] = [dict(id=1, name="crack")]
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def change(make, *paths):
    """A maker: `make`, then `do(path)` of every path."""
    *paths, do = paths

    def made(root):
        make(root)
        for path in paths:
            do(root / path)

    return made


def change_json(make, path, do):
    """A maker: `make`, then `do(content)` of a JSON file."""

    def edit(file):
        content = json.loads(file.read_text())
        do(content)
        file.write_text(json.dumps(content))

    return change(make, path, edit)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_with(content):
    return lambda path: path.write_bytes(content)


def paint(pixels, **options):
    return lambda path: write(path, pixels, **options)


def colour_masks(root):
    pairs(root, 4)
    for i in range(4):
        mask = np.zeros((32, 32, 3), np.uint8)
        mask[i] = 255, 0, 0
        write(root / "masks" / f"photo{i // 2}_{i}.png", mask)


def suffixed(root):
    for path in (pairs(root, 4) / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_gt"))


def turned(path):
    tags = Image.Exif()
    tags[0x0112] = 6
    write(path, photo(3)[:16], exif=tags)
    write(path.parents[1] / "masks" / path.name, stripe(3)[:16])


def bomb(path):
    """A PNG file of a hundred bytes that says it has 20,000 x 20,000 pixels."""
    size = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(9)))):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data)


def floating(images):
    (images / "photo1_3.png").unlink()
    write(images / "photo1_3.tif", np.ones((32, 32), np.float32))


def ids(root):
    pairs(root, 4, value=1)


def own_split(root):
    for part, first in (("train", 0), ("val", 20), ("test", 30)):
        for i in range(first, first + 8):
            write(root / part / "images" / f"{i}.png", photo(i))
            write(root / part / "masks" / f"{i}.png", stripe(i))
    for kind in ("images", "masks"):
        shutil.copy(root / "train" / kind / "3.png", root / "val" / kind / "99.png")


def mvtec(root):
    shutil.rmtree(pairs(root) / "masks")
    (root / "project.dltp").write_bytes(b"closed")


def loose(root):
    for i in range(8):
        write(root / f"{i}.png", photo(i))


@dataclasses.dataclass(frozen=True)
class Bad:
    """A data set with a defect.

    Attributes:
      make: makes it, at a path that does not exist.
      config: name of the config that reads it.
      words: pieces of the message; '{root}' is the folder.
      settings: further ones, 'group.key=value'.
      folder: what data.dir names, below or '..' above.
    """

    make: Callable
    config: str
    words: tuple[str, ...]
    settings: tuple[str, ...] = ()
    folder: str = "."


ONE, MASK = "images/photo1_3.png", "masks/photo1_3.png"
DEEP = photo(3).astype(np.uint16)[..., 0] * 256 + 1
BAD = {
    # Folders and names.
    "no such folder": Bad(
        lambda root: root.with_name("set_2").mkdir(),
        SEG,
        ("'{root}' does not exist", "--config.data.dir='{root}_2'"),
    ),
    "a file in place of the folder": Bad(
        lambda root: root.write_text("a"), SEG, ("--config.data.dir",)
    ),
    "an empty folder": Bad(lambda root: root.mkdir(), SEG, ("has no file in it",)),
    "the folder above": Bad(
        lambda root: pairs(root / "inner", 2),
        SEG,
        ("--config.data.dir='{root}/inner'",),
    ),
    "the folder below": Bad(
        lambda root: pairs(root, 2),
        SEG,
        ("--config.data.dir='{root}'",),
        folder="images",
    ),
    "class folders for pairs": Bad(
        lambda root: classes(root, intact=2, cracked=2),
        SEG,
        ("the folders cracked, intact",),
    ),
    "an image without a mask": Bad(
        change(pairs, MASK, lambda path: path.unlink()),
        SEG,
        ("1 images without a mask: photo1_3",),
    ),
    "a mask without an image": Bad(
        change(pairs, ONE, lambda path: path.unlink()),
        SEG,
        ("1 masks without an image: photo1_3",),
    ),
    "masks with a suffix": Bad(suffixed, SEG, ("--config.data.mask_suffix='_gt'",)),
    "two images of one name": Bad(
        change(pairs, "images/photo1_3.jpg", paint(photo(9))), SEG, ("photo1_3",)
    ),
    "a pattern that finds no photo": Bad(
        pairs, SEG, ("group_pattern",), (r"data.group_pattern='^wall(\d+)'",)
    ),
    "a pattern that is none": Bad(
        pairs, SEG, ("group_pattern",), ("data.group_pattern='(photo'",)
    ),
    "a project of the MVTec tool": Bad(
        mvtec, SEG, ("project.dltp", "export the dataset"), ("data.mask_dir=images",)
    ),
    # Files.
    "a cut image": Bad(
        change(pairs, ONE, halve),
        SEG,
        ("1 broken: {root}/images/photo1_3.png is cut short", "on_corrupt=skip"),
    ),
    "a cut mask": Bad(
        change(pairs, MASK, halve), SEG, ("masks/photo1_3.png is cut short",)
    ),
    "an empty file": Bad(
        change(pairs, ONE, replace_with(b"")), SEG, ("is empty (0 bytes)",)
    ),
    "an error page saved as a photo": Bad(
        change(pairs, ONE, replace_with(b"<html>404</html>" * 50)),
        SEG,
        ("is not an image of a known format",),
    ),
    "a link to nothing": Bad(
        change(pairs, ONE, lambda path: (path.unlink(), path.symlink_to("gone"))),
        SEG,
        ("photo1_3",),
    ),
    "a folder named like a photo": Bad(
        change(pairs, ONE, lambda path: (path.unlink(), path.mkdir())),
        SEG,
        ("photo1_3",),
    ),
    "an image that would fill the memory": Bad(
        change(pairs, ONE, bomb), SEG, ("has over", "cut it into tiles")
    ),
    "floating-point pixels": Bad(
        change(pairs, "images", floating),
        SEG,
        ("photo1_3.tif holds floating-point pixels: save it as 8 or 16 bit",),
    ),
    "two broken files": Bad(
        change(change(pairs, ONE, halve), "masks/photo0_0.png", paint(DEEP)),
        SEG,
        ("2 broken", "16-bit values up to", "is cut short"),
    ),
    # Pairs and masks.
    "a mask of another size": Bad(
        change(pairs, MASK, paint(stripe(3)[:16])),
        SEG,
        ("photo1_3: image 32 x 32, mask 16 x 32",),
    ),
    "a rotated photo whose mask is not": Bad(
        change(pairs, ONE, turned),
        SEG,
        ("image 32 x 16 (EXIF-rotated), mask 16 x 32", "as it is displayed"),
    ),
    "a mask of another size and a cut photo": Bad(
        change(change(pairs, ONE, halve), "masks/photo0_0.png", paint(stripe(0)[:9])),
        SEG,
        ("2 things:", "1. 1 broken", "2. 1 pairs differ: photo0_0"),
    ),
    "colour masks without a palette": Bad(
        colour_masks,
        SEG,
        ("4 colour-coded masks", "--config.data.palette=\"('#000000', '#ff0000')\""),
    ),
    "a palette that lacks a colour": Bad(
        colour_masks,
        SEG,
        ("#ff0000",),
        ("data.palette=('#000000','#00ff00')",),
    ),
    "a palette for masks of class ids": Bad(
        lambda root: pairs(root, 4, value=1),
        SEG,
        ("palette",),
        ("data.palette=('#000000','#ff0000')",),
    ),
    "masks of 1 among masks of 255": Bad(
        change(pairs, MASK, paint(stripe(3) > 0)),
        SEG,
        (
            "1 masks hold 1 (photo1_3), 23 others 255",
            "--config.data.palette=\"('#000000', '#010101', '#ffffff')\"",
        ),
    ),
    "more class ids than classes": Bad(
        change(ids, "masks/photo0_0.png", paint(stripe(0, 2))),
        SEG,
        (
            "values 0, 1, 2",
            "--config.data.classes=\"('background', 'crack', 'class_2')\"",
        ),
    ),
    "masks without foreground": Bad(
        lambda root: pairs(root, value=0),
        SEG,
        ("no mask has a foreground pixel: 24 masks, values 0",),
    ),
    "photos in place of masks": Bad(
        lambda root: pairs(root, 4),
        SEG,
        ("photos",),
        ("data.image_dir=masks", "data.mask_dir=images"),
    ),
    "16-bit values that are no class ids": Bad(
        change(pairs, MASK, paint(DEEP)), SEG, ("holds 16-bit values up to",)
    ),
    "dark foreground of colours": Bad(
        pairs,
        SEG,
        ("--config.data.foreground=bright",),
        ("data.foreground=dark", "data.palette=('#000000','#ffffff')"),
    ),
    "windows larger than the images": Bad(
        pairs,
        SEG,
        ("24 smaller: photo0_0: 32 x 32", '--config.data.image_size="(32, 32)"'),
        (
            "data.crop={'per_image':2,'foreground_share':0.5}",
            "data.image_size=(64,64)",
        ),
    ),
    # Parts.
    "a photo in two parts": Bad(own_split, SEG, ("train/3", "val/99")),
    "a test part beside the class folders": Bad(
        lambda root: classes(
            classes(root, intact=8, cracked=8) / "test", intact=4, cracked=4
        ),
        CLS,
        ("8 images, all of test", "--config.data.split=kfold"),
    ),
    "a split file that is a picture": Bad(
        pairs, SEG, ("split",), ("data.split={root}/images/photo0_0.png",)
    ),
    "three images": Bad(
        lambda root: pairs(root, 3),
        SEG,
        ("3 group(s), none left for val", "--config.data.test_fraction=0.0"),
    ),
    # Class folders.
    "an empty class folder": Bad(
        change(
            lambda root: classes(root, intact=8, cracked=8),
            "rust",
            lambda path: path.mkdir(),
        ),
        CLS,
        (
            "found cracked 8, intact 8, rust 0",
            "--config.data.classes=\"('cracked', 'intact')\"",
        ),
    ),
    "one class only": Bad(lambda root: classes(root, cracked=8), CLS, ("cracked",)),
    "images without class folders": Bad(
        loose, CLS, ("class folders", "and move the images there")
    ),
    "one image of a class": Bad(
        lambda root: classes(root, intact=30, cracked=1),
        CLS,
        ("every class in the val part", "no image of class"),
    ),
    "one class below its folder": Bad(
        lambda root: classes(root, intact=2, cracked=2),
        CLS,
        ("--config.data.dir='{root}'",),
        folder="intact",
    ),
    # LabelMe.
    "a label in capitals": Bad(
        lambda root: shapes(root, *TRIANGLE, label="Crack"),
        "labelme",
        ("24 shapes of other ones: Crack (24)",),
    ),
    "a polygon of two points": Bad(
        lambda root: shapes(root, *TRIANGLE[:2]),
        "labelme",
        ("24 that cannot", "a polygon of 2 point(s)"),
    ),
    "a shape outside of its photo": Bad(
        lambda root: shapes(root, [99, 2], [99, 9], [90, 9]),
        "labelme",
        ("outside the image of 32 x 32",),
    ),
    "labels drawn at another size": Bad(
        lambda root: shapes(root, *TRIANGLE, size=(32, 64)),
        "labelme",
        ("image 32 x 32, mask 32 x 64",),
    ),
    "a shape of an unknown type": Bad(
        lambda root: shapes(root, *TRIANGLE, kind="spline"),
        "labelme",
        ("the type 'spline' is not one of",),
    ),
    "a cut label file": Bad(
        change(lambda root: shapes(root, *TRIANGLE), "3.json", halve),
        "labelme",
        ("{root}/3.json", "save it again in LabelMe"),
    ),
    "a label file nested without end": Bad(
        change(
            lambda root: shapes(root, *TRIANGLE), "3.json", replace_with(b"[" * 99_999)
        ),
        "labelme",
        ("{root}/3.json", "nested too deeply"),
    ),
    "photos without label files": Bad(loose, "labelme", ("JSON files",)),
    "a label file without its photo": Bad(
        change(lambda root: shapes(root, *TRIANGLE), "3.png", lambda p: p.unlink()),
        "labelme",
        ("no file '3.png'",),
    ),
    # COCO.
    "no annotation file": Bad(
        change(coco, ".", lambda r: (r / "annotations.json").rename(r / "b.json")),
        "coco",
        ("--config.data.annotations='b.json'",),
    ),
    "captions": Bad(
        change_json(coco, "annotations.json", lambda c: c.pop("categories")),
        "coco",
        ("without a list of categories",),
    ),
    "an image that is missing": Bad(
        change(coco, "images/3.png", lambda path: path.unlink()),
        "coco",
        ("1 missing", "images/3.png"),
    ),
    "an image twice": Bad(
        change_json(
            coco, "annotations.json", lambda c: c["images"][1].update(file_name="0.png")
        ),
        "coco",
        ("twice: 0",),
    ),
    "one id for two images": Bad(
        change_json(coco, "annotations.json", lambda c: c["images"][1].update(id=0)),
        "coco",
        ("24 images, 23 ids",),
    ),
    "boxes only": Bad(
        lambda root: coco(root, segmentation=[]), "coco", ("only a box",)
    ),
    "run lengths of another size": Bad(
        lambda root: coco(root, segmentation=dict(size=[9, 9], counts=[81])),
        "coco",
        ("run lengths of a mask of [9, 9]",),
    ),
    "an unknown category": Bad(
        lambda root: coco(root, category_id=7), "coco", ("category 7 (24)",)
    ),
}
