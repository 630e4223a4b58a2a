"""One picture of a few samples: image, ground truth, prediction, difference.

The size of the page and every colour depend on the samples alone, not on what a network
says of them, so that the pages of a run can follow each other in an animation.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from jaxseg.report import overlays
from jaxseg.report.overlays import GAP, INK, LABEL_SIZE, PAPER, QUIET, Legend, font
from jaxseg.tasks import Thresholds

CELL = 160  # pixels of the longer side of a panel, for up to four rows of them
MIN_CELL = 64
MIN_TILE, MIN_PAGE = 210, 430  # pixels of width that the texts need
LINE = LABEL_SIZE + 6
MAX_NAMED_CLASSES = 16
EMPTY = np.zeros((12, 0, 3), np.uint8)  # the swatch of a heading


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as it is drawn.

    Attributes:
      lines: what stands above the panels.
      panels: by title, [H, W, 3] uint8, all of one size.
    """

    lines: tuple[str, ...]
    panels: dict[str, np.ndarray]


def make_sample(
    name: str,
    arrays: Mapping[str, np.ndarray],
    classes: Sequence[str],
    thresholds: Thresholds,
) -> Sample:
    """Panels and facts of one sample.

    Args:
      arrays: `image` [H, W, C] uint8, `label`, and of `mask` [H, W], `mask_probs`
        [H, W, K] and `image_probs` [K] what the task has.
    """
    photo = overlays.to_rgb(arrays["image"])
    if "mask_probs" not in arrays:
        fact, right = _decision(arrays, classes, thresholds)
        color = overlays.HIT if right else overlays.FALSE_ALARM
        border = max(photo.shape[:2]) // 24 + 1
        framed = ImageOps.expand(Image.fromarray(photo), border, color)
        return Sample((name, fact), {"image": np.asarray(framed)})
    panels, facts = _mask_panels(photo, arrays, classes, thresholds)
    if "image_probs" in arrays:
        facts.append(_decision(arrays, ("clean", "defect"), thresholds)[0])
    return Sample((", ".join([name, *facts]),), panels)


def _mask_panels(photo, arrays, classes, thresholds) -> tuple[dict, list[str]]:
    colors, probs = overlays.class_colors(len(classes)), arrays["mask_probs"]
    decision = overlays.decide(probs, thresholds)
    if len(classes) == 2:
        prediction = overlays.paint_score(overlays.foreground_score(probs))
    else:
        prediction = colors[decision]
    difference, kinds = overlays.paint_result(photo, arrays["mask"], decision)
    panels = {
        "image": photo,
        "ground truth": colors[arrays["mask"]],
        "prediction": prediction.astype(np.uint8),
        "difference": difference,
    }
    return panels, [text for _, text in kinds]


def _decision(arrays, classes, thresholds: Thresholds) -> tuple[str, bool]:
    """What is decided of an image, in words, and whether that is right."""
    probs, label = arrays["image_probs"], int(arrays["label"])
    if "image" in thresholds:
        score, threshold = float(probs[0]), thresholds["image"].value
        decided = int(score >= threshold)
    else:
        score, decided = float(probs.max()), int(probs.argmax())
    verdict = "right" if decided == label else "wrong"
    if verdict == "wrong" and len(classes) > 2:
        verdict += f": {classes[label]}"
    return f"score {score:.3f} {classes[decided]} ({verdict})", decided == label


