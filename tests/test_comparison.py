"""Comparisons of run folders, each written by hand."""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg import workdir
from jaxseg.errors import InputError
from jaxseg.report import comparison, tables
from jaxseg.report.comparison import choose_metrics, compare, find_entries, notes_of

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare.py"
PIXELS = ["soft_iou/crack/pooled", "soft_dice/crack/pooled"]
PIXELS += ["iou/crack/pooled", "dice/crack/pooled"]
FACTS = ["parameters", "images/s", "judged on", "state"]


def make_run(
    folder, metrics=None, *, data="d1", split="a,train\n", part="test", speeds=(5, 20)
):
    """A run folder with what a comparison reads; unfinished without metrics."""
    (folder / "model").mkdir(parents=True)
    record = {
        "config": {"train": {"epochs": 9}},
        "data_hash": data,
        "parameters": 1234,
    }
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "split.csv").write_text(split)
    if speeds:
        lines = [f"{epoch},{speed}" for epoch, speed in enumerate(speeds, 1)]
        text = "\n".join(["epoch,images_per_second", *lines])
        (folder / "metrics.csv").write_text(text)
    if metrics is not None:
        described = {"metrics": {part: {}}}
        (folder / "model" / "model.json").write_text(json.dumps(described))
        (folder / part).mkdir()
        (folder / part / "metrics.json").write_text(json.dumps(metrics))
    return folder


def pixels(value):
    return dict.fromkeys(PIXELS, value) | {"loss": 1 - value, "iou/crack/per_image": 0}


def table_of(*patterns, metrics=()):
    entries, _ = find_entries([str(pattern) for pattern in patterns])
    return compare(entries, choose_metrics(entries, metrics))


def names_of(table):
    return [Path(row[0]).name for row in table[1]]


def test_the_best_run_comes_first_and_the_unfinished_last(tmp_path):
    make_run(tmp_path / "b", pixels(0.5))
    make_run(tmp_path / "a", pixels(0.7))
    make_run(tmp_path / "d", speeds=(1, 2, 3))
    make_run(tmp_path / "c", pixels(0.6) | dict.fromkeys(PIXELS))  # undefined
    table, numbers = table_of(tmp_path / "*")
    assert table[0] == ["run", "runs", *PIXELS, *FACTS]
    assert names_of(table) == names_of(numbers) == ["a", "b", "c", "d"]
    assert table[1][0][1:] == [1, *[0.7] * 4, 1234, "20.0", "A", ""]
    assert table[1][3][1:] == [0, *["-"] * 4, 1234, "2.5", "", "epoch 3 of 9"]
    table, _ = table_of(tmp_path / "*", metrics=["loss"])
    assert names_of(table) == ["a", "c", "b", "d"]  # a small loss is better
    assert table[1][0][2] == pytest.approx(0.3)


def test_the_width_nearest_to_the_true_one_comes_first(tmp_path):
    for name, bias in (("wide", 3.0), ("near", -0.5), ("narrow", -2.0)):
        make_run(tmp_path / name, pixels(0.5) | {"width_bias/crack/pooled": bias})
    table, _ = table_of(tmp_path / "*", metrics=["width_bias/crack/pooled"])
    assert names_of(table) == ["near", "narrow", "wide"]


def test_the_speed_is_the_median_of_the_later_epochs(tmp_path):
    make_run(tmp_path / "a", pixels(0.5), speeds=(1, 10, 30, 20, 90))
    make_run(tmp_path / "b", pixels(0.4), speeds=(7,))
    make_run(tmp_path / "c", pixels(0.3), speeds=())
    _, numbers = table_of(tmp_path / "*")
    speeds = [row[-3] for row in numbers[1]]
    assert speeds == [statistics.median([10, 30, 20, 90]), None, None]


def test_a_sweep_is_one_line_with_mean_and_deviation(tmp_path):
    for index, value in enumerate((0.2, 0.4, 0.9)):
        make_run(tmp_path / "many" / f"fold_{index}", pixels(value))
    make_run(tmp_path / "many" / "fold_10")
    make_run(tmp_path / "many" / "other", pixels(0.8))
    names = [f"fold_{index}" for index in (0, 1, 2, 10, 11)]
    workdir.write_sweep(tmp_path / "many", names)
    table, numbers = table_of(tmp_path / "many")
    ((name, count, cell, *_, state),) = table[1]
    assert (Path(name).name, count, state) == ("many", 3, "1 of 4 runs unfinished")
    assert (cell.mean, cell.std) == pytest.approx(
        (0.5, statistics.stdev((2, 4, 9)) / 10)
    )
    assert (cell.low, cell.high) == (0.2, 0.9)
    assert str(cell) == "0.5000 +- 0.3606"
    assert numbers[1][0][2:4] == [cell.mean, cell.std]
    assert any("standard deviation" in note for note in notes_of(table))


