"""The picture files of a result: mask, probabilities, overlay."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.predict.result import Result
from jaxseg.predict.tiles import Tiles
from jaxseg.report import overlays

BLOCK = 2**24  # pixels that are counted at a time


def save_mask(path: Path, mask: np.ndarray, classes: Sequence[str]) -> None:
    """A PNG of class ids; its palette shows them in colours, the background black."""
    picture = Image.fromarray(mask)
    colors = overlays.class_colors(len(classes))[: len(classes)].copy()
    colors[0] = 0
    picture.putpalette(colors.tobytes())
    picture.save(path)


def save_probabilities(path: Path, levels: np.ndarray) -> None:
    """A 16-bit grey PNG of [H, W] uint16, round(65535 p)."""
    Image.fromarray(levels).save(path)


def save_overlay(path: Path, image: np.ndarray, result: Result, name: str) -> None:
    """What was found on the darkened image, beside it and the scores.

    Args:
      image: [H, W, C] uint8.
      result: with uint16 probabilities.
      name: the first line of the title.
    """
    title = overlays.describe(
        result.score, result.threshold, result.decision, None, None
    )
    title = (name, *title)
    if result.tiles is not None:
        picture = draw_tiles(image, result.tiles, title)
    elif result.mask is None:
        picture = overlays.draw_decision(image, right=None, title=title)
    else:
        factor = math.ceil(max(image.shape[:2]) / overlays.PANEL_MAX)
        if factor > 1:
            height, width = image.shape[:2]
            title += (f"drawn at 1/{factor} of its {height} x {width} pixels",)
        probs = shrink(result.probabilities, factor) / np.float32(65535)
        picture = overlays.draw_overlay(
            reduce(image, factor),
            None,
            overlays.foreground_score(probs),
            shrink(result.mask, factor),
            classes=result.classes,
            title=title,
        )
    picture.save(path, quality=92)


def draw_tiles(image: np.ndarray, tiles: Tiles, title: Sequence[str]) -> Image.Image:
    """The image, and the score of every tile laid over it.

    Args:
      image: [H, W, C] uint8.
      title: lines above.

    Returns:
      RGB picture.
    """
    factor = math.ceil(max(image.shape[:2]) / overlays.PANEL_MAX)
    photo = overlays.to_rgb(reduce(image, factor))
    scores = np.zeros(photo.shape[:2], np.float32)
    rows, columns = (
        np.rint(edges / factor).astype(int) for edges in (tiles.rows, tiles.columns)
    )
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            window = scores[top:bottom, left:right]
            window[:] = np.maximum(window, tiles.scores[i, j])  # where they overlap
    grey = photo.mean(axis=-1, keepdims=True)
    heat = ((grey + overlays.paint_score(scores)) / 2).astype(np.uint8)
    bar = np.tile(overlays.SCORE_COLORS[None, ::4], (12, 1, 1))
    panels = [("image", photo), ("score by tile", heat)]
    panels = [(label, overlays.rescale(pixels)) for label, pixels in panels]
    return overlays.compose(panels, title, [(bar, "score 0 to 1")])


def class_shares(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """[num_classes] float64: share of the pixels of each class."""
    rows = max(BLOCK // mask.shape[1], 1)
    counts = sum(
        np.bincount(mask[top : top + rows].ravel(), minlength=num_classes)
        for top in range(0, len(mask), rows)
    )
    return counts / mask.size


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The largest value of blocks of [H, W] or [H, W, K]: thin lines stay."""
    if factor == 1:
        return pixels
    height, width, *rest = pixels.shape
    lacking = [(0, -height % factor), (0, -width % factor), *[(0, 0)] * len(rest)]
    padded = np.pad(pixels, lacking, mode="edge")
    blocks = padded.reshape(-(-height // factor), factor, -1, factor, *rest)
    return blocks.max(axis=(1, 3))


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks."""
    if factor == 1:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    reduced = np.asarray(picture.reduce(factor))
    return reduced.reshape(*reduced.shape[:2], image.shape[-1])
