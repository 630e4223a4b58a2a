"""Summaries of image-level decisions."""

from collections.abc import Sequence

import numpy as np

from jaxseg.metrics.ratios import Summary, class_scores, divide, mean
from jaxseg.metrics.scores import areas, tally_scores

SMALLEST_DIVISOR = 1e-8  # of F in the published code


def image_summary(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Summary:
    """Image-level metrics of the decision score >= threshold, and areas under curves.

    accuracy, precision, recall, f1 and tp, fp, fn, tn; `majority_accuracy`, that of
    always deciding for the more frequent class; `auc` of the ROC; `ap`, the step-wise
    Σ (R_i - R_{i+1}) P_i; `ap_trapezoid`, with straight lines between the same points,
    as vicoslab/mixed-segdec-net-comind2021 has it. Areas are nan if only one class is
    present.

    >>> image_summary(np.array([0.25, 0.5]), np.array([0, 1]), 0.5)["f1"]
    1.0
    """
    tally = tally_scores(scores, labels)
    decided = tally.values >= threshold
    tp, fn = (int(tally.positives[kept].sum()) for kept in (decided, ~decided))
    fp, tn = (int(tally.negatives[kept].sum()) for kept in (decided, ~decided))
    table, count = class_scores(np.array([[tn, fp], [fn, tp]])), tp + fp + fn + tn
    return {
        "accuracy": float(divide(tp + tn, count)),
        "majority_accuracy": float(divide(max(tp + fn, fp + tn), count)),
        "precision": float(table["precision"][1]),
        "recall": float(table["recall"][1]),
        "f1": float(table["dice"][1]),
        **dict(tp=tp, fp=fp, fn=fn, tn=tn),
        **areas(tally),
    }


def hindsight_summary(scores: np.ndarray, labels: np.ndarray) -> Summary:
    """What thresholds reach that are chosen with the labels that judge them.

    - `optimistic_threshold`, the score with the largest F = 2 P R / (P + R + 1e-8), the
      lowest of ties; `optimistic_f1`, that F; `optimistic_fp` and `optimistic_fn`. So
      SegDecNet's authors report. It flatters: no stored threshold does as well.
    - `fp_without_misses`: the false alarms at `threshold_without_misses`, the highest
      score that misses no positive.

    All are nan if only one class is present.

    Source: https://github.com/vicoslab/mixed-segdec-net-comind2021, utils.py

    >>> hindsight_summary(np.array([0.2, 0.5]), np.array([0, 1]))["optimistic_fp"]
    0
    """
    tally = tally_scores(scores, labels)
    fp, tp = tally.at_least()
    if tally.has_both_classes():
        precision, recall = tp / (tp + fp), tp / tp[0]
        f1 = 2 * precision * recall / (precision + recall + SMALLEST_DIVISOR)
        best, lowest = f1.argmax(), np.flatnonzero(tally.positives)[0]
        found = [tally.values[best], f1[best], fp[best], tp[0] - tp[best]]
        found = [value.item() for value in (*found, fp[lowest], tally.values[lowest])]
    else:
        found = [float("nan")] * 6
    names = [f"optimistic_{name}" for name in ("threshold", "f1", "fp", "fn")]
    names += ["fp_without_misses", "threshold_without_misses"]
    return dict(zip(names, found, strict=True))


def class_summary(confusion: np.ndarray, classes: Sequence[str]) -> Summary:
    """Image-level metrics of a classifier, from its confusion [K, K] over all images.

    accuracy, majority_accuracy; `<metric>/<class>` for precision, recall, f1 with the
    pooled empty rule; `f1/macro`, the mean over classes with true examples.

    >>> class_summary(np.array([[2, 0], [1, 1]]), ("a", "b"))["recall/b"]
    0.5
    """
    confusion = np.asarray(confusion, np.int64)
    scores = class_scores(confusion)
    true = confusion.sum(axis=1)
    summary = {
        "accuracy": float(divide(np.trace(confusion), true.sum())),
        "majority_accuracy": float(divide(true.max(), true.sum())),
    }
    for k, name in enumerate(classes):
        summary[f"precision/{name}"] = float(scores["precision"][k])
        summary[f"recall/{name}"] = float(scores["recall"][k])
        summary[f"f1/{name}"] = float(scores["dice"][k])
    summary["f1/macro"] = mean(scores["dice"][true > 0])
    return summary
