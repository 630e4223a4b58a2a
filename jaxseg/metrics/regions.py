"""Defects counted as wholes: a small one weighs as much as a large one.

A region is a connected part of the true foreground, with eight neighbours; the regions
of all images are one list. Needs the probability maps on the host.

Source: PRO of https://arxiv.org/abs/1911.02357; its area in
https://doi.org/10.1007/s11263-020-01400-4. Differs: scores are the lower edges of
histogram bins, as in `score_histogram`, and `IGNORE` pixels count nowhere.
"""

import numpy as np
from scipy import ndimage

from jaxseg.metrics.ratios import Summary

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
LARGEST_RATE = 0.3
"""False-positive rate up to which the area is taken, as in the source."""


def region_histogram(
    probs: np.ndarray, mask: np.ndarray, num_bins: int
) -> tuple[np.ndarray, int]:
    """Shares of each region's pixels by score, summed over the regions of an image.

    Bins are those of `score_histogram`: a score p falls in bin floor(p * num_bins).

    Args:
      probs: [H, W] float in [0, 1]; NaN falls in bin 0.
      mask: [H, W] integer in {0, 1, IGNORE}.
      num_bins: a power of two.

    Returns:
      [num_bins] float64 and the number of regions, which is its sum.

    >>> shares, count = region_histogram(np.array([[0.5, 0.0]]), np.array([[1, 1]]), 2)
    >>> shares.tolist(), count
    ([0.5, 0.5], 1)
    """
    labels, count = ndimage.label(mask == 1, EIGHT_NEIGHBOURS)
    inside = labels > 0
    scores = np.nan_to_num(probs[inside].astype(np.float32))
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    region = labels[inside]
    share = 1 / np.bincount(region, minlength=1)[region]
    return np.bincount(bins, share, minlength=num_bins), count


def region_summary(
    shares: np.ndarray, count: int, background: np.ndarray, bin: int, name: str
) -> Summary:
    """Recall of regions, at the threshold and over all thresholds.

    - `recall/<class>/per_region`: the share of a region's pixels that is found, mean
      over the regions; PRO at the threshold.
    - `aupro/<class>/per_region`: the same at every threshold, over the rate of false
      positives among all background pixels; the area from 0 to 0.3 by trapezoids,
      divided by 0.3. 1 is perfect, equal scores everywhere reach 0.15.

    nan without a region; `aupro` also without a pixel of background.

    Args:
      shares: [B], the sum of `region_histogram` over the set.
      count: the number of its regions.
      background: [B], background pixels of the set by score.
      bin: decision = score >= bin / B.

    >>> summary = region_summary(np.array([1.0, 3.0]), 4, np.array([9, 1]), 1, "crack")
    >>> {key: round(value, 4) for key, value in summary.items()}
    {'recall/crack/per_region': 0.75, 'aupro/crack/per_region': 0.6435}
    """
    found = np.append(0.0, shares[::-1].cumsum())  # by threshold, the highest first
    alarms = np.append(0, background[::-1].cumsum(dtype=np.int64))
    recall = area = float("nan")
    if count:
        recall = float(shares[bin:].sum() / count)
    if count and alarms[-1]:
        area = _area(alarms / alarms[-1], found / count)
    return {f"recall/{name}/per_region": recall, f"aupro/{name}/per_region": area}


def _area(rate: np.ndarray, overlap: np.ndarray) -> float:
    """Of the curve through points of rising rate, up to `LARGEST_RATE`; in [0, 1]."""
    kept = rate <= LARGEST_RATE
    end = np.interp(LARGEST_RATE, rate, overlap)
    x, y = np.append(rate[kept], LARGEST_RATE), np.append(overlap[kept], end)
    return float(np.trapezoid(y, x) / LARGEST_RATE)
