"""Several processes train one run: real ones, that meet on this machine."""

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from test_loop import SCRIPTS, parse, read_rows, tree, wait_for

from jaxseg import backend, experiment, files, hosts, parallel, run
from jaxseg.data.pipeline import EvalLoader
from jaxseg.errors import InputError

EPOCHS = 8
OPTIONS = dict(epochs=EPOCHS, shard_optimizer=True)
NOTHING = hosts.Place(None, None, None)
SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}

# Counts the samples that a process reads, and tells at its end.
WORKER = f"""
import atexit, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from jaxseg.data.cache import Decoded
read, plain = [], Decoded.read
def counted(self, positions, out):
    read.append(len(positions))
    plain(self, positions, out)
Decoded.read = counted
atexit.register(lambda: print("samples read:", sum(read), flush=True))
import command_line, train
command_line.main(train.run)
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(folder, count, num_devices, logs, *, last=()):
    """So many processes of one run, each with its log file; `last` only to the last."""
    config_file = folder / "config.py"
    config_file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({tree(folder, **OPTIONS)!r})\n"
    )
    flags = "--xla_backend_optimization_level=0"
    flags += f" --xla_force_host_platform_device_count={num_devices}"
    if backend.has_jaxlib(0, 12):
        flags += " --xla_cpu_experimental_onednn_custom_call=false"
    command = [sys.executable, "-u", "-c", WORKER, "--config", str(config_file)]
    command += ["--workdir", str(folder / "run"), "--num_processes", str(count)]
    command += ["--coordinator", f"127.0.0.1:{free_port()}", "--process_id"]
    processes = []
    for number in range(count):
        own = last if number == count - 1 else ()
        with (logs / f"{count}_{number}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, str(number), *own],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
                )
            )
    return processes


def log_of(logs, count, number):
    return (logs / f"{count}_{number}.log").read_text()


def end(processes):
    return [process.wait(timeout=240) for process in processes]


def test_a_run_on_two_processes_loses_one_and_ends_on_four_like_a_run_in_one(tmp_path):
    """Two devices each, then one each; each time the rerun goes on.

    First one of two gets a signal, then one of two is killed.
    """
    workdir = tmp_path / "run"
    checkpoints = workdir / "checkpoints"
    both = launch(tmp_path, 2, 2, tmp_path)
    wait_for(checkpoints, "step_*/progress")
    both[1].send_signal(signal.SIGTERM)
    assert end(both) == [75, 75]
    text = log_of(tmp_path, 2, 0)
    (stopped,) = re.findall("a signal to another process at step ([0-9]+)", text)
    record = tree(tmp_path, epochs=EPOCHS)
    built = experiment.build_experiment(parse(record), workdir / "split.csv")
    steps = built.phases[0].loader.steps_per_epoch
    epochs_done = int(stopped) // steps

    first, second = launch(tmp_path, 2, 2, tmp_path)
    wait_for(checkpoints, f"step_{(epochs_done + 1) * steps}/progress")
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert first.wait(timeout=60) not in (0, second.wait())
    assert time.monotonic() - killed < 60
    text = log_of(tmp_path, 2, 0)
    assert "another process is lost" in text or "unhealthy" in text

    assert end(launch(tmp_path, 4, 1, tmp_path)) == [0, 0, 0, 0]
    (done,) = re.findall("goes on from step ([0-9]+)", log_of(tmp_path, 4, 0))
    left = EPOCHS - int(done) / steps
    assert 0 < left < EPOCHS
    # A quarter of every batch of 8; what process 0 draws and judges comes on top.
    batches = left * (steps + len(built.eval_loader("val")))
    for number in (1, 2, 3):
        assert f"samples read: {2 * batches:.0f}\n" in log_of(tmp_path, 4, number)
        assert "epoch" not in log_of(tmp_path, 4, number)

    run.run(parse(record), tmp_path / "alone")
    ours, alone = read_rows(workdir), read_rows(tmp_path / "alone")
    assert len(ours) == EPOCHS
    for name in alone[0]:
        columns = [[float(row[name]) for row in rows] for rows in (ours, alone)]
        # Of the metrics at a threshold a rounding may move one pixel.
        loose = "loss" not in name
        np.testing.assert_allclose(*columns, rtol=1e-3, atol=0.02 * loose, err_msg=name)
    assert (workdir / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            "learning_rate",
            "config.optim.learning_rate: '0.01' in process 0, '0.5' in 2",
        ),
        ("rate", "config.optim.rate: there is no such key"),
    ],
)
def test_another_config_in_one_of_three_processes_ends_all_with_one_message(
    tmp_path, other, told
):
    last = [f"--config.optim.{other}=0.5"]
    assert end(launch(tmp_path, 3, 1, tmp_path, last=last)) == [2, 2, 2]
    texts = [log_of(tmp_path, 3, number) for number in range(3)]
    assert told in texts[0]
    assert all("expected" not in text for text in texts[1:])
    assert not (tmp_path / "run").exists()


def test_a_folder_that_process_0_cannot_have_ends_the_others_too(tmp_path):
    with files.exclusive(tmp_path / "run" / ".lock", wait=False):
        assert end(launch(tmp_path, 2, 1, tmp_path)) == [2, 2]
    assert "another process is working in it" in log_of(tmp_path, 2, 0)
    assert "expected" not in log_of(tmp_path, 2, 1)


@pytest.mark.parametrize(
    ("kind", "is_first", "is_said"),
    [
        (InputError, True, True),
        (InputError, False, True),
        (hosts.SharedError, True, True),
        (hosts.SharedError, False, False),
    ],
)
def test_a_refusal_is_said_by_whom_it_meets_and_once_where_it_meets_all(
    monkeypatch, capsys, kind, is_first, is_said
):
    def refuse(arguments):
        raise kind("room", "none", "less")

    monkeypatch.syspath_prepend(SCRIPTS)
    command_line = importlib.import_module("command_line")
    monkeypatch.setattr(backend, "set_xla_flags", lambda: None)
    monkeypatch.setattr(hosts, "is_first", lambda: is_first)
    with pytest.raises(SystemExit) as stopped:
        command_line.main(refuse)
    assert stopped.value.code == 2
    assert ("expected: room" in capsys.readouterr().err) == is_said


def test_processes_that_never_come_are_waited_for_and_named(tmp_path):
    command = [sys.executable, str(SCRIPTS / "train.py"), "--config", "none.py"]
    command += ["--workdir", str(tmp_path), "--num_processes", "2", "--patience", "2"]
    done = subprocess.run(
        [*command, "--process_id", "1", "--coordinator", f"127.0.0.1:{free_port()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "process 1 waited 2 s for the others" in done.stderr


def test_one_process_needs_no_others():
    assert hosts.find_place(NOTHING, {}) is None
    assert (
        hosts.find_place(NOTHING, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
        is None
    )
    assert hosts.find_place(NOTHING, {"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    # A batch script outside `srun` is one process of a job of many tasks.
    assert hosts.find_place(NOTHING, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None


def test_the_cluster_or_the_command_line_tells_the_place():
    open_mpi = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "1"}
    assert hosts.find_place(NOTHING, SLURM) == (None, 4, 2)
    assert hosts.find_place(NOTHING, open_mpi) == (None, 3, 1)
    assert hosts.find_place(NOTHING, {"TPU_WORKER_HOSTNAMES": "a,b"}) == (None, 2, None)
    given = hosts.Place("host:1", 2, 0)
    assert hosts.find_place(given, {}) == given


@pytest.mark.parametrize(
    ("given", "variables", "found"),
    [
        (hosts.Place(None, 2, None), SLURM, "--num_processes 2"),
        (hosts.Place(None, 4, 1), SLURM, "--process_id 1"),
        (hosts.Place("host:1", 2, 2), {}, "--process_id 2"),
        (hosts.Place("host:1", None, None), {}, "none on the command line"),
        (hosts.Place(None, None, 0), {}, "none on the command line"),
    ],
)
def test_contradictions_are_refused(given, variables, found):
    with pytest.raises(InputError) as refused:
        hosts.find_place(given, variables)
    assert found in refused.value.found


def test_loaders_deal_every_row_once(tmp_path):
    """Shares of a process, put side by side, are the batch that one process reads."""
    built = experiment.build_experiment(parse(tree(tmp_path)))
    assert parallel.local_rows(8, built.mesh).tolist() == list(range(8))
    source, labels = built.dataset.source, built.dataset.labels
    options = dict(batch_size=8, workers=1)
    positions = built.split.indices("train")[:13]  # fills no batch
    (*whole,) = EvalLoader(source, labels, positions, **options)
    halves = [np.arange(4), np.arange(4, 8)]
    shares = [EvalLoader(source, labels, positions, rows=h, **options) for h in halves]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, values in batch.items():
            dealt = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(dealt, values, err_msg=name)
    places = np.concatenate([share.places() for share in shares])
    np.testing.assert_array_equal(np.sort(places), np.arange(16))
