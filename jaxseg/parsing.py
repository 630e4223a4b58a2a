"""From the record of a config file to a `Run`, with every mistake listed at once."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxseg.config import (
    GROUPS,
    Crop,
    Data,
    Model,
    Optim,
    Part,
    Plateau,
    Run,
    Spec,
    Train,
)
from jaxseg.contradictions import find_contradictions
from jaxseg.errors import InputError
from jaxseg.schema import (
    flatten,
    freeze,
    keys_of,
    matches,
    nearest,
    parse_literal,
    takes_loss,
    type_name,
)


@dataclasses.dataclass(frozen=True)
class Schemas:
    """The explicit dicts that the names of a config resolve in."""

    tasks: Mapping[str, Callable]
    models: Mapping[str, Callable]
    datasets: Mapping[str, Callable]
    losses: Mapping[str, Callable]
    augments: Mapping[str, Callable]


def parse(
    tree: Mapping[str, Any], schemas: Schemas, problems: Sequence[str] = ()
) -> Run:
    """Turns the record of a config file into a `Run`.

    Args:
      problems: what was wrong already, with overrides; joins the list.

    Raises:
      InputError: names every unknown, missing or mistyped key, and every value that
        contradicts another one, with the nearest valid name.
    """
    problems = list(problems)
    tree = dict(tree)
    _compare_keys("config", tree, GROUPS, GROUPS, problems)
    groups = {name: _as_group(tree, name, problems) for name in GROUPS[1:]}
    if type(tree.get("seed", 0)) is not int:
        problems.append(f"config.seed: expected int, found {tree['seed']!r}")
    _compare_losses(groups, schemas.tasks, problems)
    run = Run(
        seed=tree.get("seed", 0),
        task=_spec("config.task", groups["task"], schemas.tasks, problems),
        model=_model(groups["model"], schemas, problems),
        data=_data(groups["data"], schemas, problems),
        loss=_named("loss", groups["loss"], schemas.losses, "weight", problems),
        optim=_optim(groups["optim"], problems),
        train=_record("config.train", Train, groups["train"], problems),
    )
    problems += [] if problems else find_contradictions(run)
    if problems:
        raise InputError(
            "a config whose keys are all known, present and of the right type",
            "\n  ".join([f"{len(problems)} problem(s):", *problems]),
            "correct these keys in the config file or in the --config.… overrides",
        )
    return run


def override(tree: dict[str, Any], key: str, value: Any) -> str | None:
    """Sets `group.key` of a nested record in place; what is wrong, or None.

    The key must name one that exists, or one of the machinery fields; whole groups are
    set by a mapping (`optim.plateau={...}`). Text for a key that holds no text is read
    as a Python literal.
    """
    *path, last = key.split(".")
    node, known = tree, f"config.{key}"
    for name in path:
        if not isinstance(node, dict) or not isinstance(node.get(name), dict):
            return f"{known}: there is no such key{nearest(key, _all_keys(tree))}"
        node = node[name]
    optional = _optional_keys(path)
    if last not in node and last not in optional:
        return f"{known}: there is no such key{nearest(key, _all_keys(tree))}"
    old = node.get(last, optional.get(last))
    if isinstance(value, str):
        value = _unquote(value) if isinstance(old, str) else parse_literal(value)
    if type(value) is int and type(old) is float:
        value = float(value)
    node[last] = value
    return None


def _unquote(text: str) -> str:
    """A folder named 2024 or a norm named none stays text; quotes are taken off."""
    value = parse_literal(text)
    return value if isinstance(value, str) else text


def _as_group(
    tree: Mapping[str, Any], name: str, problems: list[str]
) -> dict[str, Any]:
    group = tree.get(name, {})
    if isinstance(group, Mapping):
        return dict(group)
    problems.append(f"config.{name}: expected a group of keys, found {group!r}")
    return {}


def _spec(where: str, group: dict, choices: Mapping[str, Callable], problems) -> Spec:
    name = group.pop("name", None)
    if not isinstance(name, str) or name not in choices:
        found = "is missing" if name is None else f"is {name!r}"
        problems.append(
            f"{where}.name {found}; choose from {', '.join(choices)}"
            + nearest(str(name), choices)
        )
        return Spec("", {})
    return Spec(name, _keywords(where, group, keys_of(choices[name]), problems))


def _compare_losses(groups: Mapping, tasks: Mapping, problems: list[str]) -> None:
    """Losses are named for the tasks that take them, and only for these."""
    name = groups["task"].get("name")
    has_own = isinstance(name, str) and name in tasks and not takes_loss(tasks[name])
    if has_own and groups["loss"]:
        problems.append(f"config.loss: the task {name} has losses of its own; {{}}")
    elif not has_own and not groups["loss"]:
        problems.append("config.loss: names no loss; e.g. loss=dict(bce=dict(...))")


def _named(path: str, group, choices, extra: str, problems) -> dict[str, dict]:
    """A group that names functions, each with its keys and the number `extra`."""
    terms = {}
    for name, kwargs in group.items():
        where, kind = f"config.{path}.{name}", path.split(".")[-1]
        if name not in choices:
            near = nearest(str(name), choices)
            problems.append(f"{where}: there is no such {kind}{near}")
        elif not isinstance(kwargs, Mapping):
            problems.append(f"{where}: expected a group of keys, found {kwargs!r}")
        else:
            hints = {extra: float, **keys_of(choices[name])}
            terms[name] = _keywords(where, dict(kwargs), hints, problems)
    return terms


def _model(group: dict, schemas: Schemas, problems: list[str]) -> Model:
    own = [f.name for f in dataclasses.fields(Model) if f.name != "network"]
    starts = {key: group.pop(key) for key in own if key in group}
    network = _spec("config.model", group, schemas.models, problems)
    return _record("config.model", Model, {**starts, "network": network}, problems)


def _data(group: dict, schemas: Schemas, problems: list[str]) -> Data:
    own = [f.name for f in dataclasses.fields(Data) if f.name != "source"]
    others = {k: group.pop(k) for k in list(group) if k not in own}
    name = others.get("name")
    if isinstance(name, str) and name in schemas.datasets:
        known = ["name", *own, *keys_of(schemas.datasets[name])]
        _compare_keys("config.data", others, known, (), problems)
        others = {k: value for k, value in others.items() if k in known}
    source = _spec("config.data", others, schemas.datasets, problems)
    if isinstance(group.get("crop"), Mapping):
        group["crop"] = _record("config.data.crop", Crop, dict(group["crop"]), problems)
    if isinstance(group.get("augment"), Mapping):
        group["augment"] = _named(
            "data.augment", group["augment"], schemas.augments, "p", problems
        )
    return _record("config.data", Data, {**group, "source": source}, problems)


def _optim(group: dict, problems: list[str]) -> Optim:
    if isinstance(group.get("plateau"), Mapping):
        group["plateau"] = _record(
            "config.optim.plateau", Plateau, dict(group["plateau"]), problems
        )
    parts = group.get("parts")
    if isinstance(parts, Mapping):
        group["parts"] = {
            name: _record(f"config.optim.parts.{name}", Part, dict(part), problems)
            if isinstance(part, Mapping)
            else problems.append(
                f"config.optim.parts.{name}: expected rate and from_epoch, found "
                f"{part!r}"
            )
            for name, part in parts.items()
        }
    return _record("config.optim", Optim, group, problems)


def _record(where: str, cls: type, group: dict, problems: list[str]):
    fields = {f.name: f for f in dataclasses.fields(cls)}
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
    hints = typing.get_type_hints(cls)
    values = _keywords(where, group, hints, problems, required)
    missing = {name: None for name in required if name not in values}
    return cls(**values, **missing)  # only used when there are no problems


def _keywords(where, group, hints, problems, required=None) -> dict[str, Any]:
    _compare_keys(
        where, group, hints, hints if required is None else required, problems
    )
    values = {}
    for key, value in group.items():
        if key in hints and not matches(value, hints[key]):
            problems.append(
                f"{where}.{key}: expected {type_name(hints[key])}, found {value!r}"
            )
        elif key in hints:
            values[key] = freeze(value)
    return values


def _compare_keys(where, group, known, required, problems) -> None:
    for key in group:
        if key not in known:
            problems.append(f"{where}.{key}: there is no such key{nearest(key, known)}")
    missing = [key for key in required if key not in group]
    problems.extend(f"{where}.{key} is missing" for key in missing)


def _optional_keys(path: Sequence[str]) -> dict[str, Any]:
    """Machinery keys of a group, and their defaults."""
    owners = {"model": Model, "data": Data, "optim": Optim, "train": Train}
    owner = owners.get(".".join(path))
    fields = dataclasses.fields(owner) if owner else ()
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def _all_keys(tree: Mapping[str, Any]) -> list[str]:
    optional = [
        f"{group}.{key}" for group in GROUPS[1:] for key in _optional_keys([group])
    ]
    return [*flatten(tree), *optional]
