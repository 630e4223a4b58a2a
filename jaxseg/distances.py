"""Distances between pixels of masks, where few pixels are asked about.

A distance transform of the whole image costs several times more; of the pixels of the
other mask only those at its rim can be the nearest.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


def distances_to(
    mask: np.ndarray, pixels: np.ndarray, spacing: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """From pixels outside of a mask to its nearest pixel, centre to centre.

    Args:
      mask: [H, W] bool.
      pixels: [H, W] bool, nowhere inside the mask.
      spacing: height and width of a pixel.

    Returns:
      [number of pixels] float64, in the order of `np.nonzero(pixels)`; infinite if the
      mask is empty.

    >>> distances_to(np.array([[1, 0, 0, 0]], bool), np.array([[0, 0, 0, 1]], bool))
    array([3.])
    """
    if not mask.any() or not pixels.any():
        return np.full(np.count_nonzero(pixels), np.inf)
    rim = mask & ~ndimage.binary_erosion(mask, border_value=1)
    tree = cKDTree(np.argwhere(rim) * spacing)
    return tree.query(np.argwhere(pixels) * spacing)[0]
