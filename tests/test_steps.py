import functools
import math
import re
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxseg import augment, optim, parallel, steps, tasks, train_state
from jaxseg.config import Part
from jaxseg.errors import InputError
from jaxseg.losses import make_loss
from jaxseg.models import simple_cnn, unet
from jaxseg.models.layers import GhostBatchNorm
from jaxseg.train_state import Ema, TrainState

BCE = make_loss({"bce": {"weight": 1.0, "pos_weight": 1.0}})
RULE = dict(threshold="max_f1", min_recall=0.95)
NORMALIZE = augment.make_normalize((0.5,), (0.25,))


def leave(key, batch):
    """No augmentation."""
    return batch


def mesh_of(num_devices):
    devices = jax.devices()[:num_devices]
    return jax.make_mesh(
        (num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def initial_state(model, optimizer, image_shape, mesh, use_ema=False):
    """A state with numbers by NumPy: `model.init` compiles for many seconds."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name, fan_in = path[-1].key, math.prod(leaf.shape[:-1])
        if name == "kernel":
            return rng.normal(0, math.sqrt(2 / fan_in), leaf.shape).astype(np.float32)
        return np.full(leaf.shape, name in ("scale", "var"), np.float32)

    shapes = jax.eval_shape(
        lambda: train_state.init_train_state(
            model, optimizer, image_shape=image_shape, seed=0, use_ema=use_ema
        )
    )
    params = jax.tree.map_with_path(fill, shapes.params)
    batch_stats = jax.tree.map_with_path(fill, shapes.batch_stats)
    averaged = {"params": params, "batch_stats": batch_stats}
    state = TrainState(
        step=np.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        plateau=optim.init_plateau(),
        ema=Ema(averaged, np.int32(0)) if use_ema else None,
    )
    assert jax.tree.structure(state) == jax.tree.structure(shapes)
    return jax.device_put(state, parallel.replicated(mesh), may_alias=False)


def compiled_step(
    model,
    task,
    optimizer,
    mesh,
    accumulate=1,
    ema_decay=None,
    parts=None,
    reduction="mean",
):
    step = steps.make_train_step(
        model,
        task,
        optimizer,
        leave,
        NORMALIZE,
        seed=0,
        accumulate=accumulate,
        ema_decay=ema_decay,
        parts=parts or {},
        reduction=reduction,
        progress=lambda step: 0.0,
    )
    everywhere, split = parallel.replicated(mesh), parallel.split_batch(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )


def blobs(count=16, side=16, seed=0):
    """Grey noise with a bright square in every second image, and its annotations."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 120, (count, side, side, 1), dtype=np.uint8)
    mask = np.zeros((count, side, side), np.uint8)
    for number in range(0, count, 2):
        y, x = rng.integers(0, side - 5, 2)
        mask[number, y : y + 5, x : x + 5] = 1
    image[mask == 1] += 100
    label = mask.any(axis=(1, 2)).astype(np.int32)
    valid = np.ones(count, bool)
    return {"image": image, "mask": mask, "label": label, "valid": valid}


def small_unet(num_outputs=1, widths=(4, 8), **changes):
    keys = dict(
        norm="batch",
        bn_group=4,
        activation="relu",
        dropout=(0.0,) * len(widths),
        decoder="transpose",
        head_kernel=1,
        image_head=False,
        adjust_gradient=False,
    )
    return unet(num_outputs, jnp.float32, widths=widths, **{**keys, **changes})


# A network with a mask and a decision, compiled once for 1 and once for 8 devices.


class Joint:
    """Compiled steps, and how often the mask loss was traced."""

    def __init__(self, num_devices):
        self.traces = 0
        self.mesh = mesh_of(num_devices)
        self.model = small_unet(image_head=True)  # a group spans two of 8 devices
        self.optimizer = optax.sgd(0.3, momentum=0.9)
        task = tasks.joint(
            ("wall", "crack"), self._loss, mask_weight=1.0, image_weight=0.2, **RULE
        )
        self.train = compiled_step(self.model, task, self.optimizer, self.mesh)
        self.evaluate = parallel.compile_batch_step(
            steps.make_eval_step(self.model, task, NORMALIZE), self.mesh
        )

    def _loss(self, logits, mask):
        self.traces += 1
        return BCE(logits, mask)

    def state(self):
        return initial_state(self.model, self.optimizer, (16, 16, 1), self.mesh)

    def batch(self, seed=0):
        return parallel.put_batch(blobs(seed=seed), self.mesh)


@pytest.fixture(scope="module")
def one_device():
    return Joint(1)


@pytest.fixture(scope="module")
def eight_devices():
    return Joint(8)


def test_five_batches_and_an_evaluation_between_trace_once_each(eight_devices):
    state = eight_devices.state()
    assert eight_devices.traces == 0
    for seed in range(5):
        state, _ = eight_devices.train(state, eight_devices.batch(seed))
        if seed in (1, 3):
            variables = train_state.inference_variables(state)
            eight_devices.evaluate(variables, eight_devices.batch(seed))
    assert eight_devices.traces == 2  # one of the train step, one of the eval step
    assert int(state.step) == 5


def test_the_number_of_devices_does_not_change_the_state(one_device, eight_devices):
    states, losses = [], []
    for setup in (one_device, eight_devices):
        state = setup.state()
        for seed in range(3):
            state, logs = setup.train(state, setup.batch(seed))
            losses.append(float(logs["loss"]))
        states.append(jax.device_get(state))
    np.testing.assert_allclose(losses[:3], losses[3:], rtol=0, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), *states
    )


def test_a_step_moves_nothing_between_host_and_device(eight_devices):
    state, batch = eight_devices.state(), eight_devices.batch()
    state, _ = eight_devices.train(state, batch)
    with jax.transfer_guard("disallow"):
        state, logs = eight_devices.train(state, batch)
        jax.block_until_ready((state, logs))
    assert int(state.step) == 2


def test_an_evaluation_gives_a_row_per_image(eight_devices):
    batch = blobs()
    batch["valid"][10:] = False
    variables = train_state.inference_variables(eight_devices.state())
    counts = eight_devices.evaluate(
        variables, parallel.put_batch(batch, eight_devices.mesh)
    )
    assert {name: rows.shape for name, rows in counts.items()} == {
        "valid": (16,),
        "loss": (16,),
        "loss_mask": (16,),
        "loss_image": (16,),
        "histogram": (16, 2, tasks.NUM_BINS),
        "soft_sums": (16, 1, 3),
        "image_probs": (16, 1),
        "label": (16,),
    }
    np.testing.assert_array_equal(counts["valid"], batch["valid"])
    assert counts["histogram"].sum() == batch["mask"].size


def test_joint_learns_one_batch(one_device):
    assert final_loss(one_device.train, one_device.state(), one_device.batch()) < 0.05


def final_loss(step, state, batch, num_steps=100):
    for _ in range(num_steps):
        state, logs = step(state, batch)
    return float(logs["loss"])


def test_classification_learns_one_batch():
    model, mesh = simple_cnn(1, jnp.float32, bn_group=None, dropout=0.0), mesh_of(1)
    task = tasks.classification(("clean", "crack"), BCE, **RULE)
    optimizer = optax.adam(3e-3)
    state = initial_state(model, optimizer, (16, 16, 1), mesh)
    step = compiled_step(model, task, optimizer, mesh)
    batch = parallel.put_batch(blobs(count=8), mesh)
    assert final_loss(step, state, batch, num_steps=40) < 0.02


def test_segmentation_learns_one_batch_of_three_classes():
    batch = blobs()
    batch["mask"][:, :3] = 2
    batch["image"][:, :3] = 0
    loss = make_loss({"cross_entropy": {"weight": 1.0, "class_weights": ()}})
    task = tasks.segmentation(("wall", "crack", "frame"), loss, **RULE)
    model, mesh, optimizer = small_unet(3, norm="none"), mesh_of(1), optax.adam(3e-2)
    state = initial_state(model, optimizer, (16, 16, 1), mesh)
    step = compiled_step(model, task, optimizer, mesh)
    assert final_loss(step, state, parallel.put_batch(batch, mesh)) < 0.05


# The update, on a network of one dense layer.


class Affine(nn.Module):
    """`cls_logits` of the flattened image; with a norm before, if wanted."""

    bn_group: int | None = None
    use_norm: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        x = image
        if self.use_norm:
            x = GhostBatchNorm(self.bn_group, name="norm")(x, train=train)
        return {"cls_logits": nn.Dense(1, name="dense")(x.reshape(x.shape[0], -1))}


def run_affine(
    model,
    optimizer,
    *,
    num_steps=1,
    scale=1.0,
    accumulate=1,
    ema_decay=None,
    order=slice(None),
    **keys,
):
    """States before and after each step, and the logs of the last, on the host."""
    mesh = mesh_of(1)
    task = tasks.classification(("clean", "crack"), BCE, **RULE)
    step = compiled_step(model, task, optimizer, mesh, accumulate, ema_decay, **keys)
    state = initial_state(model, optimizer, (4, 4, 1), mesh, ema_decay is not None)
    plateau = state.plateau._replace(scale=jnp.float32(scale))
    state = jax.device_put(state.replace(plateau=plateau), parallel.replicated(mesh))
    history = [copy_of(state)]
    for seed in range(num_steps):
        batch = {name: values[order] for name, values in small_batch(seed).items()}
        state, logs = step(state, parallel.put_batch(batch, mesh))
        history.append(copy_of(state))
    return history, jax.device_get(logs)


def copy_of(state):
    """On the host, apart from the buffers that the next step gives up."""
    return jax.tree.map(np.array, state)


def small_batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (8, 4, 4, 1), dtype=np.uint8),
        "label": rng.integers(0, 2, 8).astype(np.int32),
        "valid": np.ones(8, bool),
    }


