"""The commands and manifests of docs/running.md are ones that scripts accept."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxseg import experiment

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "running.md").read_text()
SHELL = re.findall(r"```(?:bash|slurm)\n(.*?)```", PAGE, re.S)
(MANIFEST,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
sys.path.insert(0, str(ROOT / "scripts"))

import command_line  # noqa: E402
import train  # noqa: E402


def commands():
    """Arguments of every `python scripts/train.py` of the page."""
    for text in SHELL:
        for line in text.replace("\\\n", " ").splitlines():
            if "scripts/train.py" in line:
                words = shlex.split(line.split("scripts/train.py")[1].split(";")[0])
                yield words
    yield pod()["containers"][0]["command"][2:]


def job():
    (replicated,) = yaml.safe_load(MANIFEST)["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def pod():
    return job()["template"]["spec"]


def test_the_page_has_a_command_for_every_place():
    assert len(list(commands())) == 6


@pytest.mark.parametrize("arguments", [*commands()], ids=lambda words: words[-1])
def test_commands_are_accepted(arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = [a.replace("$(JOB_COMPLETION_INDEX)", "3") for a in arguments]
    plain, overrides = command_line.split_overrides(arguments)
    options = train.make_parser().parse_args(plain)
    runs = command_line.load_sweep(
        options.config, overrides, experiment.SCHEMAS, options.sweep or ["seed=0"]
    )
    assert len(runs) >= (options.parallel or 1)
    assert all(run.data.dir.endswith("SDNET2018") for run in runs.values())


@pytest.mark.parametrize("text", SHELL)
def test_shell_parses(text):
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_manifest_agrees_with_itself():
    """As many pods as processes, the first one's address, and volumes that exist."""
    manifest, spec = yaml.safe_load(MANIFEST), job()
    (container,) = pod()["containers"]
    plain, _ = command_line.split_overrides(container["command"][2:])
    given = dict(word.removeprefix("--").split("=", 1) for word in plain)
    count = int(given["num_processes"])
    assert spec["parallelism"] == spec["completions"] == count
    assert spec["completionMode"] == "Indexed"  # or there is no JOB_COMPLETION_INDEX
    name = manifest["metadata"]["name"]
    (replicated,) = manifest["spec"]["replicatedJobs"]
    first = f"{name}-{replicated['name']}-0-0.{name}"
    assert given["coordinator"].split(":")[0] == first
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod()["volumes"]}
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [command_line.WRONG_INPUT]
