"""Metrics: integer counts per example on the device, summaries in float64 on the host.

Device functions return one row per example; the rows of an evaluation set are
concatenated, so no value depends on how the set was cut into batches or spread over
devices. `IGNORE` pixels count nowhere. Host functions take NumPy arrays:

    histogram: [N, 2, B] integer, of `score_histogram`
    confusions: [N, K, K] integer, of `confusion` or `confusion_at`
    classes: K names, the background first; K = 2 is a binary set
    scores, labels: [N] float without NaN, [N] integer in {0, 1}; else ValueError

Key `<metric>/<class>/pooled`: counts are summed over the set; `.../per_image`: the mean
over images with a counted pixel. With tp, fp, fn the pixels of a class,

    iou = tp / (tp + fp + fn)         precision = tp / (tp + fp)
    dice = 2 tp / (2 tp + fp + fn)    recall = tp / (tp + fn)

Values where a denominator is 0, and their neighbours (f1 of image labels is dice):

| truth    | prediction | per_image: iou dice precision recall | pooled: the same    |
|----------|------------|--------------------------------------|---------------------|
| empty    | empty      | 1 1 1 1 (nothing to find or claim)   | nan nan nan nan     |
| empty    | one pixel  | 0 0 0 1 (nothing was missed)         | 0 0 0 nan           |
| k pixels | empty      | 0 0 0 0                              | 0 0 0 0             |
| all      | all        | 1 1 1 1                              | 1 1 1 1             |

nan means "this set cannot tell". Source: our own rules; curves and areas as in
https://scikit-learn.org/stable/modules/model_evaluation.html.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array

Summary = dict[str, float]
Columns = dict[str, np.ndarray]
Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, thresholds


def _count_rows(index: Array, length: int) -> Array:
    """Occurrences of 0..length-1 in each row of index [N, ...]; `length` is dropped."""
    zeros = jnp.zeros(length, jnp.int32)  # of one row: devices need not communicate
    return jax.vmap(lambda row: zeros.at[row].add(1, mode="drop"))(index)


def score_histogram(probs: Array, mask: Array, num_bins: int = 256) -> Array:
    """Counts pixels by score, apart for background and foreground, per image.

    A score p falls in bin floor(p * num_bins), p = 1 in the last, NaN in bin 0. With a
    power of two the product is exact, so p >= b / num_bins is just "bin >= b".

    Args:
      probs: [N, ...] float in [0, 1].
      mask: [N, ...] int32 in {0, 1, IGNORE}.
      num_bins: static, a power of two.

    Returns:
      [N, 2, num_bins] int32; [:, 0] counts true background, [:, 1] true foreground.

    >>> score_histogram(jnp.array([[0.2, 0.5, 1]]), jnp.array([[0, 1, 1]]), 2).tolist()
    [[[1, 0], [0, 2]]]
    """
    if num_bins < 1 or num_bins & (num_bins - 1):
        raise ValueError(f"num_bins must be a power of two, not {num_bins}")
    probs = jnp.where(probs >= 0, probs, 0.0).astype(jnp.float32)  # NaN too
    bins = jnp.minimum((probs * num_bins).astype(jnp.int32), num_bins - 1)
    index = mask.astype(jnp.int32) * num_bins + bins
    index = jnp.where(mask == IGNORE, 2 * num_bins, index)
    return _count_rows(index, 2 * num_bins).reshape(-1, 2, num_bins)


def confusion(prediction: Array, mask: Array, num_classes: int) -> Array:
    """Counts pixels by true and predicted class, per image.

    Args:
      prediction: [N, ...] integer or bool in {0..K-1}.
      mask: [N, ...] int32 in {0..K-1, IGNORE}.
      num_classes: static, K >= 2; 2 for binary.

    Returns:
      [N, K, K] int32; rows are the true class, columns the predicted class.

    >>> confusion(jnp.array([[0, 1, 1]]), jnp.array([[0, 0, IGNORE]]), 2).tolist()
    [[[1, 1], [0, 0]]]
    """
    cells = num_classes * num_classes
    index = mask.astype(jnp.int32) * num_classes + prediction.astype(jnp.int32)
    index = jnp.where(mask == IGNORE, cells, index)
    return _count_rows(index, cells).reshape(-1, num_classes, num_classes)


def confusion_at(histogram: np.ndarray, bin: int) -> np.ndarray:
    """Confusions [N, 2, 2] int64 of the decision score >= bin / B, bin in 0..B.

    >>> confusion_at(np.array([[[1, 0], [0, 2]]]), 1).tolist()
    [[[1, 0], [0, 2]]]
    """
    below = histogram[..., :bin].sum(axis=-1, dtype=np.int64)
    above = histogram[..., bin:].sum(axis=-1, dtype=np.int64)
    return np.stack([below, above], axis=-1)


def _divide(numerator, denominator, empty=np.nan) -> np.ndarray:
    """float64 quotient, `empty` where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.true_divide(numerator, denominator)
    return np.where(np.equal(denominator, 0), empty, quotient)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _class_scores(confusions: np.ndarray) -> Columns:
    """Pooled metrics of the module's table, [..., K], of confusions [..., K, K]."""
    tp = np.diagonal(confusions, axis1=-2, axis2=-1)
    fp, fn = confusions.sum(axis=-2) - tp, confusions.sum(axis=-1) - tp
    return {
        "iou": _divide(tp, tp + fp + fn),
        "dice": _divide(2 * tp, 2 * tp + fp + fn),
        "precision": _divide(tp, tp + fp, empty=np.where(fn > 0, 0.0, np.nan)),
        "recall": _divide(tp, tp + fn),
    }


