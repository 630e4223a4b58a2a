"""Synthetic photographs of cracked concrete, rendered on first use.

They need no download, have exact masks and are the same everywhere for one seed; see
`render`. A score on them says that the program works, and nothing about photographs.
"""

import contextlib
import dataclasses
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.datasets import folder_segmentation, listing, render
from jaxseg.datasets.record import Listing
from jaxseg.errors import InputError

MIN_PHOTOS = 6  # two of each surface; fewer cannot be split into train, val and test
GROUP_PATTERN = r"^(.+)_\d+$"  # 'wall_0002_5' is tile 5 of photograph 'wall_0002'


def scan(root: Path, *, num_photos: int, seed: int) -> Listing:
    """Renders the set if it is not there yet, then lists it.

    The set lies in its own folder below `root`, whose name holds its parameters; it
    appears there complete or not at all. Group is the photograph, source the surface
    (deck, pavement, wall).

    Args:
      num_photos: four to eight crops of 128x128 pixels are cut from each; about 45 %
        of the crops show a crack.
      seed: of the photographs; not negative.

    Raises:
      InputError: too few photographs, a negative seed, or a folder that cannot be
        written.
    """
    if num_photos < MIN_PHOTOS:
        expected = f"data.num_photos to be at least {MIN_PHOTOS}"
        raise InputError(expected, f"{num_photos}", "--config.data.num_photos=120")
    if seed < 0:
        raise InputError("data.seed to be 0 or more", f"{seed}", "--config.data.seed=0")
    target = root / f"{num_photos}_photos_seed_{seed}_v{render.VERSION}"
    if not target.is_dir():
        fix = listing.set_dir("/path/you/can/write")
        with complete_folder(target, fix) as folder:
            write_segmentation(folder, segmentation_crops(num_photos, seed))
    found = folder_segmentation.scan(
        target,
        image_dir="images",
        mask_dir="masks",
        mask_suffix="",
        foreground="bright",
        classes=("background", "crack"),
        classes_file="",
        group_pattern=GROUP_PATTERN,
    )
    note = "Synthetic photographs: scores on them say nothing about real ones."
    records = (
        dataclasses.replace(record, source=record.id.split("_")[0])
        for record in found.records
    )
    return dataclasses.replace(found, records=tuple(records), notes=(note,))


def segmentation_crops(num_photos: int, seed: int) -> Iterator[render.Crop]:
    """Crops of 128x128 pixels, of which about 45 % show a crack."""
    shares = dict(cracked_photos=0.75, cracked_crops=0.6)
    return render.render_crops(num_photos, seed, size=128, **shares)


def classification_crops(
    num_photos: int, seed: int, size: int
) -> Iterator[render.Crop]:
    """Crops of which about 15 % show a crack, as in SDNET2018."""
    shares = dict(cracked_photos=0.3, cracked_crops=0.5)
    return render.render_crops(num_photos, seed, size=size, **shares)


def write_segmentation(folder: Path, crops: Iterable[render.Crop]) -> None:
    """Writes images/NAME.jpg and masks/NAME.png, with 0 and 255 in the masks."""
    for crop in crops:
        name = f"{crop.surface}_{crop.photo:04d}_{crop.tile}"
        save(crop.image, folder / "images" / f"{name}.jpg", quality=crop.quality)
        save(crop.mask * np.uint8(255), folder / "masks" / f"{name}.png")


def save(pixels: np.ndarray, path: Path, **options: int) -> None:
    """Writes an image file, and the folder it lies in.

    Args:
      pixels: [H, W] or [H, W, 3] uint8.
      options: of the encoder, e.g. quality.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@contextlib.contextmanager
def complete_folder(target: Path, fix: str) -> Iterator[Path]:
    """A folder to write into that becomes `target` when the block ends without error.

    An empty `target` is filled at the end: it may be where a disk is mounted, or where
    somebody works. Where another process was faster, its folder stays and ours is
    dropped.

    Args:
      fix: for the message, another target.

    Raises:
      InputError: the folder above cannot be written.
    """
    target = target.absolute()
    is_there = target.is_dir() and not any(target.iterdir())
    above = target if is_there else target.parent
    partial = above / f".{target.name}.{uuid.uuid4().hex}"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"a folder that can be written for '{target.name}'",
            f"'{above}': {error.strerror}",
            fix,
        ) from None
    try:
        yield partial
        if is_there:
            for path in sorted(partial.iterdir()):
                path.rename(target / path.name)
        else:
            _rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, target: Path) -> None:
    """Moves a folder into place, unless a complete one is there already."""
    try:
        partial.rename(target)
    except OSError:
        if not (target.is_dir() and any(target.iterdir())):
            raise