def moved(history):
    return jax.tree.map(np.subtract, history[-1].params, history[0].params)


def assert_close(found, wanted, tolerance=1e-6):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance),
        found,
        wanted,
    )


def test_a_frozen_part_keeps_its_weights_and_uses_its_statistics():
    model = Affine(bn_group=8, use_norm=True)
    parts = {"norm": Part(rate=0.0, from_epoch=0)}
    (before, after), logs = run_affine(model, optax.sgd(1.0), parts=parts)
    assert_close(after.params["norm"], before.params["norm"], tolerance=0)
    assert_close(after.batch_stats, before.batch_stats, tolerance=0)
    # With mean 0, variance 1, scale 1 and bias 0 the norm divides by sqrt(1 + eps).
    batch = small_batch()
    loss, grads = numpy_gradient(before.params, batch, scale=1 / np.sqrt(1 + 1e-5))
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    moves = moved([before, after])["dense"]
    assert_close(moves, jax.tree.map(np.negative, grads)["dense"])


def test_a_part_that_rests_for_some_epochs_follows_with_its_statistics():
    model = Affine(bn_group=8, use_norm=True)
    parts = {"norm": Part(rate=1.0, from_epoch=5)}
    (before, after), _ = run_affine(model, optax.sgd(1.0), parts=parts)
    mean = after.batch_stats["norm"]["mean"]
    assert (mean != before.batch_stats["norm"]["mean"]).all()


