"""The pieces of a mask of any size, measured one by one.

Most of a large mask is empty. Blocks of pixels tell where something is; what hangs
together there is cut out and measured on its own, so that memory and time go with the
cracks and not with the image. The numbers are those of `jaxseg.measure` for the whole
mask. A piece whose box has more than `MAX_BOX` pixels is measured on a reduced copy
that knows how much of each of its pixels belongs to the piece: its length is as fine as
the reduction, its area is exact.
"""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.measure import Component, measure
from jaxseg.predict.pictures import shrink
from jaxseg.report import component_table
from jaxseg.skeletons import TOUCHING

BLOCK = 32
"""Side of a block, pixels."""
BLOCK_ROWS = 64
"""Rows of blocks that are looked at at a time."""
MAX_BOX = 2**25
"""Pixels, 5792 x 5792: measuring takes about 30 bytes for each."""
LARGE_BOX = 2**22
"""Pixels; only one box above that is measured at a time, so that memory suffices."""
MIN_NOISE, NOISE_PIXELS = 1_000, 64**2
"""More pieces of a class than that, and than one for so many pixels of the image, are
noise, which is counted and not measured: it would take longer than the network."""

Window = tuple[slice, slice]

_turn = threading.Lock()


class Found(NamedTuple):
    """The pieces of one class in one image.

    Attributes:
      number: of pieces.
      components: from top to bottom; none of noise.
    """

    number: int
    components: list[Component]

    def columns(self, mm_per_pixel: float | None) -> dict[str, float]:
        """As `component_table.summarize`; sizes that are not known are NaN."""
        columns = component_table.summarize(self.components, mm_per_pixel)
        if self.number > len(self.components):
            columns = dict.fromkeys(columns, math.nan)
        return columns | {"num_components": self.number}

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "components": [dataclasses.asdict(one) for one in self.components],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Found":
        """Of what `files.to_json` makes of it: an orientation may be None."""
        known = [
            {k: math.nan if v is None else v for k, v in one.items()}
            for one in found["components"]
        ]
        return cls(found["number"], [Component(**one) for one in known])


def decided_levels(probabilities: np.ndarray) -> np.ndarray:
    """[H, W] of [H, W, K]: of the decided class, or the only one beside the background.

    The latter is no copy.
    """
    if probabilities.shape[-1] == 1:
        return probabilities[..., 0]
    return probabilities.max(-1)


def measure_classes(
    mask: np.ndarray, levels: np.ndarray, classes: Sequence[str], *, scale: int = 1
) -> list[Found]:
    """The pieces of every class but the background. Threads may measure together.

    Args:
      mask: [H, W] uint8 class ids.
      levels: [H, W] uint8 or uint16 of `decided_levels`, the largest number of the
        type is 1: for `Component.score`.
      scale: side of a pixel of the mask, in those of the image.
    """
    return [_find(mask, levels, class_id, scale) for class_id in range(1, len(classes))]


def _find(mask: np.ndarray, levels: np.ndarray, class_id: int, scale: int) -> Found:
    cuts = list(_cut(mask, class_id))
    number = sum(_count(_pixels_of(mask, class_id, *cut)) for cut in cuts)
    if number > max(MIN_NOISE, mask.size // NOISE_PIXELS):
        return Found(number, [])
    components = []
    for window, blocks in cuts:
        pixels = _pixels_of(mask, class_id, window, blocks)
        corner = scale * np.tile([window[0].start, window[1].start], 2)
        components += [
            dataclasses.replace(one, box=tuple((one.box + corner).tolist()))
            for one in _measure(pixels, levels[window], scale)
        ]
    components.sort(key=lambda one: one.box[:2])
    return Found(len(components), components)


def _cut(mask: np.ndarray, class_id: int) -> Iterator[tuple[Window, np.ndarray]]:
    """Windows of the mask, and [h, w] bool which of their blocks hang together."""
    height, rows = mask.shape[0], BLOCK * BLOCK_ROWS
    strips = (mask[top : top + rows] == class_id for top in range(0, height, rows))
    blocks = np.concatenate([shrink(strip, BLOCK) for strip in strips])
    labels, _ = ndimage.label(blocks, TOUCHING)
    for number, places in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(
            slice(place.start * BLOCK, min(place.stop * BLOCK, side))
            for place, side in zip(places, mask.shape, strict=True)
        )
        yield window, labels[places] == number


def _pixels_of(mask, class_id: int, window: Window, blocks: np.ndarray) -> np.ndarray:
    """[h, w] bool: the pixels of a class in these blocks of a window."""
    pixels = mask[window] == class_id
    if not blocks.all():
        height, width = pixels.shape
        pixels &= blocks.repeat(BLOCK, 0)[:height].repeat(BLOCK, 1)[:, :width]
    return pixels


def _count(pixels: np.ndarray) -> int:
    """Pieces; about, where they will be measured on a reduced copy."""
    return ndimage.label(shrink(pixels, _reduction(pixels)), TOUCHING)[1]


def _reduction(pixels: np.ndarray) -> int:
    return math.ceil(math.sqrt(pixels.size / MAX_BOX))


def _measure(pixels: np.ndarray, levels: np.ndarray, scale: int) -> list[Component]:
    whole, factor = np.float32(np.iinfo(levels.dtype).max), _reduction(pixels)
    spacing = (factor * scale, factor * scale)
    with _turn if pixels.size > LARGE_BOX else contextlib.nullcontext():
        if factor == 1:
            return measure(pixels, spacing=spacing, scores=levels / whole)
        counts = _sum_blocks(pixels, factor)
        sums = _sum_blocks(np.where(pixels, levels, 0), factor)
        return measure(
            counts > 0,
            spacing=spacing,
            scores=sums / (np.maximum(counts, 1) * whole),
            shares=counts / np.float32(factor**2),
        )


def _sum_blocks(pixels: np.ndarray, factor: int) -> np.ndarray:
    """[h, w] float32 sums of blocks of [H, W]; the last ones may reach outside."""
    height, width = pixels.shape
    sums = np.zeros((-(-height // factor), -(-width // factor)), np.float32)
    for y in range(factor):
        for x in range(factor):
            part = pixels[y::factor, x::factor]
            sums[: part.shape[0], : part.shape[1]] += part
    return sums
