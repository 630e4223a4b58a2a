"""The run folder: whose it is, what made it, whether this command may go on."""

import contextlib
import fnmatch
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxseg import config, files, hosts
from jaxseg.errors import InputError
from jaxseg.schema import flatten

# Keys that change nothing that was done: a run may go on with other values of them.
HARMLESS = {
    "data.dir",
    "data.cache",
    "data.cache_dir",
    "data.workers",
    "data.mm_per_pixel",
    "train.early_stop",
    "train.log_every",
    "train.log_to",
    "train.max_skipped",  # a run that it ended may go on with a larger one
    "train.preview",
    "train.profile_steps",
    "train.save_every",
    "train.shard_optimizer",
    "train.precision",  # what it resolves to is compared
}
LOCK = ".lock"
SWEEP = "sweep.json"
PACKAGES = ("jaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Holds the folder for this process; a new one that stays empty goes again.

    Of several processes that train together, process 0 holds it for all.

    Raises:
      InputError: another process holds it, or it cannot be made or written.
    """
    if not hosts.is_first():
        yield
        return
    is_new = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / LOCK).touch()
    except OSError as error:
        raise InputError(
            "a run folder that can be written",
            f"{workdir}: {error.strerror}",
            "--workdir runs/another-name",
        ) from None
    try:
        with files.exclusive(workdir / LOCK, wait=False):
            yield
    finally:
        if is_new and [path.name for path in workdir.iterdir()] == [LOCK]:
            shutil.rmtree(workdir)


def open_workdir(
    workdir: Path, run: config.Run, facts: dict[str, Any], *, restart: bool
) -> None:
    """Makes the folder ready: new, continued, or archived and new.

    Args:
      facts: what else config.json records, e.g. the content hash of the data.

    Raises:
      InputError: the folder holds a run of another config or of other data, or files
        that are no run.
    """
    record = {"config": config.to_dict(run), **facts, "environment": environment()}
    record = json.loads(json.dumps(record))
    path = workdir / "config.json"
    if path.is_file():
        old = read_record(workdir)
        if not restart:
            _refuse_difference(old, record, workdir)
            # Harmless keys hold from now on, for the scripts that read them here too.
            new = {key: record[key] for key in ("config", "origin") if record.get(key)}
            _write_record(path, {**old, **new})
            return
        _archive(workdir)
    # The last of them is what a killed process has written of config.json.
    ours = (LOCK, "*.archived", ".config.json.*")
    names = [path.name for path in workdir.iterdir()]
    strangers = [n for n in names if not any(fnmatch.fnmatchcase(n, o) for o in ours)]
    if strangers:
        raise InputError(
            "an empty or new folder, or one with a run in it",
            f"{workdir} holds {', '.join(sorted(strangers)[:5])} and no config.json",
            "--workdir runs/another-name",
        )
    _write_record(path, record)


def refuse_other_data(workdir: Path, data_hash: str, option: str = "--workdir") -> None:
    """Raises InputError when the run was made with other images, masks or labels."""
    old = read_record(workdir, option)["data_hash"]
    if old != data_hash:
        raise InputError(
            f"the data that {workdir} was trained on",
            f"content hash {data_hash[:12]} instead of {old[:12]}",
            "--config.data.dir with the folder of that run",
        )


def refuse_other_config(workdir: Path, run: config.Run) -> None:
    """Raises InputError when the run was made with another config."""
    record = json.loads(json.dumps({"config": config.to_dict(run)}))
    _refuse_difference(read_record(workdir), record, workdir)


def write_sweep(folder: Path, names: Iterable[str]) -> None:
    """Records which folders inside this one are the runs of a sweep."""
    with files.atomic_file(folder / SWEEP) as file:
        json.dump({"runs": list(names)}, file, indent=2)


def sweep_folders(folder: Path) -> list[Path]:
    """The folders of a sweep's runs that have begun; [] for any other folder."""
    try:
        names = files.parse_json((folder / SWEEP).read_text("utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or another program's
        return []
    return [folder / n for n in names if (folder / n / "config.json").is_file()]


def is_finished(workdir: Path) -> bool:
    """Whether the run was trained, judged and saved; model.json is written last.

    One that becomes longer is not, from its first new epoch until it is judged again.
    """
    if not (workdir / "model" / "model.json").is_file():
        return False
    try:
        rows = (workdir / "metrics.csv").read_text("utf-8").splitlines()
    except OSError:
        return True
    return len(rows) == 1 + read_model(workdir).get("epochs", len(rows) - 1)


def read_model(workdir: Path) -> dict[str, Any]:
    """model.json of the run; {} without one, or where it is damaged."""
    try:
        text = (workdir / "model" / "model.json").read_text("utf-8")
        described = files.parse_json(text)
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def length_of(train: config.Train) -> dict[str, int | None]:
    """What a run may be asked for anew: more epochs, or to stop later."""
    return {"epochs": train.epochs, "early_stop": train.early_stop}


def judged_part(workdir: Path) -> str:
    """The part that a finished run was judged on: 'test', or 'val' without a test."""
    described = files.parse_json((workdir / "model" / "model.json").read_text("utf-8"))
    (part,) = described["metrics"]
    return part


def read_metrics(workdir: Path) -> dict[str, float | None]:
    """Metrics of the judged part of a finished run; None where one is undefined.

    Raises:
      InputError: the file is gone.
    """
    part = judged_part(workdir)
    path = workdir / part / "metrics.json"
    if not path.is_file():
        raise InputError(
            "the metrics of a finished run",
            f"no file {path}",
            f"python scripts/evaluate.py --workdir {workdir} --split {part}",
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(workdir: Path, option: str = "--workdir") -> dict[str, Any]:
    """What config.json of a run folder holds.

    Args:
      option: which one named the folder.

    Raises:
      InputError: there is none, or it is another program's.
    """
    path, fix = workdir / "config.json", f"{option} with the folder of a run"
    if not path.is_file():
        raise InputError("the folder of a run", f"no file {path}", fix)
    try:
        record = files.parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"config", "data_hash"} <= record.keys():
        raise InputError("the folder of a run", f"{path} of another program", fix)
    return record


def _write_record(path: Path, record: dict[str, Any]) -> None:
    with files.atomic_file(path) as file:
        json.dump(record, file, indent=2)


def environment() -> dict[str, Any]:
    """Versions, device and commit that a result depends on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": device(),
        "commit": _commit(),
    }


def _commit() -> str:
    """Of the checkout that this code is; '' for an installed package."""
    root = Path(__file__).parents[1]
    if shutil.which("git") is None or not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def device() -> str:
    """E.g. '1 x NVIDIA H200'."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _harmless(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Keys that may differ; a run may become longer where nothing knew its length.

    Args:
      before, after: configs, flat.
    """
    knows_length = (
        after["optim.schedule"] == "cosine"
        or after.get("train.sizes")
        or after.get("task.dynamic")
    )
    if knows_length or after["train.epochs"] < before["train.epochs"]:
        return HARMLESS
    return HARMLESS | {"train.epochs"}


def _refuse_difference(old: dict, new: dict, workdir: Path) -> None:
    before, after = flatten(old["config"]), flatten(new["config"])
    harmless = _harmless(before, after)
    different = [
        f"config.{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in harmless
    ]
    for fact in ("data_hash", "precision"):
        if fact in new and old[fact] != new[fact]:
            different.append(f"{fact}: {old[fact]} there, {new[fact]} now")
    if different:
        raise InputError(
            f"the config and data of the run that {workdir} holds",
            "\n  ".join([f"{len(different)} difference(s):", *different]),
            "--workdir runs/another-name, or --restart to archive the old run",
        )


def _archive(workdir: Path) -> None:
    """Moves everything of the old run into NNN.archived inside the folder.

    config.json goes last: were it gone before a kill, the rest would be strangers.
    """
    paths = list(workdir.iterdir())
    numbers = [re.fullmatch(r"(\d+)\.archived", path.name) for path in paths]
    number = max((int(found[1]) for found in numbers if found), default=0) + 1
    archive = workdir / f"{number:03d}.archived"
    archive.mkdir()
    old = [p for p in paths if p.suffix != ".archived" and p.name != LOCK]
    for path in sorted(old, key=lambda path: path.name == "config.json"):
        path.rename(archive / path.name)