def numpy_gradient(params, batch, scale=1.0):
    """(loss, gradients) of the mean binary cross-entropy of the affine network."""
    x = scale * (batch["image"].reshape(8, -1) / 255.0 - 0.5) / 0.25
    logits = x @ params["dense"]["kernel"] + params["dense"]["bias"]  # [8, 1]
    label = batch["label"][:, None]
    loss = np.mean(np.logaddexp(0, logits) - label * logits)
    error = (1 / (1 + np.exp(-logits)) - label) / 8
    return loss, {"dense": {"kernel": x.T @ error, "bias": error.sum(axis=0)}}


def test_a_step_follows_the_gradient_of_the_mean_loss():
    history, logs = run_affine(Affine(), optax.sgd(1.0))
    loss, grads = numpy_gradient(history[0].params, small_batch())
    assert_close(moved(history), jax.tree.map(np.negative, grads))
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)


def test_micro_batches_add_up_to_the_whole_batch():
    whole, logs = run_affine(Affine(), optax.sgd(1.0))
    parts, part_logs = run_affine(Affine(), optax.sgd(1.0), accumulate=2)
    assert_close(parts[-1].params, whole[-1].params)
    assert_close(part_logs, logs)


def test_micro_batches_are_groups_of_the_norm():
    model = Affine(bn_group=4, use_norm=True)
    whole, _ = run_affine(model, optax.sgd(1.0), order=[0, 2, 4, 6, 1, 3, 5, 7])
    parts, _ = run_affine(model, optax.sgd(1.0), accumulate=2)
    assert_close(parts[-1].params, whole[-1].params)
    image = (small_batch()["image"] / 255.0 - 0.5) / 0.25
    first, second = image[::2].mean(), image[1::2].mean()
    running = 0.9 * (0.9 * 0.0 + 0.1 * first) + 0.1 * second  # moved once a part
    np.testing.assert_allclose(
        parts[-1].batch_stats["norm"]["mean"], [running], rtol=0, atol=1e-6
    )


