import ast
import dataclasses
import importlib
import json
import typing
from pathlib import Path
from typing import Any, Literal

import pytest

from jaxseg import config, parsing
from jaxseg.errors import InputError
from jaxseg.experiment import SCHEMAS
from jaxseg.schema import (
    freeze,
    keys_of,
    matches,
    nearest,
    out_of_bounds,
    parse_literal,
)

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
QUICKSTART = ROOT / "configs" / "quickstart.py"
SMALL = ROOT / "configs" / "sdnet_small.py"


@pytest.fixture
def load(monkeypatch):
    """`load_config` of the scripts, with the dicts of the program."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    command_line = importlib.import_module("command_line")
    return lambda path, *overrides: command_line.load_config(path, overrides, SCHEMAS)


@pytest.fixture
def problems(load):
    """The lines of the refusal of a config with overrides."""

    def problems(path, *overrides):
        with pytest.raises(InputError) as refusal:
            load(path, *overrides)
        return refusal.value.found

    return problems


@pytest.fixture
def tree(load):
    """A record like that of a config file."""
    return config.to_dict(load(QUICKSTART))


def refusal_of(tree):
    with pytest.raises(InputError) as refusal:
        parsing.parse(tree, SCHEMAS)
    return refusal.value.found


# The files.


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses_and_survives_json(load, path):
    run = load(path)
    text = json.dumps(config.to_dict(run))
    assert parsing.parse(json.loads(text), SCHEMAS) == run


def written_keys(path):
    """Group -> its keys as written in the file, in order."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict"
    ]
    outer = next(call for call in calls if call.keywords[0].arg == "seed")
    return {
        keyword.arg: [inner.arg for inner in getattr(keyword.value, "keywords", [])]
        for keyword in outer.keywords
    }


def required(cls):
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_hold_the_same_keys_in_the_same_order(path):
    keys = written_keys(path)
    assert tuple(keys) == config.GROUPS
    for group, cls in (("optim", config.Optim), ("train", config.Train)):
        names = required(cls)
        assert [name for name in keys[group] if name in names] == names
    shared = [name for name in required(config.Data) if name != "source"]
    assert [name for name in keys["data"] if name in shared] == shared
    for group in ("task", "model", "data"):
        assert keys[group][0] == "name"


# Mistakes.


def test_every_mistake_is_listed_at_once(problems):
    found = problems(
        QUICKSTART,
        "optim.lerning_rate=0.1",
        "train.batch_size=eight",
        "data.channels=2",
        "model.widths=16",
        "loss={'bcee': {'weight': 1.0}}",
        "task.name=segmentaton",
        "seed=1.5",
    )
    lines = found.splitlines()
    for wanted in (
        "config.optim.lerning_rate: there is no such key; "
        "did you mean optim.learning_rate?",
        "config.train.batch_size: expected int, found 'eight'",
        "config.data.channels: expected Literal[1, 3], found 2",
        "config.model.widths: expected tuple[int, ...], found 16",
        "config.loss.bcee: there is no such loss; did you mean bce?",
        "config.task.name is 'segmentaton'; choose from classification, segmentation, "
        "joint, segdec; did you mean segmentation?",
        "config.seed: expected int, found 1.5",
    ):
        assert any(line.strip() == wanted for line in lines), wanted
    assert len(lines) == 8  # and the line that counts them


@pytest.mark.parametrize(
    ("group", "key", "misspelt"),
    [
        ("train", "batch_size", "batchsize"),
        ("optim", "learning_rate", "learning_rat"),
        ("model", "activation", "activations"),
        ("data", "image_size", "image_siz"),
        ("data", "num_photos", "num_photo"),
        ("task", "mask_weight", "maskweight"),
    ],
)
def test_a_misspelt_key_is_unknown_and_missing_and_names_the_right_one(
    tree, group, key, misspelt
):
    tree[group][misspelt] = tree[group].pop(key)
    found = refusal_of(tree)
    unknown = f"config.{group}.{misspelt}: there is no such key; did you mean {key}?"
    assert unknown in found
    assert f"config.{group}.{key} is missing" in found


def test_a_missing_group_names_its_keys(tree):
    del tree["train"]
    found = refusal_of(tree)
    for name in ["", *(f".{key}" for key in required(config.Train))]:
        assert f"config.train{name} is missing" in found


def test_every_key_without_a_default_is_required(tree):
    for group, cls in (
        ("optim", config.Optim),
        ("train", config.Train),
        ("data", config.Data),
    ):
        for key in set(required(cls)) - {"source"}:
            broken = {**tree, group: {k: v for k, v in tree[group].items() if k != key}}
            assert f"config.{group}.{key} is missing" in refusal_of(broken)


