import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from jaxseg import losses
from jaxseg.errors import InputError
from jaxseg.losses import LOSSES, make_loss
from jaxseg.types import IGNORE

bce, cross_entropy = jax.jit(losses.bce), jax.jit(losses.cross_entropy)
dice, jaccard = jax.jit(losses.dice), jax.jit(losses.jaccard)
tversky = jax.jit(losses.tversky)
focal, focal_constant = jax.jit(losses.focal), jax.jit(losses.focal_constant)

OPTIONS = {
    "bce": {"pos_weight": 3.0},
    "cross_entropy": {"class_weights": (0.5, 2.0, 1.5)},
    "dice": {"smooth": 1e-5},
    "jaccard": {"smooth": 1.0},
    "tversky": {"alpha": 0.3, "beta": 0.7, "smooth": 1e-5},
    "focal": {"alpha": 0.25, "gamma": 2.0},
    "focal_constant": {"alpha": 0.8, "gamma": 1.5},
    "lovasz": {},
    "cldice": {"iterations": 2, "smooth": 1.0},
}
CASES = [
    (name, num_logits)
    for name in OPTIONS
    for num_logits in (1, 3)
    if (name, num_logits) not in {("bce", 3), ("cross_entropy", 1)}
]
each_loss = pytest.mark.parametrize(("name", "num_logits"), CASES)


def example(num_logits, shape=(3, 4, 5), ignored=0.3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (*shape, num_logits)).astype(np.float32)
    target = rng.integers(0, max(num_logits, 2), shape).astype(np.int32)
    target[rng.random(shape) < ignored] = IGNORE
    return logits, target


@functools.cache
def compiled(name):
    """The loss with its OPTIONS: (logits, target) -> [N], compiled once per shape."""
    return jax.jit(functools.partial(LOSSES[name], **OPTIONS[name]))


@functools.cache
def compiled_gradient(name):
    """(logits, target) -> sum of the losses and its gradient."""

    def total(logits, target):
        return compiled(name)(logits, target).sum()

    return jax.jit(jax.value_and_grad(total))


def probabilities(logits):
    """float64 probabilities of all classes, a binary logit as two classes."""
    logits = logits.astype(np.float64)
    if logits.shape[-1] == 1:
        foreground = 1 / (1 + np.exp(-logits))
        return np.concatenate([1 - foreground, foreground], axis=-1)
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def one_by_one(logits, target, pixel_loss):
    """Mean over unignored pixels by plain loops; pixel_loss(p_t, class)."""
    values = []
    for probs, classes in zip(probabilities(logits), target, strict=True):
        pairs = zip(probs.reshape(-1, probs.shape[-1]), classes.ravel(), strict=True)
        values.append(np.mean([pixel_loss(p[c], c) for p, c in pairs if c != IGNORE]))
    return values


def overlap_loss(logits, target, smooth, kind):
    values = []
    for probs, classes in zip(probabilities(logits), target, strict=True):
        probs, classes = probs[classes != IGNORE], classes[classes != IGNORE]
        scores = []
        for k in [1] if logits.shape[-1] == 1 else range(logits.shape[-1]):
            both, total = probs[classes == k, k].sum(), probs[:, k].sum()
            total += (classes == k).sum()
            if kind == "dice":
                scores.append((2 * both + smooth) / (total + smooth))
            else:
                scores.append((both + smooth) / (total - both + smooth))
        values.append(1 - np.mean(scores))
    return values


def test_config_keys_are_exactly_the_keyword_only_parameters():
    assert OPTIONS.keys() == LOSSES.keys()
    for name, loss in LOSSES.items():
        parameters = list(inspect.signature(loss).parameters.values())
        assert [p.name for p in parameters[:2]] == ["logits", "target"]
        assert {p.name for p in parameters[2:]} == OPTIONS[name].keys()
        for parameter in parameters[2:]:
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is parameter.empty
            assert parameter.annotation is not parameter.empty