@pytest.mark.parametrize(
    "other", [dict(data="d2"), dict(split="a,test\n"), dict(part="val")]
)
def test_runs_on_other_images_are_marked(tmp_path, other):
    make_run(tmp_path / "a", pixels(0.9))
    make_run(tmp_path / "b", pixels(0.8), **other)
    make_run(tmp_path / "c", pixels(0.7))
    table, _ = table_of(tmp_path / "*")
    assert [row[-2] for row in table[1]] == ["A", "B", "A"]
    assert any("not comparable" in note for note in notes_of(table))
    table, _ = table_of(tmp_path / "a", tmp_path / "c")
    assert notes_of(table) == []


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["auc", "ap", "f1", "accuracy"], ["auc", "ap", "f1"]),
        (["accuracy", "f1/a", "f1/macro", "loss"], ["accuracy", "f1/macro"]),
        ([*PIXELS[::-1], "iou/crack/per_image", "f1"], [*PIXELS, "f1"]),
        (
            ["iou/a/pooled", "iou/b/pooled", "iou/mean/pooled", "dice/mean/pooled"],
            ["iou/mean/pooled", "dice/mean/pooled"],
        ),
    ],
)
def test_the_headline_fits_the_task(tmp_path, metrics, expected):
    make_run(tmp_path / "a", dict.fromkeys(metrics, 0.5))
    make_run(tmp_path / "b", {"auc": 0.6})
    table, _ = table_of(tmp_path / "a")
    assert table[0][2:-4] == expected
    table, _ = table_of(tmp_path / "*")
    assert set(table[0][2:-4]) == {*expected, "auc"}
    assert sum(row.count("-") for row in table[1]) >= len(expected) - 1


def test_what_is_no_run_is_named(tmp_path):
    make_run(tmp_path / "a", pixels(0.9))
    (tmp_path / "b").mkdir()
    (tmp_path / "table.md").write_text("")
    entries, strangers = find_entries([f"{tmp_path}/*", str(tmp_path / "a")])
    assert [Path(entry.name).name for entry in entries] == ["a"]
    assert [Path(name).name for name in strangers] == ["b", "table.md"]
    with pytest.raises(InputError, match=r"run folders, each with a config.json"):
        find_entries([str(tmp_path / "b"), str(tmp_path / "none*")])


@pytest.mark.parametrize("text", ["[1]", "{", '{"method": "grid"}'])
def test_the_sweep_of_another_program_is_no_run(tmp_path, text):
    make_run(tmp_path / "a", pixels(0.9))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sweep.json").write_text(text)
    _, strangers = find_entries([str(tmp_path / "*")])
    assert strangers == [str(tmp_path / "b")]


def test_unknown_metrics_get_the_nearest_name(tmp_path):
    make_run(tmp_path / "a", pixels(0.9))
    with pytest.raises(InputError, match="did you mean iou/crack/pooled"):
        table_of(tmp_path / "a", metrics=["iou/crak/pooled"])
    make_run(tmp_path / "b")
    with pytest.raises(InputError, match="no run is finished"):
        table_of(tmp_path / "b", metrics=["loss"])


def test_lost_metrics_name_the_command_that_makes_them_again(tmp_path):
    make_run(tmp_path / "a", pixels(0.9))
    (tmp_path / "a" / "test" / "metrics.json").unlink()
    with pytest.raises(InputError) as caught:
        table_of(tmp_path / "a")
    assert "evaluate.py" in caught.value.fix
    assert "--split test" in caught.value.fix


def test_letters_never_run_out():
    letters = [comparison._letter(index) for index in range(60)]
    assert letters[:3] == ["A", "B", "C"]
    assert letters[25:28] == ["Z", "A1", "B1"]
    assert len(set(letters)) == 60


def test_the_files_hold_the_table(tmp_path):
    make_run(tmp_path / "a|b", pixels(0.123456789))
    make_run(tmp_path / "c")
    out = tmp_path / "new" / "table"
    comparison.run_comparison([f"{tmp_path}/*"], [], out)
    with Path(f"{out}.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["iou/crack/pooled"] == "0.123456789"
    assert first["iou/crack/pooled std"] == ""
    assert second["state"] == "epoch 2 of 9"
    lines = Path(f"{out}.md").read_text().splitlines()
    assert lines[0] == f"| run | runs | {' | '.join([*PIXELS, *FACTS])} |"
    assert lines[2].endswith("a/b | 1 | 0.1235 | 0.1235 | 0.1235 | 0.1235 | 1,234 | "
                             "20.0 | A |  |")  # fmt: skip
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_a_spread_is_undefined_where_a_seed_is():
    spread = tables.spread_of([0.5, None])
    assert str(spread) == "undefined"
    assert str(tables.spread_of([0.25, 0.75])) == "0.5000 +- 0.3536"


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["a", "--metrics=x"], ["a", "--out"]]
)
def test_bad_input_ends_with_a_message(tmp_path, arguments):
    make_run(tmp_path / "a", pixels(0.9))
    (tmp_path / "file").write_text("")
    if arguments[-1] == "--out":
        arguments = [*arguments, str(tmp_path / "file" / "table")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in ("expected:", "found:", "fix:"))
