"""One device or eight: the same training, the same counts, and shares of the state."""

import importlib
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_segdec import KEYS as SEGDEC
from test_steps import BCE, NORMALIZE, RULE, blobs, initial_state, mesh_of, small_unet

from jaxseg import augment, parallel, steps, tasks
from jaxseg.models import simple_cnn

segdecnet = importlib.import_module("jaxseg.models.segdecnet")
CLASSES = ("wall", "crack")
NUM_STEPS = 50
AUGMENT = dict(hflip=dict(p=0.5), vflip=dict(p=0.5), brightness=dict(p=1.0, shift=0.2))


def a_classifier():
    model = simple_cnn(1, jnp.float32, bn_group=2, dropout=0.3)
    return model, tasks.classification(CLASSES, BCE, **RULE), partial(blobs, 16, 16)


def a_unet():
    model = small_unet(bn_group=2, dropout=(0.0, 0.3))
    return model, tasks.segmentation(CLASSES, BCE, **RULE), partial(blobs, 16, 16)


def a_wide_unet():
    """Whose arrays eight devices can share."""
    model = small_unet(bn_group=2, widths=(8, 16))
    return model, tasks.segmentation(CLASSES, BCE, **RULE), partial(blobs, 16, 16)


def a_segdecnet():
    model = segdecnet.segdecnet(
        1, jnp.float32, adjust_gradient=True, variant="released"
    )
    return model, tasks.segdec(CLASSES, **SEGDEC), segdec_batch


def segdec_batch(seed):
    batch = blobs(8, 128, seed)
    small = batch["mask"][:, ::8, ::8]
    batch["seg_target"] = (255 * small).astype(np.uint8)
    batch["seg_weight"] = (1.0 + small).astype(np.float32)
    return batch


@pytest.fixture
def thin_segdecnet(monkeypatch):
    """Few channels: the same layers at a hundredth of the cost."""
    wide = segdecnet.ConvFeature

    def thin(channels, *arguments, **keys):
        return wide(max(channels // 32, 2), *arguments, **keys)

    monkeypatch.setattr(segdecnet, "ConvFeature", thin)


MAKERS = [a_classifier, a_unet, a_segdecnet]


def trainer(
    make,
    optimizer,
    num_devices,
    *,
    shard_optimizer=False,
    named=AUGMENT,
    accumulate=1,
):
    """(compiled call, its state before the first step, the mesh, batch of a seed)."""
    model, task, batch_of = make()
    mesh = mesh_of(num_devices)
    if shard_optimizer:
        optimizer = parallel.share_update(optimizer, mesh)
    step = steps.make_train_step(
        model,
        task,
        optimizer,
        augment.make_augment(named),
        NORMALIZE,
        seed=0,
        accumulate=accumulate,
        ema_decay=None,
        parts={},
        reduction="mean",
        progress=lambda step: step / NUM_STEPS,
    )
    shape = batch_of(0)["image"].shape[1:]
    state = initial_state(model, optimizer, shape, mesh)
    placed = parallel.place_state(state, mesh, shard_optimizer=shard_optimizer)
    call = parallel.compile_train_call(steps.make_train_call(step, None), mesh, placed)
    state = jax.device_put(state, parallel.shardings_of(placed))
    return call, state, mesh, batch_of


def losses(make, optimizer, num_devices, **keys):
    call, state, mesh, batch_of = trainer(make, optimizer, num_devices, **keys)
    found = []
    for step in range(NUM_STEPS):
        inputs = inputs_of(batch_of(step), mesh)
        state, logs = call(state, {}, inputs)
        found.append(float(logs["loss"][0]))
    return np.array(found), state


def inputs_of(batch, mesh, stop=()):
    """Of one step; augmentation draws by the number of the sample, not by its place."""
    count = len(batch["label"])
    index = np.arange(count, dtype=np.int32)
    return parallel.put_steps(
        [batch | {"index": index, "stop": np.isin(index, stop)}], mesh
    )


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    # Adam divides by the root of squares, and makes much of little.
    [(optax.sgd(0.05), 1e-4), (optax.adam(1e-3), 1e-2)],
    ids=["sgd", "adam"],
)
def test_fifty_steps_on_eight_devices_follow_those_on_one(
    make, optimizer, tolerance, thin_segdecnet
):
    one, _ = losses(make, optimizer, 1)
    eight, _ = losses(make, optimizer, 8)
    assert one.std() > 0.01 * one.mean()  # it moves
    np.testing.assert_allclose(eight, one, rtol=tolerance)


def test_the_wish_to_stop_reaches_all_in_the_collective_of_the_gradient():
    call, state, mesh, batch_of = trainer(a_unet, optax.sgd(0.1), 8, named={})
    inputs = inputs_of(batch_of(0), mesh, stop=(6, 7))  # the rows of one device
    compiled = call.lower(state, {}, inputs).compile()
    assert len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text())) == 1
    _, logs = compiled(state, {}, inputs)
    np.testing.assert_array_equal(logs["stop"], np.float32([2 / 16]))


