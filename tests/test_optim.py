import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import optim
from jaxseg.config import Optim, Part, Plateau

SGD = Optim(
    name="sgd",
    learning_rate=0.1,
    schedule="constant",
    plateau=None,
    warmup_epochs=0.0,
    momentum=0.0,
    weight_decay=0.0,
    clip_norm=None,
)


def changed(**values):
    return dataclasses.replace(SGD, **values)


def learning_rates(config, steps, steps_per_epoch=10, epochs=4):
    schedule = optim.make_schedule(
        config,
        step_at=lambda epoch: round(epoch * steps_per_epoch),
        epochs=epochs,
    )
    return [float(schedule(jnp.int32(step))) for step in steps]


def test_a_constant_rate_stays():
    assert learning_rates(SGD, (0, 7, 39)) == pytest.approx([0.1] * 3)


def test_warm_up_climbs_in_a_line_from_zero():
    config = changed(warmup_epochs=0.5)  # 5 steps
    rates = learning_rates(config, (0, 1, 4, 5, 6))
    assert rates == pytest.approx([0.0, 0.02, 0.08, 0.1, 0.1])


def test_the_cosine_ends_at_zero_on_the_last_step():
    rates = learning_rates(changed(schedule="cosine"), (0, 10, 20, 30, 40))
    # (1 + cos πt) / 2 at t = 0, 1/4, 1/2, 3/4, 1
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447, 0.0], abs=1e-7)


def test_the_cosine_begins_after_the_warm_up():
    config = changed(schedule="cosine", warmup_epochs=1.0)  # 10 of 40 steps
    rates = learning_rates(config, (5, 10, 20, 25, 40))
    assert rates == pytest.approx([0.05, 0.1, 0.075, 0.05, 0.0], abs=1e-7)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5])
def test_milestones_lower_the_rate_at_the_start_of_their_epoch(warmup_epochs):
    config = changed(
        schedule="step",
        milestones=(1, 3),
        decay_factor=0.1,
        warmup_epochs=warmup_epochs,
    )
    rates = learning_rates(config, (9, 10, 29, 30, 39))
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])


def test_decay_spares_norms_and_biases():
    params = {
        "Conv_0": {"kernel": np.zeros((3, 3, 2, 4)), "bias": np.zeros(4)},
        "GhostBatchNorm_0": {"scale": np.zeros(4), "bias": np.zeros(4)},
        "Dense_0": {"kernel": np.zeros((4, 1)), "bias": np.zeros(1)},
    }
    assert optim.decayed(params) == {
        "Conv_0": {"kernel": True, "bias": False},
        "GhostBatchNorm_0": {"scale": False, "bias": False},
        "Dense_0": {"kernel": True, "bias": False},
    }


# The update rules: three steps on a kernel and a bias with given gradients.

RULES = {
    "sgd": changed(),
    "sgd with momentum": changed(momentum=0.9),
    "sgd with decoupled decay": changed(momentum=0.9, weight_decay=0.3),
    "adam": changed(name="adam", learning_rate=0.01),
    "adam with L2": changed(name="adam", learning_rate=0.01, weight_decay=0.3),
    "adamw": changed(name="adamw", learning_rate=0.01, weight_decay=0.3),
}


