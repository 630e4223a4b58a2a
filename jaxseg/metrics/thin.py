"""Metrics of thin structures, whose area says little about whether they were found.

Counts are of one image and one class, on the host, from the decided mask and the true
one on the grid that the network sees. Pixels ignored in the truth are background in
both. Keys, each `/<class>/pooled` and `/<class>/per_image`:

- cldice: 2 p r / (p + r); p is the share of the predicted skeleton inside the true
  mask, r that of the true skeleton inside the predicted mask.
- f1_2px, f1_1pct: the same with p the share of predicted pixels at most 2 pixels, or
  1 % of the image's diagonal, away from a true pixel, and r the share of true pixels
  as near to a predicted one.
- component_error: |predicted - true| number of connected pieces (8 neighbours); per
  image the mean, pooled the sum over the number of true ones.
- width_bias: predicted mean width less true mean width, in pixels of the original
  image (`jaxseg.measure`); per image the mean over images where both have the class,
  pooled with widths weighted by length.

Values of the first three where a count is 0, n pixels anywhere:

| truth | prediction | per image | pooled |
|-------|------------|-----------|--------|
| empty | empty      | 1         | nan    |
| empty | n          | 0         | 0      |
| n     | empty      | 0         | 0      |
| n     | n, apart   | 0         | 0      |

component_error is nan pooled without true pieces, width_bias nan without widths.

Source: clDice of https://arxiv.org/abs/2003.07311; a tolerance in pixels as in
CrackForest, https://doi.org/10.1109/TITS.2016.2552248 (5 there), and as a share of the
diagonal as in the boundary benchmark of https://doi.org/10.1109/TPAMI.2010.161.
Differs: all pixels are compared, as areas, not thinned ones one to one; skeletons are
those of `jaxseg.skeletons`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxseg.distances import distances_to
from jaxseg.measure import Component, measure
from jaxseg.metrics.ratios import Columns, Summary, divide, mean
from jaxseg.skeletons import skeletonize

OVERLAPS = ("cldice", "f1_2px", "f1_1pct")


def thin_counts(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    found: Sequence[Component] | None = None,
) -> dict[str, np.ndarray]:
    """What the metrics of one image and class are made of.

    Args:
      prediction: [H, W] bool.
      truth: [H, W] bool.
      spacing: height and width of a pixel, in pixels of the original image.
      found: the components of the prediction, if they are measured.

    Returns:
      cldice, f1_2px, f1_1pct: [4] int64: predicted pixels that are matched, all
        predicted, true pixels that are matched, all true.
      components: [2] int64, predicted and true.
      lengths: [2] float64, of both.
      widths: [2] float64, sums of mean width times length.

    >>> line = np.eye(5, dtype=bool)
    >>> thin_counts(line, np.fliplr(line))["cldice"].tolist()
    [1, 5, 1, 5]
    """
    masks = prediction, truth
    lines = [skeletonize(mask) for mask in masks]
    if found is None:
        found = measure(prediction, spacing=spacing, skeleton=lines[0])
    pieces = found, measure(truth, spacing=spacing, skeleton=lines[1])
    outside = prediction & ~truth, truth & ~prediction
    far = distances_to(truth, outside[0]), distances_to(prediction, outside[1])
    both = np.count_nonzero(prediction & truth)

    def near(limit: float) -> list[int]:
        matched = [both + np.count_nonzero(distance <= limit) for distance in far]
        return _pairs(matched, masks)

    matched = (
        np.count_nonzero(lines[0] & truth),
        np.count_nonzero(lines[1] & prediction),
    )
    counts = {
        "cldice": _pairs(matched, lines),
        "f1_2px": near(2.0),
        "f1_1pct": near(0.01 * float(np.hypot(*truth.shape))),
        "components": [len(components) for components in pieces],
        "lengths": [sum((one.length for one in ones), 0.0) for ones in pieces],
        "widths": [sum(map(_width_sum, ones), 0.0) for ones in pieces],
    }
    return {name: np.asarray(values) for name, values in counts.items()}


def _pairs(matched, masks) -> list[int]:
    """Matched pixels and all pixels, of the predicted and of the true ones."""
    totals = [np.count_nonzero(mask) for mask in masks]
    return [n for pair in zip(matched, totals, strict=True) for n in pair]


def _width_sum(one: Component) -> float:
    return one.mean_width * one.length


def thin_columns(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Columns:
    """`<metric>/<class>` of each image, [n] float64.

    Args:
      counts: [n, K, ...] of n images and K foreground classes.
      classes: their names.
    """
    scores = {name: _f_score(counts[name], empty=1.0) for name in OVERLAPS}
    predicted, true = np.moveaxis(counts["components"], -1, 0)
    scores["component_error"] = np.abs(predicted - true).astype(np.float64)
    scores["width_bias"] = _width_bias(counts["widths"], counts["lengths"])
    return {
        f"{key}/{name}": values[:, k]
        for k, name in enumerate(classes)
        for key, values in scores.items()
    }


def thin_summary(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Summary:
    """`<metric>/<class>/pooled` and `.../per_image` of a set; {} without images."""
    if not len(counts["components"]):
        return {}
    total = {name: values.sum(axis=0) for name, values in counts.items()}
    columns = thin_columns(counts, classes)
    predicted, true = np.moveaxis(counts["components"], -1, 0)
    pooled = {name: _f_score(total[name], empty=np.nan) for name in OVERLAPS}
    pooled["component_error"] = divide(np.abs(predicted - true).sum(0), true.sum(0))
    pooled["width_bias"] = _width_bias(total["widths"], total["lengths"])
    summary = {}
    for k, name in enumerate(classes):
        for key, values in pooled.items():
            images = columns[f"{key}/{name}"]
            summary[f"{key}/{name}/pooled"] = float(values[k])
            summary[f"{key}/{name}/per_image"] = mean(images[np.isfinite(images)])
    return summary


def _f_score(pairs: np.ndarray, empty: float) -> np.ndarray:
    """2 p r / (p + r) of [..., 4]; `empty` where nothing is predicted or true."""
    matched, predicted, found, true = np.moveaxis(pairs, -1, 0)
    precision, recall = divide(matched, predicted, 0.0), divide(found, true, 0.0)
    score = divide(2 * precision * recall, precision + recall, 0.0)
    return np.where((predicted == 0) & (true == 0), empty, score)


def _width_bias(widths: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Predicted less true mean width, of [..., 2]; NaN where one has no length."""
    predicted, true = np.moveaxis(divide(widths, lengths), -1, 0)
    return predicted - true
