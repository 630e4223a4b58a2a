"""Runs side by side: a device each, order, failures, signals."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from test_bad_input import (
    SEGMENTATION,
    SMALL,
    assert_message,
    call,
    pairs,
    scripts,
    unchanged_jax,
)

from jaxseg import processes
from jaxseg.errors import InputError
from jaxseg.processes import Job, Slot

ROOT = Path(__file__).parents[1]
CORES = frozenset(os.sched_getaffinity(0))
assert all((call, scripts, unchanged_jax))  # fixtures


def python(code, *arguments):
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def slots(number):
    return [
        Slot(f"slot {i}", {**os.environ, "SLOT": str(i)}, CORES) for i in range(number)
    ]


# Devices.


def test_cores_are_dealt_evenly_and_each_is_used_once(monkeypatch):
    monkeypatch.setattr(processes, "usable_cores", lambda: [0, 1, 2, 3, 8])
    found = processes.find_slots(2, os.environ | {"JAX_PLATFORMS": "cpu"})
    assert [slot.cores for slot in found] == [{0, 2, 8}, {1, 3}]
    assert found[0].name == "core 0, 2, 8"
    with pytest.raises(InputError, match="6 runs, 5 core") as caught:
        processes.find_slots(6, os.environ | {"JAX_PLATFORMS": "cpu"})
    assert caught.value.fix == "--parallel 5"


@pytest.mark.parametrize(
    ("platform", "given", "expected"),
    [
        ("gpu", {}, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        (
            "gpu",
            {"CUDA_VISIBLE_DEVICES": "5,GPU-8f"},
            [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-8f"}],
        ),
        (
            "tpu",
            {"A": "b"},
            [
                {
                    "A": "b",
                    "TPU_VISIBLE_DEVICES": str(i),
                    "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                    "TPU_PROCESS_BOUNDS": "1,1,1",
                }
                for i in range(2)
            ],
        ),
    ],
)
def test_each_run_sees_one_accelerator(monkeypatch, platform, given, expected):
    monkeypatch.setattr(processes, "_ask_for_devices", lambda _: (platform, 2))
    found = processes.find_slots(2, given)
    assert [slot.environment for slot in found] == expected
    assert [slot.name for slot in found] == [f"{platform} 0", f"{platform} 1"]
    with pytest.raises(InputError, match=f"3 runs, 2 {platform} device"):
        processes.find_slots(3, given)


def test_devices_are_counted_by_another_process():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
    }
    assert processes._ask_for_devices(environment) == ("cpu", 3)
    with pytest.raises(InputError, match="devices that JAX can open"):
        processes._ask_for_devices(environment | {"JAX_PLATFORMS": "abacus"})


# Jobs.

WRITE = """
    import os, pathlib, sys, time
    begin = time.monotonic()
    time.sleep(0.3)
    pathlib.Path(sys.argv[1]).write_text(
        f"{begin} {time.monotonic()} {os.environ['SLOT']}"
    )
    print("hello from", sys.argv[1])
