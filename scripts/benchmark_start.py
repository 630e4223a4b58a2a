"""What `benchmark.py start` measures: imports, and the time to the first step."""

import csv
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import command_line

from jaxseg import run as program
from jaxseg.errors import InputError

TRAIN = Path(__file__).with_name("train.py")
IMPORTS = 5
STEP_IS_COMPILED = re.compile(r"- (\d+ train steps|train step) for ")


def measure_start(config: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Seconds from the start of a process, by what they lead to.

    Raises:
      InputError: the config is wrong, or the run ends before its first epoch does.
    """
    run = command_line.load_config(config, overrides, program.SCHEMAS)
    seconds = {}
    for module in ("jaxseg", "jaxseg.run"):
        times = [_seconds_to_import(module) for _ in range(IMPORTS)]
        seconds[f"import {module}"] = statistics.median(times)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, TRAIN, "--config", config]
        command += [f"--config.{text}" for text in overrides]
        if run.data.source.name == "synthetic":
            command.append(f"--config.data.dir={folder / 'data'}")
        for state in ("cold", "warm"):
            compiled, ready, speed = _first_epoch(command, folder, folder / state)
            seconds[f"train step compiled, {state}"] = compiled
            seconds[f"first step, {state}"] = ready + run.train.batch_size / speed
    return seconds


def _seconds_to_import(module: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - started


def _first_epoch(
    command: list, folder: Path, workdir: Path
) -> tuple[float, float, float]:
    """Seconds until the step is compiled, and images decoded too; images a second."""
    environment = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    started, compiled, ready, lines = time.perf_counter(), math.nan, math.nan, []
    with subprocess.Popen(
        [*command, "--workdir", workdir],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    ) as process:
        for line in process.stdout:
            lines.append(line)
            if STEP_IS_COMPILED.match(line) or line.startswith("Decoding images: "):
                ready = time.perf_counter() - started
            if STEP_IS_COMPILED.match(line):
                compiled = ready
            if line.startswith("epoch 1/"):
                process.send_signal(signal.SIGTERM)
                break
        process.communicate()  # it saves itself before it ends
    if not (workdir / "metrics.csv").is_file():
        print("".join(lines))
        raise InputError(
            "a run that finishes its first epoch",
            f"exit code {process.returncode}; its words are above",
            f"python scripts/train.py --config {command[3]} --workdir runs/try",
        )
    with (workdir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        speed = float(next(csv.DictReader(file))["images_per_second"])
        return compiled, ready, speed
