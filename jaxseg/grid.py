"""The runs of a sweep: which keys take which values, and what the runs are called.

    --sweep data.fold=0,1,2 --sweep seed=0,1

are six runs, fold_0_seed_0 to fold_2_seed_1. Values are text here; `parsing` reads and
checks them like any other override.
"""

import collections
import itertools
import re
from collections.abc import Sequence

from jaxseg.errors import InputError, shorten


def expand(sweeps: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The overrides 'key=value' of every run, by the name of its folder.

    >>> expand(["data.fold=0,1", "seed=7"])["fold_1_seed_7"]
    ('data.fold=1', 'seed=7')

    Args:
      sweeps: 'key=value,value,...'; several are combined, the last one changes fastest.

    Raises:
      InputError: lists every sweep that cannot be read, a key that is swept twice, and
        values that give two runs the same name.
    """
    axes = [text.partition("=") for text in sweeps]
    values = {key: split_values(text) for key, _, text in axes}
    problems = [
        f"{text!r} is no KEY=VALUE,VALUE"
        for text, (key, _, _) in zip(sweeps, axes, strict=True)
        if not key or not all(values[key])
    ]
    keys = collections.Counter(key for key, _, _ in axes)
    problems += [f"{key!r} stands twice" for key, count in keys.items() if count > 1]
    if problems:
        raise _refusal(problems)
    runs = [dict(zip(values, row, strict=True)) for row in _rows(values)]
    names = [_name(run) for run in runs]
    counts = collections.Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise _refusal([f"several runs are called {shorten(twice)}"])
    return {
        name: tuple(f"{key}={value}" for key, value in run.items())
        for name, run in zip(names, runs, strict=True)
    }


def split_values(text: str) -> list[str]:
    """Splits at the commas that are outside of brackets and quotes.

    >>> split_values("(96, 96),(128, 128)")
    ['(96, 96)', '(128, 128)']
    """
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values]


def _rows(values: dict[str, list[str]]):
    return itertools.product(*values.values())


def _name(run: dict[str, str]) -> str:
    """'fold_0' of 'data.fold=0'; the whole key where two of them end alike."""
    ends = collections.Counter(key.rpartition(".")[2] for key in run)
    parts = []
    for key, value in run.items():
        end = key.rpartition(".")[2]
        readable = re.sub(r"[^\w.+-]+", "_", value).strip("_")
        parts.append(f"{end if ends[end] == 1 else key}_{readable}")
    return "_".join(parts)


def _refusal(problems: list[str]) -> InputError:
    return InputError(
        "--sweep with a key and its values, each once",
        "; ".join(problems),
        "--sweep data.fold=0,1,2 (several --sweep are combined)",
    )
