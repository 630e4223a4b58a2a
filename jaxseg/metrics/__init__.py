"""Metrics: counts and sums per image on the device, summaries in float64 on the host.

Device functions return one row per example; the rows of an evaluation set are
concatenated, so no value depends on how the set was cut into batches or spread over
devices. `IGNORE` pixels count nowhere. Host functions take NumPy arrays:

    histogram: [N, 2, B] integer, of `score_histogram`
    confusions: [N, K, K] integer, of `confusion` or `confusion_at`
    sums: [N, K, 3] float, of `soft_sums`; K = 1 in a binary set
    classes: K names, the background first; K = 2 is a binary set
    scores, labels: [N] float without NaN, [N] integer in {0, 1}; else ValueError

Key `<metric>/<class>/pooled`: counts are summed over the set; `.../per_image`: the mean
over images with a counted pixel; `.../per_image_pos`: over those with the class, so
that clean images do not carry the score. With tp, fp, fn the pixels of a class, decided
at the threshold,

    iou = tp / (tp + fp + fn)         precision = tp / (tp + fp)
    dice = 2 tp / (2 tp + fp + fn)    recall = tp / (tp + fn)

and without any threshold, with the probability p and the truth g in {0, 1} of a class,

    soft_iou  = (Σgp + s) / (Σg + Σp - Σgp + s)
    soft_dice = (2 Σgp + s) / (Σg + Σp + s)         s = 1e-5 pixels

Values where a denominator is 0, and their neighbours (f1 of image labels is dice):

| truth    | prediction | per_image: iou dice precision recall | pooled: the same    |
|----------|------------|--------------------------------------|---------------------|
| empty    | empty      | 1 1 1 1 (nothing to find or claim)   | nan nan nan nan     |
| empty    | one pixel  | 0 0 0 1 (nothing was missed)         | 0 0 0 nan           |
| k pixels | empty      | 0 0 0 0                              | 0 0 0 0             |
| all      | all        | 1 1 1 1                              | 1 1 1 1             |

The soft metrics need no rule but s, the same per image and pooled:

| truth    | probabilities | soft_iou and soft_dice                                |
|----------|---------------|-------------------------------------------------------|
| empty    | exactly 0     | 1                                                     |
| empty    | Σp = q        | s / (q + s): 0.5 at q = 1e-5, 0.00001 at one pixel    |
| k pixels | exactly 0     | s / (k + s), nearly 0                                 |
| ignored  | any           | nan pooled; per image such images are left out        |

Of images: accuracy, precision, recall, f1, tp, fp, fn, tn at the threshold that the
validation set chose, `auc`, `ap` (in steps) and `ap_trapezoid`; see `image_summary`. Of
the pixels of a binary set `auc`, `ap`, `ods` and `ois`; see `histogram_summary`. Of the
judged part also what a threshold reaches that is chosen on that very part:
`optimistic_*` and `*_without_misses`; see `hindsight_summary`. And of its connected
defects: `<metric>/<class>/per_region`; see `region_summary`. And what looks at lines
instead of areas: cldice, f1_2px, f1_1pct, component_error and width_bias; see
`jaxseg.metrics.thin`.

nan means "this set cannot tell". Source: our own rules; curves and areas as in
https://scikit-learn.org/stable/modules/model_evaluation.html; soft metrics and s as in
https://github.com/qubvel/segmentation_models, base/functional.py. Differs: that pools
over a batch and averages the batches; here `pooled` is the whole set.
"""

from jaxseg.metrics.counts import confusion, confusion_at, score_histogram, soft_sums
from jaxseg.metrics.images import class_summary, hindsight_summary, image_summary
from jaxseg.metrics.pixels import (
    image_columns,
    never_predicted,
    pixel_summary,
    soft_summary,
)
from jaxseg.metrics.ratios import loss_summary
from jaxseg.metrics.regions import region_histogram, region_summary
from jaxseg.metrics.scores import (
    Tally,
    histogram_summary,
    pixel_curve,
    precision_recall_curve,
    roc_curve,
    tally_histogram,
    tally_scores,
)
from jaxseg.metrics.thin import thin_columns, thin_counts, thin_summary

__all__ = [
    "Tally",
    "class_summary",
    "confusion",
    "confusion_at",
    "hindsight_summary",
    "histogram_summary",
    "image_columns",
    "image_summary",
    "loss_summary",
    "mode_of",
    "never_predicted",
    "pixel_curve",
    "pixel_summary",
    "precision_recall_curve",
    "region_histogram",
    "region_summary",
    "roc_curve",
    "score_histogram",
    "soft_summary",
    "soft_sums",
    "tally_histogram",
    "tally_scores",
    "thin_columns",
    "thin_counts",
    "thin_summary",
]

SMALLER_IS_BETTER = {
    "component_error",
    "false_alarm_rate",
    "fp",
    "fn",
    "optimistic_fp",
    "optimistic_fn",
    "fp_without_misses",
}


def mode_of(metric: str) -> str:
    """Whether a smaller ('min') or a larger ('max') value of a metric is better."""
    is_smaller = metric.startswith("loss") or metric.split("/")[0] in SMALLER_IS_BETTER
    return "min" if is_smaller else "max"
