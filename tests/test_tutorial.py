"""The tutorial is run as it stands: its commands, its program, what it shows."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def launch(commands, folder, cache):
    """Runs a block of shell commands as a reader would; exit code and what it said."""
    (folder / "bin").mkdir(exist_ok=True)
    python = folder / "bin" / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        # Not the eight devices of other tests.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tutorial_runs_as_it_stands(tmp_path, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = FENCE.findall((ROOT / "docs" / "tutorial.md").read_text())
    assert [kind for kind, _ in blocks].count("sh") == 8
    printed = ""
    for (kind, text), (following, shown) in zip(
        blocks, [*blocks[1:], ("", "")], strict=True
    ):
        if kind == "python":
            assert text in printed  # export prints this very program
            (tmp_path / "use.py").write_text(text)
        if kind != "sh":
            continue
        code, printed = launch(text, tmp_path, cache)
        lines = shown.splitlines() if following == "text" else []
        is_refused = any(line.startswith("fix:") for line in lines)
        assert code == (2 if is_refused else 0), printed
        assert "Traceback" not in printed
        for line in lines:
            assert line in printed

    # What the text says lies there.
    assert "<html" in (tmp_path / "check" / "check.html").read_text()
    assert "<html" in (tmp_path / "runs" / "photos" / "report.html").read_text()
    json.loads((tmp_path / "runs" / "photos" / "test" / "metrics.json").read_text())
    images = {path.stem for path in (tmp_path / "photos" / "images").iterdir()}
    with (tmp_path / "found" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["name"]).stem for row in rows} == images
    for row in rows:
        pixels, millimetres = row["length/crack"], row["length_mm/crack"]
        assert float(millimetres) == pytest.approx(0.2 * float(pixels), abs=0.01)
        with Image.open(tmp_path / "found" / row["mask"]) as mask:
            assert mask.size == (int(row["width"]), int(row["height"]))
    assert len(list((tmp_path / "found" / "overlays").iterdir())) == len(images)
    assert (tmp_path / "found" / "components.csv").is_file()
    # Parts of one photo are on one side of the split.
    with (tmp_path / "runs" / "photos" / "split.csv").open(newline="") as file:
        parts = list(csv.DictReader(file))
    assert len({row["group"] for row in parts}) == 16
    assert len({(row["group"], row["split"]) for row in parts}) == 16
