"""The data check names the defect of every bad set and the line that mends it."""

import html
import json

import bad_sets
import pytest
from test_bad_input import (
    ROOT,
    SEGMENTATION,
    SMALL,
    assert_message,
    call,
    scripts,
    unchanged_jax,
)

assert all((call, scripts, unchanged_jax))  # fixtures


@pytest.mark.parametrize("name", bad_sets.BAD)
def test_the_check_names_the_defect_and_the_way_out(call, tmp_path, name):
    # Two folders below: the program looks above a set for a better place, and there
    # are the sets of other tests.
    bad, root, out = bad_sets.BAD[name], tmp_path / "alone" / "set", tmp_path / "check"
    root.parent.mkdir()
    bad.make(root)
    own = () if bad.config == bad_sets.CLS else SEGMENTATION
    settings = [f"data.dir={root / bad.folder}", *own, *SMALL]
    settings += [
        text.format(root=root) if "{root}" in text else text for text in bad.settings
    ]
    config = ["--config", ROOT / "configs" / f"{bad.config}.py", "--out", out]
    code, error = call("check_data", *config, *(f"--config.{s}" for s in settings))
    assert_message(code, error)
    for words in bad.words:
        assert words.replace("{root}", str(root)) in error
    problem = json.loads((out / "check.json").read_text())["problem"]
    assert problem["fix"] in error
    assert (
        html.escape(problem["expected"].split("\n")[0])
        in (out / "check.html").read_text()
    )


def test_there_are_many():
    assert len(bad_sets.BAD) >= 40
