"""Pictures of single results: what the image shows, what was found, what was missed.

Drawn with Pillow alone, about ten milliseconds each. Small images are enlarged by whole
factors without interpolation; images above `PANEL_MAX` pixels are averaged down.
"""

import colorsys
import functools
import hashlib
import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from jaxseg.tasks import Thresholds
from jaxseg.types import IGNORE

# Okabe and Ito, https://jfly.uni-koeln.de/color/: told apart by colour-blind readers.
HIT, MISS, FALSE_ALARM = (86, 180, 233), (240, 228, 66), (213, 94, 0)
WRONG_CLASS, IGNORED = (204, 121, 167), (150, 150, 150)
BACKGROUND, FOREGROUND = (24, 24, 28), (255, 255, 255)
INK, QUIET, PAPER = (34, 38, 43), (110, 118, 128), (255, 255, 255)

PANEL_MIN, PANEL_MAX = 224, 1024  # pixels of the longer side of a panel
GAP, FRAME, TEXT_SIZE, LABEL_SIZE = 10, 8, 16, 13
MAX_LINE = 100  # characters of a title line
PAGE_SHAPE = 3.0  # width / height that the arrangement of panels comes nearest to
MAX_NAME = 150  # bytes of a sample's name in a file name; file systems allow 255

Color = tuple[int, int, int]
Legend = list[tuple[np.ndarray, str]]


def overlay_name(score: float, name: str) -> str:
    """File name of a sample's overlay, sorted by score in any file browser.

    '/' becomes '__' and characters that a file system or shell may refuse become '_'.
    Different names never share a file: where the change could not be undone, a digest
    of the name follows it.

    >>> overlay_name(0.9991, "W/CW/7000-1")
    '0.999_result_W__CW__7000-1.jpg'
    """
    kept = (
        letter if letter.isalnum() or letter in " ._-+()/" else "_" for letter in name
    )
    safe = "".join(kept).replace("/", "__")
    short = safe.encode()[:MAX_NAME].decode(errors="ignore")
    if short.replace("__", "/") != name:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
        short = f"{short}-{digest[:8]}"
    return f"{score:.3f}_result_{short}.jpg"


def draw_overlay(
    image: np.ndarray,
    truth: np.ndarray | None,
    probs: np.ndarray | None,
    decision: np.ndarray | None,
    *,
    classes: Sequence[str],
    title: Sequence[str],
) -> Image.Image:
    """Image, ground truth, score map and result side by side, with a legend.

    The result is drawn on the darkened image: found, missed and falsely alarmed pixels;
    with more than two classes also foreground of the wrong class, beside a panel of the
    decided classes. Without ground truth the result shows what was found.

    Args:
      image: [H, W, C] uint8, C = 1, 3 or 4.
      truth: [H, W] class ids; `IGNORE` is drawn grey. None without annotation.
      probs: [H, W] score of the foreground in [0, 1], on one fixed scale for all
        images; NaN is drawn grey.
      decision: [H, W] class ids.
      classes: name of every class by id; 0 is the background.
      title: lines above the panels, e.g. those of `describe`.

    Returns:
      RGB picture.
    """
    photo = to_rgb(image)
    panels, legend = {"image": photo}, []
    colors = class_colors(len(classes))
    if truth is not None:
        panels["ground truth"] = colors[truth.astype(np.uint8)]
    if probs is not None:
        panels["score"] = paint_score(probs)
        legend.append((np.tile(SCORE_COLORS[None, ::4], (12, 1, 1)), "score 0 to 1"))
    if decision is not None and len(classes) > 2:
        panels["decision"] = colors[decision.astype(np.uint8)]
    if len(classes) > 2:
        legend += _class_legend([truth, decision], colors, classes)
    if decision is not None and (truth is not None or len(classes) == 2):
        panels["result"], entries = paint_result(photo, truth, decision)
        legend += entries
    panels = [(label, rescale(pixels)) for label, pixels in panels.items()]
    return compose(panels, title, legend)


def draw_decision(
    image: np.ndarray, *, right: bool | None, title: Sequence[str]
) -> Image.Image:
    """A classified image in a frame that says whether the decision is right.

    Args:
      image: [H, W, C] uint8, C = 1, 3 or 4.
      right: None without a known label: the frame is grey.
      title: lines above the image, e.g. those of `describe`.

    Returns:
      RGB picture.
    """
    color, name = {
        True: (HIT, "right"),
        False: (FALSE_ALARM, "wrong"),
        None: (IGNORED, "label unknown"),
    }[right]
    photo = Image.fromarray(rescale(to_rgb(image)))
    framed = np.asarray(ImageOps.expand(photo, FRAME, color))
    return compose([("image", framed)], title, [(swatch_of(color), name)])


