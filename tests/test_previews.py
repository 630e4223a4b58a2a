"""Pictures of a run: what they show, that their size stays, that they are bounded."""

import math

import numpy as np
import pytest
from PIL import Image

from jaxseg.report import loss_panel, overlays, preview_page, previews
from jaxseg.report.loss_panel import draw_loss_panel
from jaxseg.report.preview_page import draw_page, fit_panel, make_sample
from jaxseg.thresholds import Threshold
from jaxseg.types import IGNORE

BINARY, CLASSES = ("wall", "crack"), ("wall", "crack", "rust")
HALF = {"mask": Threshold(0.5, "max_f1")}
TITLE = ("epoch 3 of 9", "train loss 0.1")


def sample_of(seed, classes=BINARY, size=(20, 20), name="photo1"):
    rng = np.random.default_rng(seed)
    outputs = 1 if len(classes) == 2 else len(classes)
    arrays = {
        "image": rng.integers(0, 256, (*size, 3), np.uint8),
        "mask": rng.integers(0, len(classes), size).astype(np.uint8),
        "mask_probs": rng.random((*size, outputs), np.float32),
        "label": np.int32(1),
    }
    return make_sample(name, arrays, classes, HALF if outputs == 1 else {})


def rows(count, best=3):
    """History whose monitored metric is best in one epoch."""
    return [
        {
            "epoch": str(epoch),
            "train/loss": str(1 / epoch),
            "val/loss": str(1 / epoch + 0.2 + 0.1 * epoch / count),
            "val/dice": str(-abs(epoch - best)),
        }
        for epoch in range(1, count + 1)
    ]


# The choice of samples.


def test_samples_are_spread_over_the_foreground_first():
    positions, wanted = np.arange(100, 120), np.arange(20) >= 10
    assert previews.spread(positions, wanted, 4).tolist() == [110, 113, 116, 119]
    assert previews.spread(positions, wanted, 1).tolist() == [110]
    few = np.arange(20) == 7
    assert previews.spread(positions, few, 3).tolist() == [107, 100, 119]
    assert previews.spread(positions, wanted, 0).size == 0
    everything = previews.spread(positions, wanted, 50)
    assert sorted(everything) == positions.tolist()


# A page.


def test_the_panels_of_a_binary_sample_by_hand():
    arrays = {
        "image": np.full((1, 5, 1), 200, np.uint8),
        "mask": np.array([[1, 1, 0, 0, IGNORE]], np.uint8),
        "mask_probs": np.array([[1.0, 0.49, 0.5, 0.0, 1.0]], np.float32)[..., None],
        "label": 1,
    }
    sample = make_sample("a", arrays, BINARY, HALF)
    assert list(sample.panels) == ["image", "ground truth", "prediction", "difference"]
    black, white = overlays.BACKGROUND, overlays.FOREGROUND
    truth = [tuple(pixel) for pixel in sample.panels["ground truth"][0]]
    assert truth == [white, white, black, black, overlays.IGNORED]
    difference = [tuple(pixel) for pixel in sample.panels["difference"][0]]
    kinds = [overlays.HIT, overlays.MISS, overlays.FALSE_ALARM, (110,) * 3]
    assert difference == [*kinds, overlays.IGNORED]
    scores = sample.panels["prediction"][0]
    assert tuple(scores[0]) == tuple(overlays.SCORE_COLORS[-1])
    assert tuple(scores[3]) == tuple(overlays.SCORE_COLORS[0])
    text = "a, hit 1 px, missed 1 px, false alarm 1 px, ignored 1 px"
    assert sample.lines == (text,)


def test_several_classes_show_the_decided_class():
    arrays = {
        "image": np.zeros((1, 3, 3), np.uint8),
        "mask": np.array([[0, 1, 2]], np.uint8),
        "mask_probs": np.eye(3, dtype=np.float32)[[0, 2, 2]][None],
    }
    sample = make_sample("a", arrays, CLASSES, {})
    colors = overlays.class_colors(3)
    np.testing.assert_array_equal(sample.panels["prediction"][0], colors[[0, 2, 2]])
    difference = [tuple(pixel) for pixel in sample.panels["difference"][0, 1:]]
    assert difference == [overlays.WRONG_CLASS, overlays.HIT]


