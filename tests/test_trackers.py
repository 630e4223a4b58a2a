"""Weights & Biases and MLflow get every row; stand-ins take their places."""

import json
import sys
import types

import pytest

from jaxseg import trackers
from jaxseg.errors import InputError
from jaxseg.trackers import open_trackers
from jaxseg.writer import Writer, read_history

SETTINGS = {"seed": 0, "train.batch_size": 8}


class FakeWandb(types.ModuleType):
    """Keeps what it is told, by run id."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace()
        self.runs, self.finished = {}, []

    def init(self, *, project, name, dir, config, id, resume):
        assert (project, resume) == ("jaxseg", "allow")
        id = id or f"w{len(self.runs)}"
        self.runs.setdefault(id, {"name": name, "config": config, "rows": {}})

        def log(row, step):
            self.runs[id]["rows"][step] = row

        return types.SimpleNamespace(
            id=id, log=log, finish=lambda: self.finished.append(id)
        )


class FakeMlflow(types.ModuleType):
    def __init__(self):
        super().__init__("mlflow")
        self.__spec__ = types.SimpleNamespace()
        self.runs, self.current = {}, None

    def start_run(self, *, run_id, run_name):
        self.current = run_id or f"m{len(self.runs)}"
        self.runs.setdefault(self.current, {"name": run_name, "params": [], "rows": {}})
        info = types.SimpleNamespace(run_id=self.current)
        return types.SimpleNamespace(info=info)

    def log_params(self, params):
        self.runs[self.current]["params"].append(params)

    def log_metrics(self, metrics, step):
        self.runs[self.current]["rows"][step] = metrics

    def end_run(self):
        self.current = None


@pytest.fixture
def packages(monkeypatch):
    found = FakeWandb(), FakeMlflow()
    for package in found:
        monkeypatch.setitem(sys.modules, package.__name__, package)
    return found


def write_epoch(workdir, step, **row):
    config = {"seed": 0, "train": {"batch_size": 8}}
    (workdir / "config.json").write_text(json.dumps({"config": config}))
    writer = Writer(workdir, [], ("wandb", "mlflow"))
    writer.write(step, row, {})
    writer.close()


def test_every_row_arrives_and_a_resumed_run_goes_on_in_its_place(packages, tmp_path):
    wandb, mlflow = packages
    workdir = tmp_path / "mine"
    workdir.mkdir()
    write_epoch(workdir, 10, epoch=1, loss=0.5)
    write_epoch(workdir, 20, epoch=2, loss=float("nan"))
    assert list(wandb.runs) == ["w0"]
    assert list(mlflow.runs) == ["m0"]
    assert wandb.runs["w0"]["name"] == mlflow.runs["m0"]["name"] == "mine"
    assert wandb.runs["w0"]["config"] == SETTINGS
    assert mlflow.runs["m0"]["params"] == [{"seed": "0", "train.batch_size": "8"}]
    assert wandb.runs["w0"]["rows"][10] == {"epoch": 1, "loss": 0.5}
    assert mlflow.runs["m0"]["rows"] == {
        10: {"epoch": 1, "loss": 0.5},
        20: {"epoch": 2},
    }
    assert wandb.finished == ["w0", "w0"]
    assert mlflow.current is None


def fail(*args, **options):
    raise ConnectionError("nobody answers")


def test_a_tracker_that_fails_is_told_once_and_training_goes_on(
    packages, tmp_path, monkeypatch, capsys
):
    wandb, mlflow = packages
    monkeypatch.setattr(mlflow, "log_metrics", fail)
    (tmp_path / "config.json").write_text(json.dumps({"config": {}}))
    writer = Writer(tmp_path, [], ("mlflow", "wandb"))
    for step in (1, 2):
        writer.write(step, {"epoch": step}, {})
    monkeypatch.setattr(wandb, "finished", None)  # to finish fails as well
    writer.close()
    told = capsys.readouterr().out
    assert told.count("Mlflow gets no more rows: ConnectionError: nobody answers") == 1
    assert told.count("Wandb gets no more rows: AttributeError") == 1
    assert list(wandb.runs["w0"]["rows"]) == [1, 2]
    assert [row["epoch"] for row in read_history(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "way_in", "fix"),
    [("wandb", "init", "wandb login"), ("mlflow", "start_run", "MLFLOW_TRACKING_URI")],
)
def test_a_tracker_that_does_not_let_us_in_is_wrong_input(
    packages, tmp_path, monkeypatch, name, way_in, fix
):
    monkeypatch.setattr(sys.modules[name], way_in, fail)
    (tmp_path / "config.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(InputError, match="ConnectionError: nobody answers") as refusal:
        Writer(tmp_path, [], (name,))
    assert fix in refusal.value.fix
    assert not (tmp_path / trackers.IDS).exists()


def test_another_folder_is_another_run(packages, tmp_path):
    wandb, _ = packages
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_epoch(tmp_path / name, 1, epoch=1)
    assert [run["name"] for run in wandb.runs.values()] == ["a", "b"]


def test_nothing_is_imported_or_written_unless_asked(tmp_path):
    assert open_trackers((), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="mlflow not installed") as refusal:
        trackers.refuse_missing(("mlflow",))
    assert 'pip install "jaxseg[mlflow]"' in refusal.value.fix
