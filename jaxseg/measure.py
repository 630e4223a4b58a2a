"""Length, width and direction of the connected pieces of a mask, as of cracks.

Lengths are in the unit of `spacing`: with the height and width that a pixel of the mask
has in the original image, in pixels of that image, however it was resized.

- area: of the pixels.
- length: along the middle lines (`jaxseg.skeletons`), every branch once. A line is
  smoothed, since a path of pixels is up to 8 % longer than what it follows, and goes on
  straight from where blunt ends bend it to the edge of the mask. Acute angles and
  crossings lose up to about one width. A blob has its extent along its main axis.
- mean_width: area / length, without the surroundings of nodes, where branches overlap.
- max_width: the largest over the middle line of the smaller of two widths, smoothed
  likewise: across the line, and twice the radius. A radius reaches to the middle of the
  first pixel outside and is up to 0.7 pixels too long; where a line turns, what is
  across it is too wide. Of bulges shorter than a few pixels some is smoothed away. A
  blob has twice its radius, and nothing is less than its mean width.
- orientation: of the main axis, the direction in which the pixels vary most: degrees
  from the image's x axis towards its top, in [0, 180); 0 is level, 90 upright. NaN
  where no direction is the main one.

Thinning knows nothing of spacing: masks of stretched images are resampled to square
pixels first, without interpolation.

Holes of at most `MAX_HOLE` pixels are no branches going round them. What lies outside
the mask's borders is not there: a crack that leaves the image is measured as shown.

Source: our own. Checked on drawn lines of known geometry, see tests/test_measure.py.
"""

import dataclasses
import math

import numpy as np
from scipy import ndimage

from jaxseg.distances import distances_to
from jaxseg.skeletons import (
    TOUCHING,
    Branch,
    branches_of,
    count_ends,
    skeletonize,
)

MAX_HOLE = 16
"""Pixels: a gap in a prediction, not two cracks around an island."""
CORNER = 1.5
"""Times the radius: what a blunt end or a node bends and blurs; corners reach 1.41."""
STRETCHED = 1.1
"""Height over width of pixels, or the reverse, that are made square first."""
SIGMA = 2.0
"""Of the Gaussian that smooths a line of pixels, in its steps."""


@dataclasses.dataclass(frozen=True)
class Component:
    """A connected piece of a mask; see the module for what is what.

    Attributes:
      box: top, left, bottom, right; the last two are outside.
      score: mean over its pixels; NaN without scores.
    """

    box: tuple[float, float, float, float]
    area: float
    length: float
    mean_width: float
    max_width: float
    orientation: float
    score: float


def measure(
    mask: np.ndarray,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    scores: np.ndarray | None = None,
    skeleton: np.ndarray | None = None,
    shares: np.ndarray | None = None,
) -> list[Component]:
    """The components of a mask, from top to bottom.

    Args:
      mask: [H, W] bool.
      spacing: height and width of a pixel.
      scores: [H, W] float.
      skeleton: [H, W] bool, of the mask, if it is known.
      shares: [H, W] float of a mask that was reduced: how much of a pixel belongs to
        it. Areas and widths are then as fine as before.

    >>> [crack] = measure(np.ones((2, 40), bool))
    >>> round(crack.length), round(crack.mean_width), crack.orientation
    (40, 2, 0.0)
    """
    if not mask.any():
        return []
    if max(spacing) > STRETCHED * min(spacing):
        taken, spacing = _square_pixels(mask.shape, spacing)
        mask, skeleton = mask[taken], None
        scores = None if scores is None else scores[taken]
        shares = None if shares is None else shares[taken]
    padded = np.pad(mask, 1)  # so that every piece has surroundings
    whole = _fill_small_holes(padded)
    known = skeleton is not None and np.array_equal(whole, padded)
    skeleton = np.pad(skeleton, 1) if known else skeletonize(whole)
    radius = np.zeros(whole.shape)
    radius[skeleton] = distances_to(~whole, skeleton, spacing)
    labels, _ = ndimage.label(whole, TOUCHING)
    shares = padded if shares is None else np.pad(shares, 1)
    components = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        top, left = rows.start - 1, columns.start - 1
        grown = slice(top, rows.stop + 1), slice(left, columns.stop + 1)
        mine = labels[grown] == number
        piece = _Piece(
            mask=mine,
            pixels=mine & padded[grown],
            shares=shares[grown],
            skeleton=mine & skeleton[grown],
            radius=radius[grown],
            spacing=np.asarray(spacing, float),
        )
        score = math.nan
        if scores is not None:
            inner = slice(top, rows.stop - 1), slice(left, columns.stop - 1)
            taken = piece.pixels[1:-1, 1:-1]
            weights = piece.shares[1:-1, 1:-1][taken]
            score = float(np.average(scores[inner][taken], weights=weights))
        box = (top, left, rows.stop - 1, columns.stop - 1) * np.tile(spacing, 2)
        components.append(Component(tuple(box.tolist()), *piece.measure(), score))
    return components


