"""Masks that are drawn from annotations: polygons, boxes, circles, lines, runs.

A `Drawing` stands in a Record where others have a mask file, a `Blank` where an image
is known to be clean. Their bytes are a PGM image of class ids, the same for the same
shapes, whatever the version of Pillow's encoders.
"""

import collections
import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from jaxseg.errors import InputError, shorten

POINTS = {"polygon": (3, 10**9), "rectangle": (2, 2), "circle": (2, 2)}
POINTS |= {"line": (2, 10**9)}
"""Fewest and most points of each kind."""


MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow opens no larger image


class BadShape(Exception):
    """This shape cannot be drawn; the text says why, without naming the file."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """One annotated object.

    Attributes:
      kind: how `numbers` are meant. 'polygon' and 'line': x, y of the points, pixels
        from the upper left corner; 'rectangle': of two opposite corners; 'circle': of
        the centre and of a point on it; 'runs': lengths of runs of pixels that are not
        and are the object, in turn, column by column.
      class_id: what the pixels become, `IGNORE` too.
      numbers: see `kind`.
      width: of a line, pixels.
    """

    kind: Literal["polygon", "rectangle", "circle", "line", "runs"]
    class_id: int
    numbers: tuple[float, ...]
    width: int = 1

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, not of 'runs'."""
        xs, ys = self.numbers[::2], self.numbers[1::2]
        if self.kind == "circle":
            radius = math.dist(self.numbers[:2], self.numbers[2:])
            return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
        margin = self.width / 2 if self.kind == "line" else 0.0
        return (
            min(xs) - margin,
            min(ys) - margin,
            max(xs) + margin,
            max(ys) + margin,
        )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The mask of one image.

    Polygons and boxes hold the pixels on their outline too, as in LabelMe's own
    export. Differs from the COCO tools: an object is up to a pixel larger to the right
    and below, and a thin one never vanishes.

    Attributes:
      source: the annotation file, for messages.
      size: (h, w) of the image as the annotation has it.
      shapes: drawn in this order, later ones over earlier ones.
    """

    source: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        return self.source

    def read_bytes(self) -> bytes:
        """A binary PGM image of the class ids."""
        height, width = self.size
        picture = Image.new("L", (width, height), 0)
        for shape in self.shapes:
            picture = _draw(picture, shape)
        return _to_pgm(picture)


@dataclasses.dataclass(frozen=True)
class Blank:
    """The mask of an image that is known to be clean: class 0 everywhere."""

    image: Path

    def __str__(self) -> str:
        return f"{self.image} (clean)"

    def read_bytes(self) -> bytes:
        """A binary PGM image of the size of the image, upright."""
        # Bytes, not the path: of a path Pillow maps a TIFF and does not turn it.
        picture = Image.open(io.BytesIO(self.image.read_bytes()))
        picture.load()  # turns a TIFF upright, and only then drops its tag
        size = picture.size[::-1] if _is_turned(picture) else picture.size
        return _to_pgm(Image.new("L", size, 0))


def is_size(height, width) -> bool:
    """Whether two values of an annotation file are the size of an image."""
    whole = type(height) is int and type(width) is int
    return whole and min(height, width) > 0 and height * width <= MAX_PIXELS


def make_shape(
    kind: str, class_id: int, points: Sequence, size: tuple[int, int], width: int = 1
) -> tuple[Shape, bool]:
    """A checked shape, and whether a part of it lies outside the image.

    Args:
      points: pairs (x, y).
      size: (h, w) of the image.

    Raises:
      BadShape: not enough points, no numbers, or nothing of it inside the image.
    """
    fewest, most = POINTS[kind]
    if not isinstance(points, Sequence) or not all(map(_is_point, points)):
        raise BadShape("its points are no pairs of numbers")
    if not fewest <= len(points) <= most:
        raise BadShape(f"a {kind} of {len(points)} point(s)")
    numbers = tuple(float(number) for point in points for number in point)
    shape = Shape(kind, class_id, numbers, width)
    left, top, right, bottom = shape.box()
    height, image_width = size
    if right < 0 or bottom < 0 or left >= image_width or top >= height:
        raise BadShape(f"lies outside the image of {height} x {image_width} pixels")
    # A point on the right or lower edge is still in the image.
    outside = left < -1 or top < -1 or right > image_width + 1 or bottom > height + 1
    return shape, outside


def make_runs(class_id: int, text: str, size: tuple[int, int]) -> Shape:
    """A shape of kind 'runs' from starts and lengths, as Kaggle's competitions have it.

    Pixels are counted from 1, down the columns: '3 2 9 1' are the pixels 3, 4 and 9.

    >>> make_runs(1, "3 2 9 1", (5, 2)).numbers
    (2, 2, 4, 1, 1)

    Args:
      size: (h, w) of the image.

    Raises:
      BadShape: no pairs of whole numbers, runs that overlap, are empty or out of order,
        or that reach beyond the image.
    """
    total = size[0] * size[1]
    if not re.fullmatch(r"\s*([0-9]{1,12}(\s+|\Z))*", text):
        raise BadShape("run lengths that are no whole numbers")
    numbers = np.fromstring(text, np.int64, sep=" ")
    if len(numbers) % 2 or not len(numbers):
        raise BadShape(f"{len(numbers)} number(s), no pairs of start and length")
    starts, lengths = numbers[::2], numbers[1::2]
    ends = starts - 1 + lengths
    before = np.concatenate([[0], ends[:-1]])
    for is_bad, why in (
        (lengths < 1, "is empty"),
        (starts <= before, "begins before pixel {}"),
        (ends > total, f"leaves the {size[0]} x {size[1]} pixels"),
    ):
        if is_bad.any():
            i = is_bad.argmax()
            run = f"the run '{starts[i]} {lengths[i]}'"
            raise BadShape(f"{run} {why.format(before[i] + 1)}")
    runs = np.stack([starts - 1 - before, lengths], axis=1).ravel()
    return Shape("runs", class_id, (*runs.tolist(), total - int(ends[-1])))


@dataclasses.dataclass
class Problems:
    """What is wrong with a set of annotations, to be said all at once.

    Attributes:
      bad: '<where>: <why>' of shapes that cannot be drawn.
      unknown: number of shapes by class name that the config does not have.
      clipped: where shapes lie partly outside.
    """

    bad: list[str] = dataclasses.field(default_factory=list)
    unknown: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    clipped: list[str] = dataclasses.field(default_factory=list)

    def refuse(self, classes: tuple[str, ...], fix: str) -> None:
        """Raises InputError if anything is wrong; `fix` is for the bad shapes."""
        if self.unknown:
            names = [f"{name} ({count})" for name, count in self.unknown.most_common()]
            every = (*classes, *sorted(self.unknown))
            raise InputError(
                f"only the classes {shorten(classes, 12)} in the annotations",
                f"{sum(self.unknown.values())} shapes of other ones: "
                f"{shorten(names, 12)}",
                f'--config.data.classes="{every}"  (or rename them)',
            )
        if self.bad:
            raise InputError(
                "annotations that can be drawn",
                f"{len(self.bad)} that cannot: {shorten(self.bad)}",
                fix,
            )

    def notes(self) -> tuple[str, ...]:
        """A sentence on shapes that are clipped."""
        if not self.clipped:
            return ()
        return (
            f"{len(self.clipped)} shapes reach outside their image and are clipped: "
            f"{shorten(self.clipped)}",
        )


def _is_point(point) -> bool:
    return (
        isinstance(point, Sequence)
        and len(point) == 2
        and all(
            isinstance(n, int | float) and math.isfinite(n) and abs(n) < 1e6
            for n in point
        )
    )


def _is_turned(picture: Image.Image) -> bool:
    """Whether height and width change places when it is shown."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) > 4
    except Exception:  # a broken EXIF block does not spoil the pixels
        return False


def _to_pgm(picture: Image.Image) -> bytes:
    return b"P5 %d %d 255\n" % picture.size + picture.tobytes()


def _draw(picture: Image.Image, shape: Shape) -> Image.Image:
    if shape.kind == "runs":
        pixels = np.asarray(picture)
        inside = _expand(shape.numbers, pixels.shape)
        return Image.fromarray(np.where(inside, np.uint8(shape.class_id), pixels))
    draw, colour = ImageDraw.Draw(picture), shape.class_id
    if shape.kind == "polygon":
        draw.polygon(shape.numbers, fill=colour, outline=colour)
    elif shape.kind == "line":
        draw.line(shape.numbers, fill=colour, width=shape.width, joint="curve")
    else:
        method = draw.ellipse if shape.kind == "circle" else draw.rectangle
        method(shape.box(), fill=colour, outline=colour)
    return picture


def _expand(runs: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """[h, w] bool of run lengths that go down the columns and begin outside."""
    lengths = np.asarray(runs, np.int64)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return inside.reshape(size[::-1]).T
