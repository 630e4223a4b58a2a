"""A series of runs of one config: folds, classes, seeds, or any other keys.

Every run is complete, in a folder of its own; the folder above holds the table over
them. Runs that differ in nothing but the seed share one split.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import hosts, plan, processes, run, workdir
from jaxseg.config import Run
from jaxseg.errors import InputError, shorten
from jaxseg.progress import console
from jaxseg.report.tables import (
    Spread,
    print_rows,
    spread_of,
    write_csv,
    write_markdown,
)

HEADER = ("metric", "mean", "std", "min", "max", "sum")


def run_sweep(
    runs: Mapping[str, Run],
    folder: Path,
    *,
    restart: bool = False,
    origin: Mapping[str, Any] | None = None,
    pool: processes.Pool | None = None,
) -> dict[str, Spread]:
    """Trains the runs and compares their test metrics.

    Finished runs are left as they are; an interrupted one goes on. What can be told
    without opening an image is checked for all of them before the first one starts.

    Args:
      runs: by the name of their folder inside `folder`.
      origin: as of `run.run`; the name of a run says what the sweep changes.
      pool: how to train several at a time; without it they run one after the other.

    Returns:
      the spread of every metric of the test part.

    Raises:
      InputError: as `run.run`, or the folder holds a single run.
      Interrupted: stopped by a signal; the same call, without `restart`, goes on.
    """
    _refuse_single_run(folder)
    if not hosts.is_alone():
        raise hosts.SharedError(
            "--sweep in one process",
            "several that train together",
            "the runs of the sweep one by one, each in a --workdir of its own",
        )
    with workdir.claim(folder):
        _refuse_misfits(runs, folder, restart)
        workdir.write_sweep(folder, runs)
        todo = {}
        for name in runs:
            if _is_done(runs[name], folder / name) and not restart:
                console.print(f"- {folder / name} is finished", markup=False)
            else:
                first = _first_of_seeds(runs, name)
                todo[name] = None if first == name else folder / first
        if pool:
            _run_side_by_side(pool, todo, folder, restart)
            todo = {}
        for number, (name, like) in enumerate(todo.items(), start=1):
            one = folder / name
            console.print(f"- {one} ({number} of {len(todo)})", markup=False)
            run.run(runs[name], one, restart=restart, like=like, origin=origin)
        return _report({name: folder / name for name in runs}, folder)


def _run_side_by_side(
    pool: processes.Pool,
    todo: Mapping[str, Path | None],
    folder: Path,
    restart: bool,
) -> None:
    """Starts `pool`'s command for each run, with the folder whose split it shares."""
    since = time.time() if restart else 0.0  # the split of before is archived
    jobs = {}
    for name, like in todo.items():
        command = [*pool.commands[name], "--workdir", str(folder / name)]
        if like:
            command += ["--like", str(like)]
        jobs[name] = processes.Job(command, like and like / "split.csv", since)
    processes.run_jobs(jobs, pool.slots, folder)


def _is_done(config: Run, folder: Path) -> bool:
    """Whether nothing is left to do; it may be asked to become longer."""
    asked = workdir.read_model(folder).get("asked")
    return workdir.is_finished(folder) and asked == workdir.length_of(config.train)


def _without_seed(config: Run) -> Run:
    return dataclasses.replace(config, seed=0)


def _first_of_seeds(runs: Mapping[str, Run], name: str) -> str:
    """The first run that differs from this one in nothing but the seed."""
    wanted = _without_seed(runs[name])
    return next(n for n, config in runs.items() if _without_seed(config) == wanted)


def _refuse_misfits(runs: Mapping[str, Run], folder: Path, restart: bool) -> None:
    """Raises InputError with what is wrong with each run, as far as it is known."""
    problems = {}
    for name, config in runs.items():
        try:
            if (folder / name / "config.json").is_file() and not restart:
                workdir.refuse_other_config(folder / name, config)
            if _first_of_seeds(runs, name) == name:
                plan.make_plan(config)
        except InputError as error:
            problems.setdefault(str(error), (error, []))[1].append(name)
    if not problems:
        return
    if len(problems) == 1:
        raise next(error for error, _ in problems.values())
    details = [
        f"{shorten(names)}: expected {error.expected}, found {error.found}; {error.fix}"
        for error, names in problems.values()
    ]
    raise InputError(
        "runs that can all be started",
        "\n  ".join([f"{len(problems)} problem(s):", *details]),
        "correct the values of --sweep, or the keys named above",
    )


def _report(folders: Mapping[str, Path], folder: Path) -> dict[str, Spread]:
    """sweep.csv, sweep.md and the table on the terminal."""
    metrics = [workdir.read_metrics(one) for one in folders.values()]
    names = dict.fromkeys(name for of in metrics for name in of)
    values = {name: [of.get(name) for of in metrics] for name in names}
    spreads = {name: spread_of(of) for name, of in values.items()}
    rows = [(name, *spreads[name], _sum(values[name])) for name in names]
    print_rows(HEADER, rows, f"{len(folders)} runs", console)
    rows = [(*row, *values[row[0]]) for row in rows]
    write_csv(folder / "sweep.csv", (*HEADER, *folders), rows)
    write_markdown(folder / "sweep.md", (*HEADER, *folders), rows)
    console.print(f"- {folder / 'sweep.csv'} and sweep.md are written", markup=False)
    return spreads


def _sum(values: list[float | None]) -> int | None:
    """Of counts of images, which are whole numbers; other metrics have no sum."""
    return sum(values) if all(type(value) is int for value in values) else None


def _refuse_single_run(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise InputError(
            "a folder for the runs of --sweep",
            f"{folder} holds a single run",
            "--workdir runs/another-name, or the same command without --sweep",
        )
