"""How images of any size go through a network: whole or in tiles, and how many."""

import dataclasses
from typing import Any

import jax

from jaxseg import infer
from jaxseg.errors import InputError
from jaxseg.trained import Trained

# Side of a tile where any size will do. With a quarter of overlap the five-level U-Net
# of configs/road.py decides 0.003 % of the pixels otherwise than from the whole image,
# with an eighth 2 %; with half none, at three times the work of no overlap.
TILE = 512
BATCH_PIXELS = {"cpu": 2**18, "gpu": 2**21}  # at a time on one device
FLIPS = ((), (1,), (2,), (1, 2))  # axes of [N, H, W, C]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How images go through the network.

    Attributes:
      size: (H, W) of what the network gets: a whole image, or a tile.
      tiled: whether that is a tile.
      overlap: of tiles, pixels.
      batch_size: images or tiles at a time, over all devices.
      stride: of the network, pixels.
      flips: axes to flip by; the probabilities are averaged.
      scale: of (height, width) before tiling.
    """

    size: tuple[int, int]
    tiled: bool
    overlap: int
    stride: int
    batch_size: int
    flips: tuple[tuple[int, ...], ...]
    scale: tuple[float, float]


def make_plan(
    trained: Trained,
    model: Any,
    *,
    tile: int | bool,
    overlap: int | None,
    batch_size: int | None,
    flips: bool,
) -> Plan:
    """The plan that `predictor.load` describes.

    Raises:
      InputError: tiles that do not fit the network.
    """
    kept = trained.preprocessing
    tiled = bool(tile) or not kept.resized
    is_classifier = "seg_logits" not in trained.task.needs
    if is_classifier and tile and tile is not True:
        raise InputError(
            f"tiles of {kept.image_size} for a classifier: those of its training",
            f"tiles of {tile}",
            "--tile without a number",
        )
    if overlap and not tiled:
        raise InputError(
            "--tile with --overlap", "images that are resized whole", "--tile"
        )
    stride = model.stride if tiled and not is_classifier else 1
    size, scale = kept.image_size, (1.0, 1.0)
    if tiled and kept.resized:
        sides = zip(kept.image_size, kept.source_size, strict=True)
        scale = tuple(seen / stored for seen, stored in sides)
    if tile and tile is not True:
        size = (tile, tile)
    elif tiled and not is_classifier and model.is_local:
        size = tuple(-(-max(side, TILE) // stride) * stride for side in size)
    if overlap is None:
        # Windows of the training lay side by side, and there is nothing to blend.
        overlap = min(size) // 4 if tiled and not is_classifier else 0
    if tiled:
        _refuse_misfits(size, overlap, stride)
    num_devices = jax.device_count()
    pixels = BATCH_PIXELS.get(jax.default_backend(), BATCH_PIXELS["gpu"])
    batch_size = batch_size or num_devices * max(pixels // (size[0] * size[1]), 1)
    return Plan(
        size,
        tiled,
        overlap,
        stride,
        -(-batch_size // num_devices) * num_devices,
        FLIPS if flips else FLIPS[:1],
        scale,
    )


def _refuse_misfits(size: tuple[int, int], overlap: int, stride: int) -> None:
    """As `infer.refuse_misfits`, in the words of the options."""
    try:
        infer.refuse_misfits(size, overlap, stride)
    except InputError as error:
        name, _, value = error.fix.partition("=")
        value = value.strip("()").split(",")[0]
        raise InputError(error.expected, error.found, f"--{name} {value}") from None