def draw_page(
    samples: Sequence[Sample], title: Sequence[str], classes: Sequence[str]
) -> Image.Image:
    """Title, samples and legend.

    Samples with masks stand below each other, a row of panels each; others side by
    side.
    """
    panels = samples[0].panels
    has_masks = len(panels) > 1
    columns = 1 if has_masks else math.ceil(math.sqrt(len(samples)))
    rows = math.ceil(len(samples) / columns)
    cell = min(max(4 * CELL // rows, MIN_CELL), CELL)
    height, width = fit_panel(panels["image"], cell).shape[:2]
    tile = (
        max(len(panels) * (width + GAP), MIN_TILE),
        len(samples[0].lines) * LINE + height + GAP,
    )
    page_width = max(columns * tile[0] + GAP, MIN_PAGE)
    legends = [_draw_legend(of, page_width) for of in _legends(classes, has_masks)]
    top = GAP + (len(title) + has_masks) * LINE
    below = top + rows * tile[1]
    page_height = below + sum(legend.height for legend in legends) + GAP // 2
    page = Image.new("RGB", (page_width, page_height), PAPER)
    draw = ImageDraw.Draw(page)
    for row, line in enumerate(title):
        _write(draw, (GAP, GAP // 2 + row * LINE), line, page_width - GAP)
    for place, name in enumerate(panels if has_masks else ()):
        draw.text((GAP + place * (width + GAP), top - LINE), name, QUIET, font(12))
    for index, sample in enumerate(samples):
        corner = (GAP + index % columns * tile[0], top + index // columns * tile[1])
        text_width = page_width - GAP if has_masks else tile[0]
        _draw_sample(page, sample, corner, text_width - GAP, cell)
    for legend in legends:
        page.paste(legend, (0, below))
        below += legend.height
    return page


def _draw_legend(legend: Legend, width: int) -> Image.Image:
    corners, height = overlays.place_legend(legend, width)
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    for (swatch, text), (x, y) in zip(legend, corners, strict=True):
        indent = swatch.shape[1] + 5 if swatch.size else 0
        page.paste(Image.fromarray(swatch), (x, y + 2))
        _write(draw, (x + indent, y), text, width)
    return page


def _draw_sample(page: Image.Image, sample: Sample, corner, width, cell) -> None:
    x, y = corner
    draw = ImageDraw.Draw(page)
    for line in sample.lines:
        _write(draw, (x, y), line, width)
        y += LINE
    for pixels in sample.panels.values():
        panel = fit_panel(pixels, cell)
        page.paste(Image.fromarray(panel), (x, y))
        x += panel.shape[1] + GAP


def fit_panel(pixels: np.ndarray, cell: int) -> np.ndarray:
    """Enlarged by a whole factor, or averaged down to `cell` pixels at most."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= cell:
        factor = cell // longest
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    size = [max(round(side * cell / longest), 1) for side in (width, height)]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _write(draw: ImageDraw.ImageDraw, corner, text: str, width: float) -> None:
    """One line, cut where it would leave `width` pixels."""
    letters, text = font(LABEL_SIZE), overlays.to_ascii(text)
    if letters.getlength(text) > width:
        while text and letters.getlength(f"{text}...") > width:
            text = text[:-1]
        text = f"{text}..."
    draw.text(corner, text, INK, letters)


def _legends(classes: Sequence[str], has_masks: bool) -> list[Legend]:
    """Of the prediction and of the difference, or of the frames."""
    if not has_masks:
        return [_swatches({"right": overlays.HIT, "wrong": overlays.FALSE_ALARM})]
    difference = {
        "hit": overlays.HIT,
        "missed": overlays.MISS,
        "false alarm": overlays.FALSE_ALARM,
    }
    if len(classes) == 2:
        scale = np.tile(overlays.SCORE_COLORS[None, ::4], (12, 1, 1))
        prediction = [(scale, "probability 0 to 1")]
    else:
        colors = overlays.class_colors(len(classes))
        named = dict(zip(classes[:MAX_NAMED_CLASSES], colors, strict=False))
        prediction = [(EMPTY, "classes:"), *_swatches(named)]
        difference["wrong class"] = overlays.WRONG_CLASS
    difference["ignored"] = overlays.IGNORED
    return [prediction, [(EMPTY, "difference:"), *_swatches(difference)]]


def _swatches(colors: Mapping[str, overlays.Color]) -> Legend:
    return [(overlays.swatch_of(color), name) for name, color in colors.items()]