@pytest.mark.parametrize(("score", "label"), [(0.7, 1), (0.7, 0), (0.2, 1), (0.5, 1)])
def test_a_decision_is_framed_by_whether_it_is_right(score, label):
    arrays = {
        "image": np.zeros((24, 24, 3), np.uint8),
        "image_probs": np.array([score]),
        "label": label,
    }
    threshold = {"image": Threshold(0.5, "max_f1")}
    sample = make_sample("a", arrays, ("clean", "cracked"), threshold)
    right = (score >= 0.5) == bool(label)
    color = overlays.HIT if right else overlays.FALSE_ALARM
    assert tuple(sample.panels["image"][0, 0]) == color
    decided = "cracked" if score >= 0.5 else "clean"
    assert (
        f"score {score:.3f} {decided} ({'right' if right else 'wrong'}"
        in (sample.lines[1])
    )


def test_a_joint_sample_says_both():
    arrays = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "mask": np.zeros((4, 4), np.uint8),
        "mask_probs": np.zeros((4, 4, 1), np.float32),
        "image_probs": np.array([0.1]),
        "label": 1,
    }
    both = HALF | {"image": Threshold(0.4, "max_f1")}
    (line,) = make_sample("a", arrays, BINARY, both).lines
    assert line.startswith("a, hit 0 px")
    assert line.endswith("score 0.100 clean (wrong)")


@pytest.mark.parametrize("classes", [BINARY, CLASSES])
def test_the_size_of_a_page_depends_on_the_samples_alone(classes):
    pages = [
        draw_page([sample_of(seed + i, classes) for i in range(3)], title, classes)
        for seed, title in ((0, TITLE), (9, ("e", "a long line " * 30)))
    ]
    assert pages[0].size == pages[1].size
    assert pages[0].tobytes() != pages[1].tobytes()


@pytest.mark.parametrize("size", [(640, 232), (20, 400), (3, 3), (161, 159)])
@pytest.mark.parametrize("count", [1, 5, 32])
def test_pages_are_of_modest_size(size, count):
    samples = [sample_of(0, size=size, name="photo_" * 9)] * count
    page = draw_page(samples, TITLE, BINARY)
    assert page.width <= 4 * (preview_page.CELL + overlays.GAP) + overlays.GAP
    assert page.height <= 3100
    assert max(fit_panel(samples[0].panels["image"], 160).shape) <= 160


