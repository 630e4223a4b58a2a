"""How surfaces of concrete look: their ground, pores and what is mistaken for a crack.

A canvas is the light that a surface reflects, float32 [H, W, 3] in 0..1; every
`paint_...` function changes it in place. Look-alikes (joints, shadows, stains, drips,
scratches, moss, tie holes) are in no mask. Sizes are in pixels. Our own design, after
photographs of bridge decks, pavements and walls.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SUPERSAMPLE = 3  # lines are drawn this much larger, then averaged down

Canvas = np.ndarray
Generator = np.random.Generator


def noise(rng: Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise [H, W] float32 of about unit deviation; `cell`: size of features."""
    grid = [int(side / cell) + 3 for side in shape]
    coarse = Image.fromarray(rng.standard_normal(grid, np.float32))
    step = [side / cell for side in shape]
    box = (1, 1, 1 + step[1], 1 + step[0])
    fine = coarse.resize(shape[::-1], Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine) * 1.3  # interpolation takes away a quarter of the deviation


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def multiply(canvas: Canvas, amount: np.ndarray, colour) -> None:
    """Moves the canvas towards canvas * colour where amount [H, W] is 1."""
    for channel, factor in enumerate(colour):
        canvas[..., channel] *= 1 - amount * (1 - np.float32(factor))


