import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxseg import augment, parallel
from jaxseg.types import IGNORE

SIDE = 6
ALL_HALF = dict(hflip=0.5, vflip=0.5, transpose=0.5)


def coordinates(count=16):
    """Every pixel knows where it came from, in the image and in the mask."""
    rows, columns = np.indices((SIDE, SIDE))
    image = np.stack([rows, columns, rows * SIDE + columns], axis=-1)
    mask = rows * SIDE + columns
    mask[0, 1] = IGNORE
    return {
        "image": np.tile(image.astype(np.uint8), (count, 1, 1, 1)),
        "mask": np.tile(mask.astype(np.uint8), (count, 1, 1)),
        "label": np.arange(count, dtype=np.int32),
        "valid": np.ones(count, bool),
    }


def mesh_of(num_devices):
    devices = jax.devices()[:num_devices]
    return jax.make_mesh(
        (num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def on_devices(num_devices):
    """`(seed, batch) -> batch` with every move at 0.5, compiled for these devices."""
    mesh = mesh_of(num_devices)
    run = jax.jit(
        augment.make_augment(**ALL_HALF),
        in_shardings=(parallel.replicated(mesh), parallel.split_batch(mesh)),
        out_shardings=parallel.split_batch(mesh),
    )

    def move(seed, batch):
        key = jax.device_put(jax.random.key(seed), parallel.replicated(mesh))
        return jax.device_get(run(key, parallel.put_batch(batch, mesh)))

    return move


@pytest.fixture(scope="module")
def move():
    return on_devices(1)


def symmetries(pixels):
    """The eight symmetries of a square image."""
    turned = [np.rot90(pixels, quarter) for quarter in range(4)]
    return turned + [np.flip(each, axis=1) for each in turned]


def test_image_and_mask_move_alike_and_ignored_pixels_stay_ignored(move):
    moved = move(0, coordinates())
    rows, columns, index = np.moveaxis(moved["image"], -1, 0)
    np.testing.assert_array_equal(index, rows * SIDE + columns)
    ignored = (rows == 0) & (columns == 1)
    assert ignored.sum() == len(rows)
    np.testing.assert_array_equal(moved["mask"], np.where(ignored, IGNORE, index))


def test_every_result_is_a_symmetry_of_the_square(move):
    batch = coordinates()
    seen = set()
    for seed in range(6):
        for pixels in move(seed, batch)["mask"]:
            equal = [
                number
                for number, wanted in enumerate(symmetries(batch["mask"][0]))
                if np.array_equal(pixels, wanted)
            ]
            assert len(equal) == 1
            seen |= set(equal)
    assert seen == set(range(8))


def test_values_only_change_place(move):
    rng = np.random.default_rng(0)
    batch = coordinates()
    batch["image"] = rng.integers(0, 256, batch["image"].shape, dtype=np.uint8)
    moved = move(3, batch)["image"]
    assert moved.dtype == np.uint8
    for before, after in zip(batch["image"], moved, strict=True):
        np.testing.assert_array_equal(np.sort(before, None), np.sort(after, None))


def test_samples_move_differently_and_labels_not_at_all(move):
    batch = coordinates()
    moved = move(0, batch)
    assert len({pixels.tobytes() for pixels in moved["mask"]}) > 3
    np.testing.assert_array_equal(moved["label"], batch["label"])
    np.testing.assert_array_equal(moved["valid"], batch["valid"])


def test_the_key_decides(move):
    first, again, other = (move(seed, coordinates())["mask"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_number_of_devices_does_not_matter(move):
    moved, alike = move(5, coordinates()), on_devices(8)(5, coordinates())
    for name in moved:
        np.testing.assert_array_equal(moved[name], alike[name])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hflip", lambda pixels: np.flip(pixels, axis=2)),
        ("vflip", lambda pixels: np.flip(pixels, axis=1)),
        ("transpose", lambda pixels: pixels.swapaxes(1, 2)),
    ],
)
def test_a_probability_of_one_always_moves(name, wanted):
    never = dict(hflip=0.0, vflip=0.0, transpose=0.0)
    run = jax.jit(augment.make_augment(**{**never, name: 1.0}))
    batch = coordinates(4)
    moved = run(jax.random.key(0), batch)
    np.testing.assert_array_equal(moved["image"], wanted(batch["image"]))
    np.testing.assert_array_equal(moved["mask"], wanted(batch["mask"]))


def test_a_probability_of_zero_leaves_the_bytes():
    batch = coordinates(2)
    still = augment.make_augment(hflip=0.0, vflip=0.0, transpose=0.0)
    moved = still(jax.random.key(0), batch)
    assert all(moved[name] is batch[name] for name in batch)


def test_the_callers_batch_is_not_changed():
    batch = coordinates(2)
    before = dict(batch)
    augment.make_normalize((0.5,) * 3, (0.25,) * 3)(batch)
    assert all(batch[name] is before[name] for name in before)


def test_normalisation_by_hand():
    image = np.uint8([[[[0, 255, 51]]]])  # 0, 1 and 0.2
    normalize = augment.make_normalize((0.5, 0.5, 0.4), (0.25, 0.5, 0.1))
    found = normalize({"image": image})["image"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[[-2.0, 1.0, -2.0]]]], rtol=0, atol=1e-6)


def test_normalisation_keeps_the_classes():
    batch = coordinates(2)
    found = augment.make_normalize((0.5,) * 3, (0.25,) * 3)(batch)
    assert found["mask"].dtype == np.int32
    np.testing.assert_array_equal(found["mask"], batch["mask"])
    assert (np.asarray(found["mask"])[:, 0, 1] == IGNORE).all()