def test_micro_batches_move_no_image_between_devices():
    """Each has its part of every one of them, and only gradients are added up."""
    call, state, mesh, batch_of = trainer(
        a_unet, optax.sgd(0.1), 8, named={}, accumulate=2
    )
    text = call.lower(state, {}, inputs_of(batch_of(0), mesh)).compile().as_text()
    assert " all-reduce" in text
    assert not re.findall("all-gather|all-to-all|collective-permute", text)


# The optimizer's arrays in shares.


def bytes_on(device, tree):
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )


def test_shares_of_the_optimizer_train_alike_and_stay_shares():
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))
    whole, kept = losses(a_wide_unet, optimizer, 8)
    shared, cut = losses(a_wide_unet, optimizer, 8, shard_optimizer=True)
    np.testing.assert_allclose(shared, whole, rtol=1e-3)
    device = jax.devices()[3]
    assert bytes_on(device, cut.params) == bytes_on(device, kept.params)
    # The last bias is one number, and so is the count of the steps.
    share = bytes_on(device, cut.opt_state) / bytes_on(device, kept.opt_state)
    assert 1 / 8 < share < 1.01 / 8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, 16, 32), (None, None, None, "data")),
        ((3, 3, 64, 32), (None, None, "data")),
        ((8,), ("data",)),
        ((3, 3, 4, 4), ()),
        ((), ()),
        ((0, 8), (None, "data")),
    ],
)
def test_the_longest_dimension_that_can_be_is_cut(shape, expected):
    assert tuple(parallel._cut(shape, mesh_of(8)).spec) == expected


GATHERED = re.compile(r"= f32\[([\d,]*)\]\S* all-gather")  # numbers of samples are s32


def test_only_the_update_is_gathered():
    """Not what the optimizer remembers, which would make its shares pointless."""
    call, state, mesh, batch_of = trainer(
        a_wide_unet, optax.adam(1e-3), 8, shard_optimizer=True
    )
    inputs = inputs_of(batch_of(0), mesh)
    text = call.lower(state, {}, inputs).compile().as_text()
    gathered = [
        math.prod(int(n) for n in sizes.split(",") if n)
        for sizes in GATHERED.findall(text)
    ]
    cut = [leaf.size for leaf in jax.tree.leaves(state.params) if leaf.size % 8 == 0]
    assert sum(gathered) == sum(cut)


# Evaluation.


@pytest.mark.parametrize("num_devices", [2, 3, 8])
@pytest.mark.parametrize("make", MAKERS)
def test_counts_of_a_padded_batch_are_the_same_on_all(
    make, num_devices, thin_segdecnet
):
    """13 images and 11 rows of padding, whose labels and masks count for nothing."""
    model, task, _ = make()
    side = 128 if make is a_segdecnet else 16
    images = blobs(24, side, seed=3)
    batch = images | {"valid": np.arange(24) < 13}
    if make is a_segdecnet:
        batch = batch | {
            "seg_target": images["mask"][:, ::8, ::8] * np.uint8(255),
            "seg_weight": np.ones((24, side // 8, side // 8), np.float32),
        }
    step = steps.make_eval_step(model, task, NORMALIZE)

    def counts(number):
        mesh = mesh_of(number)
        state = initial_state(model, optax.sgd(0.1), batch["image"].shape[1:], mesh)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        compiled = parallel.compile_batch_step(step, mesh)
        return jax.device_get(compiled(variables, parallel.put_batch(batch, mesh)))

    one, many = counts(1), counts(num_devices)
    assert one.keys() == many.keys()
    for name in one:
        a, b = one[name][one["valid"]], many[name][many["valid"]]
        assert len(a) == len(b) == 13
        if name == "histogram":
            # A pixel within rounding of the border of a bin may change it.
            moved = np.abs(np.cumsum(a - b, axis=-1)).sum()
            assert moved <= (1e-4 * a.sum() if make is a_segdecnet else 0)
        elif np.issubdtype(a.dtype, np.integer):
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)
