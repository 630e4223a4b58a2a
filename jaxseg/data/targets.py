"""What the task segdec learns to segment: soft masks and pixel weights.

Made once per image on the host and a function of the mask alone; as large as the map of
the network, so at 1/8 of the size for SegDecNet and at full size for a U-Net.

Source: https://arxiv.org/abs/2104.06064, the distance-transform weights of its
segmentation loss, and the input pipeline of the authors' published runs. Differs: the
mask is divided into defect and background before it is grown and resized, and resized
as images are here, antialiased.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from jaxseg.data.images import resize_image
from jaxseg.types import Outputs

COARSE, WINDOW = 8, 17
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
      weighted: makes weights at all.
      stride: pixels of the image per pixel of the target, 1 or 8.
    """

    dilate: int
    power: float
    maximum: float
    per_component: bool
    weighted: bool
    stride: int = COARSE

    def for_network(self, outputs: Outputs) -> "TargetRule":
        """With the stride of the map of a network.

        Args:
          outputs: of the network; their shapes will do.
        """
        full, coarse = (outputs[k].shape[1] for k in ("seg_logits", map_of(outputs)))
        return dataclasses.replace(self, stride=full // coarse)


def map_of(outputs: Outputs) -> str:
    """Name of the logits that learn from `seg_target`."""
    return "seg_map" if "seg_map" in outputs else "seg_logits"


def make_targets(
    mask: np.ndarray, size: tuple[int, int], rule: TargetRule
) -> dict[str, np.ndarray]:
    """`seg_target` and, if weighted, `seg_weight`: see `target_fields`.

    Args:
      mask: [h, w] uint8, 1 where there is a defect.
      size: (H, W), multiples of the stride.
    """
    soft = soft_mask(mask, size, rule.dilate)
    targets = {"seg_target": soft if rule.stride == 1 else downsize(soft / 255)}
    if rule.weighted:
        weight = distance_weights(soft, rule)
        targets["seg_weight"] = weight if rule.stride == 1 else downsize(weight)
    return targets


def target_fields(
    size: tuple[int, int], rule: TargetRule
) -> dict[str, tuple[tuple[int, int], type]]:
    """Shape and dtype of the targets of an image of this size.

    Full-size masks are uint8, 255 for 1, exactly what `soft_mask` gives; all else is
    float32. float16 would halve the weights and be wrong by up to 5e-4 of them.
    """
    small = (size[0] // rule.stride, size[1] // rule.stride)
    soft = np.uint8 if rule.stride == 1 else np.float32
    fields = {"seg_target": (small, soft)}
    return fields | ({"seg_weight": (small, np.float32)} if rule.weighted else {})


def soft_mask(mask: np.ndarray, size: tuple[int, int], dilate: int) -> np.ndarray:
    """[H, W] uint8, 255 for 1: grown, then resized bilinearly, so edges are soft."""
    grown = (mask == 1).astype(np.uint8)
    if dilate > 1:
        grown = ndimage.grey_dilation(grown, size=(dilate, dilate))
    return resize_image(255 * grown[..., None], size)[..., 0]


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
    """[H, W] -> [H/8, W/8] float32: means of 17 x 17 windows, 8 apart.

    The first window is centred on the first pixel, so the targets of a mirrored mask
    are no mirrored targets. The edge is mirrored without the edge pixel, as
    PyTorch's ReflectionPad2d.
    """
    means = ndimage.uniform_filter1d(
        values.astype(np.float64), WINDOW, 0, mode="mirror"
    )
    means = ndimage.uniform_filter1d(means[::COARSE], WINDOW, 1, mode="mirror")
    return means[:, ::COARSE].astype(np.float32)
