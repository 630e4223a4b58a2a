"""Steps that are left out: the state, the count, when to stop; losses far above."""

import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import steps, train_state
from jaxseg.tally import Progress, Spikes

NAN = math.nan


class Root(nn.Module):
    """sqrt(weight x): of x = 0 the value is finite and the gradient is not."""

    @nn.compact
    def __call__(self, x, train):
        weight = self.param("weight", lambda key: jnp.float32(4.0))
        mean = self.variable("batch_stats", "mean", lambda: jnp.float32(0.0))
        if train:
            mean.value = mean.value + x.mean()
        return jnp.sqrt(weight * x)


@pytest.fixture(scope="module")
def root():
    model, optimizer = Root(), optax.adam(0.1)
    step = steps.make_train_step(
        model,
        SimpleNamespace(losses=lambda outputs, _: {"loss": outputs.mean((1, 2, 3))}),
        optimizer,
        lambda key, batch: batch,
        lambda batch: batch,
        seed=0,
        accumulate=1,
        ema_decay=0.5,
        parts={},
        reduction="mean",
        progress=lambda step: 0.0,
    )
    state = train_state.init_train_state(
        model, optimizer, image_shape=(2, 2, 1), seed=0, use_ema=True
    )
    return jax.jit(step), state


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("pixel", "loss"), [(NAN, NAN), (math.inf, math.inf), (0, 0)])
def test_a_step_without_a_finite_gradient_only_counts(root, pixel, loss):
    step, state = root
    batch = {"image": jnp.full((4, 2, 2, 1), pixel, jnp.float32)}
    after, logs = step(state, batch)
    assert logs["skipped"]
    np.testing.assert_equal(float(logs["loss"]), loss)
    assert int(after.step) == 1
    assert same(after.replace(step=state.step), state)


def test_a_step_with_a_finite_gradient_changes_everything(root):
    step, state = root
    after, logs = step(state, {"image": jnp.ones((4, 2, 2, 1))})
    assert not logs["skipped"]
    assert float(logs["loss"]) == 2.0
    # Adam's first update is the learning rate, against the sign of the gradient.
    assert float(after.params["weight"]) == pytest.approx(3.9, abs=1e-5)
    assert float(after.batch_stats["mean"]) == 1.0
    assert int(after.opt_state[0].count) == int(after.ema.count) == 1


def logs_of(*losses):
    loss = np.array(losses, np.float32)
    return {"loss": loss, "skipped": ~np.isfinite(loss)}


def test_skipped_steps_are_counted_and_not_averaged():
    progress = Progress()
    assert progress.add(logs_of(1.0, NAN, 3.0), 1) is None
    assert progress.add(logs_of(math.inf), 1) is None
    assert progress.end_epoch() == {"train/loss": 2.0, "skipped_steps": 2}
    progress.add(logs_of(5.0), 1)
    assert progress.end_epoch() == {"train/loss": 5.0, "skipped_steps": 0}


def test_an_epoch_of_skipped_steps_has_no_mean():
    progress = Progress()
    progress.add(logs_of(NAN, NAN), 3)
    row = progress.end_epoch()
    assert math.isnan(row["train/loss"])
    assert row["skipped_steps"] == 2


@pytest.mark.parametrize(
    ("max_skipped", "calls", "stops_at"),
    [
        (0, [(1, NAN, 1)], (0, 1)),
        (2, [(NAN, NAN, 1, NAN, NAN)], None),
        (2, [(1, NAN), (NAN, NAN, 1)], (1, 1)),  # the row goes on from call to call
        (2, [(NAN, NAN), (1, NAN), (NAN,)], None),
        (1, [(NAN,), (NAN,)], (1, 0)),
    ],
)
def test_too_many_in_a_row_are_told_by_their_step(max_skipped, calls, stops_at):
    progress = Progress()
    found = [progress.add(logs_of(*losses), max_skipped) for losses in calls]
    stops = [(call, k) for call, k in enumerate(found) if k is not None]
    assert stops == ([stops_at] if stops_at else [])


def test_a_spike_is_ten_times_the_median_of_the_steps_before():
    spikes = Spikes()
    assert spikes.find(np.array([1.0] * 5 + [50.0] + [2.0] * 13)) is None  # too few yet
    assert spikes.find(np.array([2.0, 19.0])) is None  # the median is 2
    k, words = spikes.find(np.array([1.0, NAN, 25.0]))
    assert k == 2
    assert words == "loss 25, 12 times the usual"
    assert spikes.find(np.array([1.0] * 50 + [90.0])) is None  # told not long ago
    assert spikes.find(np.array([1.0] * 50 + [90.0]))[0] == 50


def test_the_loss_of_an_epoch_that_is_not_over():
    progress = Progress()
    assert progress.loss_text() == ""
    for losses, skipped in (([1.0, 9.0], [False, True]), ([2.0, 3.0], [False, False])):
        logs = {"loss": np.float32(losses), "skipped": np.array(skipped)}
        progress.add(logs, max_skipped=3)
    assert progress.loss_text() == "loss 2.0000"
    progress.end_epoch()
    assert progress.loss_text() == ""
