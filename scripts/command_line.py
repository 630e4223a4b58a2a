"""What all scripts share: reading a config with overrides, and ending with a message.

`main` sets the XLA flags; scripts import what needs jax inside their function.
"""

import argparse
import copy
import importlib.util
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxseg import backend, config, grid, parsing, signals
from jaxseg.errors import InputError, shorten
from jaxseg.signals import STOPPED

WRONG_INPUT = 2
EXIT_SECONDS = "JAXSEG_EXIT_SECONDS"
"""Environment variable: what a machine grants between a signal and the end."""


def main(run: Callable[[list[str]], None]) -> None:
    """Runs a script's function; an `InputError` is printed without a traceback."""
    backend.set_xla_flags()
    # There orbax prints the tracebacks of its threads, and raises the errors as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    for number in signals.STOPPING:
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt_once)  # a shell's `&` ignores Ctrl-C
    try:
        with signals.bounded_stop(_exit_seconds()):
            run(sys.argv[1:])
    except InputError as error:
        from jaxseg import hosts

        if hosts.is_first() or not isinstance(error, hosts.SharedError):
            print(f"\n{error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except (KeyboardInterrupt, Exception) as error:
        if not _was_interrupted(error):
            raise
        print(f"\nstopped; {signals.same_command()} goes on", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        # While the interpreter ends it would let SIGTERM kill it, as if it had not done
        # what it has done.
        for number in signals.STOPPING:
            signal.signal(number, signal.SIG_IGN)


def _interrupt_once(number: int, frame) -> None:
    """As Ctrl-C; what comes again is left to `signals.bounded_stop`."""
    del number, frame
    for other in signals.STOPPING:
        signal.signal(other, _hear_no_more)
    raise KeyboardInterrupt


def _hear_no_more(number: int, frame) -> None:
    """In place of SIG_IGN, of which the watching thread would hear nothing."""


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a signal is behind an error: orbax makes a ValueError of it."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _exit_seconds() -> float:
    text = os.environ.get(EXIT_SECONDS, "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise InputError(
            f"seconds above 0 in the environment variable {EXIT_SECONDS}",
            repr(text),
            f"{EXIT_SECONDS}=30",
        )
    return seconds


def positive(text: str) -> int:
    """A type for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number over 0, found {text}")
    return number


def above_zero(text: str) -> float:
    """A type for argparse."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number over 0, found {text}")
    return number


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` and, unseen by argparse, `--config.group.key=value`."""
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="a file of configs/; any of its keys is overridden by "
        "--config.group.key=value, e.g. --config.optim.learning_rate=3e-4",
    )


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    """How several processes that train one run find each other."""
    group = parser.add_argument_group("several processes")
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0; any free port"
    )
    group.add_argument("--num_processes", type=int, metavar="N", help="how many")
    group.add_argument("--process_id", type=int, metavar="I", help="which one, from 0")
    group.add_argument(
        "--patience",
        type=int,
        default=300,
        metavar="SECONDS",
        help="how long to wait for the others to start (default: 300)",
    )


def join_hosts(options: argparse.Namespace) -> None:
    """Meets the other processes, if there are any.

    Raises:
      InputError: the options contradict the cluster, or the others do not come.
    """
    from jaxseg import hosts

    given = hosts.Place(options.coordinator, options.num_processes, options.process_id)
    place = hosts.find_place(given, os.environ)
    hosts.join(place, patience=options.patience)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(arguments for argparse, overrides 'group.key=value').

    The value may follow after '=' or as the next argument.
    """
    plain, overrides = [], []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--config."):
            plain.append(argument)
        elif "=" in argument or not remaining:
            overrides.append(argument.removeprefix("--config."))
        else:
            key = argument.removeprefix("--config.")
            overrides.append(f"{key}={remaining.pop(0)}")
    return plain, overrides


def load_config(path: Path, overrides: Sequence[str], schemas) -> config.Run:
    """The checked run of a config file.

    Raises:
      InputError: every mistake in the file and in the overrides at once.
    """
    return _parse(_read(path), overrides, schemas)


def load_sweep(
    path: Path, overrides: Sequence[str], schemas, sweeps: Sequence[str]
) -> dict[str, config.Run]:
    """The checked runs of a config file with each combination of swept values, by name.

    Raises:
      InputError: every mistake in the file, the overrides and all values at once.
    """
    tree, runs, found = _read(path), {}, {}
    combinations = grid.expand(sweeps)
    for name, own in combinations.items():
        try:
            runs[name] = _parse(copy.deepcopy(tree), [*overrides, *own], schemas)
        except InputError as error:
            refusal = error
            for problem in error.found.split("\n  ")[1:]:
                found.setdefault(problem, []).append(name)
    if not found:
        return runs
    problems = [
        problem if len(names) == len(combinations) else f"{shorten(names)}: {problem}"
        for problem, names in found.items()
    ]
    text = "\n  ".join([f"{len(problems)} problem(s):", *problems])
    raise InputError(refusal.expected, text, refusal.fix)


def load_run(workdir: Path, overrides: Sequence[str], schemas) -> config.Run:
    """The run that a run folder was made with, for example with another data.dir.

    Raises:
      InputError: the folder holds no run, or an override is wrong.
    """
    from jaxseg.workdir import read_record

    return _parse(read_record(workdir)["config"], overrides, schemas)


def _parse(tree: dict[str, Any], overrides: Sequence[str], schemas) -> config.Run:
    wrong = [problem for text in overrides if (problem := _apply(tree, text))]
    return parsing.parse(tree, schemas, wrong)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.suffix != ".py":
        choices = sorted(str(p) for p in Path("configs").glob("*.py"))
        raise InputError(
            "a config file, NAME.py",
            f"{path} is none" if path.is_file() else f"no file {path}",
            f"--config with one of {', '.join(choices) or 'the files in configs/'}",
        )
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config().to_dict()
    except Exception as error:  # the file is the user's; any mistake may be in it
        raise InputError(
            "a Python file whose get_config() returns an ml_collections.ConfigDict",
            f"{path}: {type(error).__name__}: {error}",
            f"correct {path}; configs/quickstart.py is an example",
        ) from None


def _apply(tree: dict[str, Any], text: str) -> str | None:
    key, separator, value = text.partition("=")
    if not separator:
        return f"config.{key}: expected --config.{key}=value"
    return parsing.override(tree, key, value)
