"""The soft clDice loss against SciPy's filters, PyTorch's pools and hand-made lines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.errors import InputError
from jaxseg.losses import cldice
from jaxseg.losses.cldice import soft_skeleton
from jaxseg.types import IGNORE

CROSS = ndimage.generate_binary_structure(2, 1)
loss_of = jax.jit(cldice, static_argnames=("iterations", "smooth"))


def skeleton(values, counted, iterations):
    """[H, W] float64 by SciPy; what is not counted and what is outside is left out."""

    def erode(x):
        seen = np.where(counted, x, np.inf)
        low = ndimage.minimum_filter(
            seen, footprint=CROSS, mode="constant", cval=np.inf
        )
        return np.where(counted, low, 0.0)

    def open_(x):
        seen = np.where(counted, erode(x), -np.inf)
        high = ndimage.maximum_filter(seen, size=3, mode="constant", cval=-np.inf)
        return np.where(counted, high, 0.0)

    found = np.maximum(values - open_(values), 0.0)
    for _ in range(iterations):
        values = erode(values)
        ridge = np.maximum(values - open_(values), 0.0)
        found = found + np.maximum(ridge - found * ridge, 0.0)
    return np.where(counted, found, 0.0)


def loss_by_scipy(probs, truth, counted, iterations, smooth):
    """Of one class of one image, [H, W] each."""
    probs, truth = probs * counted, truth * counted
    of_probs = skeleton(probs, counted, iterations)
    of_truth = skeleton(truth, counted, iterations)
    precision = ((of_probs * truth).sum() + smooth) / (of_probs.sum() + smooth)
    recall = ((of_truth * probs).sum() + smooth) / (of_truth.sum() + smooth)
    return 1 - 2 * precision * recall / (precision + recall)


def lines(num_classes, ignored, seed=0):
    """Noisy logits and crossing lines of all widths, [3, 24, 20]."""
    rng = np.random.default_rng(seed)
    target = np.zeros((3, 24, 20), np.int32)
    for number, mask in enumerate(target):
        mask[:, 3 + number : 6 + 2 * number] = 1
        mask[8 : 9 + 3 * number] = num_classes - 1
    logits = rng.normal(0, 2, (*target.shape, 1 if num_classes == 2 else num_classes))
    if ignored:
        target[rng.random(target.shape) < 0.1] = IGNORE
        target[:, :, 15:17] = IGNORE
    return logits.astype(np.float32), target


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(("iterations", "smooth"), [(1, 0.01), (4, 1.0)])
def test_the_loss_is_that_of_filters_of_scipy(num_classes, ignored, iterations, smooth):
    logits, target = lines(num_classes, ignored)
    found = loss_of(logits, target, iterations=iterations, smooth=smooth)
    wide = logits.astype(np.float64)
    if num_classes == 2:
        probs = np.concatenate([1 / (1 + np.exp(wide)), 1 / (1 + np.exp(-wide))], -1)
    else:
        probs = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    wanted = [
        np.mean(
            [
                loss_by_scipy(p[..., k], t == k, t != IGNORE, iterations, smooth)
                for k in range(1, num_classes)
            ]
        )
        for p, t in zip(probs, target, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_value_and_gradient_equal_pytorch():
    """The published code: min- and max-pools that ignore what is outside."""
    torch = pytest.importorskip("torch")
    pool = torch.nn.functional.max_pool2d
    logits, target = lines(2, ignored=False)

    def erode(x):
        across = -pool(-x, (3, 1), stride=1, padding=(1, 0))
        return torch.minimum(across, -pool(-x, (1, 3), stride=1, padding=(0, 1)))

    def opened(x):
        return pool(erode(x), 3, stride=1, padding=1)

    def skeleton_of(x):
        found = (x - opened(x)).relu()
        for _ in range(3):
            x = erode(x)
            ridge = (x - opened(x)).relu()
            found = found + (ridge - found * ridge).relu()
        return found

    raw = torch.tensor(logits[..., 0], requires_grad=True)
    probs, truth = raw.sigmoid()[:, None], torch.tensor(target[:, None]).float()
    pixels = (1, 2, 3)
    of_probs, of_truth = skeleton_of(probs), skeleton_of(truth)
    precision = ((of_probs * truth).sum(pixels) + 1) / (of_probs.sum(pixels) + 1)
    recall = ((of_truth * probs).sum(pixels) + 1) / (of_truth.sum(pixels) + 1)
    wanted = 1 - 2 * precision * recall / (precision + recall)
    wanted.sum().backward()

    def total(logits):
        found = loss_of(logits, target, iterations=3, smooth=1.0)
        return found.sum(), found

    gradient, found = jax.jit(jax.grad(total, has_aux=True))(logits)
    np.testing.assert_allclose(found, wanted.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient[..., 0], raw.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_skeleton_of_a_bar_is_its_middle_line(width):
    values = np.zeros((1, 11, 16, 1), np.float32)
    values[0, 5 - width // 2 : 6 + width // 2] = 1
    counted = np.ones(values.shape, bool)
    found = soft_skeleton(values, counted, iterations=width // 2)
    wanted = np.zeros_like(values)
    wanted[0, 5] = 1
    np.testing.assert_array_equal(found, wanted)
    if width > 1:  # one erosion less and it has no ridge
        assert not np.any(soft_skeleton(values, counted, iterations=width // 2 - 1))


def test_ignored_columns_do_not_cut_a_line_off():
    target = np.zeros((1, 9, 12), np.int32)
    target[0, 4] = 1
    target[0, :, 5:8] = IGNORE
    logits = np.where(target == 1, 50.0, -50.0)[..., None].astype(np.float32)
    np.testing.assert_allclose(
        loss_of(logits, target, iterations=2, smooth=0.0), 0.0, atol=1e-6
    )


def test_a_line_beside_the_true_one_has_no_overlap():
    target = np.zeros((1, 9, 12), np.int32)
    target[0, 2] = 1
    logits = np.full((1, 9, 12, 1), -200.0, np.float32)
    logits[0, 6] = 200.0
    found = loss_of(logits, target, iterations=2, smooth=0.0)
    np.testing.assert_array_equal(found, 1.0)
    none = jnp.full((1, 9, 12, 1), -200.0)
    empty = jnp.zeros((1, 9, 12), jnp.int32)
    for smooth in (0.0, 1.0):
        loss = loss_of(none, empty, iterations=2, smooth=smooth)
        np.testing.assert_array_equal(loss, 0.0)


def test_its_gradient_joins_a_broken_line():
    """What Dice does not tell: the gap weighs more than pixels at the edge."""
    target = np.zeros((1, 9, 21), np.int32)
    target[0, 3:6] = 1
    logits = np.where(target == 1, 3.0, -3.0)[..., None].astype(np.float32)
    logits[0, 3:6, 10] = -1.0
    total = functools.partial(loss_of, target=target, iterations=2, smooth=1.0)
    gradient = jax.grad(lambda x: total(x).sum())(logits)[0, ..., 0]
    assert gradient[4, 10] == gradient.min() < 0
    assert gradient[4, 10] < 10 * gradient[3, 10]


def test_labels_of_images_are_refused():
    with pytest.raises(InputError, match="masks for the loss 'cldice'"):
        cldice(jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32), iterations=3, smooth=1.0)
