"""What SegDecNet makes of an image, as its authors draw it.

Image, ground truth, the weights that its loss gives to pixels, the network's output as
it is, the same blurred and rescaled, and the result.

Source: https://github.com/vicoslab/mixed-segdec-net-comind2021, the pictures of its
test outputs. Differs: weights have a panel of their own, there they take the place of
the ground truth; 'turbo' takes that of 'jet', whose bright bands look like edges
(https://research.google/blog/turbo-an-improved-rainbow-colormap-for-visualization/); a
landscape image is not turned upright, its panels are stacked; the factor of the
rescaling is written down; the result is added. Of a large part the worst images and
some others are drawn, there all.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxseg.report.overlays import (
    SCORE_COLORS,
    class_colors,
    compose,
    paint_result,
    paint_score,
    rescale,
    to_rgb,
)

BLUR = 32  # pixels, the side of the box
TURBO = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).round()
TURBO = TURBO.astype(np.uint8)  # [256, 3]


def draw_panels(
    image: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray | None,
    output: np.ndarray,
    decision: np.ndarray,
    *,
    max_weight: float,
    score: float,
    title: Sequence[str],
) -> Image.Image:
    """The panels of an image side by side, wide ones stacked, with a legend.

    Args:
      image: [H, W, C] uint8, C = 1, 3 or 4.
      truth: [H, W] in {0, 1, IGNORE}.
      weight: [h, w] of the pixels in the loss; None without any. H and W are multiples
        of h and w: each value is drawn as the square of pixels that it stands for.
      output: [h, w] in [0, 1], on one fixed scale for all images.
      decision: [H, W] in {0, 1}.
      max_weight: the end of the scale of the weights.
      score: of the image, above the output.
      title: lines above the panels.

    Returns:
      RGB picture.
    """
    photo = to_rgb(image)
    panels = {"image": photo, "ground truth": class_colors(2)[truth.astype(np.uint8)]}
    if weight is not None:
        panels["loss weight"] = enlarge(paint_score(weight / max_weight), truth.shape)
    large = enlarge(output, truth.shape)
    panels[f"output: {score:.5f}"] = paint(large)
    blurred, largest = blur(large)
    panels[f"blurred, red = {largest:.3f}"] = paint(blurred)
    panels["result"], legend = paint_result(photo, truth, decision)
    scales = [(_swatch(TURBO), "output 0 to 1")]
    if weight is not None:
        scales.append((_swatch(SCORE_COLORS), f"weight 0 to {max_weight:g}"))
    enlarged = [(label, rescale(pixels)) for label, pixels in panels.items()]
    return compose(enlarged, title, [*scales, *legend])


def blur(output: np.ndarray) -> tuple[np.ndarray, float]:
    """Means of 32 x 32 boxes, edges mirrored, divided by the largest; that one.

    Nothing stays nothing.
    """
    means = ndimage.uniform_filter(output.astype(np.float64), BLUR, mode="mirror")
    largest = float(means.max())
    return means / largest if largest > 0 else means, largest


def paint(values: np.ndarray) -> np.ndarray:
    """[..., 3] uint8 of values in [0, 1]."""
    return TURBO[(255 * values.clip(0, 1)).round().astype(np.uint8)]


def _swatch(colors: np.ndarray) -> np.ndarray:
    """[12, 64, 3] of a scale of 256 colours."""
    return np.tile(colors[None, ::4], (12, 1, 1))


def enlarge(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[H, W, ...] of [h, w, ...]: each pixel has the nearest value, nothing is blended.

    Value k lies on pixel k H / h, where `data.targets.downsize` has the middle of its
    window; the first one is drawn half as wide as the others, the last one wider.
    """
    for axis, side in enumerate(shape):
        stride = side // values.shape[axis]
        nearest = (np.arange(side) + stride // 2) // stride
        values = values.take(nearest.clip(max=values.shape[axis] - 1), axis)
    return values