def describe(
    score: float,
    threshold: float | None,
    decision: str,
    ground_truth: str | None,
    dice: float | None,
) -> tuple[str, ...]:
    """Title lines of a result.

    >>> describe(0.9991, 0.3236, "crack", "crack", 0.7312)
    ('score 0.999 >= threshold 0.324: crack', 'ground truth: crack, dice 0.731')
    """
    against = ""
    if threshold is not None:
        relation = ">=" if score >= threshold else "<"
        against = f" {relation} threshold {threshold:.3f}"
    facts = [] if ground_truth is None else [f"ground truth: {ground_truth}"]
    if dice is not None:
        facts.append(f"dice {dice:.3f}")
    first = f"score {score:.3f}{against}: {decision}"
    return (first, ", ".join(facts)) if facts else (first,)


@functools.cache
def class_colors(num_classes: int) -> np.ndarray:
    """[256, 3] uint8: colour of every class id, always the same for the same id.

    Two classes are black and white; `IGNORE` is grey.
    """
    named = [
        BACKGROUND, (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
        (0, 114, 178), (213, 94, 0), (204, 121, 167),
    ]  # fmt: skip
    if num_classes == 2:
        named[1] = FOREGROUND
    colors = np.zeros((256, 3), np.uint8)
    for index in range(256):
        # The golden ratio spreads hues evenly, however many classes there are.
        hue = index * 0.618034 % 1
        shade = ((0.85, 0.95), (0.5, 0.75), (0.95, 0.55))[index % 3]
        colors[index] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, *shade)]
    colors[: len(named)] = named
    colors[IGNORE] = IGNORED
    return colors


def foreground_score(probs: np.ndarray) -> np.ndarray:
    """[H, W] probability of any class but the background, from [H, W, K]."""
    return probs[..., 0] if probs.shape[-1] == 1 else 1.0 - probs[..., 0]


def decide(probs: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """[H, W] class ids from [H, W, K] probabilities."""
    if "mask" in thresholds:
        return (probs[..., 0] >= thresholds["mask"].value).astype(np.uint8)
    return probs.argmax(-1).astype(np.uint8)


def _score_colors() -> np.ndarray:
    """[256, 3] uint8: matplotlib's 'magma', interpolated between 16 of its colours."""
    anchors = bytes.fromhex(
        "0000040b092420114b3b0f7057157e721f818c2981a8327d"
        "c43c75de4968f1605dfa7f5efe9f6dfebf84fddea0fcfdbf"
    )
    anchors = np.frombuffer(anchors, np.uint8).reshape(16, 3)
    levels = np.arange(256)
    channels = [np.interp(levels, levels[::17], channel) for channel in anchors.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


SCORE_COLORS = _score_colors()


def to_rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] of an image with 1, 3 or 4 channels."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def paint_score(probs: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 of scores [H, W] in [0, 1]; NaN is grey."""
    known = np.isfinite(probs)
    levels = np.where(known, probs, 0).clip(0, 1) * 255
    return np.where(known[..., None], SCORE_COLORS[levels.round().astype(int)], IGNORED)


def paint_result(
    photo: np.ndarray, truth: np.ndarray | None, decision: np.ndarray
) -> tuple[np.ndarray, Legend]:
    """The result on the photo, grey and darkened so that the colours stand out."""
    canvas = np.repeat(photo.mean(axis=-1, keepdims=True) * 0.55, 3, axis=-1)
    canvas = canvas.astype(np.uint8)
    if truth is None:
        kinds = {"found": (decision > 0, HIT)}
    else:
        known = truth != IGNORE
        both = known & (truth > 0) & (decision > 0)
        kinds = {
            "hit": (both & (truth == decision), HIT),
            "missed": (known & (truth > 0) & (decision == 0), MISS),
            "false alarm": (known & (truth == 0) & (decision > 0), FALSE_ALARM),
        }
        rare = {
            "wrong class": (both & (truth != decision), WRONG_CLASS),
            "ignored": (~known, IGNORED),
        }
        kinds |= {name: kind for name, kind in rare.items() if kind[0].any()}
    legend = []
    for name, (where, color) in kinds.items():
        canvas[where] = color
        legend.append((swatch_of(color), f"{name} {np.count_nonzero(where):,} px"))
    return canvas, legend


def _class_legend(masks, colors: np.ndarray, classes: Sequence[str]) -> Legend:
    """The classes present in any of the masks."""
    present = np.zeros(256, bool)
    for mask in masks:
        if mask is not None:
            present |= np.bincount(mask.astype(np.uint8).ravel(), minlength=256) > 0
    return [
        (swatch_of(colors[index]), name)
        for index, name in enumerate(classes)
        if present[index]
    ]


def swatch_of(color: Color) -> np.ndarray:
    """A square of one colour for a legend."""
    return np.full((12, 12, 3), color, np.uint8)


def rescale(pixels: np.ndarray) -> np.ndarray:
    """Enlarges a small panel by a whole factor, averages a large one down."""
    longest = max(pixels.shape[:2])
    if longest > PANEL_MAX:
        picture = Image.fromarray(pixels.astype(np.uint8))
        return np.asarray(picture.reduce(math.ceil(longest / PANEL_MAX)))
    factor = math.ceil(PANEL_MIN / longest)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1).astype(np.uint8)


