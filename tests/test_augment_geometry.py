"""Maps against matrices by hand, sampling against SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.augment import geometry, make_augment
from jaxseg.augment.resample import places, resample
from jaxseg.types import IGNORE

KEYS = jax.random.split(jax.random.key(0), 400)
SIZE = (24, 32)


def drawn(function, size=SIZE, **options):
    """What the function gives for 400 samples."""
    run = jax.jit(jax.vmap(lambda key: function(key, size, **options)))
    return jax.tree.map(np.asarray, run(KEYS))


def sample(pixels, matrix, shift=(0.0, 0.0)):
    """(image, mask, rows, columns) of one sample seen through a map."""

    @jax.jit
    def see(pixels, matrix):
        rows, columns = places(matrix, shift, pixels["image"].shape[:2])
        return resample(pixels, rows, columns), rows, columns

    seen, rows, columns = see(pixels, jnp.asarray(matrix, jnp.float32))
    return np.asarray(seen["image"]), np.asarray(seen["mask"]), rows, columns


def random_pixels(size=SIZE, channels=3):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    mask = rng.choice(np.uint8([0, 1, 2, IGNORE]), size)
    return {"image": image, "mask": mask}


def turn(degrees, zoom=1.0, shift=(0.0, 0.0)):
    """Rotation by degrees, enlarged, in the order of `geometry.rotate`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[cos, sin], [-sin, cos]]) / zoom
    matrix[:2, 2] = shift
    return matrix


# Sampling.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "matrix",
    [turn(0), turn(20), turn(-75, 2.0, (3.5, -2.25)), turn(10, 1.1, (40.0, -70.0))],
    ids=["identity", "turned", "turned and enlarged", "far outside"],
)
def test_places_are_seen_as_by_scipy(matrix, channels):
    pixels = random_pixels(channels=channels)
    image, mask, rows, columns = sample(pixels, matrix)
    # The places, in float64: middle + matrix @ (place - middle).
    middle = (np.array(SIZE) - 1) / 2
    new = np.indices(SIZE).reshape(2, -1) - middle[:, None]
    old = matrix[:2, :2] @ new + matrix[:2, 2:] + middle[:, None]
    np.testing.assert_allclose(np.stack([rows, columns]).reshape(2, -1), old, atol=1e-4)
    at = np.stack([rows, columns]).astype(np.float64)
    for channel in range(channels):
        wanted = ndimage.map_coordinates(
            pixels["image"][..., channel].astype(np.float64), at, order=1, mode="mirror"
        )
        np.testing.assert_allclose(image[..., channel], wanted, atol=0.02)
    nearest = ndimage.map_coordinates(pixels["mask"], at, order=0, mode="mirror")
    undecided = (np.abs(at % 1 - 0.5) < 1e-3).any(axis=0)  # halfway: either is right
    np.testing.assert_array_equal(mask[~undecided], nearest[~undecided])
    assert undecided.mean() < 0.2


def test_the_identity_is_exact():
    pixels = random_pixels()
    image, mask, _, _ = sample(pixels, np.eye(3))
    np.testing.assert_array_equal(image, pixels["image"])
    np.testing.assert_array_equal(mask, pixels["mask"])


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("factor", [1.2, 1.5, 1.9, 2.0])
@pytest.mark.parametrize("line", [10, 11])
def test_a_line_one_pixel_wide_stays_when_the_picture_shrinks(line, factor, shift):
    mask = np.zeros((32, 32), np.uint8)
    mask[line] = 1
    image = mask[..., None] * np.uint8(240)
    matrix = np.diag([factor, factor, 1.0])
    matrix[0, 2] = shift
    seen, seen_mask, rows, _ = sample({"image": image, "mask": mask}, matrix)
    rows = np.asarray(rows[:, 0])
    inside = (rows > 0) & (rows < 31)
    # The row whose place is nearest; exactly halfway between two places either or both.
    distance = np.abs(rows - line)
    clear = inside & (np.abs(distance - factor / 2) > 1e-3)
    wanted = (distance < factor / 2)[clear, None].repeat(32, axis=1)
    np.testing.assert_array_equal(seen_mask[clear], wanted)
    assert set(seen_mask[inside].sum(axis=0)) <= {1, 2}
    # In the image it fades as its share of the area does, at most by half of that.
    assert seen[inside].sum(axis=0).min() >= 240 / factor / 2