def test_a_panel_keeps_its_pixels_when_enlarged_and_its_mean_when_reduced():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    enlarged = fit_panel(pixels, 160)
    assert enlarged.shape == (80, 128, 3)
    np.testing.assert_array_equal(enlarged[::2, ::2], pixels)
    reduced = fit_panel(pixels, 32)
    assert reduced.shape == (20, 32, 3)
    means = pixels.reshape(20, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(reduced, means, atol=1.01)


# The curves.


def has(picture, color, columns):
    """Whether the exact colour is in these columns of one of the two plots."""
    pixels = np.asarray(picture)[:, columns]
    plots = [pixels[top + loss_panel.TOP : top + 160] for top in (0, 160)]
    return any(bool((plot == np.array(color)).all(-1).any()) for plot in plots)


def test_the_curve_grows_and_its_axes_stay():
    history, size = rows(9), (400, 320)
    panels = [
        draw_loss_panel(size, history, epoch, monitor="dice", mode="max")
        for epoch in range(1, 10)
    ]
    step = (400 - loss_panel.LEFT - loss_panel.RIGHT) / 8
    for epoch, panel in enumerate(panels, 1):
        x = round(loss_panel.LEFT + (epoch - 1) * step)
        for color in (loss_panel.ORANGE, loss_panel.BLUE, loss_panel.GREY):
            assert has(panel, color, slice(x - 2, x + 3))
            assert not has(panel, color, slice(x + 5, None))
        labels = np.asarray(panel)[:, : loss_panel.LEFT - 5]
        first = np.asarray(panels[0])[:, : loss_panel.LEFT - 5]
        np.testing.assert_array_equal(labels[40:], first[40:])


def test_the_best_epoch_so_far_is_marked():
    history = rows(9, best=3)

    def marked(epoch):
        panel = draw_loss_panel((400, 320), history, epoch, monitor="dice", mode="max")
        dark = np.asarray(panel)[loss_panel.TOP + 30 : 130].max(-1) < 160
        (columns,) = np.nonzero(dark.sum(0) > 20)
        step = (400 - loss_panel.LEFT - loss_panel.RIGHT) / 8
        return {round((x - loss_panel.LEFT) / step) + 1 for x in columns}

    assert marked(2) == {2}
    assert marked(3) == {3}
    assert marked(9) == {3}


@pytest.mark.parametrize(
    "losses",
    [[0.5], [0.5, 0.5, 0.5], [math.nan] * 3, [1e-6, 1.0, 1e3], [-1.0, 0.0, 2.0]],
)
def test_any_history_can_be_drawn(losses):
    history = [
        {"epoch": i, "train/loss": loss, "val/loss": loss, "val/dice": ""}
        for i, loss in enumerate(losses, 1)
    ]
    for monitor in ("loss", "dice"):
        for epoch in range(1, len(losses) + 1):
            options = dict(monitor=monitor, mode="min")
            panel = draw_loss_panel((300, 200), history, epoch, **options)
            assert panel.size == (300, 200)


# The animation and the pair.


def draw_epochs(folder, count):
    """Distinct pages; the samples' pictures stay, what is said of them changes."""
    folder.mkdir(exist_ok=True)
    pages = {}
    for epoch in range(1, count + 1):
        sample = sample_of(0, size=(40, 40))
        sample.panels["prediction"][: epoch % 40] = overlays.HIT
        pages[epoch] = draw_page([sample] * 2, (f"epoch {epoch}",), BINARY)
        pages[epoch].save(folder / f"epoch_{epoch:04d}.png")
    return pages


def test_the_animation_is_bounded_and_shows_first_and_last(tmp_path):
    pages = draw_epochs(tmp_path, 150)
    history = rows(150)
    options = dict(best_epoch=3, monitor="dice", mode="max")
    previews.summarize(tmp_path, history, **options)
    with Image.open(tmp_path / "previews.gif") as animation:
        assert animation.n_frames == 60
        assert animation.info["loop"] == 0
        for index, epoch in ((0, 1), (59, 150)):
            animation.seek(index)
            frame = np.asarray(animation.convert("RGB")).astype(int)
            page = np.asarray(pages[epoch]).astype(int)
            shown = frame[: page.shape[0], : page.shape[1]]
            # 255 colours for the whole run: near the page, and far from another one.
            assert np.abs(shown - page).mean() < 6
            other = np.asarray(pages[20]).astype(int)
            assert np.abs(shown - other).mean() > 2 * np.abs(shown - page).mean()
        assert animation.info["duration"] == 1000 * previews.LAST_SECONDS


def test_few_epochs_are_a_frame_each(tmp_path):
    draw_epochs(tmp_path, 3)
    options = dict(best_epoch=2, monitor="loss", mode="min")
    previews.summarize(tmp_path, rows(3), **options)
    with Image.open(tmp_path / "previews.gif") as animation:
        assert animation.n_frames == 3


def test_the_pair_holds_the_best_and_the_last_page(tmp_path):
    pages = draw_epochs(tmp_path, 5)
    options = dict(best_epoch=2, monitor="dice", mode="max")
    previews.summarize(tmp_path, rows(5), **options)
    pair = np.asarray(Image.open(tmp_path / "best_and_last.png"))
    height, width = pages[2].height, pages[2].width
    np.testing.assert_array_equal(pair[-height:, :width], np.asarray(pages[2]))
    np.testing.assert_array_equal(pair[-height:, -width:], np.asarray(pages[5]))


def test_epochs_without_a_picture_are_left_out(tmp_path):
    draw_epochs(tmp_path, 4)
    (tmp_path / "epoch_0001.png").unlink()
    options = dict(best_epoch=1, monitor="dice", mode="max")
    previews.summarize(tmp_path, rows(4), **options)
    with Image.open(tmp_path / "previews.gif") as animation:
        assert animation.n_frames == 3
    assert not (tmp_path / "best_and_last.png").exists()
    previews.summarize(tmp_path / "none", rows(4), **options)
    assert not (tmp_path / "none").exists()
