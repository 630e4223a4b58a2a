"""Numbers of a run in Weights & Biases and MLflow, for those who look there.

Off unless `train.log_to` names them. A resumed run goes on in the same place: the ids
are kept in the run folder.
"""

import importlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxseg import files
from jaxseg.errors import InputError
from jaxseg.schema import flatten

IDS = "trackers.json"
"""In the run folder: name of a tracker -> its id of the run."""


class Tracker(Protocol):
    """One place that numbers go to."""

    id: str

    def log(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Wandb:
    """Needs the account that `wandb login` remembers, or WANDB_MODE=offline."""

    def __init__(self, workdir: Path, settings: Mapping[str, Any], id: str | None):
        self._run = importlib.import_module("wandb").init(
            project="jaxseg",
            name=workdir.name,
            dir=str(workdir),
            config=dict(settings),
            id=id,
            resume="allow",
        )
        self.id = self._run.id

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """Goes where MLFLOW_TRACKING_URI says."""

    def __init__(self, workdir: Path, settings: Mapping[str, Any], id: str | None):
        self._module = importlib.import_module("mlflow")
        started = self._module.start_run(run_id=id, run_name=workdir.name)
        self.id = started.info.run_id
        if id is None:  # a parameter is written once
            self._module.log_params({k: str(v) for k, v in settings.items()})

    def log(self, step: int, row: Mapping[str, float]) -> None:
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self._module.log_metrics(finite, step=step)

    def close(self) -> None:
        self._module.end_run()


TRACKERS = {"wandb": Wandb, "mlflow": Mlflow}

FIXES = {
    "wandb": "wandb login, or WANDB_MODE=offline before the command",
    "mlflow": "MLFLOW_TRACKING_URI with a server that answers, or with a folder",
}
"""When a tracker cannot be opened."""


def refuse_missing(names: Sequence[str]) -> None:
    """Trackers whose package is not installed.

    Raises:
      InputError: with the line that installs them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"the packages of config.train.log_to={tuple(names)}",
            f"{', '.join(missing)} not installed",
            f'pip install "jaxseg[{",".join(missing)}]", or --config.train.log_to="()"',
        )


def open_trackers(names: Sequence[str], workdir: Path) -> list[Tracker]:
    """Those that are asked for, where the run has been before if it has.

    Args:
      names: of `TRACKERS`.
      workdir: has the config.json of the run.

    Raises:
      InputError: one of them does not let us in.
    """
    if not names:
        return []
    record = json.loads((workdir / "config.json").read_text("utf-8"))
    settings = flatten(record["config"])
    path = workdir / IDS
    ids = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    opened = {name: _open(name, workdir, settings, ids.get(name)) for name in names}
    with files.atomic_file(path) as file:
        json.dump(ids | {name: tracker.id for name, tracker in opened.items()}, file)
    return list(opened.values())


def _open(
    name: str, workdir: Path, settings: Mapping[str, Any], id: str | None
) -> Tracker:
    try:
        return TRACKERS[name](workdir, settings, id)
    except Exception as error:  # whatever their packages raise without login or server
        raise InputError(
            f"{name} to take the numbers of config.train.log_to",
            f"{type(error).__name__}: {error}",
            f'{FIXES[name]}; or --config.train.log_to="()"',
        ) from error