def test_the_plateau_scales_the_update():
    optimizer = optax.sgd(1.0)
    whole, _ = run_affine(Affine(), optimizer)
    half, _ = run_affine(Affine(), optimizer, scale=0.5)
    assert_close(moved(half), jax.tree.map(lambda x: x / 2, moved(whole)))


def test_the_moving_average_follows_its_formula():
    model = Affine(use_norm=True)
    history, _ = run_affine(model, optax.sgd(1.0), num_steps=3, ema_decay=0.15)
    average = {"params": history[0].params, "batch_stats": history[0].batch_stats}
    # (1 + n) / (10 + n) is 0.1 at first, then 0.18..., where 0.15 takes over
    for decay, state in zip((0.1, 0.15, 0.15), history[1:], strict=True):
        value = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(
            lambda a, v, d=decay: d * a + (1 - d) * v, average, value
        )
        assert_close(state.ema.variables, average)
    assert int(history[-1].ema.count) == 3
    assert train_state.inference_variables(history[-1]) is history[-1].ema.variables


def test_without_a_moving_average_the_weights_themselves_are_used():
    state = initial_state(Affine(), optax.sgd(1.0), (4, 4, 1), mesh_of(1))
    assert state.ema is None
    assert train_state.inference_variables(state) == {
        "params": state.params,
        "batch_stats": {},
    }


def test_predictions_are_probabilities():
    task = tasks.classification(("clean", "crack"), BCE, **RULE)
    state = initial_state(Affine(), optax.sgd(1.0), (4, 4, 1), mesh_of(1))
    predict = jax.jit(steps.make_predict_step(Affine(), task, NORMALIZE))
    variables = train_state.inference_variables(state)
    found = predict(variables, {"image": small_batch()["image"]})["image_probs"]
    x = (small_batch()["image"].reshape(8, -1) / 255.0 - 0.5) / 0.25
    wanted = 1 / (1 + np.exp(-(x @ np.asarray(state.params["dense"]["kernel"]))))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(InputError) as refusal:
        parallel.make_mesh(12)
    assert "batch_size=8 or 16" in refusal.value.fix
    assert parallel.make_mesh(16).shape == {"data": 8}


COLLECTIVES = (
    r" (all-(?:reduce|gather|to-all)|collective-permute|reduce-scatter)[-a-z]*\("
)


def collectives(model, batch):
    """How many of each kind a train step has on 8 devices."""
    mesh, optimizer = mesh_of(8), optax.sgd(0.1)
    kind = tasks.classification if isinstance(model, Affine) else tasks.segmentation
    step = compiled_step(model, kind(("wall", "crack"), BCE, **RULE), optimizer, mesh)
    state = initial_state(model, optimizer, batch["image"].shape[1:], mesh)
    compiled = step.lower(state, parallel.put_batch(batch, mesh)).compile()
    return Counter(re.findall(COLLECTIVES, compiled.as_text()))


def test_norms_whose_groups_fit_on_a_device_cost_no_collective():
    # The one: gradients, loss and running statistics, combined after the backward pass.
    fitting = small_unet(widths=(4,), bn_group=2)  # 2 norms, 2 images a device
    assert collectives(fitting, blobs()) == {"all-reduce": 1}
    fitting = Affine(bn_group=1, use_norm=True)  # 1 norm, 1 image a device
    assert collectives(fitting, small_batch()) == {"all-reduce": 1}
    # A group over all devices: one more, for the statistics. (In a deeper network also
    # one for their gradient; here nothing before the norm learns.)
    spanning = Affine(bn_group=None, use_norm=True)
    assert collectives(spanning, small_batch()) == {"all-reduce": 2}
