"""Two images in one: areas, weights and whose label."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxseg import parallel, tasks
from jaxseg.augment import make_augment
from jaxseg.augment.mixing import cutmix, partners
from jaxseg.losses import make_loss

COUNT = 32
KEYS = jax.random.split(jax.random.key(0), 400)


def batch_of_levels(size=(16, 20)):
    """Image i is everywhere 7 i, its label is i."""
    index = np.arange(COUNT, dtype=np.int32)
    image = np.broadcast_to((7 * index)[:, None, None, None], (COUNT, *size, 3))
    return {"image": image.astype(np.uint8), "label": index, "index": index + 50}


@functools.cache
def mixed(**named):
    named = {name: dict(keys) for name, keys in named.items()}
    change = jax.jit(make_augment(named))
    return jax.device_get(change(jax.random.key(1), batch_of_levels()))


MIXUP, CUTMIX = (("p", 1.0), ("alpha", 0.4)), (("p", 1.0), ("alpha", 1.0))
SOME = (("p", 0.5), ("alpha", 0.4)), (("p", 0.25), ("alpha", 1.0))


def test_every_sample_is_the_other_of_exactly_one():
    for found in (mixed(mixup=MIXUP), mixed(cutmix=CUTMIX)):
        assert sorted(found["other_label"]) == list(range(COUNT))
        assert (found["other_label"] != found["label"]).all()
        np.testing.assert_array_equal(found["label"], np.arange(COUNT))


def test_the_other_is_the_next_larger_number():
    found = partners(jnp.array([0.3, 0.9, 0.1, 0.5]))
    np.testing.assert_array_equal(found, [3, 2, 0, 1])


def test_mixup_is_the_weighted_sum_of_two_images():
    found = mixed(mixup=MIXUP)
    share = found["label_share"].astype(np.float64)
    wanted = 7 * (share * found["label"] + (1 - share) * found["other_label"])
    spread = np.abs(found["image"] - wanted[:, None, None, None])
    assert spread.max() <= 0.5 + 1e-3  # rounded
    assert share.dtype == np.float64
    assert found["label_share"].dtype == np.float32
    assert ((share >= 0) & (share <= 1)).all()
    assert np.ptp(share) > 0.5


def test_the_share_of_cutmix_is_the_area_that_is_left():
    found = mixed(cutmix=CUTMIX)
    own = found["image"] == (7 * found["label"])[:, None, None, None]
    other = found["image"] == (7 * found["other_label"])[:, None, None, None]
    assert (own != other).all()
    np.testing.assert_allclose(
        found["label_share"], own.mean(axis=(1, 2, 3)), atol=1e-6
    )
    cut = other[..., 0]
    rectangle = cut.any(axis=2).sum(1) * cut.any(axis=1).sum(1)
    np.testing.assert_array_equal(cut.sum(axis=(1, 2)), rectangle)


def test_cutmix_cuts_the_share_it_drew():
    """Of an area that is uniform for alpha = 1, but for what lies outside."""
    image, other = jnp.zeros((64, 64, 1)), jnp.ones((64, 64, 1))
    run = jax.vmap(lambda key: cutmix(key, image, other, alpha=1.0)[1])
    area = 1 - np.asarray(jax.jit(run)(KEYS))
    # E of the clipped length of a side r in [0, 1]: r - r^2 / 4. E over r^2 uniform:
    # E[(r - r^2/4)^2] = 1/2 - 1/5 + 1/48 = 0.32083
    assert area.mean() == pytest.approx(0.32083, abs=0.04)


def test_at_most_one_of_both_and_the_rest_stay_pure():
    found = mixed(mixup=SOME[0], cutmix=SOME[1])
    flat = np.ptp(found["image"].reshape(COUNT, -1), axis=1) == 0
    pure = found["label_share"] == 1
    np.testing.assert_array_equal(
        found["image"][pure], batch_of_levels()["image"][pure]
    )
    assert 1 <= pure.sum() <= 16
    assert (~flat).any()
    assert (flat & ~pure).any()


def test_neither_order_nor_place_matters():
    change = jax.jit(make_augment(dict(mixup=dict(p=1.0, alpha=0.4))))
    order = np.random.default_rng(0).permutation(COUNT)
    shuffled = {name: rows[order] for name, rows in batch_of_levels().items()}
    found, wanted = change(jax.random.key(1), shuffled), mixed(mixup=MIXUP)
    for name, rows in wanted.items():
        np.testing.assert_array_equal(found[name], rows[order])


def test_the_number_of_devices_does_not_matter():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    change = jax.jit(
        make_augment(dict(mixup=dict(p=1.0, alpha=0.4))),
        in_shardings=(parallel.replicated(mesh), parallel.split_batch(mesh)),
        out_shardings=parallel.split_batch(mesh),
    )
    key = jax.device_put(jax.random.key(1), parallel.replicated(mesh))
    found = jax.device_get(change(key, parallel.put_batch(batch_of_levels(), mesh)))
    for name, rows in mixed(mixup=MIXUP).items():
        np.testing.assert_array_equal(found[name], rows)


def test_the_loss_weighs_both_labels():
    loss = make_loss({"bce": {"weight": 1.0, "pos_weight": 1.0}})
    task = tasks.classification(
        ("clean", "crack"), loss, threshold="max_f1", min_recall=0.95
    )
    logits = np.float32([[2.0], [2.0], [-1.0]])
    batch = {
        "label": np.int32([1, 1, 0]),
        "other_label": np.int32([0, 0, 1]),
        "label_share": np.float32([1.0, 0.25, 0.7]),
    }
    found = task.losses({"cls_logits": logits}, batch)["loss"]
    # -ln sigmoid(2) = 0.126928, -ln sigmoid(-2) = 2.126928; for 1: 0.313262, 1.313262
    wanted = [0.126928, 0.25 * 0.126928 + 0.75 * 2.126928, 0.313262 + 0.3]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    pure = task.losses({"cls_logits": logits}, {"label": batch["label"]})["loss"]
    np.testing.assert_allclose(pure, [0.126928, 0.126928, 0.313262], atol=1e-5)
