"""Whether a written file computes what the model computes, on two sizes of image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxseg.data.images import UnreadableImage, decode_image, resize_image
from jaxseg.datasets.listing import list_images
from jaxseg.errors import InputError
from jaxseg.formats.finished import DECISIONS, Finished, decide

LIMIT = 1e-3
"""Largest difference of two probabilities; rounding makes about 1e-6."""
BATCHES = (3, 1)
"""Images at the size of training, and at another size."""

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class Mismatch(Exception):
    """The file does not compute what the model computes; a bug, not of the user."""


def find_images(folder: Path) -> list[Path]:
    """The first images of a folder, at any depth, as many as are compared.

    Raises:
      InputError: no such folder, or none in it.
    """
    found = list_images(folder)[: max(BATCHES)]
    if not found:
        raise InputError(
            "a folder with images, as they were in training",
            f"no image in {folder}" if folder.is_dir() else f"no folder {folder}",
            "--images DIR; without it the comparison is on noise",
        )
    return found


def make_batches(model: Finished, images: Sequence[Path]) -> list[np.ndarray]:
    """Images at two sizes, [N, H, W, C] uint8 each; noise (seed 0) where none is given.

    Raises:
      InputError: an image cannot be read.
    """
    sizes = model.image_size, model.size.another()
    if not images:
        rng = np.random.default_rng(0)
        return [
            rng.integers(0, 256, (count, *size, model.channels), np.uint8)
            for count, size in zip(BATCHES, sizes, strict=True)
        ]
    decoded = [_decode(path, model.channels) for path in images]
    return [
        np.stack([resize_image(decoded[k % len(decoded)], size) for k in range(count)])
        for count, size in zip(BATCHES, sizes, strict=True)
    ]


def compare(model: Finished, run: Run, batches: Sequence[np.ndarray]) -> list[str]:
    """How far the probabilities of the file and the model are apart, for every batch.

    Args:
      run: the file as a function, outputs by name.

    Raises:
      Mismatch: by more than `LIMIT`, or the file's decisions are not those of its
        probabilities.
    """
    # A new function: JAX may remember a trace of `forward` for another target.
    forward = jax.jit(lambda variables, image: model.forward(variables, image))
    lines = []
    for images in batches:
        wanted = jax.device_get(forward(model.variables, images))
        found = run(images)
        height, width = images.shape[1:3]
        place = f"{len(images)} at {height}x{width}"
        difference = _difference(found, wanted, place)
        _refuse_other_decisions(found, model, place)
        lines.append(f"{difference:.1e} on {place}")
    return lines


def _difference(found, wanted, place: str) -> float:
    if found.keys() != wanted.keys():
        raise Mismatch(f"the outputs {sorted(found)} in place of {sorted(wanted)}")
    worst = 0.0
    for name in DECISIONS.keys() & wanted.keys():
        if found[name].shape != wanted[name].shape:
            raise Mismatch(
                f"{name} {found[name].shape} in place of {wanted[name].shape}, {place}"
            )
        difference = float(np.abs(found[name] - wanted[name]).max())
        if not difference <= LIMIT:  # NaN is refused too
            raise Mismatch(
                f"{name} of the file and of the model differ by {difference:.2g} on "
                f"{place}; allowed is {LIMIT:g}. The file was not kept. Please report "
                "it with model.json and the versions of the packages"
            )
        worst = max(worst, difference)
    return worst


def _refuse_other_decisions(found, model: Finished, place: str) -> None:
    for name, (decision, kind, _) in DECISIONS.items():
        if name in found:
            wanted = decide(np.asarray(found[name]), model.thresholds.get(kind))
            if (np.asarray(found[decision]) != wanted).any():
                raise Mismatch(f"{decision} does not follow from {name}, {place}")


def _decode(path: Path, channels: int) -> np.ndarray:
    try:
        return decode_image(path.read_bytes(), channels)
    except UnreadableImage as error:
        raise InputError(
            "images that can be opened", f"{path} {error}", "--images with another DIR"
        ) from None
