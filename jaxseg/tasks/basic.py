"""Classification, segmentation, and both at once with the losses of the config."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import metrics
from jaxseg.data.targets import TargetRule
from jaxseg.losses import bce
from jaxseg.thresholds import (
    NUM_BINS,
    Threshold,
    choose_image_threshold,
    choose_pixel_threshold,
)
from jaxseg.types import IGNORE, Array, Batch, Outputs, PerExample

Loss = Callable[[Array, Array], Array]
Counts = Mapping[str, np.ndarray]
Thresholds = dict[str, Threshold]


class Task(Protocol):
    """The methods that the steps, the loop and the reports call.

    Attributes:
      classes: names by class id.
      needs: names of the outputs that it learns from.
      targets: how masks become further targets; None needs no more than masks.
      headline: metrics of the log line, the most telling first.
    """

    classes: tuple[str, ...]
    needs: tuple[str, ...]
    targets: TargetRule | None
    headline: tuple[str, ...]

    def losses(self, outputs: Outputs, batch: Batch) -> PerExample:
        """`loss` and, to be watched, its parts before their weights, [N] float32 each.

        Names of parts begin with 'loss_'.
        """

    def counts(self, outputs: Outputs, batch: Batch) -> PerExample:
        """Per-example counts and scores, each [N, ...]."""

    def probabilities(self, outputs: Outputs) -> Outputs:
        """`mask_probs` [N, H, W, K] and/or `image_probs` [N, K], in [0, 1]."""

    def choose_thresholds(self, counts: Counts) -> Thresholds:
        """'image' and/or 'mask'; {} where the largest probability decides."""

    def summarize(self, counts: Counts, thresholds: Thresholds) -> dict[str, float]:
        """Metric name -> value."""

    def rows(self, counts: Counts, thresholds: Thresholds) -> dict[str, np.ndarray]:
        """Columns of results.csv, one value per image."""

    def confusion(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        """[K, K] pixels or images over the whole set; rows are the true classes."""


@dataclasses.dataclass(frozen=True)
class ThresholdRule:
    """How a validation set chooses its threshold."""

    threshold: str
    min_recall: float


@dataclasses.dataclass(frozen=True)
class Classification:
    """`cls_logits` against `label`, or against two labels of a mixed image."""

    classes: tuple[str, ...]
    image_loss: Loss
    rule: ThresholdRule
    needs = ("cls_logits",)
    targets = None

    @property
    def headline(self) -> tuple[str, ...]:
        binary = ("auc", "f1", "precision", "recall")
        return binary if _is_binary(self.classes) else ("accuracy", "f1/macro")

    def losses(self, outputs: Outputs, batch: Batch) -> PerExample:
        logits = outputs["cls_logits"]
        loss = self.image_loss(logits, batch["label"])
        if "label_share" in batch:
            share, other = batch["label_share"], batch["other_label"]
            loss = share * loss + (1 - share) * self.image_loss(logits, other)
        return {"loss": loss}

    def probabilities(self, outputs: Outputs) -> Outputs:
        return {"image_probs": _probabilities(outputs["cls_logits"])}

    def counts(self, outputs: Outputs, batch: Batch) -> PerExample:
        probs = _probabilities(outputs["cls_logits"])
        return {"image_probs": probs, "label": batch["label"]}

    def choose_thresholds(self, counts: Counts) -> Thresholds:
        if not _is_binary(self.classes):
            return {}
        scores = counts["image_probs"][:, 0]
        chosen = choose_image_threshold(
            scores,
            counts["label"],
            rule=self.rule.threshold,
            min_recall=self.rule.min_recall,
        )
        return {"image": chosen}

    def summarize(self, counts: Counts, thresholds: Thresholds) -> dict[str, float]:
        if "image" in thresholds:
            scores = counts["image_probs"][:, 0]
            return metrics.image_summary(
                scores, counts["label"], thresholds["image"].value
            )
        return metrics.class_summary(self.confusion(counts, thresholds), self.classes)

    def rows(self, counts: Counts, thresholds: Thresholds) -> dict[str, np.ndarray]:
        return {
            "prediction": counts["image_probs"].max(1),
            "decision": self._decisions(counts, thresholds),
            "ground_truth": counts["label"],
        }

    def confusion(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        table = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(table, (counts["label"], self._decisions(counts, thresholds)), 1)
        return table

    def _decisions(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        probs = counts["image_probs"]
        if "image" not in thresholds:
            return probs.argmax(1)
        scores = probs[:, 0].astype(np.float64)  # as `metrics.image_summary` compares
        return (scores >= thresholds["image"].value).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """`seg_logits` against `mask`; images without a mask come in as all `IGNORE`."""

    classes: tuple[str, ...]
    mask_loss: Loss
    rule: ThresholdRule
    needs = ("seg_logits",)
    targets = None

    @property
    def headline(self) -> tuple[str, ...]:
        if not _is_binary(self.classes):
            return ("iou/mean/pooled", "pixel_accuracy")
        name = self.classes[1]
        return (f"iou/{name}/pooled", f"dice/{name}/pooled", "false_alarm_rate")

    def losses(self, outputs: Outputs, batch: Batch) -> PerExample:
        return {"loss": self.mask_loss(outputs["seg_logits"], batch["mask"])}

    def probabilities(self, outputs: Outputs) -> Outputs:
        return {"mask_probs": _probabilities(outputs["seg_logits"])}

    def counts(self, outputs: Outputs, batch: Batch) -> PerExample:
        probs, mask = _probabilities(outputs["seg_logits"]), batch["mask"]
        counts = {"soft_sums": metrics.soft_sums(probs, mask)}
        if _is_binary(self.classes):
            histogram = metrics.score_histogram(probs[..., 0], mask, NUM_BINS)
            return counts | {"histogram": histogram}
        table = metrics.confusion(probs.argmax(-1), mask, len(self.classes))
        foreground = jnp.where(mask == IGNORE, 0.0, 1.0 - probs[..., 0])
        return counts | {"confusion": table, "score": foreground.max(axis=(1, 2))}

    def choose_thresholds(self, counts: Counts) -> Thresholds:
        if not _is_binary(self.classes):
            return {}
        chosen = choose_pixel_threshold(
            counts["histogram"],
            rule=self.rule.threshold,
            min_recall=self.rule.min_recall,
        )
        return {"mask": chosen}

    def summarize(self, counts: Counts, thresholds: Thresholds) -> dict[str, float]:
        confusions = self._confusions(counts, thresholds)
        counted = confusions.any(axis=(1, 2))
        summary = metrics.pixel_summary(confusions, self.classes)
        summary |= metrics.soft_summary(counts["soft_sums"], counted, self.classes)
        if "mask" not in thresholds:
            return summary
        histogram = counts["histogram"][counted]
        has_any = confusions[counted, 1].sum(axis=1) > 0
        found = metrics.image_summary(
            _highest_score(histogram), has_any.astype(int), thresholds["mask"].value
        )
        return summary | metrics.histogram_summary(histogram, self.classes) | found

    def rows(self, counts: Counts, thresholds: Thresholds) -> dict[str, np.ndarray]:
        confusions = self._confusions(counts, thresholds)
        truth, claimed = confusions.sum(2), confusions.sum(1)  # [N, K]
        columns = {
            "decision": (claimed[:, 1:].sum(1) > 0).astype(np.int64),
            "ground_truth": (truth[:, 1:].sum(1) > 0).astype(np.int64),
        }
        score = (
            _highest_score(counts["histogram"])
            if "mask" in thresholds
            else counts["score"]
        )
        columns = {"prediction": score, **columns}
        return columns | metrics.image_columns(confusions, self.classes)

    def confusion(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        return self._confusions(counts, thresholds).sum(0)

    def _confusions(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        if "mask" not in thresholds:
            return counts["confusion"].astype(np.int64)
        first_bin = round(thresholds["mask"].value * NUM_BINS)
        return metrics.confusion_at(counts["histogram"], first_bin)


@dataclasses.dataclass(frozen=True)
class MaskAndImage:
    """One segmentation and one binary decision per image; subclasses add the loss."""

    segmentation: Segmentation
    decision: Classification

    @property
    def classes(self) -> tuple[str, ...]:
        return self.segmentation.classes

    @property
    def headline(self) -> tuple[str, ...]:
        return self.segmentation.headline[:2] + self.decision.headline[:2]

    def probabilities(self, outputs: Outputs) -> Outputs:
        return self.segmentation.probabilities(outputs) | self.decision.probabilities(
            outputs
        )

    def counts(self, outputs: Outputs, batch: Batch) -> PerExample:
        return self.segmentation.counts(outputs, batch) | self.decision.counts(
            outputs, batch
        )

    def choose_thresholds(self, counts: Counts) -> Thresholds:
        return self.segmentation.choose_thresholds(
            counts
        ) | self.decision.choose_thresholds(counts)

    def summarize(self, counts: Counts, thresholds: Thresholds) -> dict[str, float]:
        return self.segmentation.summarize(
            counts, thresholds
        ) | self.decision.summarize(counts, thresholds)

    def rows(self, counts: Counts, thresholds: Thresholds) -> dict[str, np.ndarray]:
        return self.segmentation.rows(counts, thresholds) | self.decision.rows(
            counts, thresholds
        )

    def confusion(self, counts: Counts, thresholds: Thresholds) -> np.ndarray:
        return self.segmentation.confusion(counts, thresholds)


@dataclasses.dataclass(frozen=True)
class Joint(MaskAndImage):
    """The losses of mask and image, added with weights."""

    mask_weight: float
    image_weight: float
    needs = ("seg_logits", "cls_logits")
    targets = None

    def losses(self, outputs: Outputs, batch: Batch) -> PerExample:
        of_mask = self.segmentation.losses(outputs, batch)["loss"]
        of_image = self.decision.losses(outputs, batch)["loss"]
        loss = self.mask_weight * of_mask + self.image_weight * of_image
        return {"loss": loss, "loss_mask": of_mask, "loss_image": of_image}


def classification(
    classes: tuple[str, ...],
    loss: Loss,
    *,
    threshold: Literal["max_f1", "min_recall"],
    min_recall: float,
) -> Classification:
    """Image classes; the config's losses compare `cls_logits` with labels."""
    return Classification(classes, loss, ThresholdRule(threshold, min_recall))


