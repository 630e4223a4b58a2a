"""Damaged and hostile files through check, predict and load.

    python tests/fuzz.py --files 10000 --seed 0

A file may be read or refused with an `InputError`. Everything else is a failure:
another exception, more than 5 seconds, a file written outside the folders for results
and for compiled programs, a program or a connection started. --keep keeps the files
that fail.
"""

import argparse
import copy
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import tiny_models as tiny
from PIL import Image, features

import jaxseg
from jaxseg import trained, weight_files, workdir
from jaxseg.data import check, images
from jaxseg.datasets import coco, folder_segmentation, labelme
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError
from jaxseg.predict import folder as predict_folder

SECONDS = 5.0
MAX_PIXELS = 2_000_000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "socket.connect",
    "pickle.find_class",
}
CLASSES = ("background", "crack")
ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**40, 0.5, -1e308, float("nan"),
    float("inf"), "", "\0", "x" * 5000, "x" * 300 + ".png",
    "../../../etc/passwd", "/etc/passwd", "\ud800",
    "=cmd|' /C calc'!A0", [], {}, [[]], [[1, 2], [3]], {"a": {}}, [1e400] * 3,
)  # fmt: skip


class Watch:
    """Notes what is written outside a folder, or started, while it is on."""

    def __init__(self):
        self._allowed, self.seen = None, []
        sys.addaudithook(self._hook)

    def start(self, *allowed):
        self._allowed, self.seen = [os.path.realpath(p) for p in allowed], []

    def stop(self):
        self._allowed = None

    def _hook(self, event, arguments):
        if self._allowed is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not (flags or 0) & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        elif event in STARTS:
            self.seen.append(f"{event} {arguments[:1]}")
            return
        else:
            return
        place = os.path.realpath(os.fsdecode(path))
        inside = (os.path.commonpath([place, root]) == root for root in self._allowed)
        if place != os.devnull and not any(inside):
            self.seen.append(f"{event} {place}")


