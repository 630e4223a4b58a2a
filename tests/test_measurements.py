"""What a judged part says about its cracks: units, files, and what counts where.

The network of these tests finds what is bright, so that what it finds is known.
"""

import csv
import dataclasses
import io
import json
import math

import jax
import numpy as np
import pytest
from PIL import Image
from test_loop import parse, tree
from test_measure import bar

from jaxseg import config, experiment, metrics, steps, train_state, workdir
from jaxseg.augment import make_normalize
from jaxseg.errors import InputError
from jaxseg.evaluate import collect_counts
from jaxseg.measure import measure
from jaxseg.metrics import thin_counts
from jaxseg.report import evidence, judge, measurements
from jaxseg.schema import out_of_bounds
from jaxseg.thresholds import Threshold

HALF = {"mask": Threshold(0.5, "max_f1")}


class FindsBright:
    """Stands for a network; the images of these tests are 51 or 204."""

    def apply(self, variables, image, *, train):
        return {"seg_logits": 8 * image[..., :1]}


class FindsThreeShades:
    """The same for class 0 at 51, 1 at 128 and 2 at 204."""

    def apply(self, variables, image, *, train):
        return {"seg_logits": -20 * (image - np.array([[[[-1.2, 0.0, 1.2]]]])) ** 2}


def build(folder, images, masks, **data):
    """An experiment on drawn files."""
    for kind, pictures in (("images", images), ("masks", masks)):
        (folder / "data" / kind).mkdir(parents=True)
        for name, pixels in pictures.items():
            path = folder / "data" / kind / f"{name}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    record = tree(folder)
    record["task"] = dict(name="segmentation", threshold="max_f1", min_recall=0.9)
    record["model"]["image_head"] = False
    for key in ("num_photos", "seed"):
        del record["data"][key]
    if len(data.get("classes", ())) > 2:
        record["loss"] = dict(cross_entropy=dict(weight=1.0, class_weights=()))
    record["data"] |= dict(
        name="folder_segmentation", dir=str(folder / "data"), image_dir="images",
        mask_dir="masks", mask_suffix="", foreground="bright",
        classes=("background", "crack"), classes_file="", group_pattern="",
        sampling="shuffle", augment={},
    ) | data  # fmt: skip
    return experiment.build_experiment(parse(record))


def drawn(shapes):
    """Images and masks of the same bars."""
    masks = {name: np.where(mask, 255, 0) for name, mask in shapes.items()}
    images = {
        name: np.repeat(np.where(mask, 204, 51)[..., None], 3, axis=2)
        for name, mask in shapes.items()
    }
    return images, masks


def bars(shape, width, count=24):
    """Names -> bars with various ends, and as many images without one."""
    rng = np.random.default_rng(0)
    shapes = {}
    for k in range(count):
        start = rng.uniform(0.1, 0.3, 2) * shape
        stop = rng.uniform(0.7, 0.9, 2) * shape
        shapes[f"bar{k}"] = bar(shape, start, stop, width)
        shapes[f"clean{k}"] = np.zeros(shape, bool)
    return shapes


def collect(built, thresholds=HALF, part="train", network=FindsBright):
    built = dataclasses.replace(built, model=network())
    counts, found = measurements.collect(built, {}, thresholds, part)
    ids = [built.dataset.ids[i] for i in built.split.indices(part)]
    return counts, found, ids


def by_name(found, ids):
    columns = found.columns()
    return {
        name: {key: values[i] for key, values in columns.items()}
        for i, name in enumerate(ids)
    }


@pytest.fixture(scope="module")
def stretched(tmp_path_factory):
    """Images of 96 x 240 pixels on a grid of 64 x 64, with their true masks."""
    shapes = bars((96, 240), 12)
    folder = tmp_path_factory.mktemp("stretched")
    built = build(folder, *drawn(shapes), image_size=(64, 64))
    return built, shapes


def test_sizes_are_in_pixels_of_the_original_image(stretched):
    built, shapes = stretched
    _, found, ids = collect(built)
    rows = by_name(found, ids)
    assert len({name[:3] for name in ids}) == 2  # bars and clean images
    for name, row in rows.items():
        if name.startswith("clean"):
            assert row["num_components/crack"] == 0
            assert row["length/crack"] == row["area/crack"] == 0
            assert math.isnan(row["max_width/crack"])
            continue
        [true] = measure(shapes[name])  # of the original image
        pixel = 240 / 64
        assert row["num_components/crack"] == 1
        assert abs(row["length/crack"] - true.length) < 2 * pixel, name
        assert abs(row["mean_width/crack"] - true.mean_width) < pixel, name
        assert abs(row["max_width/crack"] - true.max_width) < pixel, name
        assert abs(row["area/crack"] - true.area) < 0.1 * true.area, name
        turn = row["orientation/crack"] - true.orientation
        assert abs((turn + 90) % 180 - 90) < 3, name


