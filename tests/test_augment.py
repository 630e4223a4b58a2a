"""Laws of the whole: whose random numbers, which order, what stays as it is."""

import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxseg import augment, parallel
from jaxseg.augment import AUGMENTS, STREAMS, make_augment
from jaxseg.schema import keys_of
from jaxseg.types import IGNORE

SIDE = 16
FLIPS = dict(hflip=dict(p=0.5), vflip=dict(p=0.5), transpose=dict(p=0.5))
# The augmentations published with the speed lines and the coffee leaves.
SPEEDLINES = dict(
    crop=dict(p=0.5, share=(50 / 256, 101 / 256)),
    vflip=dict(p=0.5),
    rot90=dict(p=0.5),
    elastic=dict(p=0.2, alpha=120.0, sigma=6.0),
    grid=dict(p=0.2, steps=5, limit=0.3),
    optical=dict(p=0.4, limit=1.0, shift=0.5),
)
COFFEE_LEAF = dict(
    crop=dict(p=0.5, share=(0.8, 1.0)),
    scale=dict(p=1.0, factor=(0.8, 1.2)),
    shear=dict(p=1.0, degrees=8.0),
    rotate=dict(p=1.0, degrees=90.0),
    translate=dict(p=1.0, share=0.2),
    hflip=dict(p=0.5),
    vflip=dict(p=0.5),
    gain=dict(p=1.0, factor=(0.8, 1.2), per_channel=0.2),
)
# Every augmentation, and the strength at which it changes nothing.
NOTHING = dict(
    crop=dict(p=1.0, share=(1.0, 1.0)),
    scale=dict(p=1.0, factor=(1.0, 1.0)),
    shear=dict(p=1.0, degrees=0.0),
    rotate=dict(p=1.0, degrees=0.0),
    translate=dict(p=1.0, share=0.0),
    elastic=dict(p=0.4, alpha=0.0, sigma=3.0),
    grid=dict(p=0.3, steps=5, limit=0.0),
    optical=dict(p=0.3, limit=0.0, shift=1.0),
    brightness=dict(p=1.0, shift=0.0),
    contrast=dict(p=1.0, factor=(1.0, 1.0)),
    gamma=dict(p=1.0, exponent=(1.0, 1.0)),
    gain=dict(p=1.0, factor=(1.0, 1.0), per_channel=0.5),
    color=dict(p=1.0, hue=0.0, saturation=(1.0, 1.0)),
    blur=dict(p=1.0, sigma=(0.0, 0.0)),
    noise=dict(p=1.0, std=(0.0, 0.0)),
    dropout=dict(p=1.0, holes=3, share=(0.0, 0.0)),
)


def coordinates(count=16, side=SIDE):
    """Every pixel knows where it came from, in the image and in the mask."""
    rows, columns = np.indices((side, side))
    image = np.stack([rows, columns, rows * side + columns], axis=-1)
    mask = (rows * side + columns) % 200
    mask[0, 1] = IGNORE
    return with_index(
        {
            "image": np.tile(image.astype(np.uint8), (count, 1, 1, 1)),
            "mask": np.tile(mask.astype(np.uint8), (count, 1, 1)),
        }
    )


