"""The steps that `benchmark.py suite` times one after the other against PyTorch."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGE = "model.widths=(64, 128, 256, 512, 1024)"
SMP = "model.encoder=smp_efficientnet_{}"
# What matters most comes first: later ones may lack the time. Batches that fill a GPU,
# and some that do not.
CASES: tuple[tuple[str, ...], ...] = (
    ("folder_segmentation", "data.image_size=(256, 256)", "train.batch_size=32"),
    ("folder_segmentation", "data.image_size=(512, 512)", "train.batch_size=16", LARGE),
    ("speedlines", "train.batch_size=32"),
    ("speedlines", "train.batch_size=32", SMP.format("b0")),
    ("crack_segmentation", "train.batch_size=8"),
    ("crack_segmentation", "train.steps_per_call=8"),
    ("sdnet",),
    ("folder_segmentation", "train.batch_size=1", "train.steps_per_call=8"),
    ("speedlines", "train.batch_size=4", "train.steps_per_call=8"),
    ("speedlines", "train.batch_size=32", SMP.format("b1")),
    ("crack_segmentation", "train.batch_size=32"),
)


def command_of(case: Sequence[str], options: Sequence[str]) -> list[str]:
    """The command line that times a case."""
    name, *overrides = case
    script = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "step"]
    config = ["--config", str(Path("configs") / f"{name}.py"), "--against", "torch"]
    changes = [f"--config.{override}" for override in overrides]
    return [*script, *config, *options, *changes]


def run_suite(first: int, options: Sequence[str], seconds: float) -> int:
    """Times cases, from the given number on, until the time is over.

    Returns:
      How many failed.
    """
    deadline, done, failed = time.monotonic() + seconds, 0, 0
    for number, case in enumerate(CASES[first - 1 :], start=first):
        left = deadline - time.monotonic()
        print(f"- {number} of {len(CASES)}: {' '.join(case)}", flush=True)
        code = run_for(left, command_of(case, options))
        if code is None:
            print(f"- the time is over; the rest: --first {number}")
            break
        done += code == 0
        failed += code != 0
    print(f"- {done} measured, {failed} failed")
    return failed


def run_for(seconds: float, command: Sequence[str]) -> int | None:
    """The exit code of a program; None where it took longer, and was ended."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:  # with its own children, also after Ctrl-C
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
