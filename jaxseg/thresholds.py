"""Choosing the decision threshold, on validation scores only or by hand.

A decision is score >= threshold everywhere in the program. Candidates are the distinct
scores (for pixels: the lower edges of histogram bins that hold any); of equally good
candidates both rules take the highest, which raises the fewest alarms.

Source: our own rules; max_f1 is that of SegDecNet's authors
(https://github.com/vicoslab/mixed-segdec-net-comind2021). Differs: they take the lowest
of ties, and choose on the set that they report.
"""

import dataclasses
from typing import Literal

import numpy as np

from jaxseg.errors import InputError
from jaxseg.metrics import Tally, tally_histogram, tally_scores

Rule = Literal["max_f1", "min_recall"]
BY_HAND = "by hand"

NUM_BINS = 256
"""Bins of pixel scores: thresholds of masks are multiples of 1/256."""

DEFAULT = 0.5
"""Threshold where validation scores cannot tell: only one class is present."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A decision threshold and how it came about.

    Attributes:
      value: decision = score >= value.
      rule: 'max_f1' or 'min_recall', or `BY_HAND`.
      note: what was degenerate, one sentence to print; '' if nothing.
    """

    value: float
    rule: str
    note: str = ""

    @property
    def origin(self) -> str:
        """E.g. 'max_f1 on validation'."""
        return self.rule + " on validation" * (self.rule != BY_HAND)


def by_hand(kind: str, value: float) -> Threshold:
    """A threshold that a person chose; of masks the nearest edge between two bins."""
    if kind == "mask":
        value = min(max(round(value * NUM_BINS), 1), NUM_BINS - 1) / NUM_BINS
    note = "chosen by hand; it flatters the images that it was chosen on"
    return Threshold(value, BY_HAND, note)


def choose_image_threshold(
    scores: np.ndarray, labels: np.ndarray, *, rule: Rule, min_recall: float
) -> Threshold:
    """Chooses the threshold of image scores.

    max_f1: F1 = 2 tp / (2 tp + fp + fn) is largest. min_recall: the highest threshold
    whose recall is >= min_recall. Without positives or without negatives the value is
    0.5, with a note.

    Args:
      scores: [N] float, without NaN.
      labels: [N] integer in {0, 1}.
      rule: 'max_f1' or 'min_recall'.
      min_recall: in (0, 1]; used by the rule of that name.

    Raises:
      InputError: min_recall is outside (0, 1] and used.
      ValueError: NaN scores or other labels.

    Of all thresholds that keep the recall the highest is taken: lower ones only add
    false alarms.

    >>> scores, labels = np.array([0.2, 0.4, 0.8]), np.array([0, 1, 1])
    >>> choose_image_threshold(scores, labels, rule="max_f1", min_recall=0.9).value
    0.4
    """
    return _choose(tally_scores(scores, labels), rule, min_recall, "image")


def choose_pixel_threshold(
    histogram: np.ndarray, *, rule: Rule, min_recall: float
) -> Threshold:
    """Chooses the threshold of pixel scores, pooled over images.

    Rules and fallback as in `choose_image_threshold`; the value is b / num_bins, so
    `metrics.confusion_at(histogram, b)` counts these very decisions.

    Args:
      histogram: [N, 2, num_bins] of `metrics.score_histogram`.
      rule: 'max_f1' or 'min_recall'.
      min_recall: in (0, 1]; used by the rule of that name.

    Raises:
      InputError: min_recall is outside (0, 1] and used.

    >>> histogram = np.array([[[5, 1, 0, 0], [0, 0, 2, 1]]])
    >>> choose_pixel_threshold(histogram, rule="max_f1", min_recall=0.9).value
    0.5
    """
    return _choose(tally_histogram(histogram), rule, min_recall, "pixel")


def _choose(tally: Tally, rule: Rule, min_recall: float, kind: str) -> Threshold:
    if rule == "min_recall" and not 0 < min_recall <= 1:
        raise InputError(
            expected="min_recall above 0 and up to 1",
            found=f"{min_recall}",
            fix="set min_recall to the share of defects that must be found, e.g. 0.95",
        )
    if not tally.has_both_classes():
        missing = "negative" if tally.positives.any() else "positive"
        note = f"no {missing} {kind} in validation: threshold {DEFAULT} by default"
        return Threshold(DEFAULT, rule, note)
    fp, tp = tally.at_least()
    num_positives = tally.positives.sum()
    if rule == "max_f1":
        f1 = 2 * tp / (tp + fp + num_positives)
        good = f1 == f1.max()
    elif rule == "min_recall":
        good = tp / num_positives >= min_recall
    else:
        raise ValueError(f"rule must be 'max_f1' or 'min_recall', not {rule!r}")
    best = np.flatnonzero(good)[-1]
    note = f"every validation {kind} is decided positive" if best == 0 else ""
    return Threshold(float(tally.values[best]), rule, note)