def seeds():
    """Sound picture files, name -> bytes."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "rgb.png": (rgb, {}),
        "exif.png": (rgb, {"exif": exif}),
        "grey.png": (rgb.convert("L"), {}),
        "palette.png": (rgb.quantize(8), {"transparency": 0}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "bits.png": (rgb.convert("1"), {}),
        "deep.png": (Image.fromarray(rng.integers(0, 999, (24, 32), np.uint16)), {}),
        "rgb.jpg": (rgb, {"exif": exif}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "raw.tif": (rgb, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "zip.tif": (rgb, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "fax.tif": (rgb.convert("1"), {"compression": "group4"}),
        "a.bmp": (rgb, {}),
        "a.gif": (rgb.quantize(16), {}),
    }
    if features.check("webp"):
        made["a.webp"] = (rgb, {})
    files = {}
    for name, (picture, options) in made.items():
        kind = Image.registered_extensions()[os.path.splitext(name)[1]]
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files[name] = file.getvalue()
    return files


def damage(data, rng):
    """Bytes with one to four kinds of damage."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            del data[at : at + rng.choice((size, len(data)))]
        elif kind == 1:
            data[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            data[at : at + size] = bytes([rng.choice((0, 1, 127, 128, 255))]) * size
        elif kind == 3:
            data[at:at] = data[at - size : at] * rng.choice((1, 2, 100))
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 5 and data:  # headers are where the sizes stand
            data[rng.randrange(min(64, len(data)))] = rng.choice((0, 255))
        else:
            place = rng.randrange(len(data) + 1)
            data[at : at + 4] = data[place : place + 4]
        data = data or bytearray(b"\0")
    return bytes(data)


def distort(tree, rng):
    """A JSON text with odd values in it; sometimes damaged, sometimes very deep."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        if not tree:
            break
    text = json.dumps(tree)
    kind = rng.random()
    if kind < 0.02:
        return b"[" * 100_000
    if kind < 0.04:
        return (text[:-1] + ', "deep": ' + '{"a":' * 20_000).encode()
    return damage(text.encode(), rng) if kind < 0.3 else text.encode()


def _places(tree):
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


class Fuzzer:
    """Where the files are, and what is tried with each kind of them."""

    def __init__(self, root, seed):
        self.root, self.rng = root, random.Random(seed)
        self.files = seeds()
        model = root / "model"
        tiny.save_tiny(model, image_size=(16, 16), thresholds={"mask": 0.5})
        self.predictor = jaxseg.load(model, batch_size=8, precision="float32")
        self.weights = (model / "model.safetensors").read_bytes()
        self.description = json.loads((model / "model.json").read_text())
        self.out = root / "out"
        self.kinds = {
            "image": (self.write_image, self.check_images, 35),
            "mask": (self.write_mask, self.check_pairs, 15),
            "prediction": (self.write_image, self.predict, 15),
            "labelme": (self.write_labelme, self.check_labelme, 12),
            "coco": (self.write_coco, self.check_coco, 12),
            "model.json": (self.write_description, self.load, 4),
            "safetensors": (self.write_weights, self.load, 3),
            "start weights": (self.write_start, self.load_start, 2),
            "config.json": (self.write_config, self.read_run, 2),
        }

    def picture(self):
        name = self.rng.choice(list(self.files))
        return name, damage(self.files[name], self.rng)

    def write_image(self, folder):
        name, data = self.picture()
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        (folder / "images" / name).write_bytes(data)
        (folder / "masks" / "a.png").write_bytes(self.files["bits.png"])

    def write_mask(self, folder):
        name, data = self.picture()
        for part, content in (("images", self.files["rgb.png"]), ("masks", data)):
            (folder / part).mkdir()
            suffix = ".png" if part == "images" else os.path.splitext(name)[1]
            (folder / part / f"a{suffix}").write_bytes(content)

    def check_images(self, folder):
        (path,) = (folder / "images").iterdir()
        pair = Record("a", path, folder / "masks" / "a.png", None, "a")
        self.check(Listing((pair, Record("b", path, None, 0, "b")), CLASSES))

    def check_pairs(self, folder):
        options = dict(image_dir="images", mask_dir="masks", mask_suffix="")
        options |= dict(classes_file="", group_pattern="", classes=CLASSES)
        self.check(folder_segmentation.scan(folder, foreground="bright", **options))

    def check(self, listed):
        on_corrupt = self.rng.choice(("fail", "skip"))
        check.check(
            listed,
            palette=(),
            on_corrupt=on_corrupt,
            workers=1,
            progress=lambda items, total, text: items,
        )

    def predict(self, folder):
        (path,) = (folder / "images").iterdir()
        self.predictor.predict(path)
        wanted = predict_folder.Wanted(True, True, "labelme")
        out = self.out / folder.name
        predict_folder.predict_folder(self.predictor, [str(folder)], out, wanted)

    def write_labelme(self, folder):
        points = [[2, 2], [20, 3], [20, 20]]
        shape = dict(label="crack", points=points, shape_type="polygon", group_id=None)
        tree = dict(imagePath="a.png", imageHeight=24, imageWidth=32, imageData=None)
        tree |= dict(version="5", flags={}, shapes=[shape, shape | {"points": points}])
        (folder / "a.json").write_bytes(distort(tree, self.rng))
        (folder / "a.png").write_bytes(self.files["rgb.png"])

    def check_labelme(self, folder):
        options = dict(classes=CLASSES, classes_file="", group_pattern="")
        self.check(labelme.scan(folder, line_width=3, **options))

    def write_coco(self, folder):
        polygon = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 9, 9], iscrowd=0)
        polygon |= dict(area=9, segmentation=[[2, 2, 20, 3, 20, 20]])
        runs = polygon | dict(id=2, segmentation=dict(size=[24, 32], counts=[9, 759]))
        text = polygon | dict(id=3, segmentation=dict(size=[24, 32], counts="0PXh0"))
        image = dict(id=1, file_name="a.png", height=24, width=32)
        tree = dict(images=[image], annotations=[polygon, runs, text])
        tree |= dict(categories=[dict(id=1, name="crack")])
        (folder / "a.json").write_bytes(distort(tree, self.rng))
        (folder / "a.png").write_bytes(self.files["rgb.png"])

    def check_coco(self, folder):
        options = dict(annotations="a.json", image_dir=".", group_pattern="")
        self.check(coco.scan(folder, classes=CLASSES, **options))

    def write_description(self, folder):
        (folder / "model.json").write_bytes(distort(self.description, self.rng))
        (folder / "model.safetensors").write_bytes(self.weights)

    def write_weights(self, folder):
        (folder / "model.json").write_text(json.dumps(self.description))
        (folder / "model.safetensors").write_bytes(self.damaged_weights())

    def damaged_weights(self):
        if self.rng.random() < 0.5:
            return damage(self.weights, self.rng)
        size = int.from_bytes(self.weights[:8], "little")
        header = distort(json.loads(self.weights[8 : 8 + size]), self.rng)
        return len(header).to_bytes(8, "little") + header + self.weights[8 + size :]

    def load(self, folder):
        trained.restore(folder)

    def write_start(self, folder):
        (folder / "start.safetensors").write_bytes(self.damaged_weights())

    def load_start(self, folder):
        weight_files.read_safetensors(folder / "start.safetensors")

    def write_config(self, folder):
        tree = dict(config=dict(data=dict(name="a")), data_hash="b")
        (folder / "config.json").write_bytes(distort(tree, self.rng))

    def read_run(self, folder):
        workdir.read_record(folder)

    def run(self, count, watch, keep=None):
        """Tries `count` files; (what became of them by kind, the failures)."""
        names = list(self.kinds)
        weights = [self.kinds[name][2] for name in names]
        outcomes, failures, slowest = Counter(), [], 0.0
        compiled = filter(None, [jax.config.jax_compilation_cache_dir])
        allowed = [self.out, *compiled]
        for number in range(count):
            kind = self.rng.choices(names, weights)[0]
            write, use, _ = self.kinds[kind]
            folder = self.root / "in" / f"{number}"
            folder.mkdir(parents=True)
            write(folder)
            watch.start(*allowed)
            started = time.monotonic()
            try:
                use(folder)
                outcome, problem = "read", ""
            except InputError:
                outcome, problem = "refused", ""
            except Exception:
                outcome, problem = "failed", traceback.format_exc(limit=-4)
            seconds = time.monotonic() - started
            watch.stop()
            slowest = max(slowest, seconds)
            if seconds > SECONDS:
                problem += f"\n{seconds:.1f} s"
            if watch.seen:
                problem += f"\noutside: {watch.seen}"
            outcomes[f"{kind}: {outcome}"] += 1
            if problem:
                failures.append(f"{kind}, file {number}:\n{problem}")
                if keep is not None:
                    keep(folder, number)
            _remove(folder)
            _remove(self.out / folder.name)
        return outcomes, failures, slowest


def _remove(folder):
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that fail")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    images.allow_pixels(MAX_PIXELS)

    def keep(folder, number):
        for path in folder.rglob("*.*"):
            target = options.keep / str(number) / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    with tempfile.TemporaryDirectory() as root:
        fuzzer = Fuzzer(Path(root), options.seed)
        started = time.monotonic()
        outcomes, failures, slowest = fuzzer.run(
            options.files, Watch(), keep if options.keep else None
        )
    for failure in failures[:50]:
        print(failure)
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome:24} {count}")
    seconds = time.monotonic() - started
    print(f"{options.files} files in {seconds:.0f} s, the slowest {slowest:.2f} s")
    print(f"{len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
