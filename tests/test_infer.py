"""Tiles against the whole image: independent networks in NumPy, and a real U-Net."""

import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg import parallel, steps
from jaxseg.augment import make_normalize
from jaxseg.errors import InputError
from jaxseg.infer import _starts, _weights, predict_strips
from jaxseg.losses import make_loss
from jaxseg.models import MODELS
from jaxseg.tasks import segmentation

KERNEL = np.random.default_rng(7).normal(size=(5, 5))


def photo(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def predict_tiled(predict, image, **options):
    """The strips as one image [H, W, K]."""
    return np.concatenate([s for _, s in predict_strips(predict, image, **options)])


def local(tiles):
    """Two channels that look two pixels far, with zeros outside, as a convolution."""
    red, green = tiles[..., 0] / 255, tiles[..., 1] / 255
    near = [ndimage.correlate(one, KERNEL, mode="constant") for one in red]
    return np.stack([near, green], axis=-1).astype(np.float32)


def pooled(tiles):
    """A max-pool to a quarter and back: depends on where tiles start."""
    n, height, width, _ = tiles.shape
    blocks = tiles[..., 0].reshape(n, height // 4, 4, width // 4, 4)
    coarse = blocks.max(axis=(2, 4)).astype(np.float32)
    return coarse.repeat(4, 1).repeat(4, 2)[..., None]


@pytest.mark.parametrize("size", [(64, 96), (61, 97), (32, 32), (33, 200), (131, 40)])
@pytest.mark.parametrize("overlap", [8, 13, 28])
def test_tiles_equal_the_whole_image(size, overlap):
    image = photo(*size)
    probs = predict_tiled(
        local, image, tile=(32, 32), overlap=overlap, batch_size=3, stride=4
    )
    whole = local(image[None])[0]
    assert probs.shape == whole.shape
    assert probs.dtype == np.float32
    # At the last rows and columns the whole image sees zeros, a tile its reflection.
    bottom, right = (2 if side % 4 else 0 for side in size)
    inside = slice(size[0] - bottom), slice(size[1] - right)
    np.testing.assert_allclose(probs[inside], whole[inside], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (62, 97), (9, 50)])
def test_tiles_start_on_the_grid_of_the_pooling(size):
    image = photo(*size, channels=1)
    probs = predict_tiled(
        pooled, image, tile=(24, 32), overlap=10, batch_size=4, stride=4
    )
    lacking = [(0, -side % 4) for side in size]
    padded = np.pad(image, (*lacking, (0, 0)), mode="reflect")
    whole = pooled(padded[None])[0, : size[0], : size[1]]
    np.testing.assert_allclose(probs, whole, rtol=1e-6)


def test_the_blend_by_hand():
    # A tile says its own left edge: pixel 0..23 of the image, tiles at 0 and 8.
    def edges(tiles):
        left = tiles[:, :1, :1, :1].astype(np.float32)
        return np.broadcast_to(left, (*tiles.shape[:3], 1))

    image = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None], (16, 24, 1))
    probs = predict_tiled(
        edges, image, tile=(16, 16), overlap=8, batch_size=1, stride=1
    )
    bell = np.exp(-0.5 * ((np.arange(16) - 7.5) / 2) ** 2)
    first, second = bell[8:].copy(), bell[:8].copy()
    first[5:], second[:3] = 0, 0  # three eighths of the overlap, at either end
    between = 8 * second / (first + second)
    expected = np.concatenate([np.zeros(8), between, np.full(8, 8.0)])
    np.testing.assert_allclose(probs[..., 0], np.tile(expected, (16, 1)), rtol=1e-5)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 100, 1500])
@pytest.mark.parametrize("overlap", [0, 1, 8, 17, 28])
def test_weights_sum_to_one_at_every_pixel(length, overlap):
    starts = _starts(length, 32, overlap, 4)
    weights = _weights(32, overlap, starts)
    total = np.zeros(starts[-1] + 32)
    for start, weight in zip(starts, weights, strict=True):
        assert start % 4 == 0
        total[start : start + 32] += weight
    assert len(total) >= length
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    neighbours = itertools.pairwise(starts)
    assert all(0 < b - a <= 32 - overlap for a, b in neighbours)