"""


def test_as_many_at_a_time_as_there_are_slots(tmp_path):
    jobs = {str(i): Job(python(WRITE, tmp_path / f"{i}.txt")) for i in range(5)}
    processes.run_jobs(jobs, slots(2), tmp_path)
    spans = {}
    for name in jobs:
        begin, end, slot = (tmp_path / f"{name}.txt").read_text().split()
        spans.setdefault(slot, []).append((float(begin), float(end)))
        assert (tmp_path / f"{name}.log").read_text().startswith("hello from")
    assert spans.keys() == {"0", "1"}
    for of_slot in spans.values():
        of_slot.sort()
        for (_, end), (begin, _) in itertools.pairwise(of_slot):
            assert end <= begin


def test_a_run_waits_for_the_file_that_it_needs(tmp_path):
    needed = tmp_path / "first.txt"
    jobs = {
        "second": Job(python(WRITE, tmp_path / "second.txt"), needed),
        "first": Job(python(WRITE, needed)),
    }
    processes.run_jobs(jobs, slots(2), tmp_path)
    first, second = (
        (tmp_path / f"{name}.txt").read_text().split() for name in ("first", "second")
    )
    assert float(second[0]) > float(first[1])


def test_a_file_of_before_will_not_do(tmp_path):
    needed = tmp_path / "first.txt"
    needed.write_text("old")
    os.utime(needed, (1e9, 1e9))
    jobs = {
        "second": Job(python(WRITE, tmp_path / "second.txt"), needed, time.time()),
        "first": Job(python(WRITE, needed)),
    }
    processes.run_jobs(jobs, slots(2), tmp_path)
    second = (tmp_path / "second.txt").read_text().split()
    assert float(second[0]) > float(needed.read_text().split()[1])


def test_a_failure_leaves_the_others_alone_and_is_told(tmp_path, capsys):
    jobs = {
        "bad": Job(python("import sys; print('no such folder'); sys.exit(2)")),
        "good": Job(python(WRITE, tmp_path / "good.txt")),
        "orphan": Job(python(WRITE, tmp_path / "orphan.txt"), tmp_path / "split.csv"),
    }
    with pytest.raises(InputError) as caught:
        processes.run_jobs(jobs, slots(1), tmp_path)
    assert caught.value.found == (
        "bad failed with exit code 2; orphan waited for one of them"
    )
    assert (tmp_path / "good.txt").is_file()
    assert not (tmp_path / "orphan.txt").exists()
    assert "    no such folder\n" in capsys.readouterr().out


def test_a_run_that_waits_for_what_no_other_writes_is_told(tmp_path):
    jobs = {
        "first": Job(python(WRITE, tmp_path / "first.txt")),
        "orphan": Job(python(WRITE, tmp_path / "orphan.txt"), tmp_path / "split.csv"),
    }
    with pytest.raises(InputError) as caught:
        processes.run_jobs(jobs, slots(2), tmp_path)
    assert caught.value.found == "orphan waited for a file that none of them wrote"


SAVER = """
    import signal, sys, time
    def save(*_):
        time.sleep(0.5)
        print("saved", flush=True)
        sys.exit(75)
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    time.sleep(60)
"""
PARENT = """
    import sys
    from pathlib import Path
    from jaxseg import backend, processes
    slot = processes.Slot("a", dict(PATH=""), frozenset(backend.usable_cores()))
    jobs = {name: processes.Job(sys.argv[2:]) for name in "ab"}
    processes.run_jobs(jobs, [slot, slot], Path(sys.argv[1]))
"""


def test_a_signal_is_handed_on_once_and_all_runs_save(tmp_path):
    parent = subprocess.Popen(
        python(PARENT, tmp_path, *python(SAVER)),
        cwd=ROOT,
        start_new_session=True,
        stderr=-1,
    )
    logs = [tmp_path / f"{name}.log" for name in "ab"]
    deadline = time.monotonic() + 60
    while not all(log.is_file() and "ready" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)  # as Ctrl-C on a terminal does
    _, errors = parent.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    assert [log.read_text() for log in logs] == ["ready\nsaved\n"] * 2


# The command line.


@pytest.fixture
def arguments(tmp_path):
    root = pairs(tmp_path / "data")
    config = ROOT / "configs" / "folder_segmentation.py"
    options = [f"--config.{key}" for key in (f"data.dir={root}", *SMALL, *SEGMENTATION)]
    return ["--config", str(config), *options]


def test_seeds_side_by_side(arguments, tmp_path):
    runs = tmp_path / "runs"
    command = [
        *(sys.executable, str(ROOT / "scripts" / "train.py"), *arguments),
        *("--workdir", str(runs), "--sweep", "seed=3,4"),
        *("--parallel", str(min(2, len(CORES)))),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    splits = {(runs / f"seed_{seed}" / "split.csv").read_bytes() for seed in (3, 4)}
    assert len(splits) == 1
    with (runs / "sweep.csv").open(newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    for seed in (3, 4):
        path = runs / f"seed_{seed}" / "test" / "metrics.json"
        metrics = json.loads(path.read_text())
        assert float(rows["loss"][f"seed_{seed}"]) == metrics["loss"]
        assert "epoch 1/" in (runs / f"seed_{seed}.log").read_text()
        record = json.loads((runs / f"seed_{seed}" / "config.json").read_text())
        assert record["config"]["seed"] == seed
        assert f"seed={seed}" in record["origin"]["overrides"]
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert again.stdout.count("is finished") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--parallel", "2"], "--parallel N for the runs of a --sweep"),
        (["--sweep", "seed=0,1", "--parallel", "4096"], "4096 runs, "),
        (["--sweep", "seed=0,1", "--like", "a"], "--config.data.split=a/split.csv"),
        (["--like", "nowhere"], "--like with the folder of a run"),
    ],
)
def test_options_that_do_not_fit(
    call, arguments, tmp_path, monkeypatch, options, words
):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    code, error = call("train", *arguments, "--workdir", tmp_path / "runs", *options)
    assert_message(code, error)
    assert words in error
    assert not (tmp_path / "runs").exists()
