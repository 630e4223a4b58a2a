import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial import distance as spatial

from jaxseg.data.targets import (
    TargetRule,
    distance_weights,
    downsize,
    make_targets,
    soft_mask,
    target_fields,
)

RULE = TargetRule(dilate=1, power=2.0, maximum=3.0, per_component=False, weighted=True)
FULL = dataclasses.replace(RULE, stride=1)


def blobs():
    """A wide and a narrow defect, apart, [48, 40]."""
    mask = np.zeros((48, 40), np.uint8)
    mask[5:20, 4:17] = 1
    mask[30:33, 20:38] = 1
    mask[33, 37] = 1  # joined by a corner only
    mask[34, 38] = 1
    return mask


def brute_force_distance(inside):
    """Distance of every inside pixel to the nearest outside pixel, pair by pair."""
    found = np.zeros(inside.shape)
    places, outside = np.argwhere(inside), np.argwhere(~inside)
    found[inside] = spatial.cdist(places, outside).min(axis=1)
    return found


def test_weights_are_the_power_of_the_distance_to_the_edge():
    soft = blobs().astype(np.float32)
    distance = brute_force_distance(soft > 0)
    wanted = np.where(soft > 0, 3.0 * (distance / distance.max()) ** 2, 1.0)
    np.testing.assert_allclose(distance_weights(soft, RULE), wanted, rtol=0, atol=1e-5)


def test_weights_per_component_reach_the_maximum_in_each():
    rule = dataclasses.replace(RULE, power=1.0, per_component=True)
    soft = blobs().astype(np.float32)
    weights = distance_weights(soft, rule)
    distance = brute_force_distance(soft > 0)
    wide, narrow = np.zeros_like(soft, bool), np.zeros_like(soft, bool)
    wide[5:20, 4:17], narrow[30:35, 20:39] = True, soft[30:35, 20:39] > 0
    for part in (wide, narrow):
        wanted = 3.0 * distance[part] / distance[part].max()
        np.testing.assert_allclose(weights[part], wanted, rtol=0, atol=1e-5)
    assert (weights[soft == 0] == 1.0).all()


@pytest.mark.parametrize(("value", "weight"), [(0.0, 1.0), (1.0, 3.0)])
def test_an_image_of_one_kind_has_one_weight(value, weight):
    soft = np.full((16, 24), value, np.float32)
    np.testing.assert_array_equal(distance_weights(soft, RULE), weight)


def test_downsizing_is_a_mean_of_mirrored_windows():
    values = np.random.default_rng(0).uniform(size=(48, 40)).astype(np.float32)
    # uniform_filter with 'mirror' is the mean around each pixel, edges not repeated
    means = ndimage.uniform_filter(values.astype(np.float64), 17, mode="mirror")
    found = downsize(values)
    assert found.shape == (6, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means[::8, ::8], rtol=0, atol=1e-5)


def test_downsizing_equals_pytorch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).uniform(size=(64, 232)).astype(np.float32)
    padded = torch.nn.ReflectionPad2d(8)(torch.from_numpy(values)[None, None])
    wanted = torch.nn.functional.avg_pool2d(padded, 17, stride=8)[0, 0]
    np.testing.assert_allclose(downsize(values), wanted, rtol=0, atol=1e-5)


def test_dilation_grows_before_the_resize():
    mask = np.zeros((20, 20), np.uint8)
    mask[10, 10] = 1
    grown = soft_mask(mask, (20, 20), dilate=5)
    wanted = np.zeros((20, 20))
    wanted[8:13, 8:13] = 255
    np.testing.assert_array_equal(grown, wanted)
    half = soft_mask(mask, (10, 10), dilate=5)
    assert half.dtype == np.uint8
    assert ((half > 0) & (half < 255)).any()  # soft edges


def test_ignored_pixels_are_no_defect():
    mask = blobs()
    mask[0:3, 30:] = 255
    np.testing.assert_array_equal(soft_mask(mask, (48, 40), 1), 255 * blobs())


def test_targets_have_an_eighth_of_the_size():
    targets = make_targets(blobs(), (48, 40), RULE)
    assert {name: values.shape for name, values in targets.items()} == {
        "seg_target": (6, 5),
        "seg_weight": (6, 5),
    }
    np.testing.assert_allclose(
        targets["seg_target"], downsize(blobs().astype(np.float32)), atol=1e-6
    )
    clean = make_targets(np.zeros((48, 40), np.uint8), (48, 40), RULE)
    np.testing.assert_array_equal(clean["seg_target"], 0.0)
    np.testing.assert_allclose(clean["seg_weight"], 1.0, rtol=1e-6)


def test_full_size_targets_are_the_resized_mask_and_its_weights():
    targets = make_targets(blobs(), (24, 60), FULL)
    pixels = Image.fromarray(255 * blobs()).resize((60, 24), Image.Resampling.BILINEAR)
    wanted = np.asarray(pixels)
    np.testing.assert_array_equal(targets["seg_target"], wanted)
    distance = brute_force_distance(wanted > 0)
    weight = np.where(wanted > 0, 3.0 * (distance / distance.max()) ** 2, 1.0)
    np.testing.assert_allclose(targets["seg_weight"], weight, rtol=0, atol=1e-5)


SYMMETRIES = {
    "hflip": lambda x: x[:, ::-1],
    "vflip": lambda x: x[::-1],
    "rot90": np.rot90,
    "transpose": np.transpose,
}


@pytest.mark.parametrize("name", SYMMETRIES)
def test_only_full_size_targets_move_with_their_mask(name):
    move = SYMMETRIES[name]
    mask = np.pad(blobs(), ((0, 0), (0, 8)))  # square
    for rule, is_exact in ((FULL, True), (RULE, name == "transpose")):
        moved_first = make_targets(np.ascontiguousarray(move(mask)), (48, 48), rule)
        for key, values in make_targets(mask, (48, 48), rule).items():
            moved_last = move(values).astype(np.float64)
            same = np.allclose(moved_first[key], moved_last, rtol=0, atol=1e-5)
            assert same == is_exact, key


@pytest.mark.parametrize("rule", [RULE, FULL])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_fields_announce_what_is_made(rule, weighted):
    rule = dataclasses.replace(rule, weighted=weighted)
    made = make_targets(blobs(), (48, 40), rule)
    found = {name: (values.shape, values.dtype.type) for name, values in made.items()}
    assert found == target_fields((48, 40), rule)
