"""SegDecNet's training: masks where there are some, image labels everywhere.

Source: https://arxiv.org/abs/2104.06064 for the mixed supervision and the distance
weights; https://arxiv.org/abs/2007.07676 for the dynamic balance.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxseg.data.targets import TargetRule
from jaxseg.losses import bce
from jaxseg.tasks.basic import (
    MaskAndImage,
    Segmentation,
    ThresholdRule,
    defect_decision,
)
from jaxseg.types import IGNORE, Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class SegDec(MaskAndImage):
    """Per image: seg_share * L_seg + dec_share * L_dec.

    L_seg is the mean over the coarse pixels of weight * BCE(`seg_map`, `seg_target`),
    and 0 for an image whose mask is all `IGNORE` (weakly labelled). L_dec is the BCE of
    the decision with the largest `seg_target`, a soft label in training, or with the
    image's label where the mask is not known, and in evaluation. Differs: there a
    weakly labelled image has the soft label of the mask that is not used.

    Attributes:
      targets: how masks become `seg_target` and `seg_weight`.
      weighted: by `seg_weight`.
      dynamic: seg_share falls from 1 to 0 and dec_share rises from 0 to delta, epoch
        by epoch; else they are 1 and delta, as in evaluation.
      delta: weight of the decision.
    """

    targets: TargetRule
    weighted: bool
    dynamic: bool
    delta: float
    needs = ("seg_map", "seg_logits", "cls_logits")

    def loss(self, outputs: Outputs, batch: Batch) -> Array:
        target = batch["seg_target"]
        pixels = _soft_bce(outputs["seg_map"][..., 0], target)
        if self.weighted:
            pixels = batch["seg_weight"] * pixels
        segmented = (batch["mask"] != IGNORE).any(axis=(1, 2))
        seg_loss = jnp.where(segmented, pixels.mean(axis=(1, 2)), 0.0)
        label = batch["label"].astype(jnp.float32)
        if "progress" in batch:
            label = jnp.where(segmented, target.max(axis=(1, 2)), label)
        dec_loss = _soft_bce(outputs["cls_logits"][:, 0], label)
        seg_share, dec_share = self.shares(batch.get("progress"))
        return seg_share * seg_loss + dec_share * dec_loss

    def shares(self, progress: Array | None) -> tuple[Array | float, Array | float]:
        """Weights of segmentation and decision.

        Args:
          progress: share of the epochs that are done, None in evaluation.
        """
        if progress is None or not self.dynamic:
            return 1.0, self.delta
        return 1.0 - progress, self.delta * progress


def segdec(
    classes: tuple[str, ...],
    *,
    delta: float,
    dynamic: bool,
    weighted: bool,
    weight_power: float,
    weight_max: float,
    weight_per_component: bool,
    dilate: int,
    threshold: Literal["max_f1", "min_recall"],
    min_recall: float,
) -> SegDec:
    """SegDecNet's loss; its parameters DELTA_CLS_LOSS, DYN_BALANCED_LOSS,
    WEIGHTED_SEG_LOSS with _P and _MAX, and DILATE."""
    rule = ThresholdRule(threshold, min_recall)
    return SegDec(
        Segmentation(classes, partial(bce, pos_weight=1.0), rule),
        defect_decision(rule),
        TargetRule(dilate, weight_power, weight_max, weight_per_component),
        weighted,
        dynamic,
        delta,
    )


def _soft_bce(logits: Array, target: Array) -> Array:
    """-[g ln p + (1 - g) ln(1 - p)] for g in [0, 1], exact at large logits."""
    return jax.nn.softplus(logits) - target * logits
