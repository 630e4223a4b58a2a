"""Series of runs: names, complete runs, one split for all seeds, a table over them."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_bad_input import (
    SEGMENTATION,
    SMALL,
    assert_message,
    call,
    pairs,
    scripts,
    unchanged_jax,
)
from test_loop import parse, tree

from jaxseg import experiment, grid, run, sweep, workdir
from jaxseg.errors import InputError

ROOT = Path(__file__).parents[1]
assert all((call, scripts, unchanged_jax))  # fixtures


# Names and values.


def test_several_sweeps_are_combined_and_the_last_changes_fastest():
    runs = grid.expand(["data.fold=0, 1", "seed=7,8"])
    assert list(runs) == [
        "fold_0_seed_7",
        "fold_0_seed_8",
        "fold_1_seed_7",
        "fold_1_seed_8",
    ]
    assert runs["fold_1_seed_7"] == ("data.fold=1", "seed=7")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        ("(1,2),(3,4)", ["(1,2)", "(3,4)"]),
        ("{'a': 1, 'b': (2, 3)},none", ["{'a': 1, 'b': (2, 3)}", "none"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("[(1,),2]", ["[(1,),2]"]),
        ("", [""]),
    ],
)
def test_values_are_split_outside_of_brackets_and_quotes(text, values):
    assert grid.split_values(text) == values


def test_folders_are_named_by_the_end_of_the_key_unless_two_end_alike():
    assert list(grid.expand(["optim.learning_rate=3e-4,0.1"])) == [
        "learning_rate_3e-4",
        "learning_rate_0.1",
    ]
    (name,) = grid.expand(["model.name=unet", "optim.name=sgd"])
    assert name == "model.name_unet_optim.name_sgd"
    assert list(grid.expand(["data.image_size=(64, 64),(96,96)"])) == [
        "image_size_64_64",
        "image_size_96_96",
    ]
    assert list(grid.expand(["data.fold=-1"])) == ["fold_-1"]
    assert list(grid.expand(["data.dir=../a b/c"])) == ["dir_.._a_b_c"]


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (["data.fold"], "'data.fold' is no KEY=VALUE"),
        (["data.fold=", "=3"], "'data.fold=' is no KEY=VALUE,VALUE; '=3' is no"),
        (["data.fold=0,,1"], "'data.fold=0,,1' is no"),
        (["seed=0,1", "seed=2"], "'seed' stands twice"),
        (["seed=0,1,0"], "several runs are called seed_0"),
        (["data.dir=a b,a/b"], "several runs are called dir_a_b"),
    ],
)
def test_sweeps_that_cannot_be_read(sweeps, words):
    with pytest.raises(InputError) as caught:
        grid.expand(sweeps)
    assert words in caught.value.found


# Runs.


def record(folder, **train):
    """Two epochs are enough to have a speed."""
    options = dict(epochs=2, accumulate=1, ema_decay=None, preview=1)
    return tree(folder, **(options | train))


def seeds_of(record, seeds=(3, 4)):
    return {f"seed_{seed}": parse(record | dict(seed=seed)) for seed in seeds}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of the config, folder of the two seeds, what came back)."""
    folder = tmp_path_factory.mktemp("sweep")
    spreads = sweep.run_sweep(seeds_of(record(folder)), folder / "runs")
    return folder, folder / "runs", spreads


@pytest.fixture
def copied(trained, tmp_path):
    """The same, in a folder that a test may change."""
    shutil.copytree(trained[1], tmp_path / "runs")
    return trained[0], tmp_path / "runs"


def metrics_of(folder):
    return json.loads((folder / "test" / "metrics.json").read_text())


def test_every_seed_is_a_complete_run_of_the_same_split(trained):
    _, runs, _ = trained
    one, other = runs / "seed_3", runs / "seed_4"
    records = [json.loads((run / "config.json").read_text()) for run in (one, other)]
    assert [record["config"]["seed"] for record in records] == [3, 4]
    assert records[0]["data_hash"] == records[1]["data_hash"]
    assert (one / "split.csv").read_bytes() == (other / "split.csv").read_bytes()
    for folder in (one, other):
        for name in ("metrics.csv", "test/results.csv", "previews/previews.gif"):
            assert (folder / name).is_file()
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