def _choose_columns(count: int, width: int, height: int) -> int:
    """How many panels stand in a row: wide images are stacked, tall ones are not."""

    def distance(columns: int) -> float:
        rows = math.ceil(count / columns)
        unused = 2 * math.log(rows * columns / count)
        return unused + abs(math.log(columns * width / (rows * height) / PAGE_SHAPE))

    return min(range(1, count + 1), key=distance)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font, letters `size` pixels high."""
    return ImageFont.load_default(size=size)


def to_ascii(text: str) -> str:
    """Letters that Pillow's built-in font can draw; accents are dropped."""
    plain = unicodedata.normalize("NFKD", text.replace("đ", "d").replace("Đ", "D"))
    bare = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return bare.encode("ascii", errors="replace").decode()


def place_legend(legend: Legend, width: int) -> tuple[list[tuple[int, int]], int]:
    """Left upper corner of every entry, wrapped at the width; height of all rows."""
    corners, x, y = [], GAP, 0
    for swatch, text in legend:
        length = swatch.shape[1] + 5 + math.ceil(font(LABEL_SIZE).getlength(text))
        if x > GAP and x + length > width - GAP:
            x, y = GAP, y + LABEL_SIZE + 8
        corners.append((x, y))
        x += length + 2 * GAP
    return corners, y + LABEL_SIZE + 8 if legend else 0


def compose(
    panels: Sequence[tuple[str, np.ndarray]],
    title: Sequence[str],
    legend: Legend,
    columns: int | None = None,
) -> Image.Image:
    """Title lines, labelled panels of one size in a grid, legend.

    Args:
      panels: pairs of label and [H, W, 3] uint8.
      columns: panels in a row; None brings the page near `PAGE_SHAPE`.
    """
    lines = [to_ascii(line)[:MAX_LINE] for line in title]
    legend = [(swatch, to_ascii(text)) for swatch, text in legend]
    panels = [(to_ascii(label), pixels) for label, pixels in panels]
    height, width = panels[0][1].shape[:2]
    columns = columns or _choose_columns(len(panels), width, height)
    label_width = max(
        math.ceil(font(LABEL_SIZE).getlength(label)) for label, _ in panels
    )
    cell = (max(width, label_width) + GAP, height + LABEL_SIZE + 8 + GAP)
    text_width = max((font(TEXT_SIZE).getlength(line) for line in lines), default=0)
    page_width = max(columns * cell[0] + GAP, math.ceil(text_width) + 2 * GAP)
    top = GAP + len(lines) * (TEXT_SIZE + 6)
    below = top + math.ceil(len(panels) / columns) * cell[1]
    corners, legend_height = place_legend(legend, page_width)

    page = Image.new("RGB", (page_width, below + legend_height), PAPER)
    draw = ImageDraw.Draw(page)
    for row, line in enumerate(lines):
        corner = (GAP, GAP // 2 + row * (TEXT_SIZE + 6))
        draw.text(corner, line, INK, font(TEXT_SIZE))
    for index, (label, pixels) in enumerate(panels):
        x = GAP + index % columns * cell[0]
        y = top + index // columns * cell[1]
        draw.text((x, y), label, QUIET, font(LABEL_SIZE))
        page.paste(Image.fromarray(pixels), (x, y + LABEL_SIZE + 8))
    for (swatch, text), (x, y) in zip(legend, corners, strict=True):
        page.paste(Image.fromarray(swatch), (x, below + y + 2))
        corner = (x + swatch.shape[1] + 5, below + y)
        draw.text(corner, text, INK, font(LABEL_SIZE))
    return page
