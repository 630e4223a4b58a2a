"""What SegDecNet learns to segment: soft masks and pixel weights at 1/8 of the size.

Made once per image on the host and a function of the mask alone.

Source: https://arxiv.org/abs/2104.06064, the distance-transform weights of its
segmentation loss, and the input pipeline of the authors' published runs. Differs: the
mask is resized as images are here, antialiased.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from jaxseg.data.images import resize_image

STRIDE, WINDOW = 8, 17
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclasses.dataclass(frozen=True)
class TargetRule:
    """How a mask becomes a target.

    Attributes:
      dilate: side in pixels of the square that grows the mask before it is resized; 1
        leaves it.
      power: of the distance to the edge of a defect.
      maximum: weight at its middle; the background has weight 1.
      per_component: every connected defect reaches the maximum, not only the widest.
    """

    dilate: int
    power: float
    maximum: float
    per_component: bool


def make_targets(
    mask: np.ndarray, size: tuple[int, int], rule: TargetRule
) -> dict[str, np.ndarray]:
    """`seg_target` in [0, 1] and `seg_weight`, both [H/8, W/8] float32.

    Args:
      mask: [h, w] uint8, 1 where there is a defect.
      size: (H, W), multiples of 8.
    """
    soft = soft_mask(mask, size, rule.dilate)
    weight = distance_weights(soft, rule)
    return {"seg_target": downsize(soft), "seg_weight": downsize(weight)}


def target_fields(size: tuple[int, int]) -> dict[str, tuple[tuple[int, int], type]]:
    """Shape and dtype of the targets of an image of this size."""
    small = (size[0] // STRIDE, size[1] // STRIDE)
    return {"seg_target": (small, np.float32), "seg_weight": (small, np.float32)}


def soft_mask(mask: np.ndarray, size: tuple[int, int], dilate: int) -> np.ndarray:
    """[H, W] float32 in [0, 1]: grown, then resized bilinearly, so edges are soft."""
    grown = (mask == 1).astype(np.uint8)
    if dilate > 1:
        grown = ndimage.grey_dilation(grown, size=(dilate, dilate))
    resized = resize_image(255 * grown[..., None], size)[..., 0]
    return resized.astype(np.float32) / 255


def distance_weights(soft: np.ndarray, rule: TargetRule) -> np.ndarray:
    """[H, W] float32: maximum * (D / max D)^power inside of a defect, 1 outside.

    D is the Euclidean distance to the nearest pixel that is 0. So the middle of a
    defect weighs `maximum` and its edge next to nothing.
    """
    inside = soft > 0
    if not inside.any() or inside.all():
        return np.full(soft.shape, rule.maximum if inside.any() else 1.0, np.float32)
    distance = ndimage.distance_transform_edt(inside)
    largest = distance.max()
    if rule.per_component:
        labels, count = ndimage.label(inside, EIGHT_NEIGHBOURS)
        of_label = ndimage.maximum(distance, labels, np.arange(count + 1))
        largest = np.maximum(of_label, 1)[labels]  # 1 only outside
    weight = rule.maximum * (distance / largest) ** rule.power
    return np.where(inside, weight, 1.0).astype(np.float32)


def downsize(values: np.ndarray) -> np.ndarray:
    """[H, W] -> [H/8, W/8] float32: means of 17 x 17 windows, 8 apart, mirrored edges.

    The first window is centred on the first pixel. Mirrored without the edge pixel, as
    PyTorch's ReflectionPad2d.
    """
    means = ndimage.uniform_filter1d(
        values.astype(np.float64), WINDOW, 0, mode="mirror"
    )
    means = ndimage.uniform_filter1d(means[::STRIDE], WINDOW, 1, mode="mirror")
    return means[:, ::STRIDE].astype(np.float32)
