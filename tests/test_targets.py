import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance as spatial

from jaxseg.data.targets import (
    TargetRule,
    distance_weights,
    downsize,
    make_targets,
    soft_mask,
)

RULE = TargetRule(dilate=1, power=2.0, maximum=3.0, per_component=False)


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
    rule = TargetRule(dilate=1, power=1.0, maximum=3.0, per_component=True)
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
    wanted[8:13, 8:13] = 1
    np.testing.assert_array_equal(grown, wanted)
    half = soft_mask(mask, (10, 10), dilate=5)
    assert 0 < half.max() <= 1
    assert ((half > 0) & (half < 1)).any()  # soft edges


def test_ignored_pixels_are_no_defect():
    mask = blobs()
    mask[0:3, 30:] = 255
    np.testing.assert_array_equal(soft_mask(mask, (48, 40), 1), blobs())


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