def _named_scores(confusions: np.ndarray, classes: Sequence[str]) -> Columns:
    """`<metric>/<class>` -> [...]; only the foreground class of a binary set."""
    reported = (1,) if len(classes) == 2 else range(len(classes))
    scores = _class_scores(confusions).items()
    return {f"{key}/{classes[k]}": of[..., k] for key, of in scores for k in reported}


def image_columns(confusions: np.ndarray, classes: Sequence[str]) -> Columns:
    """`<metric>/<class>` of each image, [N] float64, by the per_image empty rule.

    For iou, dice, precision, recall and all classes, in a binary set the foreground;
    nan where every pixel is ignored.

    >>> image_columns(np.array([[[2, 1], [0, 1]]]), ("wall", "dot"))["iou/dot"].tolist()
    [0.5]
    """
    confusions = np.asarray(confusions, np.int64)
    nothing = np.where(confusions.any(axis=(1, 2)), 1.0, np.nan)
    scores = _named_scores(confusions, classes).items()
    return {key: np.where(np.isnan(of), nothing, of) for key, of in scores}


def pixel_summary(confusions: np.ndarray, classes: Sequence[str]) -> Summary:
    """Pixel metrics of an evaluation set; empty rules in the table of the module.

    - `<column>/pooled` and `<column>/per_image` for those of `image_columns`.
    - `iou/mean/pooled` for K > 2: mean over the classes that the truth contains.
    - `pixel_accuracy`; `background_accuracy`, that of predicting class 0 everywhere.
    - `false_alarm_rate`: share of images without foreground in the truth on which at
      least one pixel is predicted foreground; nan without such images.

    Images whose every pixel is ignored are left out. Values are in [0, 1] or nan.

    >>> pixel_summary(np.array([[[2, 1], [0, 1]]]), ("wall", "dot"))["iou/dot/pooled"]
    0.5
    """
    confusions = np.asarray(confusions, np.int64)
    confusions = confusions[confusions.any(axis=(1, 2))]
    total = confusions.sum(axis=0)
    pooled = _named_scores(total, classes)
    images = image_columns(confusions, classes)
    summary = {f"{key}/pooled": float(score) for key, score in pooled.items()}
    summary |= {f"{key}/per_image": _mean(scores) for key, scores in images.items()}
    if len(classes) > 2:
        present = total.sum(axis=1) > 0
        summary["iou/mean/pooled"] = _mean(_class_scores(total)["iou"][present])
    summary["pixel_accuracy"] = float(_divide(np.trace(total), total.sum()))
    summary["background_accuracy"] = float(_divide(total[0].sum(), total.sum()))
    clean = confusions[confusions[:, 1:].sum(axis=(1, 2)) == 0]
    summary["false_alarm_rate"] = _mean(clean[:, 0, 1:].sum(axis=1) > 0)
    return summary