def test_a_constant_network_gives_a_constant():
    def constant(tiles):
        return np.full((*tiles.shape[:3], 1), 0.7, np.float32)

    for size in ((1, 1), (5, 300), (77, 78)):
        probs = predict_tiled(
            constant, photo(*size), tile=(16, 32), overlap=7, batch_size=4, stride=8
        )
        assert probs.shape == (*size, 1)
        np.testing.assert_allclose(probs, 0.7, rtol=1e-6)


def test_every_call_has_one_shape_and_the_strips_are_the_image():
    shapes = set()

    def recorded(tiles):
        shapes.add((tiles.shape, tiles.dtype.name))
        return local(tiles)

    image = photo(75, 51)
    options = dict(tile=(16, 16), overlap=8, batch_size=4, stride=4)
    strips = list(predict_strips(recorded, image, **options))
    assert shapes == {((4, 16, 16, 3), "uint8")}
    tops = [top for top, _ in strips]
    assert tops == list(np.cumsum([0, *(len(strip) for _, strip in strips[:-1])]))
    assert max(len(strip) for _, strip in strips) <= 16
    assert sum(len(strip) for _, strip in strips) == len(image)


def test_memory_holds_a_strip_and_never_the_image():
    image = np.broadcast_to(np.uint8(9), (4000, 4000, 1))  # takes one byte

    def copied(tiles):
        return tiles.astype(np.float32)

    strips = predict_strips(
        copied, image, tile=(128, 128), overlap=32, batch_size=4, stride=16
    )
    next(strips)
    tracemalloc.start()
    rows = sum(len(strip) for _, strip in strips)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 4000 - 96
    strip_bytes = 128 * 4000 * 4
    assert peak < 4 * strip_bytes  # the image would be 31 of them


def test_a_unet_in_tiles_is_the_unet_on_the_whole_image():
    options = dict(
        norm="none",
        bn_group=None,
        activation="relu",
        decoder="transpose",
        head_kernel=1,
        image_head=False,
        adjust_gradient=False,
    )
    model = MODELS["unet"](1, jnp.float32, widths=(4, 8), dropout=(0.0, 0.0), **options)
    loss = make_loss({"bce": {"weight": 1.0, "pos_weight": 1.0}})
    task = segmentation(("wall", "crack"), loss, threshold="max_f1", min_recall=0.9)
    normalize = make_normalize((0.5,) * 3, (0.25,) * 3)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    mesh = parallel.make_mesh(8)
    step = parallel.compile_batch_step(
        steps.make_predict_step(model, task, normalize), mesh
    )

    def predict(tiles):
        batch = parallel.put_batch({"image": tiles}, mesh)
        return np.asarray(step(variables, batch)["mask_probs"])

    image = photo(120, 202)
    # Convolutions reach 2 pixels, 4 at half size (two of 2), and 2: 10 with the pool.
    probs = predict_tiled(
        predict, image, tile=(64, 96), overlap=28, batch_size=8, stride=2
    )
    whole = step(variables, {"image": np.stack([image] * 8)})["mask_probs"][0]
    np.testing.assert_allclose(probs, whole, atol=1e-5)
    assert np.std(whole) > 1e-3, "a flat result would prove nothing"


@pytest.mark.parametrize(
    ("tile", "overlap", "fix"),
    [
        ((100, 128), 16, "tile=(96, 128)"),
        ((8, 32), 0, "tile=(16, 32)"),
        ((0, 0), 0, "tile=(16, 16)"),
        ((64, 32), 17, "overlap=8"),
        ((64, 64), 64, "overlap=16"),
        ((64, 64), -1, "overlap=16"),
        ((16, 64), 1, "overlap=0"),
    ],
)
def test_misfits_are_refused_with_the_fix(tile, overlap, fix):
    with pytest.raises(InputError) as caught:
        predict_strips(
            local, photo(8, 8), tile=tile, overlap=overlap, batch_size=1, stride=16
        )
    assert caught.value.fix == fix