def test_a_group_that_is_no_group(tree):
    tree["optim"] = "adam"
    assert "config.optim: expected a group of keys, found 'adam'" in refusal_of(tree)
    tree["optim"] = {}
    tree["loss"] = {}
    assert "config.loss: names no loss" in refusal_of(tree)


def test_a_name_that_is_no_text_is_refused(problems):
    assert "config.model.name is" in problems(QUICKSTART, "model.name=('unet',)")


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("optim.learning_rate=nan", "config.optim.learning_rate: expected a finite"),
        ("optim.learning_rate=0.0", "config.optim.learning_rate: expected more than 0"),
        ("data.mean=(0.5, 0.5, float)", "config.data.mean: expected tuple[float, ...]"),
        ("train.preview=-1", "config.train.preview: expected 0 to 32"),
        ("train.preview=33", "config.train.preview: expected 0 to 32"),
        ("train.batch_size=0", "config.train.batch_size: expected more than 0"),
        ("train.accumulate=3", "accumulate=3 does not divide config.train.batch_size"),
        ("data.mean=(0.5,)", "expected 3 numbers, one per channel, found 1 and 3"),
        ("data.channels=1", "expected 1 numbers, one per channel, found 3 and 3"),
        ("data.std=(0.25, 0.0, 0.25)", "config.data.std: expected more than 0"),
        ("data.fold=5", "config.data.fold: expected 0 to 4, found 5"),
        ("data.fold=-1", "config.data.fold: expected 0 to 4, found -1"),
        ("data.val_fraction=0.8", "leave nothing to train"),
        ("data.val_fraction=0.0", "val_fraction must be over 0"),
        ("optim.schedule=step", "config.optim.milestones is missing"),
        (
            "optim.milestones=(3,)",
            "config.optim.milestones=(3,) has no effect on config.optim.schedule="
            "'cosine'; --config.optim.schedule=step",
        ),
        ("data.augment.hflip.p=1.5", "config.data.augment.hflip.p: expected 0 to 1"),
        ("optim.plateau={}", "config.optim.plateau.factor is missing"),
        ("optim.learning_rate=true", "config.optim.learning_rate: expected float"),
    ],
)
def test_a_value_that_cannot_be_is_named(problems, override, phrase):
    assert phrase in problems(QUICKSTART, override)


def holds_numbers(hint):
    return hint in (int, float) or any(map(holds_numbers, typing.get_args(hint)))


def number_keys():
    """Every key that holds a number, of the groups whose bounds are all known."""
    records = {"train": config.Train, "optim": config.Optim}
    records["optim.plateau"] = config.Plateau
    hints = {group: typing.get_type_hints(cls) for group, cls in records.items()}
    hints |= {
        f"loss.{name}": {"weight": float, **keys_of(loss)}
        for name, loss in SCHEMAS.losses.items()
    }
    hints |= {f"task/{name}": keys_of(task) for name, task in SCHEMAS.tasks.items()}
    return sorted(
        {
            f"{group.partition('/')[0]}.{key}"
            for group, of_group in hints.items()
            for key, hint in of_group.items()
            if holds_numbers(hint)
        }
    )


CHECKED_WITH_OTHERS = {"train.sizes", "optim.plateau.factor"}
"""In `contradictions`."""


@pytest.mark.parametrize("key", sorted({*number_keys()} - CHECKED_WITH_OTHERS))
def test_every_number_has_a_bound(key):
    (problem,) = out_of_bounds({key: -1})
    assert problem.startswith(f"{key}: expected ")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.steps_per_call", 0, "more than 0"),
        ("optim.milestones", (3, -1), "at least 0"),
        ("loss.bce.weight", -0.5, "at least 0"),
        ("loss.focal.alpha", 1.5, "0 to 1"),
        ("loss.cross_entropy.class_weights", (1.0, -1.0), "at least 0"),
    ],
)
def test_a_number_out_of_bounds(key, value, expected):
    assert out_of_bounds({key: value}) == [f"{key}: expected {expected}, found {value}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss.dice.smooth", 0.0),
        ("loss.focal.alpha", 1.0),
        ("loss.focal_constant.alpha", 2.0),
        ("loss.cross_entropy.class_weights", ()),
        ("optim.plateau.patience", 0),
        ("optim.plateau.min_learning_rate", 0.0),
    ],
)
def test_a_number_on_its_bound(key, value):
    assert out_of_bounds({key: value}) == []