def never_predicted(confusions: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Classes that the truth contains and no pixel was ever predicted to be.

    >>> never_predicted(np.array([[[3, 0], [1, 0]]]), ("wall", "crack"))
    ['crack']
    """
    total = np.asarray(confusions).sum(axis=0, dtype=np.int64)
    missed = (total.sum(axis=1) > 0) & (total.sum(axis=0) == 0)
    return [name for name, is_missed in zip(classes, missed, strict=True) if is_missed]


class Tally(NamedTuple):
    """How many examples of class 0 and of class 1 have each score; arrays [T]."""

    values: np.ndarray  # float64, distinct, ascending
    negatives: np.ndarray  # int64
    positives: np.ndarray  # int64

    def at_least(self) -> tuple[np.ndarray, np.ndarray]:
        """(fp, tp) of the decisions score >= values[i], each [T] int64."""
        fp, tp = self.negatives[::-1].cumsum(), self.positives[::-1].cumsum()
        return fp[::-1], tp[::-1]

    def has_both_classes(self) -> bool:
        return bool(self.negatives.any() and self.positives.any())


def tally_scores(scores: np.ndarray, labels: np.ndarray) -> Tally:
    """Tally of exact scores.

    >>> tally_scores(np.array([0.5, 0.2, 0.5]), np.array([1, 0, 0])).negatives.tolist()
    [1, 1]
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} do not fit labels {labels.shape}")
    if np.isnan(scores).any() or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"scores {scores} may not be NaN, labels {labels} be 0 or 1")
    values, inverse = np.unique(scores, return_inverse=True)
    bins = (np.bincount(inverse[labels == k], minlength=len(values)) for k in (0, 1))
    return Tally(values, *bins)


def tally_histogram(histogram: np.ndarray) -> Tally:
    """Tally of a set's pixels, each scored by the lower edge of its bin.

    >>> tally_histogram(np.array([[[1, 0], [0, 2]]])).values.tolist()
    [0.0, 0.5]
    """
    negatives, positives = np.asarray(histogram).sum(axis=0, dtype=np.int64)
    filled = np.flatnonzero(negatives + positives)
    return Tally(filled / len(negatives), negatives[filled], positives[filled])


def precision_recall_curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """(recall [T+1], precision [T+1], thresholds [T]) over the distinct scores.

    Thresholds ascend; the last point is recall 0, precision 1. Without positives all
    other recalls are nan. Differs: scikit-learn returns precision first.

    >>> precision_recall_curve(np.array([0.25, 0.5]), np.array([0, 1]))[1].tolist()
    [0.5, 1.0, 1.0]
    """
    return _precision_recall(tally_scores(scores, labels))


def pixel_curve(histogram: np.ndarray) -> Curve:
    """(recall, precision, thresholds) as above, of all pixels pooled, over filled bins.

    >>> pixel_curve(np.array([[[1, 0], [0, 2]]]))[2].tolist()
    [0.0, 0.5]
    """
    return _precision_recall(tally_histogram(histogram))


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """(false positive rate, true positive rate, thresholds), each [T+1].

    From (0, 0) at infinity to (1, 1) at the lowest score; nan without examples.

    >>> roc_curve(np.array([0.25, 0.5]), np.array([0, 1]))[1].tolist()
    [0.0, 1.0, 1.0]
    """
    tally = tally_scores(scores, labels)
    fp, tp = (np.append(0, counts[::-1]) for counts in tally.at_least())
    thresholds = np.append(np.inf, tally.values[::-1])
    return _divide(fp, fp[-1]), _divide(tp, tp[-1]), thresholds


