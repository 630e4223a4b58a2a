"""Summaries of pixels: hard decisions from confusions, soft ones from sums."""

from collections.abc import Sequence

import numpy as np

from jaxseg.metrics.ratios import Columns, Summary, class_scores, divide, mean

SMOOTH = 1e-5
"""Pixels added above and below in soft metrics, as in segmentation_models."""


def _named_scores(confusions: np.ndarray, classes: Sequence[str]) -> Columns:
    """`<metric>/<class>` -> [...]; only the foreground class of a binary set."""
    reported = (1,) if len(classes) == 2 else range(len(classes))
    scores = class_scores(confusions).items()
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
    - `iou/<class>/per_image_pos` and `dice/...`: the mean over images with the class.
    - `iou/mean/pooled`, `dice/mean/pooled` for K > 2: mean over the classes that the
      truth contains.
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
    summary |= {f"{key}/per_image": mean(scores) for key, scores in images.items()}
    for k, name in enumerate(classes):
        holds = confusions[:, k].sum(axis=1) > 0
        for key in {f"iou/{name}", f"dice/{name}"} & images.keys():
            summary[f"{key}/per_image_pos"] = mean(images[key][holds])
    if len(classes) > 2:
        present = total.sum(axis=1) > 0
        for name in ("iou", "dice"):
            summary[f"{name}/mean/pooled"] = mean(class_scores(total)[name][present])
    summary["pixel_accuracy"] = float(divide(np.trace(total), total.sum()))
    summary["background_accuracy"] = float(divide(total[0].sum(), total.sum()))
    clean = confusions[confusions[:, 1:].sum(axis=(1, 2)) == 0]
    summary["false_alarm_rate"] = mean(clean[:, 0, 1:].sum(axis=1) > 0)
    return summary


def soft_summary(
    sums: np.ndarray, counted: np.ndarray, classes: Sequence[str]
) -> Summary:
    """Soft IoU and Dice of an evaluation set; empty rules in the table of the package.

    `soft_iou` and `soft_dice` of all classes, in a binary set of the foreground,
    `/pooled` and `/per_image`; for K > 2 also `<metric>/mean/pooled`, the mean over the
    classes that the truth contains.

    Args:
      counted: [N] bool, whether the image has a pixel that is not ignored.

    >>> sums, classes = np.array([[[0.5, 0.5, 1.0]]]), ("wall", "crack")
    >>> round(soft_summary(sums, np.array([True]), classes)["soft_iou/crack/pooled"], 4)
    0.5
    """
    sums = np.asarray(sums, np.float64)[counted]
    names = classes[1:] if len(classes) == 2 else classes
    total = sums.sum(axis=0)
    pooled, images = _soft_scores(total), _soft_scores(sums)
    summary = {}
    for key in images:
        for k, name in enumerate(names):
            value = float(pooled[key][k]) if len(sums) else float("nan")
            summary[f"{key}/{name}/pooled"] = value
            summary[f"{key}/{name}/per_image"] = mean(images[key][:, k])
        if len(names) > 1:
            summary[f"{key}/mean/pooled"] = mean(pooled[key][total[:, 2] > 0])
    return summary


def _soft_scores(sums: np.ndarray) -> Columns:
    """Soft metrics [..., K] of sums [..., K, 3]."""
    both, claimed, true = np.moveaxis(sums, -1, 0)
    return {
        "soft_iou": (both + SMOOTH) / (claimed + true - both + SMOOTH),
        "soft_dice": (2 * both + SMOOTH) / (claimed + true + SMOOTH),
    }


def never_predicted(confusions: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Classes that the truth contains and no pixel was ever predicted to be.

    >>> never_predicted(np.array([[[3, 0], [1, 0]]]), ("wall", "crack"))
    ['crack']
    """
    total = np.asarray(confusions).sum(axis=0, dtype=np.int64)
    missed = (total.sum(axis=1) > 0) & (total.sum(axis=0) == 0)
    return [name for name, is_missed in zip(classes, missed, strict=True) if is_missed]