def test_the_table_is_mean_and_sample_deviation_and_counts_have_a_sum(trained):
    _, runs, spreads = trained
    values = [metrics_of(runs / f"seed_{seed}") for seed in (3, 4)]
    with (runs / "sweep.csv").open(newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert rows.keys() == spreads.keys() == values[0].keys()
    checked = 0
    for name, row in rows.items():
        both = [of[name] for of in values]
        if None in both:
            assert row["mean"] == row["std"] == ""
            continue
        checked += 1
        assert [float(row["seed_3"]), float(row["seed_4"])] == both
        mean, half = (both[0] + both[1]) / 2, abs(both[0] - both[1]) / 2
        assert float(row["mean"]) == pytest.approx(mean)
        assert float(row["std"]) == pytest.approx(np.sqrt(2) * half, abs=1e-12)
        assert (float(row["min"]), float(row["max"])) == (min(both), max(both))
        assert spreads[name].mean == pytest.approx(mean)
    assert checked > 10
    for name in ("num_images", "tp", "fp", "fn", "tn"):
        assert int(rows[name]["sum"]) == sum(of[name] for of in values)
    for name in ("loss", "auc", "image_threshold"):
        assert rows[name]["sum"] == ""
    text = (runs / "sweep.md").read_text()
    header = "| metric | mean | std | min | max | sum | seed_3 | seed_4 |\n"
    assert text.startswith(header)
    assert f"| loss | {spreads['loss'].mean:.4f} | " in text
    assert text.isascii()


def test_only_runs_that_are_not_finished_are_trained(copied, monkeypatch):
    folder, runs = copied
    configs, called = seeds_of(record(folder)), []
    before = (runs / "sweep.csv").read_bytes()
    monkeypatch.setattr(
        run, "run", lambda config, folder, **_: called.append((config.seed, folder))
    )
    (runs / "sweep.csv").unlink()
    sweep.run_sweep(configs, runs)
    assert called == []
    assert (runs / "sweep.csv").read_bytes() == before
    (runs / "seed_4" / "model" / "model.json").rename(runs / "model.json")
    with pytest.raises(FileNotFoundError):  # the pretended training wrote no model
        sweep.run_sweep(configs, runs)
    assert called == [(4, runs / "seed_4")]
    (runs / "model.json").rename(runs / "seed_4" / "model" / "model.json")
    sweep.run_sweep(configs, runs, restart=True)
    assert [seed for seed, _ in called] == [4, 3, 4]


def test_runs_that_shall_stop_later_go_on(copied, monkeypatch):
    folder, runs = copied
    called = []
    monkeypatch.setattr(run, "run", lambda config, folder, **_: called.append(folder))
    longer = seeds_of(record(folder, early_stop=5))
    both = [runs / "seed_3", runs / "seed_4"]
    sweep.run_sweep(longer, runs)
    assert called == both
    for name, config in longer.items():  # as if they had begun, and were killed
        workdir.open_workdir(runs / name, config, {}, restart=False)
    sweep.run_sweep(longer, runs)
    assert called == 2 * both


def test_runs_that_differ_in_the_seed_only_share_the_split_of_the_first(
    tmp_path, monkeypatch
):
    configs = {
        f"batch_{size}_seed_{seed}": parse(
            record(tmp_path, batch_size=size) | dict(seed=seed)
        )
        for size in (8, 16)
        for seed in (0, 1)
    }
    likes = {}
    monkeypatch.setattr(
        run, "run", lambda config, folder, like, **_: likes.update({folder.name: like})
    )
    monkeypatch.setattr(sweep, "_report", lambda folders, folder: {})
    sweep.run_sweep(configs, tmp_path / "runs")
    assert likes == {
        "batch_8_seed_0": None,
        "batch_8_seed_1": tmp_path / "runs" / "batch_8_seed_0",
        "batch_16_seed_0": None,
        "batch_16_seed_1": tmp_path / "runs" / "batch_16_seed_0",
    }


def test_a_run_of_another_config_is_refused(copied):
    folder, runs = copied
    with pytest.raises(InputError, match="batch_size: 8 there, 16 now"):
        sweep.run_sweep(seeds_of(record(folder, batch_size=16)), runs)


def test_seeds_share_their_data(copied):
    folder, runs = copied
    path = runs / "seed_3" / "config.json"
    changed = json.loads(path.read_text()) | dict(data_hash="0" * 64)
    path.write_text(json.dumps(changed))
    shutil.rmtree(runs / "seed_4")
    with pytest.raises(InputError, match="instead of 000000000000"):
        sweep.run_sweep(seeds_of(record(folder)), runs)
    assert not (runs / "seed_4").exists()


def test_the_folder_of_a_sweep_and_a_single_run_do_not_mix(trained, tmp_path):
    folder, runs, _ = trained
    with pytest.raises(InputError, match="holds a single run"):
        sweep.run_sweep(seeds_of(record(folder)), runs / "seed_3")
    with pytest.raises(InputError, match=r"holds seed_3, seed_4.* and no config.json"):
        run.run(parse(record(folder)), runs)


def test_what_is_wrong_with_a_run_is_said_before_the_first_one_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "run", lambda *args, **options: pytest.fail("started"))
    configs = seeds_of(record(tmp_path), seeds=(1, 2))
    configs["monitor"] = parse(record(tmp_path, monitor="iou/krack/pooled"))
    size = dataclasses.replace(configs["seed_1"].data, image_size=(31, 31))
    configs["size"] = dataclasses.replace(configs["seed_1"], data=size)
    with pytest.raises(InputError) as caught:
        sweep.run_sweep(configs, tmp_path / "runs")
    assert "2 problem(s):\n  monitor: expected" in caught.value.found
    assert "\n  size: expected" in caught.value.found
    assert '--config.data.image_size="(32, 32)"' in caught.value.found
    assert not (tmp_path / "runs").exists()
    configs = {
        f"seed_{seed}": parse(record(tmp_path, monitor="x") | dict(seed=seed))
        for seed in (1, 2)
    }
    with pytest.raises(InputError, match="monitor to name a metric") as caught:
        sweep.run_sweep(configs, tmp_path / "runs")
    assert caught.value.found == "'x'"