# Overrides.


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optim.learningrate", "optim.learning_rate"),
        ("data.num_fold", "data.num_folds"),  # not in the file; it has a default
        ("train.batch_size.x", "train.batch_size"),
        ("modl.widths", "model.widths"),
    ],
)
def test_an_override_of_an_unknown_key_names_the_nearest(tree, key, hint):
    before = json.dumps(tree)
    problem = parsing.override(tree, key, 1)
    assert problem == f"config.{key}: there is no such key; did you mean {hint}?"
    assert json.dumps(tree) == before


def test_an_override_sets_and_makes_whole_numbers_floats(tree):
    assert parsing.override(tree, "optim.learning_rate", 1) is None
    assert type(tree["optim"]["learning_rate"]) is float
    assert parsing.override(tree, "train.epochs", 3) is None
    assert type(tree["train"]["epochs"]) is int
    assert parsing.override(tree, "data.augment.hflip.p", 0) is None
    run = parsing.parse(tree, SCHEMAS)
    assert (run.optim.learning_rate, run.train.epochs) == (1.0, 3)
    assert run.data.augment["hflip"] == {"p": 0.0}


def test_an_override_reaches_keys_with_a_default(load):
    run = load(
        QUICKSTART,
        "data.split=kfold",
        "data.num_folds=4",
        "data.fold=3",
        "train.log_every=5",
    )
    assert (run.data.num_folds, run.data.fold, run.train.log_every) == (4, 3, 5)


def test_an_override_sets_a_whole_group(load):
    plateau = dict(
        factor=0.5, patience=3, min_delta=0.0, cooldown=1, min_learning_rate=0
    )
    run = load(QUICKSTART, f"optim.plateau={plateau}")
    assert run.optim.plateau == config.Plateau(0.5, 3, 0.0, 1, 0)
    run = load(SMALL, "optim.plateau=none")
    assert run.optim.plateau is None
    run = load(QUICKSTART, "loss={'dice': {'weight': 1, 'smooth': 1.0}}")
    assert run.loss == {"dice": {"weight": 1, "smooth": 1.0}}


def test_an_override_reaches_into_a_group(load):
    run = load(SMALL, "optim.plateau.patience=9", "loss.focal_constant.gamma=1")
    assert run.optim.plateau.patience == 9
    assert run.loss["focal_constant"]["gamma"] == 1.0


# Schemas read off signatures.


def example(
    num_outputs: int, dtype: str, *, depth: Literal[18, 34], rate: float | None
) -> None:
    """Takes two keys."""


def test_keys_are_the_keyword_only_parameters():
    assert keys_of(example) == {"depth": Literal[18, 34], "rate": float | None}
    for choices in vars(SCHEMAS).values():
        for function in choices.values():
            assert function.__kwdefaults__ is None  # no key has a hidden default


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        (1, float, True),
        (True, float, False),
        (True, bool, True),
        (1, bool, False),
        ("a", str, True),
        (None, str, False),
        (None, int | None, True),
        (2, int | None, True),
        (2.5, int | None, False),
        ("adam", Literal["adam", "sgd"], True),
        ("rms", Literal["adam", "sgd"], False),
        (1, Literal[1, 3], True),
        (True, Literal[1, 3], False),
        (1.0, Literal[1, 3], False),
        ((1, 2), tuple[int, int], True),
        ([1, 2], tuple[int, int], True),
        ((1, 2, 3), tuple[int, int], False),
        ((), tuple[int, ...], True),
        ((1, 2.0), tuple[float, ...], True),
        ((1, "2"), tuple[float, ...], False),
        ("ab", tuple[str, ...], False),
        (5, tuple[int, ...], False),
        ({"a": 1}, Any, True),
    ],
)
def test_values_fit_their_annotation(value, hint, fits):
    assert matches(value, hint) is fits


def test_lists_freeze_to_tuples():
    assert freeze([1, [2, 3]]) == (1, (2, 3))


def test_the_nearest_name_or_nothing():
    assert nearest("lerning_rate", ["learning_rate", "name"]) == (
        "; did you mean learning_rate?"
    )
    assert nearest("zzz", ["learning_rate", "name"]) == ""


@pytest.mark.parametrize(
    "text", ["{{'encoder': 1}}", "(" * 1000, "-" * 100_000 + "1"], ids=len
)
def test_text_that_python_cannot_read_stays_text(text):
    assert parse_literal(text) == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.dir", "2024_05", "2024_05"),
        ("data.dir", "'my folder'", "my folder"),
        ("model.norm", "none", "none"),
        ("data.cache_dir", "7", "7"),
        ("train.early_stop", "none", None),
        ("train.early_stop", "5", 5),
        ("data.image_size", "(96, 64)", (96, 64)),
    ],
)
def test_text_stays_text_where_a_key_holds_text(tree, key, text, value):
    assert parsing.override(tree, key, text) is None
    group, name = key.split(".")
    assert tree[group][name] == value