def _distance(rng: Generator, shape: tuple[int, int], angle: float) -> np.ndarray:
    """Signed distance [H, W] to a straight line through a random point."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    y0, x0 = rng.uniform(0.1, 0.9, 2) * shape
    along = (x - x0) * np.sin(angle) - (y - y0) * np.cos(angle)
    return along.astype(np.float32)


def draw_lines(shape: tuple[int, int], lines) -> np.ndarray:
    """Covered share [H, W] float32 of (points [T, 2] as (y, x), widths [T]) lines."""
    height, width = shape
    page = Image.new("L", (SUPERSAMPLE * width, SUPERSAMPLE * height))
    draw = ImageDraw.Draw(page)
    for points, widths in lines:
        corners = [tuple(point) for point in (points[:, ::-1] * SUPERSAMPLE).tolist()]
        thick = np.maximum(np.rint(widths * SUPERSAMPLE), 1).astype(int).tolist()
        for start, end, pen in zip(corners, corners[1:], thick, strict=False):
            draw.line((start, end), fill=255, width=pen)
            if pen > 2:  # round the corner between two segments
                (x, y), r = end, pen / 2 - 0.5
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(page.reduce(SUPERSAMPLE), np.float32) / 255


def paint_ground(rng: Generator, kind: "Surface", shape: tuple[int, int]) -> Canvas:
    """Cement at several scales, grains of stone, brush marks and a colour cast."""
    ground = rng.uniform(*kind.albedo) * np.ones(shape, np.float32)
    for cell, strength in ((160, 0.03), (50, 0.02), (16, 0.02), (5, 0.015)):
        ground += noise(rng, shape, cell) * np.float32(strength * rng.uniform(0.5, 1.5))
    grains = noise(rng, shape, rng.uniform(*kind.grain_size))
    stone = sigmoid(9 * (grains - 0.7)) - sigmoid(9 * (-grains - 0.9))
    ground += stone * np.float32(kind.grains * rng.uniform(0.5, 1.5))
    ground += ndimage.gaussian_filter(
        rng.standard_normal(shape, np.float32), rng.uniform(0.5, 0.9)
    ) * np.float32(kind.grit * rng.uniform(0.7, 1.5))
    if kind.brushed and rng.random() < 0.6:
        turned = shape[::-1] if rng.random() < 0.5 else shape
        marks = ndimage.gaussian_filter(
            rng.standard_normal(turned, np.float32), (0.8, rng.uniform(8, 25))
        )
        ground += (marks if turned == shape else marks.T) * rng.uniform(0.1, 0.35)
    warm = rng.normal(0.02, 0.025)
    cast = np.float32([1 + warm, 1 + rng.normal(0, 0.008), 1 - 1.3 * warm])
    return ground.clip(0.08, 0.95)[..., None] * cast


def paint_pores(rng: Generator, canvas: Canvas, density: float) -> None:
    """Small dark holes, lit on one rim."""
    height, width = canvas.shape[:2]
    holes = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(holes)
    for _ in range(rng.poisson(density * height * width / 1e4)):
        x, y = rng.uniform(0, 2 * width), rng.uniform(0, 2 * height)
        radius = 0.8 + min(rng.exponential(1.3), 7)
        flat = radius * rng.uniform(0.6, 1)
        fill = int(rng.integers(60, 256))
        draw.ellipse((x - radius, y - flat, x + radius, y + flat), fill=fill)
    depth = np.asarray(holes.reduce(2), np.float32) / 255
    multiply(canvas, depth, np.full(3, rng.uniform(0.35, 0.65)))
    canvas *= 1 + 0.15 * np.roll(depth, (1, 1), (0, 1))[..., None] * (
        1 - depth[..., None]
    )


def _paint_joints(rng: Generator, canvas: Canvas) -> None:
    """One to three straight formwork or saw joints, with panels of other brightness."""
    upright = rng.integers(2) * np.pi / 2
    for _ in range(rng.integers(1, 4)):
        turn = np.pi / 2 if rng.random() < 0.3 else 0
        away = _distance(rng, canvas.shape[:2], upright + turn + rng.normal(0, 0.02))
        line = np.exp(-((away / rng.uniform(0.7, 2.5)) ** 2))
        panel = 1 + rng.normal(0, 0.04) * sigmoid(away)
        canvas *= (panel * (1 - rng.uniform(0.25, 0.65) * line))[..., None]


def _paint_shadow(rng: Generator, canvas: Canvas) -> None:
    """The shadow of an edge, a pole or a tree, with a soft border, a little blue."""
    shape = canvas.shape[:2]
    away = _distance(rng, shape, rng.uniform(0, np.pi))
    form = rng.integers(3)
    if form == 1:
        away = np.abs(away) - rng.uniform(4, 50)
    if form == 2:
        away = away * 0.5 + rng.uniform(15, 40) * noise(rng, shape, rng.uniform(20, 60))
    depth = sigmoid(-away / rng.uniform(0.8, 7))
    dark = rng.uniform(0.35, 0.75)
    multiply(canvas, depth, (dark, dark * 1.02, dark * 1.06))


def _paint_stains(rng: Generator, canvas: Canvas) -> None:
    """Blotches of damp, oil or rust, with a darker rim."""
    shape = canvas.shape[:2]
    field = noise(rng, shape, rng.uniform(50, 200))
    for cell, strength in ((40, 0.3), (12, 0.18), (4, 0.1)):
        field += strength * noise(rng, shape, cell)
    inside = field - rng.uniform(0.6, 1.3)
    amount = sigmoid(inside * rng.uniform(2.5, 14))
    amount += 0.4 * np.exp(-((inside * 12) ** 2)) * rng.random()
    dark = rng.uniform(0.5, 0.88)
    rust = rng.random() < 0.3
    multiply(
        canvas, amount, (dark * 1.1, dark * 0.95, dark * 0.82) if rust else [dark] * 3
    )


def _paint_drips(rng: Generator, canvas: Canvas) -> None:
    """Streaks that water leaves on its way down, dark or white with lime."""
    height, width = canvas.shape[:2]
    columns = np.maximum(noise(rng, (1, width), rng.uniform(3, 12))[0] - 0.9, 0)
    start = rng.uniform(-0.3, 0.5) * height + 25 * noise(rng, (1, width), 8)[0]
    y = np.arange(height, dtype=np.float32)[:, None]
    below = np.maximum(y - start, 0)
    fade = np.minimum(below / 6, 1) * np.exp(-below / rng.uniform(50, 250))
    wobble = 1 + 0.3 * noise(rng, (height, width), 20)
    amount = (columns * fade * wobble).clip(0, 1)
    multiply(canvas, amount, [rng.choice((rng.uniform(0.3, 0.7), 1.35))] * 3)


def _paint_scratches(rng: Generator, canvas: Canvas) -> None:
    """Thin straight or slightly bent scratches, mostly bright."""
    shape = np.array(canvas.shape[:2])
    lines = []
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 7)):
        turn = heading + rng.normal(0, 0.3) + np.linspace(0, rng.normal(0, 0.3), 20)
        steps = rng.uniform(2, 9) * np.stack([np.sin(turn), np.cos(turn)], 1)
        points = rng.uniform(0, 1, 2) * shape + np.cumsum(steps, 0)
        lines.append((points, np.full(20, rng.uniform(0.5, 1.6))))
    covered = draw_lines(tuple(shape), lines)
    tone = rng.uniform(1.15, 1.5) if rng.random() < 0.65 else rng.uniform(0.5, 0.8)
    multiply(canvas, covered * rng.uniform(0.5, 1), [tone] * 3)


def _paint_moss(rng: Generator, canvas: Canvas) -> None:
    """Dark green growth from one side, with a ragged border."""
    shape = canvas.shape[:2]
    away = _distance(rng, shape, rng.uniform(0, 2 * np.pi)) - 0.3 * min(shape)
    ragged = 25 * noise(rng, shape, 40) + 12 * noise(rng, shape, 10)
    ragged += 6 * noise(rng, shape, 3)
    amount = sigmoid((away + ragged) / rng.uniform(1.5, 5))
    amount *= (0.8 + 0.1 * noise(rng, shape, 4) + 0.1 * noise(rng, shape, 15)).clip(
        0, 1
    )
    dark = rng.uniform(0.35, 0.6)
    multiply(canvas, amount, (dark * 0.98, dark * 1.08, dark * 0.78))


def _paint_tie_holes(rng: Generator, canvas: Canvas) -> None:
    """Round holes of the formwork anchors in a row, open or filled with mortar."""
    height, width = canvas.shape[:2]
    y, x = np.ogrid[:height, :width]
    radius, spacing = rng.uniform(4, 10), rng.uniform(130, 250)
    row, offset = rng.uniform(0.1, 0.9) * height, rng.uniform(0, spacing)
    tone = rng.choice((rng.uniform(0.2, 0.4), rng.uniform(0.75, 0.9)))
    for centre in np.arange(offset, width, spacing):
        away = np.sqrt((x - centre) ** 2 + (y - row) ** 2).astype(np.float32) - radius
        lit = 0.75 + 0.25 * ((y - row) / radius).clip(-1, 1)
        multiply(canvas, sigmoid(-2 * away) * lit.astype(np.float32), [tone] * 3)
        canvas *= (1 + 0.1 * np.exp(-((away - 1.5) ** 2)))[..., None]


@dataclasses.dataclass(frozen=True)
class Surface:
    """How a kind of surface looks.

    Attributes:
      albedo: range of the mean reflectance.
      grain_size: range of the size of the stones, pixels.
      grains: contrast of the stones.
      grit: contrast of the finest texture.
      pores: holes per 10,000 pixels.
      brushed: whether it may have brush marks.
      look_alikes: painters of what is mistaken for a crack.
    """

    albedo: tuple[float, float]
    grain_size: tuple[float, float]
    grains: float
    grit: float
    pores: float
    brushed: bool
    look_alikes: tuple[Callable[[Generator, Canvas], None], ...]


SURFACES = {
    "deck": Surface(
        (0.5, 0.72),
        (3, 7),
        0.02,
        0.05,
        2.0,
        True,
        (_paint_joints, _paint_stains, _paint_scratches, _paint_shadow),
    ),
    "pavement": Surface(
        (0.35, 0.6),
        (4, 9),
        0.07,
        0.12,
        3.0,
        False,
        (_paint_joints, _paint_stains, _paint_scratches, _paint_moss, _paint_shadow),
    ),
    "wall": Surface(
        (0.5, 0.8),
        (4, 10),
        0.012,
        0.03,
        3.5,
        False,
        (
            _paint_joints,
            _paint_tie_holes,
            _paint_stains,
            _paint_drips,
            _paint_moss,
            _paint_shadow,
        ),
    ),
}