def test_shrinking_by_two_is_the_mean_of_two_by_two():
    pixels = random_pixels((32, 32))
    matrix = np.diag([2.0, 2.0, 1.0])
    image, _, rows, _ = sample(pixels, matrix)
    # Places lie at -15.5, -13.5, ... on the lower right pixel of a block.
    wanted = pixels["image"].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert rows[8, 0] == pytest.approx(0.5)
    np.testing.assert_allclose(image[8:24, 8:24], wanted, atol=1e-3)


def test_ignored_pixels_neither_spread_nor_vanish_at_natural_size():
    pixels = random_pixels()
    _, mask, _, _ = sample(pixels, turn(0, 1.0, (2.0, -3.0)))
    np.testing.assert_array_equal(mask[3:-3, 4:-4], pixels["mask"][5:-1, 1:-7])


# The maps.


def test_a_crop_lies_inside_and_fills_the_image():
    matrices = drawn(geometry.crop, share=(0.3, 0.6))
    kept = matrices[:, 0, 0]
    np.testing.assert_allclose(matrices[:, 1, 1], kept)
    assert 0.3 <= kept.min() < 0.32
    assert 0.58 < kept.max() <= 0.6
    for axis, length in enumerate(SIZE):
        free = (1 - kept) * length / 2  # from the middle of the crop to that of all
        assert (np.abs(matrices[:, axis, 2]) <= free + 1e-4).all()
        assert (np.abs(matrices[:, axis, 2]) / free).max() > 0.95
    # The corners of the new image are the corners of the crop.
    corner = matrices[0] @ [-SIZE[0] / 2, -SIZE[1] / 2, 1]
    assert corner[0] >= -SIZE[0] / 2
    assert corner[1] >= -SIZE[1] / 2


def test_rotations_keep_lengths_and_turn_to_both_sides():
    matrices = drawn(geometry.rotate, degrees=30.0)[:, :2, :2].astype(np.float64)
    for matrix in matrices:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-6)
        assert np.linalg.det(matrix) == pytest.approx(1)
    angles = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30


def test_quarter_turns_are_those_of_numpy():
    square = random_pixels((20, 20))
    seen = set()
    for matrix in drawn(geometry.rot90, (20, 20)):
        image = sample(square, matrix)[0] if matrix.tobytes() not in seen else None
        if image is not None:
            quarters = [np.rot90(square["image"], k) for k in range(4)]
            assert sum(np.array_equal(image, each) for each in quarters) == 1
        seen.add(matrix.tobytes())
    assert len(seen) == 4


def test_a_shear_leans_upright_edges():
    matrices = drawn(geometry.shear, degrees=8.0)
    np.testing.assert_array_equal(matrices[:, 0], np.tile([1, 0, 0], (400, 1)))
    assert np.abs(matrices[:, 1, 0]).max() == pytest.approx(
        math.tan(math.radians(8)), rel=0.02
    )


def test_scales_of_the_axes_differ_and_a_factor_above_one_enlarges():
    matrices = drawn(geometry.scale, factor=(0.8, 1.25))
    factors = 1 / np.stack([matrices[:, 0, 0], matrices[:, 1, 1]])
    assert 0.8 - 1e-6 <= factors.min() < 0.81
    assert 1.24 < factors.max() <= 1.25 + 1e-6
    assert abs(np.corrcoef(factors)[0, 1]) < 0.2
    # A block of two pixels becomes four pixels wide.
    pixels = random_pixels()
    pixels["mask"][:] = 0
    pixels["mask"][11:13, 15:17] = 1
    assert sample(pixels, np.diag([0.5, 0.5, 1]))[1].sum() == 16


def test_a_translation_is_a_share_of_the_sides():
    matrices = drawn(geometry.translate, share=0.25)
    np.testing.assert_array_equal(matrices[:, :2, :2], np.tile(np.eye(2), (400, 1, 1)))
    assert np.abs(matrices[:, 0, 2]).max() == pytest.approx(SIZE[0] / 4, rel=0.02)
    assert np.abs(matrices[:, 1, 2]).max() == pytest.approx(SIZE[1] / 4, rel=0.02)


def test_maps_are_done_one_after_the_other():
    """A crop, then a turn: what is turned is the enlarged crop."""
    crop, rotate = np.diag([0.5, 0.5, 1.0]), turn(30)
    crop[:2, 2] = 3.0, -2.0
    total = geometry.compose([jnp.float32(crop), jnp.float32(rotate)])
    np.testing.assert_allclose(total, crop @ rotate, atol=1e-6)
    place = np.array([4.0, 7.0, 1.0])  # in the new image
    np.testing.assert_allclose(total @ place, crop @ (rotate @ place), atol=1e-5)


