"""Masks as shapes that annotation tools know, without losing a pixel.

A region is what hangs together of one class: foreground over corners too, background
over sides only, so that every closed outline has an inside. `outline` goes around the
centres of its border pixels; `datasets.drawing` fills it again, border included. What a
region encloses is drawn after it: holes are polygons of the background.

Source: border following as in S. Suzuki and K. Abe, Topological structural analysis of
digitized binary images by border following, 1985. Differs: outer borders only, as the
holes are regions of their own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.datasets.drawing import Drawing, Shape

SIDES = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
CORNERS = np.ones((3, 3), bool)
# The eight neighbours (dy, dx), clockwise from the left one.
AROUND = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))


class Region(NamedTuple):
    """Pixels of one class that hang together.

    Attributes:
      class_id: of its pixels.
      top, left: corner of its box, pixels.
      pixels: [h, w] bool, in the box.
    """

    class_id: int
    top: int
    left: int
    pixels: np.ndarray


def find_regions(mask: np.ndarray, *, holes: bool, corners: bool) -> list[Region]:
    """The regions of [H, W] class ids; those inside others come after them.

    Args:
      holes: whether to list enclosed regions of the background too.
      corners: whether foreground hangs together over corners.
    """
    found = []
    for class_id in np.flatnonzero(np.bincount(mask.ravel())):
        if class_id == 0 and not holes:
            continue
        joined = CORNERS if corners and class_id else SIDES
        labels, _ = ndimage.label(mask == class_id, joined)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            reaches_border = (
                min(rows.start, columns.start) == 0
                or rows.stop == mask.shape[0]
                or columns.stop == mask.shape[1]
            )
            if class_id == 0 and reaches_border:
                continue
            pixels = labels[rows, columns] == label
            found.append(Region(int(class_id), rows.start, columns.start, pixels))
    # An enclosed region has the smaller box.
    return sorted(found, key=lambda region: -region.pixels.size)


def polygons(mask: np.ndarray) -> list[Shape]:
    """Shapes that drawn one after the other make [H, W] class ids again, exactly."""
    for corners in (True, False):
        shapes = [
            Shape("polygon", region.class_id, tuple(outline(region)))
            for region in find_regions(mask, holes=True, corners=corners)
        ]
        # Where regions of two classes cross over a corner, neither is inside the other.
        if corners and np.array_equal(draw(shapes, mask.shape), mask):
            break
    return shapes


def draw(shapes: list[Shape], size: tuple[int, int]) -> np.ndarray:
    """[H, W] uint8 class ids of shapes, as the datasets draw them."""
    data = Drawing("", size, tuple(shapes)).read_bytes()
    return np.frombuffer(data, np.uint8, offset=len(data) - size[0] * size[1]).reshape(
        size
    )


def outline(region: Region) -> Iterator[int]:
    """x, y, x, y, ... around a region, at least three points; straight runs are one."""
    points = _follow(region.pixels)
    corners = [
        point
        for before, point, after in zip(
            [points[-1], *points], points, [*points[1:], points[0]], strict=False
        )
        if _step(before, point) != _step(point, after)
    ]
    corners = corners or points
    corners += corners[:1] * (3 - len(corners))
    for y, x in corners:
        yield region.left + x
        yield region.top + y


def run_lengths(region: Region, size: tuple[int, int]) -> list[int]:
    """Lengths of runs outside and inside of a region, in turn, column by column."""
    columns, rows = np.nonzero(region.pixels.T)
    places = (columns + region.left) * size[0] + rows + region.top
    starts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    stops = np.append(starts[1:], len(places)) - 1
    edges = np.stack([places[starts], places[stops] + 1], axis=1).ravel()
    return np.diff(edges, prepend=0, append=size[0] * size[1]).tolist()


def _step(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return b[0] - a[0], b[1] - a[1]


def _follow(pixels: np.ndarray) -> list[tuple[int, int]]:
    """(y, x) of the border pixels, clockwise; thin parts are passed there and back."""
    filled = np.pad(pixels, 1).tolist()
    start = (1, 1 + int(pixels[0].argmax()))
    place, back, points, first = start, 0, [], None
    while True:
        for turn in range(1, 9):  # clockwise from where the outside was last seen
            way = (back + turn) % 8
            y, x = place[0] + AROUND[way][0], place[1] + AROUND[way][1]
            if filled[y][x]:
                break
        else:
            return [(place[0] - 1, place[1] - 1)]
        if (place, way) == first:
            return points
        first = first or (place, way)
        points.append((place[0] - 1, place[1] - 1))
        # From the new place, the way to the neighbour that was looked at before it.
        place, back = (y, x), (way + (5 if way % 2 else 6)) % 8
