"""The picture of augmented samples shows what the steps train on."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxseg import steps
from jaxseg.augment import make_augment
from jaxseg.data.cache import Decoder
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.report import contact_sheet, overlays
from jaxseg.types import IGNORE

SIDE, COUNT = 128, 12
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
MASKS = np.zeros((COUNT, SIDE, SIDE), np.uint8)
MASKS[:, 40:60, 30:33] = 1


class Pixels:
    """A source whose samples are rows of arrays."""

    def __init__(self, encoding):
        self.decoder = Decoder((SIDE, SIDE), 3, encoding)

    def read(self, positions, out):
        for name, rows in zip(out, (IMAGES, MASKS), strict=False):
            out[name][:] = rows[positions]


def experiment(named, *, has_masks=True):
    """10 training samples, of which only positions 4 and 5 are of class 1."""
    labels = np.isin(np.arange(COUNT), (4, 5)).astype(np.int32)
    encoding = MaskEncoding("ids") if has_masks else None
    return SimpleNamespace(
        run=SimpleNamespace(
            seed=3, data=SimpleNamespace(augment=named, image_size=(SIDE, SIDE))
        ),
        task=SimpleNamespace(classes=("clean", "crack")),
        split=SimpleNamespace(indices=lambda part: np.arange(1, 11)),
        dataset=SimpleNamespace(
            labels=labels,
            ids=[f"photo{position}" for position in range(COUNT)],
            source=Pixels(encoding),
        ),
    )


def cells(picture, num_rows, side):
    """[num_rows, 6, side, side, 3]: the panels, by the stated layout of the page."""
    pixels = np.asarray(picture)
    gap, label = overlays.GAP, overlays.LABEL_SIZE + 8
    top = gap + overlays.TEXT_SIZE + 6 + label
    return np.stack(
        [
            [
                pixels[y : y + side, x : x + side]
                for x in gap + (side + gap) * np.arange(6)
            ]
            for y in top + (side + label + gap) * np.arange(num_rows)
        ]
    )


def position_of(panel):
    """Which sample a panel without an outline shows."""
    (position,) = np.flatnonzero((panel[::2, ::2] == IMAGES).all(axis=(1, 2, 3)))
    return position


def test_panels_show_the_samples_and_then_the_first_steps():
    named = dict(hflip=dict(p=0.5), rotate=dict(p=1.0, degrees=40.0))
    built = experiment(named, has_masks=False)
    panels = cells(contact_sheet.draw_augmented(built, 3), 3, 2 * SIDE)
    chosen = np.array([position_of(panel) for panel in panels[:, 0]])
    batch = {"image": IMAGES[chosen], "index": chosen.astype(np.int32)}
    change = jax.jit(make_augment(named))
    for step in range(contact_sheet.NUM_VERSIONS):
        # As `steps.make_train_step` does.
        key, _ = jax.random.split(jax.random.fold_in(jax.random.key(3), step))
        wanted = np.asarray(change(key, batch)["image"])
        np.testing.assert_array_equal(panels[:, 1 + step, ::2, ::2], wanted)
        same = steps.split_key(3, step)[0]
        assert (jax.random.key_data(same) == jax.random.key_data(key)).all()


def test_the_classes_take_turns_and_only_training_samples_are_shown():
    built = experiment({}, has_masks=False)
    panels = cells(contact_sheet.draw_augmented(built, 20), 10, 2 * SIDE)
    shown = [position_of(panel) for panel in panels[:, 0]]
    assert sorted(shown) == list(range(1, 11))
    assert [position in (4, 5) for position in shown[:4]] == [False, True] * 2
    np.testing.assert_array_equal(panels[:, 0], panels[:, 5])  # nothing is named


def test_masks_are_outlined_and_mixed_labels_are_told():
    plain = contact_sheet.draw_augmented(experiment({}, has_masks=False), 2)
    outlined = contact_sheet.draw_augmented(experiment({}), 2)
    is_marked = (np.asarray(outlined) == contact_sheet.MARK).all(axis=-1)
    assert is_marked.sum() > 6 * 2 * 2 * (40 + 6)  # 12 panels, and the legend
    assert not (np.asarray(plain) == contact_sheet.MARK).all(axis=-1).any()
    mixup = dict(mixup=dict(p=1.0, alpha=1.0))
    mixed = contact_sheet.draw_augmented(experiment(mixup, has_masks=False), 2)
    assert (np.asarray(mixed) != np.asarray(plain)).any()


def test_wide_strips_stand_below_each_other():
    class Strips:
        decoder = Decoder((16, 256), 3, None)

        def read(self, positions, out):
            out["image"][:] = positions[:, None, None, None]

    built = experiment({}, has_masks=False)
    built.dataset.source = Strips()
    built.run.data.image_size = (16, 256)
    pixels = np.asarray(contact_sheet.draw_augmented(built, 2))
    assert pixels.shape[1] == 256 + 2 * overlays.GAP
    column = pixels[:, overlays.GAP + 200, 0]
    _, counts = np.unique(column[column < COUNT], return_counts=True)
    assert counts.tolist() == [6 * 16, 6 * 16]


def test_the_outline_runs_around_what_it_marks():
    image = np.full((128, 100, 1), 90, np.uint8)
    mask = np.zeros((128, 100), np.uint8)
    mask[10:20, 30] = 1  # one pixel wide
    mask[:, 90:] = IGNORE
    found = contact_sheet.outline(image, mask, num_classes=2)
    assert found.shape == (256, 200, 3)
    large = mask.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(found[large > 0], 90)  # nothing is covered
    marked = (found == contact_sheet.MARK).all(axis=-1)
    wanted = np.zeros_like(marked)
    wanted[19:41, 60:62] = wanted[20:40, 59:63] = True
    wanted[20:40, 60:62] = False
    np.testing.assert_array_equal(marked, wanted)
    grey = (found == overlays.IGNORED).all(axis=-1)
    assert grey[:, 179].all()
    assert grey.sum() == 256


@pytest.mark.parametrize("num_classes", [3, 11])
def test_many_classes_keep_their_colours(num_classes):
    colors = contact_sheet.outline_colors(num_classes)
    np.testing.assert_array_equal(colors, overlays.class_colors(num_classes))


def test_large_images_are_not_enlarged():
    image = np.zeros((300, 200, 3), np.uint8)
    found = contact_sheet.outline(image, None, num_classes=2)
    assert Image.fromarray(found).size == (200, 300)