def noise(count=16, side=SIDE, channels=3):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    mask = np.where(image[..., 0] > 240, IGNORE, image[..., 0] // 60)
    return with_index({"image": image, "mask": mask.astype(np.uint8)})


def with_index(pixels):
    count = len(pixels["image"])
    return pixels | {
        "label": np.arange(count, dtype=np.int32),
        "valid": np.ones(count, bool),
        "index": 100 + np.arange(count, dtype=np.int32),
    }


def pixels_of(batch):
    return {name: np.asarray(batch[name]) for name in ("image", "mask")}


@functools.cache
def compiled(names):
    return jax.jit(make_augment(dict(NAMED[names])))


NAMED = {
    "flips": FLIPS,
    "speedlines": SPEEDLINES,
    "coffee_leaf": COFFEE_LEAF,
    "nothing": NOTHING,
}


def run(names, seed, batch):
    return compiled(names)(jax.random.key(seed), batch)


def symmetries(pixels):
    """The eight symmetries of a square image."""
    turned = [np.rot90(pixels, quarter) for quarter in range(4)]
    return turned + [np.flip(each, axis=1) for each in turned]


def which_symmetry(pixels, original):
    equal = [
        number
        for number, wanted in enumerate(symmetries(original))
        if np.array_equal(pixels, wanted)
    ]
    assert len(equal) == 1
    return equal[0]


# The exact moves.


def test_flips_move_image_and_mask_alike_and_ignored_pixels_stay_ignored():
    moved = run("flips", 0, coordinates())
    rows, columns, _ = np.moveaxis(np.asarray(moved["image"]), -1, 0)
    ignored = (rows == 0) & (columns == 1)
    assert ignored.sum() == len(rows)
    wanted = (rows.astype(int) * SIDE + columns) % 200
    np.testing.assert_array_equal(moved["mask"], np.where(ignored, IGNORE, wanted))


@pytest.mark.parametrize(
    "named",
    [FLIPS, dict(hflip=dict(p=0.5), rot90=dict(p=1.0))],
    ids=["hflip vflip transpose", "hflip rot90"],
)
def test_all_eight_symmetries_of_the_square_are_as_likely(named):
    batch = coordinates(800)
    batch = {
        name: rows[:, :4, :4] if rows.ndim > 1 else rows for name, rows in batch.items()
    }
    moved = jax.jit(make_augment(named))(jax.random.key(0), batch)
    image = np.asarray(moved["image"])
    found = [which_symmetry(each, batch["image"][0]) for each in image]
    # 100 each; the deviation of a binomial count is 9.4
    assert np.abs(np.bincount(found, minlength=8) - 100).max() < 40


def test_exact_moves_keep_every_value():
    batch = noise()
    moved = run("flips", 3, batch)
    for before, after in zip(batch["image"], np.asarray(moved["image"]), strict=True):
        np.testing.assert_array_equal(np.sort(before, None), np.sort(after, None))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hflip", lambda pixels: np.flip(pixels, axis=2)),
        ("vflip", lambda pixels: np.flip(pixels, axis=1)),
        ("transpose", lambda pixels: pixels.swapaxes(1, 2)),
    ],
)
def test_a_probability_of_one_always_moves(name, wanted):
    batch = noise(4)
    for others in ({}, dict(rotate=dict(p=1.0, degrees=0.0))):  # resampled: the same
        change = jax.jit(make_augment({name: dict(p=1.0), **others}))
        moved = change(jax.random.key(0), batch)
        np.testing.assert_array_equal(moved["image"], wanted(batch["image"]))
        np.testing.assert_array_equal(moved["mask"], wanted(batch["mask"]))


def test_the_same_moves_resampled_are_the_same():
    still = dict(rotate=dict(p=1.0, degrees=0.0))
    named = dict(hflip=dict(p=0.5), rot90=dict(p=0.8), transpose=dict(p=0.5))
    batch = noise()
    exact, resampled = (
        jax.jit(make_augment(each))(jax.random.key(4), batch)
        for each in (named, named | still)
    )
    for name, pixels in pixels_of(exact).items():
        np.testing.assert_array_equal(pixels, resampled[name])


# What stays as it is.


def test_nothing_named_and_a_probability_of_zero_leave_the_arrays():
    batch = coordinates(2)
    for named in ({}, dict(hflip=dict(p=0), rotate=dict(p=0.0, degrees=9.0))):
        moved = make_augment(named)(jax.random.key(0), batch)
        assert all(moved[name] is batch[name] for name in batch)