def segmentation(
    classes: tuple[str, ...],
    loss: Loss,
    *,
    threshold: Literal["max_f1", "min_recall"],
    min_recall: float,
) -> Segmentation:
    """Pixel classes; the config's losses compare `seg_logits` with masks."""
    return Segmentation(classes, loss, ThresholdRule(threshold, min_recall))


def joint(
    classes: tuple[str, ...],
    loss: Loss,
    *,
    mask_weight: float,
    image_weight: float,
    threshold: Literal["max_f1", "min_recall"],
    min_recall: float,
) -> Joint:
    """Masks with the config's losses, and 'any foreground' per image with plain BCE."""
    rule = ThresholdRule(threshold, min_recall)
    masks = Segmentation(classes, loss, rule)
    return Joint(masks, defect_decision(rule), mask_weight, image_weight)


def defect_decision(rule: ThresholdRule) -> Classification:
    """Any foreground or none, with plain BCE."""
    return Classification(("clean", "defect"), partial(bce, pos_weight=1.0), rule)


def num_outputs(classes: tuple[str, ...]) -> int:
    """Logits per pixel or image: one for two classes."""
    return 1 if _is_binary(classes) else len(classes)


def _is_binary(classes: tuple[str, ...]) -> bool:
    return len(classes) == 2


def _probabilities(logits: Array) -> Array:
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def _highest_score(histogram: np.ndarray) -> np.ndarray:
    """Lower edge of the highest bin that any pixel of the image fell in, [N]."""
    filled = histogram.sum(1) > 0  # [N, bins]
    highest = filled.shape[1] - 1 - filled[:, ::-1].argmax(1)
    return np.where(filled.any(1), highest, 0) / filled.shape[1]