def test_the_script_compares_them(trained, tmp_path):
    _, runs, spreads = trained
    command = [sys.executable, str(ROOT / "scripts" / "compare.py")]
    paths = [str(runs), str(runs / "seed_?")]
    done = subprocess.run(
        [*command, *paths, "--out", str(tmp_path / "table")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {str(runs), *(str(runs / f"seed_{i}") for i in (3, 4))}
    for name in ("soft_iou/crack/pooled", "iou/crack/pooled", "auc"):
        both = rows[str(runs)]
        assert float(both[name]) == pytest.approx(spreads[name].mean)
        assert float(both[f"{name} std"]) == pytest.approx(spreads[name].std)
        single = rows[str(runs / "seed_4")]
        assert float(single[name]) == metrics_of(runs / "seed_4")[name]
    weights = load_file(runs / "seed_3" / "model" / "model.safetensors")
    counted = sum(v.size for k, v in weights.items() if k.startswith("params/"))
    assert {row["parameters"] for row in rows.values()} == {str(counted)}
    assert {row["judged on"] for row in rows.values()} == {"A"}


# The command line.


@pytest.fixture
def arguments(tmp_path):
    """Of train.py, on 24 small pairs in three folds."""
    root = pairs(tmp_path / "data")
    config = ROOT / "configs" / "folder_segmentation.py"
    keys = (f"data.dir={root}", "data.split=kfold", "data.num_folds=3")
    options = [f"--config.{key}" for key in (*keys, *SMALL, *SEGMENTATION)]
    return ["--config", config, "--workdir", tmp_path / "runs", *options]


def test_all_mistakes_of_all_runs_are_listed_before_the_first_starts(
    call, arguments, tmp_path
):
    sweeps = ("--sweep", "data.fold=0,3,-1", "--sweep", "optim.learning_rate=0.1,x")
    code, error = call("train", *arguments, *sweeps, "--config.train.epoch=3")
    assert_message(code, error)
    for phrase in (
        "\n  config.train.epoch: there is no such key; did you mean train.epochs?",
        "fold_0_learning_rate_x, fold_3_learning_rate_x, fold_-1_learning_rate_x: "
        "config.optim.learning_rate: expected float, found 'x'",
    ):
        assert phrase in error
    assert not (tmp_path / "runs").exists()
    code, error = call("train", *arguments, "--sweep", "data.fold=0,3,-1")
    assert_message(code, error)
    for fold in (3, -1):
        assert f"fold_{fold}: config.data.fold: expected 0 to 2, found {fold}" in error
    assert "fold_0:" not in error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("data.fodl=0,1", "config.data.fodl: there is no such key; did you mean"),
        ("data.fold", "'data.fold' is no KEY=VALUE,VALUE"),
        ("seed=1,1", "several runs are called seed_1"),
    ],
)
def test_a_sweep_that_cannot_be(call, arguments, tmp_path, value, words):
    code, error = call("train", *arguments, "--sweep", value)
    assert_message(code, error)
    assert words in error
    assert not (tmp_path / "runs").exists()


def test_a_swept_folder_that_is_missing_is_named_before_the_first_run(
    call, arguments, tmp_path
):
    code, error = call(
        "train",
        *arguments,
        "--sweep",
        f"data.dir={tmp_path / 'data'},{tmp_path / 'dat'}",
    )
    assert_message(code, error)
    assert f"--config.data.dir='{tmp_path / 'data'}'" in error
    assert not (tmp_path / "runs").exists()


def test_folds_are_trained_one_after_the_other(
    arguments, scripts, tmp_path, monkeypatch
):
    trained = {}

    def pretend(config, folder, *, restart, like, origin):
        built = experiment.build_experiment(config)
        ids = [built.dataset.ids[i] for i in built.split.indices("test")]
        trained[folder.name] = ids
        (folder / "test").mkdir(parents=True)
        (folder / "model").mkdir()
        metrics = dict(auc=0.5 + config.data.fold / 10, fp=config.data.fold)
        (folder / "test" / "metrics.json").write_text(json.dumps(metrics))
        model = dict(metrics=dict(test={}))
        (folder / "model" / "model.json").write_text(json.dumps(model))

    monkeypatch.setattr(run, "run", pretend)
    scripts["train"].run([*map(str, arguments), "--sweep", "data.fold=0,1,2"])
    assert list(trained) == ["fold_0", "fold_1", "fold_2"]
    tested = [name for ids in trained.values() for name in ids]
    assert len(tested) == len({*tested}) == 24
    with (tmp_path / "runs" / "sweep.csv").open(newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(rows["auc"]["mean"]) == pytest.approx(0.6)
    assert (rows["auc"]["sum"], rows["fp"]["sum"]) == ("", "3")