def _precision_recall(tally: Tally) -> Curve:
    fp, tp = tally.at_least()
    recall = _divide(tp, tally.positives.sum())
    return np.append(recall, 0.0), np.append(_divide(tp, tp + fp), 1.0), tally.values


def _areas(tally: Tally) -> Summary:
    """auc, ap, ap_trapezoid; nan where only one class is present."""
    if not tally.has_both_classes():
        return dict.fromkeys(("auc", "ap", "ap_trapezoid"), float("nan"))
    recall, precision, _ = _precision_recall(tally)
    fp, tp = tally.at_least()
    ordered = tally.negatives @ (tp - tally.positives / 2)  # pairs, ties count half
    return {
        "auc": float(ordered / (int(fp[0]) * int(tp[0]))),
        "ap": float(-np.sum(np.diff(recall) * precision[:-1])),
        "ap_trapezoid": float(-np.trapezoid(precision, recall)),
    }


def histogram_summary(histogram: np.ndarray, classes: Sequence[str]) -> Summary:
    """`ap/<class>/pooled`: step-wise average precision of a binary set's pixels.

    >>> histogram_summary(np.array([[[1, 0], [0, 2]]]), ("wall", "crack"))
    {'ap/crack/pooled': 1.0}
    """
    return {f"ap/{classes[1]}/pooled": _areas(tally_histogram(histogram))["ap"]}


def image_summary(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Summary:
    """Image-level metrics of the decision score >= threshold, and areas under curves.

    accuracy, precision, recall, f1 and tp, fp, fn, tn; `majority_accuracy`, that of
    always deciding for the more frequent class; `auc` of the ROC; `ap`, the step-wise
    Σ (R_i - R_{i+1}) P_i; `ap_trapezoid`, with straight lines between the same points,
    as skokec/segdec-net-jim2019 has it. Areas are nan if only one class is present.

    >>> image_summary(np.array([0.25, 0.5]), np.array([0, 1]), 0.5)["f1"]
    1.0
    """
    tally = tally_scores(scores, labels)
    decided = tally.values >= threshold
    tp, fn = (int(tally.positives[kept].sum()) for kept in (decided, ~decided))
    fp, tn = (int(tally.negatives[kept].sum()) for kept in (decided, ~decided))
    table, count = _class_scores(np.array([[tn, fp], [fn, tp]])), tp + fp + fn + tn
    return {
        "accuracy": float(_divide(tp + tn, count)),
        "majority_accuracy": float(_divide(max(tp + fn, fp + tn), count)),
        "precision": float(table["precision"][1]),
        "recall": float(table["recall"][1]),
        "f1": float(table["dice"][1]),
        **dict(tp=tp, fp=fp, fn=fn, tn=tn),
        **_areas(tally),
    }


def mode_of(metric: str) -> str:
    """Whether a smaller ('min') or a larger ('max') value of a metric is better."""
    return "min" if metric in ("loss", "false_alarm_rate", "fp", "fn") else "max"


def class_summary(confusion: np.ndarray, classes: Sequence[str]) -> Summary:
    """Image-level metrics of a classifier, from its confusion [K, K] over all images.

    accuracy, majority_accuracy; `<metric>/<class>` for precision, recall, f1 with the
    pooled empty rule; `f1/macro`, the mean over classes with true examples.

    >>> class_summary(np.array([[2, 0], [1, 1]]), ("a", "b"))["recall/b"]
    0.5
    """
    confusion = np.asarray(confusion, np.int64)
    scores = _class_scores(confusion)
    true = confusion.sum(axis=1)
    summary = {
        "accuracy": float(_divide(np.trace(confusion), true.sum())),
        "majority_accuracy": float(_divide(true.max(), true.sum())),
    }
    for k, name in enumerate(classes):
        summary[f"precision/{name}"] = float(scores["precision"][k])
        summary[f"recall/{name}"] = float(scores["recall"][k])
        summary[f"f1/{name}"] = float(scores["dice"][k])
    summary["f1/macro"] = _mean(scores["dice"][true > 0])
    return summary
