"""SegDecNet's training: masks where there are some, image labels everywhere.

For SegDecNet, and for a U-Net with an image head at full resolution.

Source: https://arxiv.org/abs/2104.06064 for the mixed supervision and the distance
weights; https://arxiv.org/abs/2007.07676 for the dynamic balance. The losses of a batch
are summed there (`train.reduction`); a rate that is right for one image is not for 8.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxseg.data.targets import TargetRule, map_of
from jaxseg.errors import InputError
from jaxseg.losses import bce
from jaxseg.tasks.basic import (
    MaskAndImage,
    Segmentation,
    ThresholdRule,
    defect_decision,
)
from jaxseg.types import IGNORE, Array, Batch, Outputs, PerExample


@dataclasses.dataclass(frozen=True)
class SegDec(MaskAndImage):
    """Per image: seg_share * L_seg + dec_share * L_dec.

    L_seg is the mean over the pixels of the map of weight * BCE(map, `seg_target`), and
    0 for an image whose mask is all `IGNORE` (weakly labelled). The map is `seg_map`,
    or `seg_logits` of a network without one, whose ignored pixels are left out; of the
    coarse `seg_map` they are background. L_dec is the BCE of the decision with the
    image's label, or, with `soft_label`, in training and where the mask is known, with
    the largest `seg_target`. Differs: there a weakly labelled image has the soft label
    of the mask that is not used.

    Attributes:
      targets: how masks become `seg_target` and, if weighted, `seg_weight`.
      dynamic: seg_share falls from 1 to 0 and dec_share rises from 0 to delta, epoch
        by epoch; else they are 1 and delta, as in evaluation.
      delta: weight of the decision.
      soft_label: as published. A defect that is small beside a window of 17 x 17 pixels
        then counts as nearly none: 0.1 for 29 pixels.
    """

    targets: TargetRule
    dynamic: bool
    delta: float
    soft_label: bool
    needs = ("seg_logits", "cls_logits")

    def probabilities(self, outputs: Outputs) -> Outputs:
        """Of SegDecNet also `map_probs` [N, H/8, W/8, 1], the map as it is learnt."""
        probs = super().probabilities(outputs)
        if "seg_map" not in outputs:
            return probs
        return {**probs, "map_probs": jax.nn.sigmoid(outputs["seg_map"])}

    def losses(self, outputs: Outputs, batch: Batch) -> PerExample:
        target = _as_share(batch["seg_target"])
        pixels = _soft_bce(outputs[map_of(outputs)][..., 0], target)
        if self.targets.weighted:
            pixels = batch["seg_weight"] * pixels
        counted = batch["mask"] != IGNORE
        segmented = counted.any(axis=(1, 2))
        if counted.shape != pixels.shape:
            counted = jnp.broadcast_to(segmented[:, None, None], pixels.shape)
        num_counted = jnp.maximum(counted.sum(axis=(1, 2)), 1)
        seg_loss = jnp.where(counted, pixels, 0.0).sum(axis=(1, 2)) / num_counted
        label = batch["label"].astype(jnp.float32)
        if self.soft_label and "progress" in batch:
            label = jnp.where(segmented, target.max(axis=(1, 2)), label)
        dec_loss = _soft_bce(outputs["cls_logits"][:, 0], label)
        seg_share, dec_share = self.shares(batch.get("progress"))
        loss = seg_share * seg_loss + dec_share * dec_loss
        return {"loss": loss, "loss_seg": seg_loss, "loss_dec": dec_loss}

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
    soft_label: bool,
    dynamic: bool,
    weighted: bool,
    weight_power: float,
    weight_max: float,
    weight_per_component: bool,
    dilate: int,
    threshold: Literal["max_f1", "min_recall"],
    min_recall: float,
) -> SegDec:
    """SegDecNet's loss; docs/segdecnet.md has the names of its published parameters.

    Raises:
      InputError: more than two classes.
    """
    if len(classes) != 2:
        raise InputError(
            "two classes for config.task.name=segdec: the background and the defect",
            f"{len(classes)} classes",
            "--config.task.name=joint with its keys, or segmentation",
        )
    rule = ThresholdRule(threshold, min_recall)
    return SegDec(
        Segmentation(classes, partial(bce, pos_weight=1.0), rule),
        defect_decision(rule),
        TargetRule(dilate, weight_power, weight_max, weight_per_component, weighted),
        dynamic,
        delta,
        soft_label,
    )


def _as_share(target: Array) -> Array:
    """Full-size targets are bytes, 255 for 1."""
    return target.astype(jnp.float32) / 255 if target.dtype == jnp.uint8 else target


def _soft_bce(logits: Array, target: Array) -> Array:
    """-[g ln p + (1 - g) ln(1 - p)] for g in [0, 1], exact at large logits."""
    return jax.nn.softplus(logits) - target * logits