def test_what_is_found_where_it_is_has_perfect_metrics(stretched):
    """Up to the edge: masks are reduced without the grey of images."""
    _, found, _ = collect(stretched[0])
    summary = found.summary()
    for name in ("cldice", "f1_2px"):
        assert summary[f"{name}/crack/pooled"] > 0.99
        assert summary[f"{name}/crack/per_image"] > 0.99
    assert summary["component_error/crack/pooled"] == 0
    assert abs(summary["width_bias/crack/pooled"]) < 2
    assert set(summary) <= {f"{key}/pooled" for key in found.columns()} | {
        f"{key}/per_image" for key in found.columns()
    }


def test_the_counts_are_those_of_the_eval_step(stretched):
    built = stretched[0]
    counts, _, _ = collect(built)
    normalize = make_normalize(built.run.data.mean, built.run.data.std)
    step = steps.make_eval_step(FindsBright(), built.task, normalize)
    plain = collect_counts(jax.jit(step), {}, built.eval_loader("train"), built.mesh)
    assert counts.keys() == plain.keys()
    for name in counts:
        np.testing.assert_array_equal(counts[name], plain[name])


def test_millimetres_are_pixels_times_their_size(stretched):
    built = stretched[0]
    data = dataclasses.replace(built.run.data, mm_per_pixel=0.2)
    scaled = dataclasses.replace(built, run=dataclasses.replace(built.run, data=data))
    _, plain, ids = collect(built)
    _, found, _ = collect(scaled)
    before, after = plain.columns(), found.columns()
    assert not any("mm" in key for key in before)
    for key in ("length", "mean_width", "max_width"):
        millimetres = after[f"{key}_mm/crack"]
        np.testing.assert_allclose(millimetres, 0.2 * before[f"{key}/crack"], atol=2e-3)
    np.testing.assert_allclose(after["area_mm2/crack"], 0.04 * before["area/crack"])
    k = next(k for k, name in enumerate(ids) if name.startswith("bar"))
    assert " px" in plain.describe(k)[0]
    assert " mm" in found.describe(k)[0]
    assert f"length {after['length_mm/crack'][k]:.0f} mm" in found.describe(k)[0]


def test_the_size_of_a_pixel_is_bounded_and_changes_no_run():
    assert out_of_bounds({"data.mm_per_pixel": None}) == []
    [problem] = out_of_bounds({"data.mm_per_pixel": 0.0})
    assert "more than 0" in problem
    assert "data.mm_per_pixel" in workdir.HARMLESS
    [field] = [f for f in dataclasses.fields(config.Data) if f.name == "mm_per_pixel"]
    assert field.default is None


def test_windows_of_large_images_are_measured_one_by_one(tmp_path):
    shapes = bars((96, 96), 6, count=6)
    crop = dict(per_image=1, foreground_share=0.0)
    built = build(tmp_path, *drawn(shapes), image_size=(32, 32), crop=crop)
    _, found, ids = collect(built)
    assert (
        len(ids)
        == len(found.components)
        == 9 * len(built.record_split.indices("train"))
    )
    for name, row in by_name(found, ids).items():
        photo, top, left = name.replace("_x", "_y").split("_y")
        window = shapes[photo][int(top) :, int(left) :][:32, :32]
        assert row["area/crack"] == window.sum()  # no resizing
        assert row["f1_2px/crack"] == 1
        assert row["component_error/crack"] == 0


RED = np.array([255, 0, 0])


def test_ignored_pixels_are_measured_and_not_judged(tmp_path):
    """The lower half of every mask is not known, of some the whole."""
    shapes = bars((64, 64), 5, count=9)
    images, masks = drawn(shapes)
    for k, name in enumerate(masks):
        masks[name] = np.repeat(masks[name][..., None], 3, axis=2)
        masks[name][0 if k % 3 == 0 else 32 :] = RED
    palette = ("#000000", "#ffffff", "#ff0000")
    built = build(tmp_path, images, masks, image_size=(64, 64), palette=palette)
    _, found, ids = collect(built)
    rows = by_name(found, ids)
    unknown = {name for name in ids if (masks[name] == RED).all()}
    assert unknown
    assert unknown != set(ids)
    for name, row in rows.items():
        assert row["area/crack"] == shapes[name].sum()
        assert math.isnan(row["cldice/crack"]) == (name in unknown)
        if name not in unknown:
            upper = shapes[name].copy()
            upper[32:] = False
            assert row["f1_2px/crack"] == row["cldice/crack"] == 1
            lengths = thin_counts(upper, upper)["lengths"]
            [k] = [k for k, other in enumerate(ids) if other == name]
            np.testing.assert_allclose(found.thin[k]["lengths"][0], lengths)
    assert found.summary()["cldice/crack/per_image"] == 1


