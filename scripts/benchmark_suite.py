"""The steps that `benchmark.py suite` times one after the other against PyTorch."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGE = "model.widths=(64, 128, 256, 512, 1024)"
SMP = "model.encoder=smp_efficientnet_{}"
# What matters most comes first: later ones may lack the time. Every size that users
# train, a batch that fills a GPU and batches that do not.
CELLS: tuple[tuple[str, ...], ...] = (
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


def command_of(cell: Sequence[str], options: Sequence[str]) -> list[str]:
    """The command line that times a cell."""
    name, *overrides = cell
    script = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "step"]
    config = ["--config", str(Path("configs") / f"{name}.py"), "--against", "torch"]
    changes = [f"--config.{override}" for override in overrides]
    return [*script, *config, *options, *changes]


def run_suite(options: Sequence[str], seconds: float) -> int:
    """Times cells until the time is over; says which had none left, or failed.

    Returns:
      How many failed.
    """
    deadline, failed, done = time.monotonic() + seconds, 0, 0
    for cell in CELLS:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        print(f"- {' '.join(cell)}, {left:.0f} s left", flush=True)
        try:
            ended = subprocess.run(command_of(cell, options), cwd=ROOT, timeout=left)
        except subprocess.TimeoutExpired:
            print("- the time was over before it was measured")
            break
        done += 1
        failed += ended.returncode != 0
    print(f"- {done - failed} of {len(CELLS)} measured, {failed} failed")
    return failed