def test_two_by_two_literals():
    # p = 1/2 at logit 0 and 3/4 at logit ln 3; one pixel is ignored.
    logits = jnp.array([[[[0.0], [math.log(3)]], [[math.log(3)], [9.0]]]])
    target = jnp.array([[[1, 1], [0, IGNORE]]])
    ln2, ln43, ln4 = math.log(2), math.log(4 / 3), math.log(4)

    check = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    check(bce(logits, target, pos_weight=1.0), (ln2 + ln43 + ln4) / 3)
    check(bce(logits, target, pos_weight=5.0), (5 * ln2 + 5 * ln43 + ln4) / 3)
    check(dice(logits, target, smooth=1.0), 1 - (2 * 1.25 + 1) / (2 + 2 + 1))
    check(jaccard(logits, target, smooth=1.0), 1 - (1.25 + 1) / (4 - 1.25 + 1))
    weights = {"alpha": 0.2, "beta": 0.6, "smooth": 1.0}
    errors = 0.2 * 0.75 + 0.6 * 0.75  # of background found, of foreground missed
    check(tversky(logits, target, **weights), 1 - 2.25 / (2.25 + errors))
    factors = ln2 / 4, ln43 / 16, ln4 * 9 / 16
    check(
        focal(logits, target, alpha=0.25, gamma=2.0),
        (0.25 * factors[0] + 0.25 * factors[1] + 0.75 * factors[2]) / 3,
    )
    check(focal_constant(logits, target, alpha=0.8, gamma=2.0), 0.8 * sum(factors) / 3)


def test_class_weights_divide_by_the_sum_of_weights_of_the_example():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]))
    loss = cross_entropy(logits, jnp.array([[0, 2]]), class_weights=(1.0, 1.0, 3.0))
    np.testing.assert_allclose(loss, [math.log(2)], rtol=1e-6)
    loss = cross_entropy(logits, jnp.array([[1, 2]]), class_weights=(1.0, 1.0, 3.0))
    np.testing.assert_allclose(loss, [(math.log(4) + 3 * math.log(2)) / 4], rtol=1e-6)
    loss = cross_entropy(logits, jnp.array([[0, 0]]), class_weights=(0.0, 1.0, 1.0))
    np.testing.assert_array_equal(loss, [0.0])


@pytest.mark.parametrize("num_logits", [1, 3])
def test_focal_losses_equal_plain_loops(num_logits):
    logits, target = example(num_logits)

    def class_dependent(p, k):
        alpha = 0.25 if num_logits > 1 or k == 1 else 0.75
        return -alpha * (1 - p) ** 2 * np.log(p)

    def constant(p, k):
        entropy = -np.log(p)
        return 0.8 * (1 - np.exp(-entropy)) ** 1.5 * entropy

    np.testing.assert_allclose(
        focal(logits, target, alpha=0.25, gamma=2.0),
        one_by_one(logits, target, class_dependent),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        focal_constant(logits, target, alpha=0.8, gamma=1.5),
        one_by_one(logits, target, constant),
        rtol=1e-5,
    )


@pytest.mark.parametrize("num_logits", [1, 3])
@pytest.mark.parametrize("smooth", [0.0, 1e-5, 1.0])
def test_overlap_losses_equal_plain_loops(num_logits, smooth):
    logits, target = example(num_logits)
    for loss, kind in ((dice, "dice"), (jaccard, "jaccard")):
        np.testing.assert_allclose(
            loss(logits, target, smooth=smooth),
            overlap_loss(logits, target, smooth, kind),
            rtol=2e-6,
        )


def test_focal_without_gamma_is_cross_entropy():
    logits, target = example(3)
    np.testing.assert_allclose(
        focal(logits, target, alpha=1.0, gamma=0.0),
        cross_entropy(logits, target, class_weights=()),
        rtol=1e-6,
    )
    logits, target = example(1)
    np.testing.assert_allclose(
        focal(logits, target, alpha=0.5, gamma=0.0),
        bce(logits, target, pos_weight=1.0) / 2,
        rtol=1e-6,
    )


