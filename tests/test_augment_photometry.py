"""Colours against NumPy, SciPy, the colorsys of Python, and the JPEG of Pillow."""

import colorsys
import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from jaxseg.augment import make_augment
from jaxseg.augment.jpeg import CHROMA, LUMA, jpeg, quantisation
from jaxseg.augment.photometry import PHOTOMETRY

SIZE = (20, 28)
KEYS = jax.random.split(jax.random.key(0), 200)


def photo(channels=3, size=SIZE, low=60, high=200):
    """Smooth colours with some noise, away from black and white."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(*size, channels)), (3, 3, 0))
    image = low + (high - low) * (image - image.min()) / np.ptp(image)
    return (image + rng.uniform(-3, 3, image.shape)).astype(np.float32)


def drawn(name, image, **options):
    """The image changed for 200 samples, [200, H, W, C], before the clipping."""
    run = jax.vmap(lambda key: PHOTOMETRY[name](key, image, **options))
    return np.asarray(jax.jit(run)(KEYS))


def fit(found, per_unit):
    """The numbers drawn, where found = number * per_unit, and that this is so."""
    numbers = (found * per_unit).sum(axis=(1, 2, 3)) / (per_unit**2).sum()
    wanted = numbers[:, None, None, None] * per_unit
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02)
    return numbers


def assert_uniform(numbers, low, high, slack=1e-3):
    assert low - slack <= numbers.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < numbers.max() <= high + slack
    assert abs(numbers.mean() - (low + high) / 2) < 0.1 * (high - low)


def test_brightness_adds_one_number():
    image = photo()
    found = drawn("brightness", image, shift=0.2)
    assert_uniform(fit(found - image, np.full_like(image, 255.0)), -0.2, 0.2)


def test_contrast_scales_the_distance_from_the_mean():
    image = photo()
    found = drawn("contrast", image, factor=(0.5, 1.5))
    assert_uniform(fit(found - image.mean(), image - image.mean()), 0.5, 1.5)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), image.mean(), rtol=1e-4)


def test_gamma_is_a_power_of_the_share_of_white():
    image = photo()
    found = drawn("gamma", image, exponent=(0.5, 2.0))
    logs = np.log(np.stack([found, np.broadcast_to(image, found.shape)]) / 255)
    exponents = logs[0] / logs[1]
    assert_uniform(exponents.mean(axis=(1, 2, 3)), 0.5, 2.0)
    assert exponents.std(axis=(1, 2, 3)).max() < 1e-3
    ends = drawn("gamma", np.float32([[[0.0, 255.0, 255.0]]]), exponent=(0.5, 2.0))
    np.testing.assert_array_equal(ends, np.float32([[[[0, 255, 255]]]] * 200))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gain_is_one_factor_or_one_for_each_channel(channels):
    image = photo(channels)
    found = drawn("gain", image, factor=(0.8, 1.2), per_channel=0.25)
    ratios = found / image
    np.testing.assert_allclose(
        ratios, ratios[:, :1, :1].repeat(20, 1).repeat(28, 2), rtol=1e-5
    )
    ratios = ratios[:, 0, 0]
    assert_uniform(ratios.ravel(), 0.8, 1.2)
    own = np.ptp(ratios, axis=1) > 1e-3
    assert abs(own.mean() - (0.25 if channels == 3 else 0)) < 0.1


def test_colours_turn_and_fade_as_in_yiq():
    image = photo(size=(6, 6), low=100, high=160)
    found = drawn("color", image, hue=40.0, saturation=(0.5, 1.5))
    to_yiq = np.vectorize(colorsys.rgb_to_yiq)
    old = np.stack(to_yiq(*np.moveaxis(image.astype(np.float64), -1, 0)))
    angles, factors = [], []
    for each in found.astype(np.float64):
        new = np.stack(to_yiq(*np.moveaxis(each, -1, 0)))
        ratio = (new[1] + 1j * new[2]) / (old[1] + 1j * old[2])
        factors.append(np.median(abs(ratio)))
        angles.append(np.median(np.degrees(np.angle(ratio))))
        strong = np.abs(old[1] + 1j * old[2]) > 5
        # colorsys rounds its coefficients to two digits, the standard to three
        np.testing.assert_allclose(ratio[strong], np.median(ratio), atol=0.03)
    assert_uniform(np.array(angles), -40, 40, slack=1)
    assert_uniform(np.array(factors), 0.5, 1.5, slack=0.02)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found @ luma, [image @ luma] * 200, atol=0.01)


def test_grey_stays_grey_whatever_the_colours_do():
    grey = np.linspace(0, 255, 20, dtype=np.float32)[:, None, None].repeat(3, 2)
    found = drawn("color", grey, hue=180.0, saturation=(0.0, 2.0))
    np.testing.assert_allclose(found, np.broadcast_to(grey, found.shape), atol=0.5)


def test_a_blur_is_that_of_scipy():
    image = photo()
    found = drawn("blur", image, sigma=(1.5, 1.5))[0]
    wanted = ndimage.gaussian_filter(image, (1.5, 1.5, 0), mode="mirror", radius=5)
    np.testing.assert_allclose(found, wanted, atol=0.01)
    some = drawn("blur", image, sigma=(0.0, 2.0))
    roughness = np.abs(np.diff(some, axis=1)).mean(axis=(1, 2, 3))
    assert roughness.max() > 1.5 * roughness.min()


def test_noise_has_its_deviation_and_differs_by_pixel_and_channel():
    image = photo()
    change = drawn("noise", image, std=(2.0, 10.0)) - image
    # The deviation of 1,680 values is known to 1.7 %.
    assert_uniform(change.std(axis=(1, 2, 3)), 2.0, 10.0, slack=0.6)
    assert abs(change.mean()) < 0.1
    one = change[0].reshape(-1, 3)
    assert np.abs(np.corrcoef(one.T) - np.eye(3)).max() < 0.15


def test_holes_hide_rectangles_in_the_mean_colour():
    image = photo(size=(40, 50))
    found = drawn("dropout", image, holes=1, share=(0.2, 0.5))
    mean = image.mean(axis=(0, 1))
    hidden = (np.abs(found - mean) < 1e-3).all(axis=-1)
    np.testing.assert_array_equal(
        found[~hidden], np.broadcast_to(image, found.shape)[~hidden]
    )
    heights, widths = hidden.any(axis=2).sum(1), hidden.any(axis=1).sum(1)
    np.testing.assert_array_equal(hidden.sum(axis=(1, 2)), heights * widths)
    assert (heights.min(), heights.max()) == (8, 20)
    assert (widths.min(), widths.max()) == (10, 25)
    reached = hidden.any(axis=0)
    assert reached[0].any()
    assert reached[-1].any()
    several = drawn("dropout", image, holes=5, share=(0.2, 0.2))
    areas = (np.abs(several - mean) < 1e-3).all(axis=-1).sum(axis=(1, 2))
    assert areas.max() <= 5 * 80
    assert areas.max() > 3 * 80


# JPEG.


def numpy_jpeg(image, quality):
    """Block by block with SciPy, in float64."""
    image = image.astype(np.float64)
    height, width, channels = image.shape
    image = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    if channels == 3:
        r, g, b = np.moveaxis(image, -1, 0)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        planes = [y - 128, (b - y) / 1.772, (r - y) / 1.402]
    else:
        planes = [image[..., 0] - 128]
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    results = []
    for plane, table in zip(planes, (LUMA, CHROMA, CHROMA)[:channels], strict=True):
        step = np.clip(np.floor((table * scale + 50) / 100), 1, 255)
        for top in range(0, plane.shape[0], 8):
            for left in range(0, plane.shape[1], 8):
                block = plane[top : top + 8, left : left + 8]
                kept = np.round(fft.dctn(block, norm="ortho") / step) * step
                block[:] = fft.idctn(kept, norm="ortho")
        results.append(plane)
    if channels == 3:
        y, blue, red = results[0] + 128, *results[1:]
        r, b = y + 1.402 * red, y + 1.772 * blue
        results = [r, (y - 0.299 * r - 0.114 * b) / 0.587, b]
    else:
        results = [results[0] + 128]
    return np.stack(results, axis=-1)[:height, :width]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 49, 50, 75, 95])
def test_jpeg_is_a_rounded_cosine_transform_of_blocks(quality, channels):
    image = photo(channels)
    found = np.asarray(jpeg(KEYS[0], image, quality=(quality, quality)))
    wanted = numpy_jpeg(image, quality)
    # A coefficient at exactly half a step may be rounded to the other side.
    assert (np.abs(found - wanted) < 0.05).mean() > 0.9
    assert np.abs(found - wanted).mean() < 0.2


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_jpeg_looks_like_that_of_pillow(quality):
    image = np.rint(photo(size=(64, 64))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    wanted = np.asarray(Image.open(file)).astype(np.float64)
    found = np.asarray(jpeg(KEYS[0], image.astype(np.float32), quality=(quality,) * 2))
    loss = np.abs(wanted - image).mean()
    # Pillow also rounds the colours before and after, by half a level each.
    assert np.abs(found - wanted).mean() < min(0.5 * loss, 1.0)


def test_the_tables_are_those_of_libjpeg():
    for quality in (1, 10, 49, 50, 51, 90, 100):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization
        for number, table in enumerate((LUMA, CHROMA)):
            found = np.asarray(quantisation(table, quality)).ravel()
            np.testing.assert_array_equal(found, tables[number])


def test_less_quality_is_more_loss():
    image = photo(size=(64, 64))
    loss = [
        np.abs(np.asarray(jpeg(KEYS[0], image, quality=(q, q))) - image).mean()
        for q in (5, 20, 60, 100)
    ]
    assert loss == sorted(loss, reverse=True)
    assert loss[-1] < 1


# All of them inside the step.

STRENGTHS = dict(
    brightness=dict(shift=0.9),
    contrast=dict(factor=(0.2, 3.0)),
    gamma=dict(exponent=(0.3, 3.0)),
    gain=dict(factor=(0.3, 3.0), per_channel=0.5),
    color=dict(hue=180.0, saturation=(0.0, 3.0)),
    blur=dict(sigma=(0.0, 1.0)),
    noise=dict(std=(0.0, 80.0)),
    jpeg=dict(quality=(1, 50)),
    dropout=dict(holes=2, share=(0.1, 0.5)),
)


def test_the_mask_stays_and_values_are_clipped_not_wrapped():
    assert STRENGTHS.keys() == PHOTOMETRY.keys()
    rng = np.random.default_rng(0)
    image = rng.choice(np.uint8([0, 255]), (16, 16, 16, 1)).repeat(3, axis=-1)
    mask = rng.integers(0, 3, (16, 16, 16), dtype=np.uint8)
    index = np.arange(16, dtype=np.int32)
    for name in ("brightness", "contrast", "gain", "noise"):
        change = jax.jit(make_augment({name: dict(p=1, **STRENGTHS[name])}))
        moved = change(jax.random.key(0), dict(image=image, mask=mask, index=index))
        np.testing.assert_array_equal(moved["mask"], mask)
        found = np.asarray(moved["image"])
        assert found.dtype == np.uint8
        means = [
            found[i][image[i] == 255].mean() - found[i][image[i] == 0].mean()
            for i in range(16)
        ]
        assert min(means) >= 0  # what was white never becomes darker than black
    every = {name: dict(p=0.5, **options) for name, options in STRENGTHS.items()}
    moved = jax.jit(make_augment(every))(
        jax.random.key(0), dict(image=image, mask=mask, index=index)
    )
    np.testing.assert_array_equal(moved["mask"], mask)
    assert len({each.tobytes() for each in np.asarray(moved["image"])}) == 16