def test_no_strength_is_exactly_no_change():
    assert set(NOTHING) | {"jpeg", "mixup", "cutmix", *augment.MOVES} == set(AUGMENTS)
    batch = noise()
    moved = run("nothing", 0, batch)
    for name, pixels in pixels_of(moved).items():
        np.testing.assert_array_equal(pixels, batch[name])


@pytest.mark.parametrize("names", ["flips", "speedlines", "coffee_leaf"])
def test_shapes_dtypes_and_all_else_stay(names):
    batch = noise()
    moved = run(names, 0, batch)
    assert moved.keys() == batch.keys()
    for name, rows in batch.items():
        assert (moved[name].shape, moved[name].dtype) == (rows.shape, rows.dtype)
    for name in ("label", "valid", "index"):
        np.testing.assert_array_equal(moved[name], batch[name])
    assert set(np.unique(moved["mask"])) <= set(np.unique(batch["mask"]))


def test_the_callers_batch_is_not_changed():
    batch = noise()
    before = {name: rows.copy() for name, rows in batch.items()}
    moved = run("speedlines", 0, batch)
    assert (np.asarray(moved["image"]) != batch["image"]).any()
    for name, rows in before.items():
        np.testing.assert_array_equal(batch[name], rows)


@pytest.mark.parametrize("names", ["speedlines", "coffee_leaf"])
def test_image_and_mask_move_alike(names):
    """Two rectangles, of which the image has one in red and one in green."""
    mask = np.zeros((8, 64, 64), np.uint8)
    mask[:, 10:30, 20:50], mask[:, 40:60, 5:25] = 1, 2
    image = np.stack([mask == 1, mask == 2, mask == 3], axis=-1) * np.uint8(255)
    named = {k: v for k, v in NAMED[names].items() if k != "gain"}
    batch = with_index({"image": image, "mask": mask})
    moved = pixels_of(jax.jit(make_augment(named))(jax.random.key(1), batch))
    assert (moved["image"] != image).mean() > 0.1
    red, green, blue = np.moveaxis(moved["image"], -1, 0)
    assert not blue.any()
    pure = np.isin(red, (0, 255)) & np.isin(green, (0, 255))  # not at an edge
    assert pure.mean() > 0.8
    wanted = np.where(red == 255, 1, np.where(green == 255, 2, 0))
    np.testing.assert_array_equal(moved["mask"][pure], wanted[pure])
    assert set(np.unique(moved["mask"])) == {0, 1, 2}


# Whose random numbers.


