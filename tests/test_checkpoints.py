"""Checkpoints keep the newest and the best; the exported model reads back the same."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.checkpoints import Checkpoints
from jaxseg.errors import InputError
from jaxseg.export import load_model, save_model


def state_of(value):
    return {"weights": jnp.full((2, 3), value), "step": jnp.int32(value)}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.5, 0.3, 0.2], 1),
        ([0.5, 0.1, -math.inf], 0),
        ([-math.inf, -3.0, -2.0], 2),
        ([0.4], 0),
    ],
)
def test_best_and_latest_both_survive(tmp_path, scores, best):
    checkpoints = Checkpoints(tmp_path)
    for step, score in enumerate(scores):
        checkpoints.save(step, state_of(step), {"epoch": step}, score)
    last = len(scores) - 1
    assert (checkpoints.best, checkpoints.latest) == (best, last)
    for step in {best, last}:
        state, progress = checkpoints.restore(step, abstract(state_of(0)))
        np.testing.assert_array_equal(state["weights"], np.full((2, 3), step))
        assert progress == {"epoch": step}
    kept = sorted(path.name for path in tmp_path.glob("step_*"))
    assert kept == sorted({f"step_{best}", f"step_{last}"})
    checkpoints.close()


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
