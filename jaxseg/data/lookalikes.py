"""Images that show the same thing though their bytes differ.

A photo saved twice, one tile at several exposures, neighbouring frames of a film: with
one of them in training and another in test, the score is too good.

Found in two sieves, both blind to brightness and contrast. First the signs of the
differences between neighbouring cells of an 8 x 8 grid, as in the hash dHash
(https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html),
in both directions: 112 bits, of which `MAX_BITS` may differ. Then the correlation of
what is finer than that grid, so that two different but equally shaded surfaces pass for
what they are. On 689 photos of magnetic tiles at six exposures 98 % of the pairs found
are of one tile; among 4,600 crops of wall photos none is found.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage, sparse

SIDE = 32
"""Pixels of a thumbnail, in both directions."""
CELL = 4
MAX_BITS = 10
MIN_CORRELATION = 0.6
BLOCK = 512
"""Images compared with all others at a time."""
MAX_SHARE, FEW = 0.25, 20
"""More of the images than this share, and than a few, are not copies of one another: a
camera that never moves takes every piece alike."""


def thumbnail(picture: Image.Image) -> np.ndarray:
    """[SIDE, SIDE] uint8: means of the grey values, whatever the shape of the image."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("P", "PA"):
        # Pillow warns when a palette with transparency becomes grey directly.
        picture = picture.convert("RGBA")
    grey = picture.convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def cluster(thumbnails: np.ndarray) -> np.ndarray:
    """For each image the first one that looks alike; itself if there is none before.

    Images are alike if they are so directly or by others in between. A cluster beyond
    `MAX_SHARE` is none.

    Args:
      thumbnails: [n, SIDE, SIDE] uint8.

    Returns:
      [n] int64, at most the own position.
    """
    n = len(thumbnails)
    component = _components(np.concatenate([_NO_PAIRS, *_similar_pairs(thumbnails)]), n)
    _, earliest, sizes = np.unique(component, return_index=True, return_counts=True)
    is_copy = sizes <= max(FEW, MAX_SHARE * n)
    return np.where(is_copy[component], earliest[component], np.arange(n))


_NO_PAIRS = np.empty((0, 2), np.int64)


def _components(pairs: np.ndarray, n: int) -> np.ndarray:
    """[n] numbers, equal where pairs lead from one to the other."""
    graph = sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), (n, n))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def _similar_pairs(thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """[pairs, 2] int64 of a block of images after the other, first < second.

    Of images that are alike, each with the first one only, at most n pairs of a block:
    all pairs of a camera that never moves would fill the memory.
    """
    codes, details = _codes(thumbnails), _details(thumbnails)
    for start in range(0, len(codes), BLOCK):
        block, others = codes[start : start + BLOCK], codes[start:]
        unequal = np.bitwise_count(block[:, None, 0] ^ others[:, 0])
        unequal += np.bitwise_count(block[:, None, 1] ^ others[:, 1])
        candidates = np.triu(unequal <= MAX_BITS, k=1)
        columns = np.flatnonzero(candidates.any(axis=0))
        correlation = details[start : start + BLOCK] @ details[start + columns].T
        alike = candidates[:, columns] & (correlation >= MIN_CORRELATION)
        first, second = np.nonzero(alike)
        pairs = np.stack([first, columns[second]], axis=1)
        component = _components(pairs, len(others))
        _, earliest = np.unique(component, return_index=True)
        own = earliest[component]
        members = np.flatnonzero(own < np.arange(len(others)))
        yield start + np.stack([own[members], members], axis=1)


def _codes(thumbnails: np.ndarray) -> np.ndarray:
    """[n, 2] uint64: whether a cell is brighter than the one to its left, or above."""
    n, cells = len(thumbnails), SIDE // CELL
    grid = thumbnails.reshape(n, cells, CELL, cells, CELL).sum((2, 4), np.int64)
    bits = np.zeros((n, 2, 64), bool)
    for axis in (1, 2):
        brighter = (np.diff(grid, axis=axis) > 0).reshape(n, -1)
        bits[:, axis - 1, : brighter.shape[1]] = brighter
    return np.packbits(bits, axis=2).view(np.uint64)[..., 0]


def _details(thumbnails: np.ndarray) -> np.ndarray:
    """[n, SIDE * SIDE] float32 of length 1, or 0 where an image has no detail."""
    values = thumbnails.astype(np.float32)
    smooth = ndimage.uniform_filter(values, (1, CELL + 1, CELL + 1), mode="reflect")
    detail = (values - smooth).reshape(len(values), -1)
    length = np.linalg.norm(detail, axis=1, keepdims=True)
    # Less than one grey level per pixel is noise of rounding, the same in many images.
    return np.where(length >= SIDE, detail / np.maximum(length, 1), 0)
