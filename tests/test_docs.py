"""What the README and the scripts promise exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import command_line  # noqa: E402

from jaxseg.config import to_dict  # noqa: E402
from jaxseg.vocabulary import SCHEMAS  # noqa: E402

README = (ROOT / "README.md").read_text()
SCRIPTS = sorted(
    path
    for path in (ROOT / "scripts").glob("*.py")
    # The twin is a child process for a Python that has PyTorch.
    if "__main__" in path.read_text() and path.stem != "torch_twin"
)


def test_files_that_the_readme_names_exist():
    named = re.findall(r"(?:scripts|configs|docs|jaxseg)/[\w/.]+\.(?:py|md)", README)
    named += [
        f"configs/{name}" for name in re.findall(r"^\| `(\w+\.py)`", README, re.M)
    ]
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_readme_names_every_config():
    assert all(f"`{path.name}`" in README for path in (ROOT / "configs").glob("*.py"))


def test_keys_in_place_of_published_parameters_are_keys_of_segdecnet():
    page = (ROOT / "docs" / "segdecnet.md").read_text()
    keys = set(re.findall(r"\b((?:task|model|data|optim|train)\.\w+)", page))
    assert len(keys) > 15
    path = ROOT / "configs" / "kolektor_sdd.py"
    tree = to_dict(command_line.load_config(path, [], SCHEMAS))
    unknown = [key for key in keys if key.split(".")[1] not in tree[key.split(".")[0]]]
    assert unknown == []


def test_the_gate_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"\S*python (-m pytest .*)$", README, re.M)
    assert command in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_explains_itself(script):
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_importing_the_package_is_instant_and_needs_nothing():
    code = "import sys, jaxseg; print(sorted({'jax', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
