"""One config with several seeds: other weights, orders and augmentations, one split.

Every seed is a complete run in WORKDIR/seed_<n>; the folder above holds the table over
them. The seeds of a config are its `seed` and those that follow.
"""

import dataclasses
from pathlib import Path

from jaxseg import run, workdir
from jaxseg.config import Run
from jaxseg.errors import InputError
from jaxseg.progress import console
from jaxseg.report.tables import (
    Spread,
    print_rows,
    spread_of,
    write_csv,
    write_markdown,
)

HEADER = ("metric", "mean", "std", "min", "max")


def run_seeds(
    run_config: Run, folder: Path, *, restart: bool = False
) -> dict[str, Spread]:
    """Trains `train.seeds` seeds one after the other, and compares their test metrics.

    Finished seeds are left as they are; an interrupted one goes on.

    Returns:
      the spread of every metric of the test part.

    Raises:
      InputError: as `run.run`, or the folder holds one run without seeds.
      Interrupted: stopped by a signal; the same call goes on.
    """
    _refuse_single_run(folder)
    count = run_config.train.seeds
    folders = [folder / f"seed_{index}" for index in range(count)]
    with workdir.claim(folder):
        for index, one in enumerate(folders):
            config = _with_seed(run_config, index)
            console.print(f"- seed {config.seed}: {one} ({index + 1} of {count})")
            if workdir.is_finished(one) and not restart:
                workdir.refuse_other_config(one, config)
                console.print("- is finished")
                continue
            like = folders[0] if index else None
            run.run(config, one, restart=restart, like=like)
        return _report(folders, folder)


def _with_seed(run_config: Run, index: int) -> Run:
    """The run of one seed, as if it had been asked for alone."""
    train = dataclasses.replace(run_config.train, seeds=1)
    return dataclasses.replace(run_config, seed=run_config.seed + index, train=train)


def _report(folders: list[Path], folder: Path) -> dict[str, Spread]:
    """seeds.csv, seeds.md and the table on the terminal."""
    metrics = [workdir.read_metrics(one) for one in folders]
    names = [name for name in metrics[0] if name != "num_images"]
    values = {name: [of[name] for of in metrics] for name in names}
    spreads = {name: spread_of(of) for name, of in values.items()}
    rows = [(name, *spread) for name, spread in spreads.items()]
    print_rows(HEADER, rows, f"{len(folders)} seeds", console)
    seeds = [one.name for one in folders]
    rows = [(*row, *values[row[0]]) for row in rows]
    write_csv(folder / "seeds.csv", (*HEADER, *seeds), rows)
    write_markdown(folder / "seeds.md", (*HEADER, *seeds), rows)
    console.print(f"- {folder / 'seeds.csv'} and seeds.md are written", markup=False)
    return spreads


def _refuse_single_run(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise InputError(
            "a folder for the runs of several seeds",
            f"{folder} holds a single run",
            "--workdir runs/another-name, or --config.train.seeds=1",
        )
