"""Windows of large images: where they lie, and that each pixel is counted once."""

import csv
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg import config, experiment, parsing, run
from jaxseg.config import Crop
from jaxseg.data.cache import open_source
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.data.pipeline import CropLoader
from jaxseg.data.tiles import Tile, TileDecoder, draw_numbers, make_grid, place_window
from jaxseg.datasets import DATASETS
from jaxseg.errors import InputError
from jaxseg.evaluate import collect_counts
from jaxseg.report import previews
from jaxseg.train_state import inference_variables
from jaxseg.types import IGNORE

WINDOW = (16, 12)
SIZES = ((20, 33), (16, 12), (50, 30), (32, 24))


class Records(list):
    def __getitems__(self, positions):
        return [self[i] for i in positions]


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def numbered_tile(index, size):
    """An image whose channels are tile, row and column."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([np.full(size, index), y, x], axis=-1).astype(np.uint8)


def mask_of(index, size):
    """Some ids 0..2, and IGNORE; tile 1 has no foreground."""
    values = np.array([0, 0, 0, 1, 2, IGNORE], np.uint8)
    mask = np.random.default_rng(index).choice(values, size)
    return np.zeros_like(mask) if index == 1 else mask


RECORDS = Records(
    {"image": png(numbered_tile(i, size)), "mask": png(mask_of(i, size))}
    for i, size in enumerate(SIZES)
)


def open_tiles(folder, mode, records=RECORDS, window=WINDOW):
    decoder = TileDecoder(window, 3, MaskEncoding("ids"), SIZES)
    source, _ = open_source(
        records,
        decoder,
        files_hash="0123456789abcdef" * 4,
        cache_dir=folder,
        mode=mode,
        workers=2,
    )
    source.wait()
    return source


def buffer(count):
    image = np.empty((count, *WINDOW, 3), np.uint8)
    return {"image": image, "mask": np.empty((count, *WINDOW), np.uint8)}


@pytest.fixture(params=["host", "none"])
def source(request, tmp_path):
    return open_tiles(tmp_path, request.param)


# The grid.


def test_the_grid_counts_every_pixel_once(tmp_path):
    records = Records(
        {"image": r["image"], "mask": png(np.uint8(m))}
        for r, m in zip(RECORDS, map(np.ones, SIZES), strict=True)
    )
    source = open_tiles(tmp_path, "none", records)
    out = buffer(len(source.grid))
    source.read(np.arange(len(source.grid)), out)
    times = [np.zeros(size, np.int64) for size in SIZES]
    for image, mask in zip(out["image"], out["mask"], strict=True):
        for tile, y, x in image[mask != IGNORE].tolist():
            times[tile][y, x] += 1
    assert all((count == 1).all() for count in times)


def test_a_window_holds_the_pixels_and_the_mask_of_its_place(source):
    out = buffer(len(source.grid))
    source.read(np.arange(len(source.grid)), out)
    for image, mask in zip(out["image"], out["mask"], strict=True):
        tile, top, left = image[0, 0].tolist()
        size = SIZES[tile]
        here = slice(top, top + WINDOW[0]), slice(left, left + WINDOW[1])
        np.testing.assert_array_equal(image, numbered_tile(tile, size)[here])
        counted = mask != IGNORE
        np.testing.assert_array_equal(mask[counted], mask_of(tile, size)[here][counted])


def test_the_grid_is_row_by_row():
    grid = make_grid([(5, 4), (4, 8)], (4, 4)).tolist()
    assert grid == [[0, 0, 0], [0, 4, 0], [1, 0, 0], [1, 0, 4]]


# Random windows.


def loader(source, *, seed=0, share=0.5, per_image=3, batch_size=4, workers=2):
    return CropLoader(
        source,
        np.array([5, 6, 7, 8], np.int32),
        np.array([0, 1, 2]),  # tile 3 is in another part
        crop=Crop(per_image, share),
        batch_size=batch_size,
        sampling="shuffle",
        seed=seed,
        workers=workers,
    )


def corners(batches):
    """(tile, top, left) of every window, batch by batch."""
    return [batch["image"][:, 0, 0].tolist() for batch in batches]


def test_random_windows_are_a_function_of_seed_and_step(source):
    whole = corners(loader(source).batches(0, 4))  # two steps an epoch
    assert corners(loader(source, workers=1).batches(0, 4)) == whole
    assert corners(loader(source).batches(3, 4)) == whole[3:]
    assert corners(loader(source).batches(1, 3)) == whole[1:3]
    assert corners(loader(source, seed=1).batches(0, 4)) != whole
    first, second = (sorted(a + b) for a, b in (whole[:2], whole[2:]))
    assert first != second


def test_a_step_names_the_windows_of_the_grid_that_its_own_begin_in(source):
    own = loader(source)
    for step, batch in enumerate(own.batches(0, 6)):
        places = source.grid[own.positions_of(step)]
        for (tile, y, x), place in zip(batch["image"][:, 0, 0], places, strict=True):
            assert place.tolist() == [tile, y // 16 * 16, x // 12 * 12]


def test_decoded_and_streamed_windows_are_the_same(tmp_path):
    batches = [
        list(loader(open_tiles(tmp_path, mode)).batches(0, 6))
        for mode in ("host", "none")
    ]
    for decoded, streamed in zip(*batches, strict=True):
        for name in ("image", "mask", "label", "valid"):
            np.testing.assert_array_equal(decoded[name], streamed[name])


def test_an_epoch_has_per_image_windows_of_each_tile_of_the_part(source):
    own = loader(source, per_image=4, batch_size=3)
    assert own.steps_per_epoch == 4
    tiles = [corner[0] for batch in corners(own.batches(0, 4)) for corner in batch]
    assert sorted(tiles) == [0] * 4 + [1] * 4 + [2] * 4
    for batch in own.batches(0, 4):
        shown = ((batch["mask"] > 0) & (batch["mask"] < 255)).any(axis=(1, 2))
        np.testing.assert_array_equal(batch["label"], shown)
        assert batch["valid"].all()
    indices = [batch["index"] for batch in own.batches(0, 4)]
    assert sorted(np.concatenate(indices)) == list(range(12))


def test_a_random_mask_is_that_of_the_window_without_grid_borders(source):
    for batch in loader(source).batches(0, 3):
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            tile, top, left = image[0, 0].tolist()
            whole = mask_of(tile, SIZES[tile])
            expected = whole[top : top + WINDOW[0], left : left + WINDOW[1]]
            np.testing.assert_array_equal(mask, expected)


def tile_of(mask):
    foreground = (mask != 0) & (mask != IGNORE)
    rows = foreground.sum(1).cumsum(dtype=np.int32)
    return Tile(np.zeros((*mask.shape, 3), np.uint8), mask, rows)


def test_every_foreground_pixel_has_its_turn_as_the_centre():
    mask = mask_of(2, (50, 30))
    tile = tile_of(mask)
    pixels = np.argwhere((mask == 1) | (mask == 2))  # row by row
    for number, (y, x) in enumerate(pixels):
        numbers = (0.0, (number + 0.5) / len(pixels), 0.9)
        top, left = place_window(tile, WINDOW, numbers, share=1.0)
        assert top == min(max(y - 8, 0), 50 - 16)
        assert left == min(max(x - 6, 0), 30 - 12)


def test_windows_anywhere_reach_every_corner_and_nothing_outside():
    tile = tile_of(np.zeros((18, 13), np.uint8))
    numbers = np.random.default_rng(0).random((400, 3))
    seen = {place_window(tile, WINDOW, three, share=1.0) for three in numbers}
    assert seen == {(top, left) for top in range(3) for left in range(2)}


def test_the_share_around_the_foreground_is_that_of_the_config():
    mask = np.zeros((160, 120), np.uint8)
    mask[80, 60] = 1
    tile = tile_of(mask)
    numbers = draw_numbers(4000, seed=0, epoch=3)
    centred = [place_window(tile, WINDOW, n, share=0.3) == (72, 54) for n in numbers]
    assert np.mean(centred) == pytest.approx(0.3, abs=0.03)  # 4 standard deviations


def test_numbers_differ_between_epochs_and_seeds():
    same = draw_numbers(5, seed=1, epoch=2)
    np.testing.assert_array_equal(same, draw_numbers(5, seed=1, epoch=2))
    for other in (dict(seed=1, epoch=3), dict(seed=2, epoch=2)):
        assert not np.isclose(same, draw_numbers(5, **other)).any()


# Roads, from the folder to the counts.


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def roads(root, folder="training", count=10, size=(40, 50)):
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        mask = np.zeros(size, np.uint8)
        mask[3 * i % 30 : 3 * i % 30 + 4] = 255
        write(root / folder / "input" / f"img-{i}.png", image)
        write(root / folder / "output" / f"img-{i}.png", mask)
    return root


def run_config(root, **data):
    """The shipped recipe, on small windows and a small network."""
    path = Path(__file__).parents[1] / "configs" / "road.py"
    spec = importlib.util.spec_from_file_location("road", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tree = module.get_config().to_dict()
    tree["model"] |= dict(widths=(2, 3), dropout=(0.1, 0.1))
    tree["data"] |= dict(dir=str(root), image_size=(32, 32), workers=1) | data
    tree["train"] |= dict(batch_size=8, epochs=1, precision="float32")
    return parsing.parse(tree, experiment.SCHEMAS)


def scan_roads(root, max_blank=0.05):
    return DATASETS["massachusetts_roads"](root, max_blank=max_blank)


def refuse(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return caught.value


def test_roads_pair_by_name_and_list_what_has_no_partner(tmp_path):
    roads(tmp_path, count=3)
    (tmp_path / "training" / "output" / "img-1.png").unlink()
    write(tmp_path / "training" / "output" / "img-9.png", np.zeros((4, 4), np.uint8))
    found = scan_roads(tmp_path)
    names = [r.id for r in found.records]
    assert names == ["training/img-0", "training/img-2"]
    assert [r.split for r in found.records] == [None, None]
    assert found.skipped == (
        ("training/img-1", "no file of this name in training/output"),
        ("training/img-9", "no file of this name in training/input"),
    )
    assert "2 files without a partner are left out" in found.notes[0]


def test_roads_of_three_folders_bring_their_split(tmp_path):
    for folder in ("training", "validation", "testing"):
        roads(tmp_path, folder, count=1)
    parts = {record.id: record.split for record in scan_roads(tmp_path).records}
    assert parts == {
        "training/img-0": "train",
        "validation/img-0": "val",
        "testing/img-0": "test",
    }


def test_roads_refuse_other_folders_and_no_pair_at_all(tmp_path):
    root = roads(tmp_path / "roads", count=1)
    assert refuse(scan_roads, tmp_path).fix == f"--config.data.dir='{root}'"
    (root / "training" / "output" / "img-0.png").rename(
        root / "training" / "output" / "mask-0.png"
    )
    assert "2 files, none with a partner" in refuse(scan_roads, root).found


def test_blank_tiles_are_left_out_and_listed_in_the_run_folder(tmp_path):
    root = roads(tmp_path / "roads")
    image = np.full((40, 50, 3), 255, np.uint8)
    write(root / "training" / "input" / "img-4.png", image)
    image[:38] = 7  # 5 % is the limit, and not over it
    write(root / "training" / "input" / "img-5.png", image)
    (root / "training" / "output" / "img-7.png").unlink()
    run.run(run_config(root), tmp_path / "run")
    with (tmp_path / "run" / "skipped.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "reason"],
        ["training/img-7", "no file of this name in training/output"],
        ["training/img-4", "100.0 % of the pixels are blank (pure white)"],
    ]
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert ids == [f"training/img-{i}" for i in (0, 1, 2, 3, 5, 6, 8, 9)]


def test_the_counts_of_a_part_hold_every_pixel_of_its_tiles_once(tmp_path):
    built = experiment.build_experiment(run_config(roads(tmp_path)))
    variables = inference_variables(built.init())
    for part in ("val", "test"):
        tiles = built.record_split.indices(part)
        counts = collect_counts(
            built.eval_step, variables, built.eval_loader(part), built.mesh
        )
        pixels = counts["histogram"].sum(axis=(0, 2))  # background, road
        roads_there = sum(built.dataset.records[i].class_pixels[1] for i in tiles)
        assert pixels.tolist() == [len(tiles) * 2000 - roads_there, roads_there]
        assert roads_there == len(tiles) * 4 * 50
        assert len(counts["histogram"]) == len(tiles) * 2 * 2
    names = [built.dataset.ids[i] for i in built.split.indices("val")][:4]
    tile = names[0].rsplit("_", 2)[0]
    corners = ((0, 0), (0, 32), (32, 0), (32, 32))
    assert names == [f"{tile}_y{top}_x{left}" for top, left in corners]


def test_windows_larger_than_a_tile_are_refused_with_a_size_that_fits(tmp_path):
    root = roads(tmp_path)
    write(root / "training" / "input" / "img-3.png", np.zeros((70, 34, 3), np.uint8))
    write(root / "training" / "output" / "img-3.png", np.zeros((70, 34), np.uint8))
    error = refuse(experiment.build_experiment, run_config(root, image_size=(48, 48)))
    assert "10 smaller: training/img-0: 40 x 50" in error.found
    assert '--config.data.image_size="(32, 32)"' in error.fix
    assert "--config.data.crop=none" in error.fix


def test_without_crop_the_same_tiles_are_resized(tmp_path):
    built = experiment.build_experiment(run_config(roads(tmp_path), crop=None))
    assert len(built.dataset.ids) == 10
    assert built.dataset.labels is not None  # of images, as no window has one
    assert built.split.parts == built.record_split.parts
    batch = next(built.phases[0].batches(0, 1))
    assert batch["image"].shape == (8, 32, 32, 3)


def test_previews_are_windows_that_show_foreground(tmp_path):
    built = experiment.build_experiment(run_config(roads(tmp_path)))
    positions = previews.Previews(built, tmp_path / "previews")._positions
    assert set(positions) <= set(built.split.indices("val"))
    mask = np.empty((len(positions), *built.run.data.image_size), np.uint8)
    image = np.empty((*mask.shape, 3), np.uint8)
    built.dataset.source.read(positions, {"image": image, "mask": mask})
    shown = (mask == 1).any(axis=(1, 2))
    assert len(positions) == built.run.train.preview
    assert shown[0]
    assert not (~shown[:-1] & shown[1:]).any()  # those without it come last


def test_a_classifier_of_windows_learns_what_each_window_shows(tmp_path):
    tree = config.to_dict(run_config(roads(tmp_path)))
    tree["task"] = dict(name="classification", threshold="max_f1", min_recall=0.9)
    tree["model"] = dict(name="simple_cnn", bn_group=None, dropout=0.0)
    tree["loss"] = dict(bce=dict(weight=1.0, pos_weight=1.0))
    tree["train"] |= dict(monitor="auc")
    built = experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))
    labels = []
    for batch in (*built.phases[0].batches(0, 2), *built.eval_loader("val")):
        shown = (batch["mask"] == 1).any(axis=(1, 2))
        np.testing.assert_array_equal(batch["label"], shown)
        labels += batch["label"].tolist()
    assert set(labels) == {0, 1}


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        (dict(per_image=0, foreground_share=0.5), "data.crop.per_image: expected more"),
        (dict(per_image=1, foreground_share=1.5), "data.crop.foreground_share: expect"),
        (dict(per_image=1), "config.data.crop.foreground_share is missing"),
        (dict(per_image=1, share=0.5), "config.data.crop.share: there is no such key"),
    ],
)
def test_crop_keys_are_checked(tmp_path, crop, words):
    error = refuse(lambda: run_config(tmp_path, crop=crop))
    assert words in error.found