def test_classes_are_measured_apart_and_need_no_threshold(tmp_path):
    """Cracks and, away from them, spalls; a bar of one is no piece of the other."""
    masks = {
        name: mask.astype(int) for name, mask in bars((64, 64), 4, count=16).items()
    }
    for name, mask in masks.items():
        mask[50 : 54 + len(name), 4:16] = 2
    images = {
        name: np.repeat((51 + 76.5 * mask)[..., None], 3, axis=2)
        for name, mask in masks.items()
    }
    classes = ("background", "crack", "spall")
    built = build(tmp_path, images, masks, image_size=(64, 64), classes=classes)
    _, found, ids = collect(built, thresholds={}, network=FindsThreeShades)
    for name, row in by_name(found, ids).items():
        assert row["area/crack"] == (masks[name] == 1).sum()
        assert row["area/spall"] == (masks[name] == 2).sum()
        assert row["num_components/spall"] == 1
        assert row["cldice/crack"] == row["cldice/spall"] == 1
    crack = next(k for k, name in enumerate(ids) if name.startswith("bar"))
    assert found.describe(crack)[0].startswith("1 x crack: length ")
    assert "; 1 x spall: length " in found.describe(crack)[0]
    summary = found.summary()
    assert summary["f1_2px/spall/pooled"] == summary["f1_2px/crack/pooled"] == 1


def test_the_files_of_a_judged_part_agree(tmp_path):
    shapes = bars((48, 64), 4, count=12)
    shapes = {f"={name}" if name == "bar0" else name: m for name, m in shapes.items()}
    built = build(tmp_path, *drawn(shapes), image_size=(32, 32), mm_per_pixel=0.5)
    variables = jax.device_get(train_state.inference_variables(built.init()))
    folder = tmp_path / "train"
    summary = judge.judge(built, variables, judge.Validation(HALF, {}), "train", folder)
    read = {}
    for name in ("results", "components"):
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            read[name] = list(csv.DictReader(file))
    stored = json.loads((folder / "metrics.json").read_text())
    for name in ("cldice", "f1_2px", "f1_1pct", "component_error", "width_bias"):
        assert f"{name}/crack/pooled" in stored
        assert f"{name}/crack/per_image" in summary
        assert f"{name}/crack" in read["results"][0]
    assert list(read["components"][0]) == [
        "name", "class", "component", "top", "left", "bottom", "right", "length",
        "mean_width", "max_width", "area", "length_mm", "mean_width_mm", "max_width_mm",
        "area_mm2", "orientation", "score",
    ]  # fmt: skip
    for row in read["results"]:
        mine = [one for one in read["components"] if one["name"] == row["name"]]
        assert len(mine) == int(row["num_components/crack"])
        assert [one["component"] for one in mine] == [
            str(k + 1) for k in range(len(mine))
        ]
        total = sum(float(one["length"]) for one in mine)
        assert float(row["length/crack"]) == pytest.approx(total, abs=0.01 * len(mine))
        assert int(row["decision"]) == bool(mine)
        if mine:
            widest = max(float(one["max_width"]) for one in mine)
            assert float(row["max_width/crack"]) == widest
            longest = max(mine, key=lambda one: float(one["length"]))
            assert row["orientation/crack"] == longest["orientation"]
    arrays = evidence.read(folder)
    count = len(read["results"])
    assert arrays["shown"].tolist() == list(range(count))
    assert arrays["confusions"].shape == (count, 2, 2)
    pooled = metrics.pixel_summary(arrays["confusions"], ("background", "crack"))
    assert pooled["iou/crack/pooled"] == pytest.approx(summary["iou/crack/pooled"])
    np.testing.assert_array_equal(
        arrays["shown_histograms"].sum(0), arrays["histogram"]
    )
    for row in range(count):
        with Image.open(io.BytesIO(evidence.read_picture(folder, row))) as picture:
            assert max(picture.size) <= evidence.SIDE
    assert evidence.read_picture(folder, count) is None


def test_broken_evidence_is_refused_and_missing_evidence_is_none(tmp_path):
    assert evidence.read(tmp_path) == {}
    (tmp_path / evidence.FILE).write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="evaluate"):
        evidence.read(tmp_path)


def test_a_name_that_looks_like_a_formula_is_made_text(tmp_path):
    [one] = measure(np.ones((1, 4), bool))
    found = measurements.Measurements(("crack",), [[[one]]], [None], None)
    found.write_components(tmp_path / "components.csv", ["=HYPERLINK(1)"])
    assert (tmp_path / "components.csv").read_text().splitlines()[1].startswith("'=HY")


def test_without_masks_there_is_nothing_to_measure(tmp_path):
    nothing = measurements.Measurements((), (), (), None)
    assert nothing.summary() == nothing.columns() == {}
    assert nothing.describe(3) == ()
    nothing.write_components(tmp_path / "components.csv", ["a"])
    assert list(tmp_path.iterdir()) == []