def _square_pixels(shape, spacing):
    """Index that repeats rows or columns to make pixels square, and their spacing."""
    sides = np.multiply(shape, spacing)
    counts = np.rint(sides / min(spacing)).astype(int)
    rows, columns = (
        ((np.arange(count) + 0.5) * n / count).astype(int)
        for n, count in zip(shape, counts, strict=True)
    )
    return np.ix_(rows, columns), tuple((sides / counts).tolist())


def _fill_small_holes(mask: np.ndarray) -> np.ndarray:
    """The corner of the mask is outside of it."""
    labels, _ = ndimage.label(~mask)
    small = np.bincount(labels.ravel()) <= MAX_HOLE
    small[[0, labels[0, 0]]] = False  # the mask itself, and what surrounds it
    return mask | small[labels]


@dataclasses.dataclass(frozen=True)
class _Course:
    """A branch without its pixel steps.

    Attributes:
      line: [n, 3]: y, x, radius, smoothed.
      middle: the part of it that blunt ends do not bend.
      beyond: length from the middle to the edge of the mask, at free ends.
    """

    line: np.ndarray
    middle: np.ndarray
    beyond: float

    @property
    def length(self) -> float:
        return self.beyond + float(_steps(self.middle).sum())


@dataclasses.dataclass(frozen=True)
class _Piece:
    """One component in its surroundings; arrays [h, w], the radius of the skeleton."""

    mask: np.ndarray
    pixels: np.ndarray  # of the mask, without holes that were filled
    shares: np.ndarray
    skeleton: np.ndarray
    radius: np.ndarray
    spacing: np.ndarray  # [2]

    def measure(self) -> tuple[float, float, float, float, float]:
        """Area, length, mean and maximum width, orientation."""
        area = self._area(self.pixels)
        places = np.argwhere(self.pixels) * self.spacing
        orientation = _orientation(places)
        branches = []
        if np.count_nonzero(self.skeleton) > 3:  # else a speck, of which masks are full
            branches = branches_of(self.skeleton, self.radius, tuple(self.spacing))
        if not branches or (len(branches) == 1 and len(branches[0].line) < 4):
            length, across = self._extents(places, orientation)
            mean = area / length
            widest = min(2 * float(self.radius[self.skeleton].max()), across)
            return area, length, mean, max(widest, mean), orientation
        ends = count_ends(branches)
        courses = [self._follow(branch, ends) for branch in branches]
        length = sum(course.length for course in courses)
        return area, length, *self._widths(courses, branches, ends), orientation

    def _area(self, pixels: np.ndarray) -> float:
        return float(self.shares[pixels].sum(dtype=float) * self.spacing.prod())

    def _extents(self, places: np.ndarray, orientation: float) -> tuple[float, float]:
        """Of the pixels along the main axis, level without one, and across."""
        angle = math.radians(orientation if math.isfinite(orientation) else 0.0)
        axes = np.array([[-math.sin(angle), math.cos(angle)]])
        axes = np.concatenate([axes, axes[:, ::-1] * [1, -1]])  # (y, x) of both
        along = np.ptp(places @ axes.T, axis=0) + np.abs(axes) @ self.spacing
        return float(along[0]), float(along[1])

    def _follow(self, branch: Branch, ends) -> _Course:
        closed = branch.nodes[0] == branch.nodes[1] and ends[branch.nodes[0]] == 2
        line = _smooth(branch.line, closed=closed)
        cut, beyond = [0, 0], 0.0
        for side, node in enumerate(branch.nodes):
            if ends[node] == 1:
                cut[side], reach = self._end(line[:: 1 - 2 * side])
                beyond += reach
        return _Course(line, line[cut[0] : len(line) - cut[1]], beyond)

    def _end(self, line: np.ndarray) -> tuple[int, float]:
        """How many points of a free end to drop, and how far the mask goes on there."""
        radius, pixel = float(np.median(line[:, 2])), float(self.spacing.max())
        travelled = np.append(0.0, _steps(line).cumsum())
        bent = min(CORNER * radius + pixel, travelled[-1] / 3)
        first = int(np.searchsorted(travelled, bent, side="right")) - 1
        straight = travelled[first] + max(2 * radius, 8 * pixel)
        last = min(int(np.searchsorted(travelled, straight)), len(line) - 1)
        direction = line[first, :2] - line[last, :2]
        direction /= np.hypot(*direction)
        limit, step = travelled[first] + CORNER * radius + pixel, pixel / 16
        reach = np.arange(0, limit, step)
        inside = self._within(self.mask, line[first, :2] + reach[:, None] * direction)
        edge = limit if inside.all() else reach[inside.argmin()] - step / 2
        return first, float(max(edge, travelled[first] + self.spacing.min() / 2))

    def _widths(self, courses, branches, ends) -> tuple[float, float]:
        """Mean and maximum; see the module."""
        clear = self._away_from_nodes(branches, ends)
        middles = [self._within(clear, course.middle) for course in courses]
        if not any(counted.any() for counted in middles):
            clear = np.ones_like(clear)  # nothing but nodes
            middles = [self._within(clear, course.middle) for course in courses]
        area, length, widest = self._area(self.pixels & clear), 0.0, 0.0
        for course, counted in zip(courses, middles, strict=True):
            length += course.beyond + float(_steps(course.middle)[counted[1:]].sum())
            across = np.minimum(2 * course.line[:, 2], self._across(course.line))
            across = across[self._within(clear, course.line)]
            widest = max(widest, float(across.max(initial=0)))
        mean = area / length
        return mean, max(widest, mean)

    def _across(self, line: np.ndarray) -> np.ndarray:
        """[n] widths of the mask at the points of a line, at right angles to it."""
        if len(line) < 2:
            return 2 * line[:, 2]
        # On a diagonal every whole step meets the corners of pixels: half-way, too.
        points = np.empty((2 * len(line) - 1, 2))
        points[::2] = line[:, :2]
        points[1::2] = (line[1:, :2] + line[:-1, :2]) / 2
        y, x = np.gradient(points, axis=0).T
        normal = np.stack([-x, y], axis=1) / np.hypot(y, x).clip(1e-9)[:, None]
        limit = CORNER * line[:, 2].max() + self.spacing.max()
        step = max(self.spacing.max() / 4, limit / 64)
        reach = np.arange(step / 2, limit, step)
        width = np.zeros(len(points))
        for way in (reach, -reach):
            rays = points[:, None] + way[:, None] * normal[:, None]
            index = self._index(rays)
            inside = np.logical_and.accumulate(self.mask[index], axis=1)
            width += step * np.where(inside, self.shares[index], 0).sum(axis=1)
        return ndimage.gaussian_filter1d(width, 2 * SIGMA, mode="nearest")[::2]

    def _away_from_nodes(self, branches: list[Branch], ends) -> np.ndarray:
        """[h, w] bool: False where branches overlap."""
        clear = np.ones(self.pixels.shape, bool)
        for branch in branches:
            for node, place in zip(branch.nodes, branch.line[[0, -1]], strict=True):
                if ends[node] < 3:
                    continue
                reach = CORNER * place[2] + self.spacing.max()
                low = np.ceil((place[:2] - reach) / self.spacing).astype(int)
                high = np.floor((place[:2] + reach) / self.spacing).astype(int) + 1
                low, high = np.maximum(low, 0), np.minimum(high, clear.shape)
                window = tuple(map(slice, low, high))
                y, x = np.ogrid[window]
                dy, dx = y * self.spacing[0] - place[0], x * self.spacing[1] - place[1]
                clear[window] &= np.hypot(dy, dx) > reach
        return clear

    def _within(self, area: np.ndarray, line: np.ndarray) -> np.ndarray:
        """[n] bool of the points of a line; those outside count with the border."""
        return area[self._index(line[:, :2])]

    def _index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels at points [..., 2]."""
        index = np.floor(points / self.spacing + 0.5).astype(int)
        index = np.clip(index, 0, np.subtract(self.mask.shape, 1))
        return index[..., 0], index[..., 1]


def _smooth(line: np.ndarray, *, closed: bool) -> np.ndarray:
    """A line and its radii without the steps of pixels; free ends stay in place."""
    around = min(math.ceil(4 * SIGMA), len(line) - 1)
    if closed:
        padded = np.pad(line[:-1], ((around, around + 1), (0, 0)), "wrap")
    else:
        padded = np.pad(line, ((around, around), (0, 0)), "reflect", reflect_type="odd")
    smooth = ndimage.gaussian_filter1d(padded, SIGMA, axis=0)
    return smooth[around : around + len(line)]


def _steps(line: np.ndarray) -> np.ndarray:
    """[n - 1] distances from point to point."""
    return np.hypot(*np.diff(line[:, :2], axis=0).T)


def _orientation(places: np.ndarray) -> float:
    """Of the main axis of points [n, 2] (y, x), 0 <= degrees < 180.

    NaN where there is none.
    """
    y, x = (places - places.mean(axis=0)).T
    level, upright, slanted = (x * x).mean(), (y * y).mean(), -(x * y).mean()
    if math.hypot(level - upright, 2 * slanted) <= 1e-9 * (level + upright):
        return math.nan
    degrees = math.degrees(math.atan2(2 * slanted, level - upright) / 2)
    return degrees % 180 % 180  # -1e-15 % 180 is 180