def test_bce_equals_pytorch():
    torch = pytest.importorskip("torch")
    logits, target = example(1, ignored=0.0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[..., 0]),
        torch.tensor(target, dtype=torch.float32),
        pos_weight=torch.tensor(3.0),
        reduction="none",
    )
    np.testing.assert_allclose(
        bce(logits, target, pos_weight=3.0), expected.mean(dim=(1, 2)), rtol=1e-6
    )


@pytest.mark.parametrize("class_weights", [(), (0.5, 2.0, 1.5)])
def test_cross_entropy_equals_pytorch(class_weights):
    torch = pytest.importorskip("torch")
    logits, target = example(3)
    expected = [
        torch.nn.functional.cross_entropy(
            torch.tensor(one).reshape(-1, 3),
            torch.tensor(classes, dtype=torch.int64).reshape(-1),
            weight=torch.tensor(class_weights) if class_weights else None,
            ignore_index=IGNORE,
        )
        for one, classes in zip(logits, target, strict=True)
    ]
    actual = cross_entropy(logits, target, class_weights=class_weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dice", "jaccard"])
def test_config_sum_is_the_keras_bce_dice_and_bce_jaccard_loss(kind):
    logits, target = example(1, ignored=0.0)
    p = np.clip(probabilities(logits)[..., 1], 1e-7, 1 - 1e-7)
    entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(axis=(1, 2))
    terms = {
        "bce": {"weight": 1.0, "pos_weight": 1.0},
        kind: {"weight": 1.0, "smooth": 1e-5},
    }
    np.testing.assert_allclose(
        jax.jit(make_loss(terms))(logits, target),
        entropy + overlap_loss(logits, target, 1e-5, kind),
        rtol=1e-6,
    )


def test_terms_are_weighted():
    logits, target = example(1)
    terms = {
        "focal": {"weight": 0.5, "alpha": 0.25, "gamma": 2.0},
        "dice": {"weight": 3.0, "smooth": 1.0},
    }
    expected = 0.5 * np.asarray(focal(logits, target, alpha=0.25, gamma=2.0))
    expected += 3.0 * np.asarray(dice(logits, target, smooth=1.0))
    np.testing.assert_allclose(
        jax.jit(make_loss(terms))(logits, target), expected, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "num_logits"), [case for case in CASES if case[0] != "cldice"]
)
def test_masking_is_removing_down_to_the_label_of_an_image(name, num_logits):
    logits, target = example(num_logits, ignored=0.0)
    masked = np.full_like(target, IGNORE)
    masked[:, 2, 1] = target[:, 2, 1]
    labels = compiled(name)(logits[:, 2, 1], target[:, 2, 1])
    assert labels.shape == (3,)
    np.testing.assert_allclose(compiled(name)(logits, masked), labels, rtol=1e-6)


@each_loss
def test_examples_do_not_see_each_other(name, num_logits):
    logits, target = example(num_logits)
    together = np.asarray(compiled(name)(logits, target))
    logits[1], target[1] = 3.0, 0
    order = [2, 1, 0]
    others = np.asarray(compiled(name)(logits[order], target[order]))
    np.testing.assert_allclose(others[[0, 2]], together[[2, 0]], rtol=1e-6)


@each_loss
def test_gradient_is_right_and_zero_at_ignored_pixels(name, num_logits):
    logits, target = example(num_logits)

    def total(logits):
        return compiled_gradient(name)(logits, target)[0]

    def total_vjp(logits):
        value, gradient = compiled_gradient(name)(logits, target)
        return value, lambda scale: (scale * gradient,)

    check_vjp(total, total_vjp, (logits,), atol=1e-2, rtol=1e-2)
    gradient = np.asarray(compiled_gradient(name)(logits, target)[1])
    assert (gradient[target == IGNORE] == 0).all()
    felt = np.broadcast_to((target != IGNORE)[..., None], logits.shape)
    if (name, num_logits) == ("lovasz", 1):  # a hinge is flat beyond its margin
        felt = felt & ((2 * target[..., None] - 1) * logits < 1)
    if name != "cldice":  # minima and maxima pick single pixels
        assert (gradient[felt] != 0).all()


