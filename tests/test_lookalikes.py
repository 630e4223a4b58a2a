import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxseg.data import lookalikes
from jaxseg.data.lookalikes import SIDE


def surface(seed, size=(120, 160)):
    """A photo-like grey image: structure of all sizes."""
    rng = np.random.default_rng(seed)
    scales = [(3, 0.3), (8, 1.0), (20, 2.0)]
    layers = [
        a * s * ndimage.gaussian_filter(rng.normal(size=size), s) for s, a in scales
    ]
    image = np.sum(layers, axis=0)
    return np.uint8(40 + 170 * (image - image.min()) / np.ptp(image))


def thumbnails(*images):
    return np.stack([lookalikes.thumbnail(Image.fromarray(image)) for image in images])


def test_thumbnail_is_the_mean_of_its_cells():
    image = np.random.default_rng(0).integers(0, 256, (SIDE * 3, SIDE * 5), np.uint8)
    expected = image.reshape(SIDE, 3, SIDE, 5).mean((1, 3))
    np.testing.assert_allclose(thumbnails(image)[0], expected, atol=1)  # two roundings


def test_thumbnail_of_other_modes():
    grey = surface(0)
    sixteen = Image.fromarray(grey.astype(np.uint16) << 8)
    palette = Image.fromarray(grey).convert("P")
    palette.info["transparency"] = 0
    expected = thumbnails(grey)[0]
    for picture in (sixteen, palette, Image.fromarray(grey).convert("RGB")):
        np.testing.assert_allclose(lookalikes.thumbnail(picture), expected, atol=1)


def test_exposure_noise_size_and_format_do_not_hide_a_copy(tmp_path):
    first, rng = surface(1), np.random.default_rng(1)
    darker = np.uint8(first * 0.5 + 10)
    noisy = np.uint8(np.clip(first + rng.normal(0, 6, first.shape), 0, 255))
    smaller = np.asarray(Image.fromarray(first).resize((90, 70)))
    Image.fromarray(first).save(tmp_path / "a.jpg", quality=40)
    saved = np.asarray(Image.open(tmp_path / "a.jpg"))
    found = lookalikes.cluster(
        thumbnails(first, surface(2), darker, noisy, smaller, saved)
    )
    assert found.tolist() == [0, 1, 0, 0, 0, 0]


def test_different_surfaces_are_different():
    found = lookalikes.cluster(thumbnails(*map(surface, range(60))))
    assert found.tolist() == list(range(60))


def test_equal_shading_does_not_make_surfaces_alike():
    """Same light, other texture: the coarse grids agree, the details do not."""
    light = np.linspace(0, 150, 160)[None] + np.linspace(0, 60, 120)[:, None]
    rng = np.random.default_rng(3)
    images = [np.uint8(light + rng.integers(0, 40, light.shape)) for _ in range(8)]
    assert lookalikes.cluster(thumbnails(*images)).tolist() == list(range(8))


def test_images_without_detail_are_never_alike():
    flat = [np.full((50, 50), value, np.uint8) for value in (0, 0, 128, 255)]
    assert lookalikes.cluster(thumbnails(*flat)).tolist() == [0, 1, 2, 3]


def test_alike_through_others_in_between():
    """A slow pan: neighbours are alike, the ends are not; one cluster all the same."""
    wide = surface(4, (120, 240))
    frames = thumbnails(*[wide[:, shift : shift + 160] for shift in range(0, 80, 2)])
    assert lookalikes.cluster(frames[[0, -1]]).tolist() == [0, 1]
    others = thumbnails(
        *map(surface, range(10, 130))
    )  # keeps the share below a quarter
    found = lookalikes.cluster(np.concatenate([frames, others]))
    assert found[:40].tolist() == [0] * 40
    assert found[40:].tolist() == list(range(40, 160))


@pytest.mark.parametrize(("copies", "expected"), [(20, True), (21, False)])
def test_a_camera_that_never_moves_is_no_copy(copies, expected):
    images = thumbnails(surface(5))
    found = lookalikes.cluster(np.repeat(images, copies, axis=0))
    assert (found == 0).all() == expected
    if not expected:
        assert found.tolist() == list(range(copies))


def test_a_block_gives_fewer_pairs_than_images(monkeypatch):
    """All alike: n - 1 pairs of each block, where there are about n * BLOCK."""
    monkeypatch.setattr(lookalikes, "BLOCK", 8)
    images = np.repeat(thumbnails(surface(5)), 40, axis=0)
    pairs = list(lookalikes._similar_pairs(images))
    assert [len(found) for found in pairs] == [39, 31, 23, 15, 7]
    assert all((found[:, 0] == 8 * k).all() for k, found in enumerate(pairs))


def test_blocks_do_not_matter(monkeypatch):
    images = thumbnails(*[surface(seed % 17) for seed in range(40)])
    whole = lookalikes.cluster(images)
    monkeypatch.setattr(lookalikes, "BLOCK", 7)
    np.testing.assert_array_equal(lookalikes.cluster(images), whole)
    assert whole.tolist() == [seed % 17 for seed in range(40)]