def test_the_key_of_the_step_decides():
    batch = noise()
    first, again, other = (run("speedlines", seed, batch) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert (np.asarray(first["image"]) != np.asarray(other["image"])).any()


def test_samples_change_differently():
    batch = coordinates()
    for names in ("speedlines", "coffee_leaf"):
        moved = np.asarray(run(names, 0, batch)["image"])
        assert len({pixels.tobytes() for pixels in moved}) == len(moved)


@pytest.mark.parametrize("names", ["flips", "speedlines", "coffee_leaf"])
def test_the_sample_decides_not_its_place_in_the_batch(names):
    batch = noise()
    order = np.random.default_rng(1).permutation(len(batch["image"]))
    moved = run(names, 5, batch)
    shuffled = run(names, 5, {name: rows[order] for name, rows in batch.items()})
    for name in batch:
        np.testing.assert_array_equal(np.asarray(moved[name])[order], shuffled[name])
    half = {name: rows[8:] for name, rows in batch.items()}
    for name, rows in jax.jit(make_augment(NAMED[names]))(
        jax.random.key(5), half
    ).items():
        np.testing.assert_array_equal(np.asarray(moved[name])[8:], rows)


def test_a_sample_that_comes_twice_changes_differently():
    batch = noise(4)
    repeated = {
        name: np.tile(rows[:1], (4, *[1] * (rows.ndim - 1)))
        for name, rows in batch.items()
    }
    moved = np.asarray(run("coffee_leaf", 0, repeated)["image"])
    assert len({pixels.tobytes() for pixels in moved}) == 4
    alone = np.asarray(run("coffee_leaf", 0, batch)["image"])
    np.testing.assert_array_equal(moved[0], alone[0])  # the first as if it were alone


def test_what_else_is_named_does_not_change_the_numbers():
    batch = noise()
    flips, rest = dict(hflip=dict(p=0.5)), dict(gain=COFFEE_LEAF["gain"])
    mask = [
        jax.jit(make_augment(named))(jax.random.key(3), batch)["mask"]
        for named in (flips, flips | rest)
    ]
    np.testing.assert_array_equal(*mask)


def on_devices(num_devices, named):
    mesh = jax.make_mesh(
        (num_devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    change = jax.jit(
        make_augment(named),
        in_shardings=(parallel.replicated(mesh), parallel.split_batch(mesh)),
        out_shardings=parallel.split_batch(mesh),
    )
    key = jax.device_put(jax.random.key(5), parallel.replicated(mesh))
    return change.lower(key, parallel.put_batch(noise(), mesh)).compile(), key, mesh


def test_the_number_of_devices_does_not_matter_and_no_pixel_travels():
    change, key, mesh = on_devices(8, SPEEDLINES)
    moved = jax.device_get(change(key, parallel.put_batch(noise(), mesh)))
    alike = run("speedlines", 5, noise())
    for name in moved:
        np.testing.assert_array_equal(moved[name], alike[name])
    kinds = r"= (\S+) (?:all-\w+|collective-permute|reduce-scatter)[-a-z]*\("
    travelling = re.findall(kinds, change.as_text())
    assert [shape.split("{")[0] for shape in travelling] == ["s32[16]"]  # `index`


def share_changed(named):
    batch = noise(200)
    moved = jax.jit(make_augment(named))(jax.random.key(0), batch)
    return (np.asarray(moved["image"]) != batch["image"]).any(axis=(1, 2, 3)).mean()


def test_probabilities_are_kept():
    # The deviation of a share of 200 samples is at most 0.035.
    assert abs(share_changed(dict(brightness=dict(p=0.3, shift=0.9))) - 0.3) < 0.1
    elastic, grid = dict(alpha=200.0, sigma=3.0), dict(steps=4, limit=0.9)
    alone = share_changed(dict(elastic=dict(p=0.5, **elastic)))
    assert abs(alone - 0.5) < 0.1
    # Of a family at most one: 0.5 + 0.5 leaves no sample out, 0.2 + 0.3 half of them.
    both = dict(elastic=dict(p=0.5, **elastic), grid=dict(p=0.5, **grid))
    assert share_changed(both) == 1
    some = dict(elastic=dict(p=0.2, **elastic), grid=dict(p=0.3, **grid))
    assert abs(share_changed(some) - 0.5) < 0.1


def test_every_augmentation_has_a_stream_of_its_own():
    assert sorted(STREAMS.values()) == list(range(len(STREAMS)))
    assert set(AUGMENTS) < set(STREAMS)


def test_no_augmentation_has_a_key_called_p():
    assert all("p" not in keys_of(function) for function in AUGMENTS.values())


# Normalisation.


def test_normalisation_by_hand():
    image = np.uint8([[[[0, 255, 51]]]])  # 0, 1 and 0.2
    normalize = augment.make_normalize((0.5, 0.5, 0.4), (0.25, 0.5, 0.1))
    found = normalize({"image": image})["image"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[[-2.0, 1.0, -2.0]]]], rtol=0, atol=1e-6)


def test_normalisation_keeps_the_classes_and_the_callers_batch():
    batch = coordinates(2)
    before = dict(batch)
    found = augment.make_normalize((0.5,) * 3, (0.25,) * 3)(batch)
    assert all(batch[name] is before[name] for name in before)
    assert found["mask"].dtype == np.int32
    np.testing.assert_array_equal(found["mask"], batch["mask"])
    assert (np.asarray(found["mask"])[:, 0, 1] == IGNORE).all()
