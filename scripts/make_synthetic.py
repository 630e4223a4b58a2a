"""Renders synthetic photographs of cracked concrete in the layout of a dataset.

    python scripts/make_synthetic.py --layout sdnet2018 --out data/synthetic --num 60

Four to eight crops are cut from each photograph: 256x256 pixels for sdnet2018, else
128x128. In sdnet2018 and folder_classification about 15 % of the crops show a crack, as
in the real SDNET2018; in the segmentation layouts about 45 %. The same --num and --seed
give the same files.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.progress import Progress

from jaxseg.datasets import synthetic
from jaxseg.datasets.render import Crop
from jaxseg.errors import InputError

SURFACES = {"deck": "D", "pavement": "P", "wall": "W"}  # letters of SDNET2018
TEST_EVERY = 7  # photographs; the share of test is the 15 % of crack_segmentation


def write_sdnet2018(folder: Path, crops: Iterable[Crop]) -> None:
    """W/CW/7002-1.jpg: surface, class, photograph and tile."""
    for crop in crops:
        surface = SURFACES[crop.surface]
        label = "C" if crop.mask.any() else "U"
        name = f"{7000 + crop.photo}-{crop.tile + 1}.jpg"
        path = folder / surface / f"{label}{surface}" / name
        synthetic.save(crop.image, path, quality=crop.quality)


def write_crack_segmentation(folder: Path, crops: Iterable[Crop]) -> None:
    """train|test/{images,masks}/synthetic_<photo>_<tile>.jpg, also masks as JPEG."""
    for crop in crops:
        split = "test" if crop.photo % TEST_EVERY == 0 else "train"
        name = f"synthetic_{crop.photo:04d}_{crop.tile}.jpg"
        image, mask = folder / split / "images" / name, folder / split / "masks" / name
        synthetic.save(crop.image, image, quality=crop.quality)
        synthetic.save(crop.mask * np.uint8(255), mask, quality=90)


def write_classification(folder: Path, crops: Iterable[Crop]) -> None:
    """cracked/wall_0002_5.jpg and intact/wall_0002_6.jpg."""
    for crop in crops:
        label = "cracked" if crop.mask.any() else "intact"
        name = f"{crop.surface}_{crop.photo:04d}_{crop.tile}.jpg"
        synthetic.save(crop.image, folder / label / name, quality=crop.quality)


def write_kolektor_sdd(folder: Path, crops: Iterable[Crop]) -> None:
    """kos03/Part1.jpg and kos03/Part1_label.bmp: a photograph is an item."""
    for crop in crops:
        part = folder / f"kos{crop.photo + 1:02d}" / f"Part{crop.tile}"
        synthetic.save(crop.image, part.with_suffix(".jpg"), quality=crop.quality)
        mask = crop.mask * np.uint8(255)
        synthetic.save(mask, part.with_name(f"{part.name}_label.bmp"))


def write_dagm2007(folder: Path, crops: Iterable[Crop]) -> None:
    """Class1/Train/0021.PNG: a class for each surface; half of the photographs test."""
    classes = list(SURFACES)
    for crop in crops:
        part = "Test" if crop.photo // len(classes) % 2 else "Train"
        place = folder / f"Class{classes.index(crop.surface) + 1}" / part
        name = f"{10 * crop.photo + crop.tile:04d}"
        synthetic.save(crop.image, place / f"{name}.PNG")
        if crop.mask.any():
            label = place / "Label" / f"{name}_label.PNG"
            synthetic.save(crop.mask * np.uint8(255), label)


def write_severstal(folder: Path, crops: Iterable[Crop]) -> None:
    """train_images/<photo>_<tile>.jpg and train.csv with the run lengths of cracks."""
    rows = ["ImageId,ClassId,EncodedPixels"]
    for crop in crops:
        name = f"{crop.photo:04d}_{crop.tile}.jpg"
        image = folder / "train_images" / name
        synthetic.save(crop.image, image, quality=crop.quality)
        # Pixels count down the columns; runs begin and end where the value changes.
        pixels = np.pad(crop.mask.T.ravel() > 0, 1)
        starts, ends = np.flatnonzero(pixels[1:] != pixels[:-1]).reshape(-1, 2).T
        runs = np.stack([starts + 1, ends - starts], axis=1).ravel()
        rows += [f"{name},1,{' '.join(map(str, runs))}"] * bool(len(runs))
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


LAYOUTS = {
    "sdnet2018": write_sdnet2018,
    "crack_segmentation": write_crack_segmentation,
    "kolektor_sdd": write_kolektor_sdd,
    "dagm2007": write_dagm2007,
    "severstal": write_severstal,
    "folder_segmentation": synthetic.write_segmentation,
    "folder_classification": write_classification,
}


def render_layout(layout: str, num: int, seed: int) -> Iterator[Crop]:
    """The crops of a layout: their size and how many of them show a crack."""
    if layout == "sdnet2018":
        return synthetic.classification_crops(num, seed, size=256)
    if layout == "folder_classification":
        return synthetic.classification_crops(num, seed, size=128)
    return synthetic.segmentation_crops(num, seed)


def show_progress(crops: Iterable[Crop], num: int) -> Iterator[Crop]:
    """Passes crops on: a bar in a terminal, else a line for every tenth of the work."""
    on_terminal, shown = sys.stdout.isatty(), 0
    with Progress(disable=not on_terminal) as progress:
        bar = progress.add_task("photographs", total=num)
        for crop in crops:
            yield crop
            progress.update(bar, completed=crop.photo + 1)
            if not on_terminal and 10 * crop.photo // num > shown:
                shown = 10 * crop.photo // num
                print(f"{crop.photo}/{num} photographs", flush=True)


def require_empty(out: Path) -> None:
    """Refuses a file, and a folder with anything in it."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(
            "--out to be a new or an empty folder",
            f"'{out}' is a file" if out.is_file() else f"'{out}' is not empty",
            f"--out '{out}_new'",
        )


def at_least(minimum: int):
    """An argparse type: a whole number that is not smaller."""

    def number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text} is less than {minimum}")
        return int(text)

    return number


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; ends with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--layout",
        required=True,
        choices=LAYOUTS,
        help="folders and names of which set",
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="new or empty folder for the images"
    )
    parser.add_argument(
        "--num",
        type=at_least(synthetic.MIN_PHOTOS),
        default=60,
        help=f"photographs, {synthetic.MIN_PHOTOS} or more (default: 60)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        help="other seed, other images (default: 0)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Renders and writes; returns the exit code."""
    args = parse_arguments(arguments)
    out = args.out.resolve()  # '.' and links have no place of their own
    try:
        require_empty(out)
        crops = render_layout(args.layout, args.num, args.seed)
        with synthetic.complete_folder(out, "--out /path/you/can/write") as folder:
            LAYOUTS[args.layout](folder, show_progress(crops, args.num))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    files = sum(path.is_file() for path in out.rglob("*"))
    print(f"{files} files of {args.num} photographs in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
