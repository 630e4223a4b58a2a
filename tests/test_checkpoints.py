"""Checkpoints keep the newest and the best, and use none that is damaged; the exported
model reads back the same."""

import errno
import json
import math
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.checkpoints import CHECKSUMS, WRITTEN_LAST, Checkpoints
from jaxseg.errors import InputError
from jaxseg.export import load_model, save_model


def state_of(value):
    return {"weights": jnp.full((2, 3), float(value)), "step": jnp.int32(value)}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


@pytest.mark.parametrize(
    ("scores", "best", "kept"),
    [
        ([0.1, 0.5, 0.3, 0.4, 0.2, 0.1], 1, {1, 3, 4, 5}),
        ([0.5, 0.1, -math.inf], 0, {0, 1, 2}),
        ([-math.inf, -3.0, -2.0], 2, {1, 2}),
        ([0.4], 0, {0}),
    ],
)
def test_two_of_the_best_and_of_the_latest_survive(tmp_path, scores, best, kept):
    checkpoints = Checkpoints(tmp_path)
    for step, score in enumerate(scores):
        checkpoints.save(step, state_of(step), {"epoch": step}, score)
    assert (checkpoints.best, checkpoints.latest) == (best, len(scores) - 1)
    for step in kept:
        state, progress = checkpoints.restore(step, abstract(state_of(0)))
        np.testing.assert_array_equal(state["weights"], np.full((2, 3), step))
        assert progress == {"epoch": step}
    assert {path.name for path in tmp_path.glob("step_*")} == {
        f"step_{step}" for step in kept
    }
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1 and 2, of which 1 is the best; 0 is gone."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step, score in enumerate([0.1, 0.5, 0.3]):
        checkpoints.save(step, state_of(step), {"epoch": step}, score)
    checkpoints.close()
    return folder


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def files_of(step):
    """By their path in the step folder, without the two that orbax writes last."""
    paths = (path for path in step.rglob("*") if path.is_file())
    names = {path.relative_to(step).as_posix() for path in paths}
    return sorted(names - WRITTEN_LAST)


@pytest.mark.parametrize("damage", [halve, flip_a_bit, lambda path: path.unlink()])
def test_damage_to_any_file_is_found_and_named(saved, tmp_path, capsys, damage):
    names = files_of(saved / "step_2")
    assert len(names) > 5
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        damage(folder / "step_2" / name)
        checkpoints = Checkpoints(folder)
        assert (checkpoints.best, checkpoints.latest) == (1, 1)
        checkpoints.close()
        said = capsys.readouterr().out
        assert "step_2 is not whole" in said
        # A file and its altered checksum cannot be told apart.
        assert name in said or name == CHECKSUMS
        assert (folder / "damaged" / "step_2").is_dir()


def test_a_damaged_step_is_saved_anew(saved, tmp_path):
    """A run that goes on from the step before comes to the same step again."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for _ in range(2):
        flip_a_bit(next((tmp_path / "step_2" / "state").glob("d/*")))
        checkpoints = Checkpoints(tmp_path)
        assert checkpoints.latest == 1
        checkpoints.save(2, state_of(2), {"epoch": 2}, 0.3)
        checkpoints.wait()
        state, _ = checkpoints.restore(2, abstract(state_of(0)))
        np.testing.assert_array_equal(state["weights"], np.full((2, 3), 2))
        checkpoints.close()


def test_a_state_replaces_the_one_of_the_same_step(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state_of(7), {"epoch": 7}, 0.9)
    assert checkpoints.best == 2
    state, progress = checkpoints.restore(2, abstract(state_of(0)))
    np.testing.assert_array_equal(state["weights"], np.full((2, 3), 7))
    assert progress == {"epoch": 7}
    checkpoints.close()


def test_a_disk_without_room_is_met_before_anything_is_written(
    saved, tmp_path, monkeypatch
):
    folder = shutil.copytree(saved, tmp_path / "saved")
    before = files_of(folder)
    checkpoints = Checkpoints(folder)
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state_of(3)))
    free = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError) as caught:
        checkpoints.save(2, state_of(3), {"epoch": 3}, 0.9)
    assert caught.value.errno == errno.ENOSPC
    assert files_of(folder) == before
    free.free = needed
    checkpoints.save(2, state_of(3), {"epoch": 3}, 0.9)
    assert checkpoints.best == 2
    checkpoints.close()


def test_the_second_best_takes_the_place_of_a_damaged_best(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    halve(tmp_path / "step_1" / "progress" / "metadata")
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.best, checkpoints.latest) == (2, 2)
    checkpoints.close()


def test_without_a_whole_checkpoint_nothing_is_touched(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for step in tmp_path.glob("step_*"):
        (step / "checksums.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="a whole checkpoint") as caught:
        Checkpoints(tmp_path)
    assert all(f"step_{step}: checksums" in caught.value.found for step in (1, 2))
    assert "--restart" in caught.value.fix
    assert sorted(tmp_path.rglob("*")) == before


def test_arrays_of_another_network_are_listed(saved):
    checkpoints = Checkpoints(saved)
    other = {
        "weights": jax.ShapeDtypeStruct((2, 4), "float32"),
        "bias": jax.ShapeDtypeStruct((4,), "float32"),
        "step": jax.ShapeDtypeStruct((), "int32"),
    }
    with pytest.raises(InputError) as caught:
        checkpoints.restore(2, other)
    checkpoints.close()
    assert "step 2 with 2 other array(s)" in caught.value.found
    assert "weights: float32 (2, 3) there, float32 (2, 4) now" in caught.value.found
    assert "bias: none there, float32 (4,) now" in caught.value.found


def test_the_host_record_keeps_every_digit_and_nan(tmp_path):
    record = {"history": [{"loss": 0.1 + 0.2, "auc": math.nan}], "best": None}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, state_of(1), record, 0.0)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    _, restored = again.restore(again.latest, abstract(state_of(0)))
    again.close()
    assert restored["history"][0]["loss"] == 0.1 + 0.2
    assert math.isnan(restored["history"][0]["auc"])
    assert restored["best"] is None


def test_an_empty_folder_has_neither(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest is None
    assert checkpoints.best is None
    checkpoints.close()


def test_a_saved_model_reads_back_the_same(tmp_path):
    rng = np.random.default_rng(0)
    variables = {
        "params": {"conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype("f4")}},
        "batch_stats": {"norm": {"mean": np.arange(4, dtype="f4")}},
    }
    description = {"classes": ["background", "crack"], "thresholds": {}}
    save_model(tmp_path / "model", variables, description)
    read, described = load_model(tmp_path / "model")
    assert described == description
    assert jax.tree.structure(read) == jax.tree.structure(variables)
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["model.json", "model.safetensors"]
    json.loads((tmp_path / "model" / "model.json").read_text())


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(tmp_path)