@each_loss
@pytest.mark.parametrize("size", [100.0, -100.0])
def test_saturated_logits_stay_finite(name, num_logits, size):
    logits, target = example(num_logits)
    logits[:] = -size
    logits[..., 0] = size
    loss, gradient = compiled_gradient(name)(logits, target)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


@each_loss
def test_ignored_examples_have_no_loss_even_at_nan_logits(name, num_logits):
    logits, target = example(num_logits)
    logits[:], target[:] = np.nan, IGNORE
    loss, gradient = compiled_gradient(name)(logits, target)
    np.testing.assert_array_equal(loss, 0.0)
    np.testing.assert_array_equal(gradient, np.zeros_like(logits))


@pytest.mark.parametrize(
    ("name", "num_logits"),
    [("bce", 1), ("cross_entropy", 3), ("dice", 3), ("jaccard", 1), ("focal", 3)],
)
def test_low_precision_logits_are_computed_in_float32(name, num_logits):
    logits, target = example(num_logits)
    coarse = logits.astype(jnp.bfloat16)
    loss = compiled(name)(coarse, target.astype(np.uint8))
    assert loss.dtype == jnp.float32
    expected = compiled(name)(coarse.astype(np.float32), target)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_saturated_entropy_is_the_logit_difference():
    loss = bce(jnp.array([[100.0], [-100.0]]), jnp.array([0, 1]), pos_weight=1.0)
    np.testing.assert_array_equal(loss, [100.0, 100.0])
    loss = cross_entropy(
        jnp.array([[100.0, -100.0, -100.0]]), jnp.array([2]), class_weights=()
    )
    np.testing.assert_allclose(loss, [200.0])


@pytest.mark.parametrize("num_logits", [1, 3])
def test_tversky_lies_between_dice_and_jaccard(num_logits):
    logits, target = example(num_logits)
    half = tversky(logits, target, alpha=0.5, beta=0.5, smooth=2.0)
    np.testing.assert_allclose(half, dice(logits, target, smooth=4.0), rtol=1e-6)
    whole = tversky(logits, target, alpha=1.0, beta=1.0, smooth=2.0)
    np.testing.assert_allclose(whole, jaccard(logits, target, smooth=2.0), rtol=1e-6)


@pytest.mark.parametrize("missed", [False, True])
def test_tversky_weighs_what_is_missed_and_what_is_not_there(missed):
    logits = jnp.array([[[50.0], [50.0], [-50.0], [-50.0]]])
    target = jnp.array([[1, 1, 1, 0]] if missed else [[1, 0, 0, 0]])
    loss = tversky(logits, target, alpha=3.0, beta=4.0, smooth=0.0)
    expected = 1 - 2 / (2 + 4.0 * 1) if missed else 1 - 1 / (1 + 3.0 * 1)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


@pytest.mark.parametrize("smooth", [0.0, 1e-5])
@pytest.mark.parametrize("loss", [dice, jaccard])
def test_no_truth_and_no_prediction_has_no_overlap_loss(loss, smooth):
    logits = jnp.full((1, 4, 4, 1), -200.0)  # sigmoid is exactly 0 in float32
    actual = loss(logits, jnp.zeros((1, 4, 4), jnp.int32), smooth=smooth)
    np.testing.assert_array_equal(actual, [0.0])


def test_losses_that_do_not_fit_the_model_say_which_one_does():
    target = jnp.zeros((1, 2, 2), jnp.int32)
    with pytest.raises(InputError, match=r"cross_entropy=dict\("):
        bce(jnp.zeros((1, 2, 2, 3)), target, pos_weight=1.0)
    with pytest.raises(InputError, match=r"bce=dict\("):
        cross_entropy(jnp.zeros((1, 2, 2, 1)), target, class_weights=())
    with pytest.raises(InputError, match="3 class weights") as caught:
        cross_entropy(jnp.zeros((1, 2, 2, 3)), target, class_weights=(1.0, 2.0))
    assert "class_weights" in caught.value.fix
    with pytest.raises(InputError, match="jaccard"):
        make_loss({})


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        dice(jnp.zeros((2, 4, 4, 1)), jnp.zeros((1, 4, 4), jnp.int32), smooth=1.0)
