"""Several seeds of one config: complete runs, one split, a table over them."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_loop import parse, tree

from jaxseg import run, seeds
from jaxseg.errors import InputError

ROOT = Path(__file__).parents[1]


def record(folder, **train):
    """Two epochs are enough to have a speed; the seeds are 3 and 4."""
    options = dict(epochs=2, accumulate=1, ema_decay=None, preview=1, seeds=2)
    return tree(folder, **(options | train))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of the config, folder of the two seeds, what came back)."""
    folder = tmp_path_factory.mktemp("seeds")
    spreads = seeds.run_seeds(parse(record(folder)), folder / "runs")
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
    one, other = runs / "seed_0", runs / "seed_1"
    records = [json.loads((run / "config.json").read_text()) for run in (one, other)]
    assert [record["config"]["seed"] for record in records] == [3, 4]
    assert [record["config"]["train"]["seeds"] for record in records] == [1, 1]
    assert records[0]["data_hash"] == records[1]["data_hash"]
    assert (one / "split.csv").read_bytes() == (other / "split.csv").read_bytes()
    for folder in (one, other):
        for name in ("metrics.csv", "test/results.csv", "previews/previews.gif"):
            assert (folder / name).is_file()
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


def test_the_table_is_mean_and_sample_deviation(trained):
    _, runs, spreads = trained
    values = [metrics_of(runs / f"seed_{index}") for index in (0, 1)]
    with (runs / "seeds.csv").open(newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert rows.keys() == spreads.keys() == values[0].keys() - {"num_images"}
    checked = 0
    for name, row in rows.items():
        both = [of[name] for of in values]
        if None in both:
            assert row["mean"] == row["std"] == ""
            continue
        checked += 1
        assert [float(row["seed_0"]), float(row["seed_1"])] == both
        mean, half = (both[0] + both[1]) / 2, abs(both[0] - both[1]) / 2
        assert float(row["mean"]) == pytest.approx(mean)
        assert float(row["std"]) == pytest.approx(np.sqrt(2) * half, abs=1e-12)
        assert (float(row["min"]), float(row["max"])) == (min(both), max(both))
        assert spreads[name].mean == pytest.approx(mean)
    assert checked > 10
    text = (runs / "seeds.md").read_text()
    assert text.startswith("| metric | mean | std | min | max | seed_0 | seed_1 |\n")
    assert f"| loss | {spreads['loss'].mean:.4f} | " in text
    assert text.isascii()


def test_a_seed_is_the_single_run_of_that_seed(tmp_path):
    several = parse(record(tmp_path, seeds=3))
    single = parse(record(tmp_path, seeds=1) | dict(seed=5))
    assert seeds._with_seed(several, 2) == single


def test_only_seeds_that_are_not_finished_are_trained(copied, monkeypatch):
    folder, runs = copied
    config, called = parse(record(folder)), []
    before = (runs / "seeds.csv").read_bytes()
    monkeypatch.setattr(
        run, "run", lambda config, folder, **_: called.append((config.seed, folder))
    )
    (runs / "seeds.csv").unlink()
    seeds.run_seeds(config, runs)
    assert called == []
    assert (runs / "seeds.csv").read_bytes() == before
    (runs / "seed_1" / "model" / "model.json").rename(runs / "model.json")
    with pytest.raises(FileNotFoundError):  # the pretended training wrote no model
        seeds.run_seeds(config, runs)
    assert called == [(4, runs / "seed_1")]
    (runs / "model.json").rename(runs / "seed_1" / "model" / "model.json")
    seeds.run_seeds(config, runs, restart=True)
    assert [seed for seed, _ in called] == [4, 3, 4]


def test_a_seed_of_another_config_is_refused(copied):
    folder, runs = copied
    with pytest.raises(InputError, match="batch_size: 8 there, 16 now"):
        seeds.run_seeds(parse(record(folder, batch_size=16)), runs)


def test_seeds_share_their_data(copied):
    folder, runs = copied
    path = runs / "seed_0" / "config.json"
    changed = json.loads(path.read_text()) | dict(data_hash="0" * 64)
    path.write_text(json.dumps(changed))
    shutil.rmtree(runs / "seed_1")
    with pytest.raises(InputError, match="instead of 000000000000"):
        seeds.run_seeds(parse(record(folder)), runs)
    assert not (runs / "seed_1").exists()


def test_a_folder_of_seeds_and_a_single_run_do_not_mix(trained, tmp_path):
    folder, runs, _ = trained
    with pytest.raises(InputError, match="holds a single run"):
        seeds.run_seeds(parse(record(folder)), runs / "seed_0")
    with pytest.raises(InputError, match=r"holds seed_0, seed_1.* and no config.json"):
        run.run(parse(record(folder, seeds=1)), runs)


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
    assert rows.keys() == {str(runs), *(str(runs / f"seed_{i}") for i in (0, 1))}
    for name in ("soft_iou/crack/pooled", "iou/crack/pooled", "auc"):
        both = rows[str(runs)]
        assert float(both[name]) == pytest.approx(spreads[name].mean)
        assert float(both[f"{name} std"]) == pytest.approx(spreads[name].std)
        single = rows[str(runs / "seed_1")]
        assert float(single[name]) == metrics_of(runs / "seed_1")[name]
    weights = load_file(runs / "seed_0" / "model" / "model.safetensors")
    counted = sum(v.size for k, v in weights.items() if k.startswith("params/"))
    assert {row["parameters"] for row in rows.values()} == {str(counted)}
    assert {row["judged on"] for row in rows.values()} == {"A"}
