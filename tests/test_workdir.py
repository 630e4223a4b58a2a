"""The run folder: what may go on in it, and what an interruption leaves of it."""

import pytest
import tiny_models as tiny
from test_loop import parse, tree

from jaxseg import workdir
from jaxseg.errors import InputError

FACTS = {"data_hash": "0" * 64, "precision": "float32"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def open_workdir(
    folder,
    *,
    restart=False,
    data=None,
    optim=None,
    task=None,
    loss=None,
    origin=None,
    **train,
):
    record = tree(folder.parent, **train)
    record["data"] |= data or {}
    record["optim"] |= optim or {}
    record["task"] = task or record["task"]
    record["loss"] = record["loss"] if loss is None else loss
    facts = FACTS | ({"origin": origin} if origin else {})
    workdir.open_workdir(folder, parse(record), facts, restart=restart)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_goes_on_takes_over_what_may_differ(folder):
    """evaluate.py reads config.json, and would judge with what was there before."""
    open_workdir(folder)
    before = workdir.read_record(folder)
    moved = dict(dir="/moved", mm_per_pixel=0.2)
    harmless = dict(log_to=("mlflow",), profile_steps=(2, 4))
    open_workdir(folder, data=moved, origin={"overrides": ["a"]}, **harmless)
    after = workdir.read_record(folder)
    config = before["config"]
    config["data"] |= moved
    config["train"] |= dict(log_to=["mlflow"], profile_steps=[2, 4])
    assert after == before | {"origin": {"overrides": ["a"]}}


def test_a_refused_config_leaves_the_record_as_it_was(folder):
    open_workdir(folder)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(InputError, match="seed: 1 there, 2 now"):
        open_workdir(folder, data=dict(seed=2, mm_per_pixel=0.2))
    assert (folder / "config.json").read_bytes() == before


def test_a_run_may_become_longer_where_no_step_depends_on_its_length(folder):
    constant = {"schedule": "constant"}
    open_workdir(folder, optim=constant)
    open_workdir(folder, optim=constant, epochs=9, early_stop=5)
    assert workdir.read_record(folder)["config"]["train"]["epochs"] == 9
    with pytest.raises(InputError, match=r"train\.epochs: 9 there, 8 now"):
        open_workdir(folder, optim=constant, epochs=8)


@pytest.mark.parametrize("bound", ["cosine", "sizes", "dynamic"])
def test_what_depends_on_the_length_of_a_run_keeps_it(folder, bound):
    groups = {} if bound == "cosine" else {"optim": {"schedule": "constant"}}
    short, long = {}, {}
    if bound == "sizes":
        short, long = (
            {"sizes": ((16, 2), (32, epochs - 2)), "epochs": epochs}
            for epochs in (4, 9)
        )
    if bound == "dynamic":
        groups |= {"task": tiny.SEGDEC, "loss": {}}
    open_workdir(folder, **groups, early_stop=2, **short)
    with pytest.raises(InputError, match=r"train\.epochs: 4 there, 9 now"):
        open_workdir(folder, **groups, early_stop=3, **{"epochs": 9} | long)


def test_a_run_that_becomes_longer_is_not_finished_until_it_is_judged(folder):
    assert not workdir.is_finished(folder)
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text('{"epochs": 2}')
    for rows, is_finished in (("1\n2\n", True), ("1\n2\n3\n", False)):
        (folder / "metrics.csv").write_text(f"epoch\n{rows}")
        assert workdir.is_finished(folder) == is_finished


def test_archives_are_numbered_beside_those_that_were_renamed(folder):
    open_workdir(folder)
    (folder / "001_baseline.archived").mkdir()
    open_workdir(folder, restart=True)
    open_workdir(folder, restart=True)
    archives = ["001.archived", "001_baseline.archived", "002.archived"]
    assert names(folder) == [*archives, "config.json"]


@pytest.mark.parametrize("moved", range(4))
def test_a_start_that_is_killed_while_it_archives_can_be_made_again(
    folder, monkeypatch, moved
):
    open_workdir(folder)
    others = ["d.csv", "e.csv", "f.csv"]
    for name in others:
        (folder / name).touch()
    rename, listed = workdir.Path.rename, workdir.Path.iterdir
    left = iter(range(moved))

    def killed(path, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(path, target)

    with monkeypatch.context() as patch:  # file systems list in any order
        patch.setattr(workdir.Path, "iterdir", lambda path: iter(sorted(listed(path))))
        patch.setattr(workdir.Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            open_workdir(folder, restart=True)
    open_workdir(folder, restart=True)
    assert names(folder) == ["001.archived", "002.archived", "config.json"]
    archived = names(folder / "001.archived") + names(folder / "002.archived")
    assert sorted(archived) == sorted([*others, "config.json"])


def test_half_a_config_json_of_a_killed_start_is_no_stranger(folder):
    (folder / ".config.json.1234").write_text("{")
    open_workdir(folder)
    assert (folder / "config.json").is_file()
    (folder / "config.json").unlink()
    (folder / "config.json.bak").touch()
    with pytest.raises(InputError, match=r"holds config\.json\.bak and"):
        open_workdir(folder)