def trajectory():
    """Initial params and the gradients of three steps."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    trees = [
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in items}
        for items in [shapes.items()] * 4
    ]
    return trees[0], trees[1:]


def run_rule(config, params, all_grads):
    schedule = optim.make_schedule(config, step_at=round, epochs=3)
    optimizer = optim.make_optimizer(config, schedule, step_at=round)
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    for grads in all_grads:
        updates, state = update(grads, state, params)
        params = jax.tree.map(np.add, params, updates)
    return params


def numpy_rule(config, value, all_grads, decay):
    """The published update rules, in float64."""
    value = value.astype(np.float64)
    first, second = np.zeros_like(value), np.zeros_like(value)
    for t, grad in enumerate(np.float64(all_grads), start=1):
        if config.name == "sgd":
            first = config.momentum * first + grad
            update = first + decay * value
        else:
            grad = grad + decay * value if config.name == "adam" else grad
            first = 0.9 * first + 0.1 * grad
            second = 0.999 * second + 0.001 * grad**2
            root = np.sqrt(second / (1 - 0.999**t))
            update = first / (1 - 0.9**t) / (root + 1e-8)
            update += decay * value if config.name == "adamw" else 0.0
        value = value - config.learning_rate * update
    return value


@pytest.mark.parametrize("rule", RULES)
def test_an_update_follows_its_formula(rule):
    params, all_grads = trajectory()
    found = run_rule(RULES[rule], params, all_grads)
    for name, decay in (("kernel", RULES[rule].weight_decay), ("bias", 0.0)):
        grads = np.stack([tree[name] for tree in all_grads])
        wanted = numpy_rule(RULES[rule], params[name], grads, decay)
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-6)


TORCH_RULES = {
    "sgd with momentum": ("SGD", dict(lr=0.1, momentum=0.9)),
    "adam with L2": ("Adam", dict(lr=0.01, weight_decay=0.3)),
    "adamw": ("AdamW", dict(lr=0.01, weight_decay=0.3)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", TORCH_RULES)
def test_an_update_equals_that_of_pytorch(rule):
    torch = pytest.importorskip("torch")
    name, options = TORCH_RULES[rule]
    params, all_grads = trajectory()
    kernel = torch.nn.Parameter(torch.tensor(params["kernel"]))
    optimizer = getattr(torch.optim, name)([kernel], **options)
    for grads in all_grads:
        kernel.grad = torch.tensor(grads["kernel"])
        optimizer.step()
    found = run_rule(RULES[rule], params, all_grads)["kernel"]
    np.testing.assert_allclose(found, kernel.detach().numpy(), rtol=0, atol=1e-6)


def test_clipping_shortens_the_whole_gradient():
    params = {"kernel": np.zeros((2, 1), np.float32), "bias": np.zeros(1, np.float32)}
    grads = {"kernel": np.float32([[3.0], [0.0]]), "bias": np.float32([4.0])}
    found = run_rule(changed(clip_norm=1.0), params, [grads])  # norm 5
    np.testing.assert_allclose(found["kernel"], [[-0.06], [0.0]], atol=1e-7)
    np.testing.assert_allclose(found["bias"], [-0.08], atol=1e-7)
    found = run_rule(changed(clip_norm=5.0), params, [grads])
    np.testing.assert_allclose(found["bias"], [-0.4], atol=1e-7)


# The plateau, against a plain statement of the Keras callback.

BASE_RATE = 1.0


def keras_scales(plateau, values, mode):
    """keras/src/callbacks/reduce_lr_on_plateau.py, on_epoch_end."""
    rate, wait, cooldown = BASE_RATE, 0, 0
    best = math.inf if mode == "min" else -math.inf
    scales = []
    for value in values:
        if mode == "min":
            improved = value < best - plateau.min_delta
        else:
            improved = value > best + plateau.min_delta
        if cooldown > 0:
            cooldown, wait = cooldown - 1, 0
        if improved:
            best, wait = value, 0
        elif cooldown == 0:
            wait += 1
            if wait >= plateau.patience and rate > plateau.min_learning_rate:
                rate = max(rate * plateau.factor, plateau.min_learning_rate)
                cooldown, wait = plateau.cooldown, 0
        scales.append(rate / BASE_RATE)
    return scales


def our_scales(plateau, values, mode):
    state, scales = optim.init_plateau(), []
    for value in values:
        state = optim.advance_plateau(
            plateau, state, value, learning_rate=BASE_RATE, mode=mode
        )
        scales.append(float(state.scale))
    return scales


def metric_sequence(rng):
    """12 epochs; eighths are exact in float32, so ties with min_delta are exact too."""
    values = rng.integers(0, 12, 12) / 8
    return np.where(rng.random(12) < 0.2, np.nan, values).tolist()


@pytest.mark.parametrize("patience", range(5))
@pytest.mark.parametrize("cooldown", range(4))
def test_the_plateau_counts_like_keras(patience, cooldown):
    mode = ("min", "max")[(patience + cooldown) % 2]
    rng = np.random.default_rng((patience, cooldown))
    min_delta, smallest = rng.choice([0.0, 0.125, 0.25]), rng.choice([0.0, 0.2])
    plateau = Plateau(0.5, patience, min_delta, cooldown, np.float32(smallest))
    values = metric_sequence(rng)
    with jax.disable_jit():  # the arithmetic is the same; it would compile each epoch
        found = our_scales(plateau, values, mode)
    assert found == keras_scales(plateau, values, mode), values


def test_the_plateau_by_hand():
    plateau = Plateau(
        factor=0.5, patience=2, min_delta=0.0, cooldown=0, min_learning_rate=0.0
    )
    values = [0.5, 0.6, 0.6, 0.55, 0.7]
    #         new  new  bad  bad   new
    assert our_scales(plateau, values, "max") == [1.0, 1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("cooldown", "scales"),
    [
        (0, [1.0, 0.5, 0.25, 0.125]),
        (1, [1.0, 0.5, 0.25, 0.125]),
        (2, [1.0, 0.5, 0.5, 0.25]),
        (3, [1.0, 0.5, 0.5, 0.5]),
    ],
)
def test_one_epoch_less_than_the_cooldown_is_not_counted(cooldown, scales):
    plateau = Plateau(0.5, 1, 0.0, cooldown, 0.0)
    with jax.disable_jit():
        assert our_scales(plateau, [0.5] * 4, "min") == scales


def test_a_metric_that_is_not_a_number_is_no_improvement():
    plateau = Plateau(0.5, 1, 0.0, 0, 0.0)
    with jax.disable_jit():
        for mode in ("min", "max"):
            found = our_scales(plateau, [math.nan, 0.5, math.nan, 0.5], mode)
            assert found == [0.5, 0.5, 0.25, 0.125]


def test_the_smallest_rate_never_raises_the_rate():
    plateau = Plateau(0.5, 1, 0.0, 0, min_learning_rate=2 * BASE_RATE)
    with jax.disable_jit():
        assert our_scales(plateau, [0.5, 0.5, 0.5], "min") == [1.0, 1.0, 1.0]


# Parts of a network.


NAMES = {
    "encoder": {"stem": {"kernel": 1.0}, "stage_1": {"kernel": 1.0}},
    "decoder": {"kernel": 1.0},
}


def test_parts_have_their_own_rates_and_first_epochs():
    parts = {
        "encoder": Part(rate=0.5, from_epoch=2),
        "encoder/stem": Part(rate=0.0, from_epoch=0),
    }
    config = changed(learning_rate=0.25, parts=parts)
    schedule = optim.make_schedule(config, step_at=lambda epoch: 3 * epoch, epochs=4)
    optimizer = optim.make_optimizer(config, schedule, step_at=lambda epoch: 3 * epoch)
    params = jax.tree.map(jnp.float32, NAMES)
    state, moves = optimizer.init(params), []
    for _ in range(8):
        updates, state = optimizer.update(params, state, params)  # gradients of 1
        moves.append(jax.tree.map(float, updates))
    assert [move["decoder"]["kernel"] for move in moves] == [-0.25] * 8
    assert [move["encoder"]["stem"]["kernel"] for move in moves] == [0.0] * 8
    wanted = [0.0] * 6 + [-0.125] * 2
    assert [move["encoder"]["stage_1"]["kernel"] for move in moves] == wanted


def test_a_part_that_never_trains_has_no_gradient():
    parts = {"encoder/stem": Part(0.0, 0), "decoder": Part(0.0, 3), "x": Part(1.0, 0)}
    gradient = jax.grad(
        lambda params: sum(jax.tree.leaves(optim.detach_frozen(params, parts)))
    )
    found = gradient(NAMES)
    assert found["encoder"]["stem"]["kernel"] == 0.0
    assert found["encoder"]["stage_1"]["kernel"] == 1.0
    assert found["decoder"]["kernel"] == 0.0
    assert optim.unknown_parts(NAMES, parts) == ["x"]