def test_a_distortion_comes_after_the_linear_map():
    shift = np.full((1, 1), 5.0, np.float32), np.zeros((1, 1), np.float32)
    _, _, rows, _ = sample(random_pixels(), np.diag([0.5, 0.5, 1]), shift)
    _, _, still, _ = sample(random_pixels(), np.diag([0.5, 0.5, 1]))
    np.testing.assert_allclose(rows - still, 2.5, atol=1e-5)


# Distortions.


def test_elastic_noise_has_the_deviation_and_smoothness_of_blurred_noise():
    alpha, sigma = 120.0, 6.0
    shift_y, shift_x = drawn(geometry.elastic, alpha=alpha, sigma=sigma)
    assert shift_y.shape == shift_x.shape == (400, *SIZE)
    rng = np.random.default_rng(0)  # as Simard and albumentations make it
    white = rng.uniform(-1, 1, (400, 90, 90))
    blurred = alpha * ndimage.gaussian_filter(white, (0, sigma, sigma))[:, 25:65, 25:65]
    for shift in (shift_y, shift_x):
        assert shift.std() == pytest.approx(blurred.std(), rel=0.05)
        assert np.diff(shift, axis=1).std() == pytest.approx(
            np.diff(blurred, axis=1).std(), rel=0.05
        )
        # nowhere more than elsewhere
        assert np.ptp(shift.std(axis=0)) < 0.35 * shift.std()
    assert abs(np.corrcoef(shift_y.ravel(), shift_x.ravel())[0, 1]) < 0.1


def test_a_grid_keeps_the_edges_and_the_order_and_is_straight_in_a_cell():
    steps, limit = 4, 0.5
    shift_y, shift_x = drawn(geometry.grid, steps=steps, limit=limit)
    assert shift_y.shape == (400, SIZE[0], 1)
    assert shift_x.shape == (400, 1, SIZE[1])
    for shift, length in ((shift_y[..., 0], SIZE[0]), (shift_x[:, 0], SIZE[1])):
        place = np.arange(length) + 0.5 + shift  # from the upper or left edge
        gaps = np.diff(place, axis=1)
        assert gaps.min() > 0
        cell = length // steps
        within = gaps.reshape(400, -1)[:, : cell - 1]  # of the first cell
        np.testing.assert_allclose(within, within[:, :1].repeat(cell - 1, 1), atol=1e-5)
        # The widths of a cell: 1 + change over their sum.
        widths = gaps[:, ::cell]
        assert widths.max() <= (1 + limit) / (4 - 3 * limit + limit) * 4 + 1e-4
        assert widths.max() > 1.3
        assert (place[:, 0] > 0).all()
        assert (place[:, -1] < length).all()
        np.testing.assert_allclose(place[:, 0], widths[:, 0] / 2, atol=1e-4)


def test_a_lens_moves_places_by_its_polynomial():
    limit, size = 1.0, (20, 30)
    shift_y, shift_x = drawn(geometry.optical, size, limit=limit, shift=0.0)
    y, x = np.indices(size) - (np.array(size)[:, None, None] - 1) / 2
    r = np.hypot(y, x) / 30
    corner = shift_x[:, 0, 0] / (x * (r**2 + r**4))[0, 0]  # k of every sample
    assert -1 <= corner.min() < -0.97
    assert 0.97 < corner.max() <= 1
    for k, found_y, found_x in zip(corner, shift_y, shift_x, strict=True):
        np.testing.assert_allclose(found_y, k * y * (r**2 + r**4), atol=1e-4)
        np.testing.assert_allclose(found_x, k * x * (r**2 + r**4), atol=1e-4)


def test_the_middle_of_the_lens_moves():
    shift_y, _ = drawn(geometry.optical, (21, 21), limit=1.0, shift=4.0)
    at = np.abs(shift_y[:, :, 10]).argmin(axis=1)  # where nothing moves
    assert at.min() == 6
    assert at.max() == 14


def test_oblong_images_are_distorted_too():
    named = dict(
        elastic=dict(p=0.5, alpha=60.0, sigma=4.0),
        optical=dict(p=0.5, limit=1.0, shift=0),
    )
    pixels = {k: v[None].repeat(3, axis=0) for k, v in random_pixels().items()}
    batch = pixels | {"index": np.arange(3, dtype=np.int32)}
    moved = jax.jit(make_augment(named))(jax.random.key(0), batch)
    assert moved["image"].shape == (3, *SIZE, 3)
    assert (np.asarray(moved["image"]) != pixels["image"]).any()
