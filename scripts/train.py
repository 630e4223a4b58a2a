"""Trains what a config names, judges it on the test set and leaves a run folder.

    python scripts/train.py --config configs/sdnet.py --config.data.dir=DIR \\
        --workdir runs/sdnet

With --sweep data.fold=0,1,2 it trains a run for each value, WORKDIR/fold_0 and so on,
and writes a table of their test metrics; --parallel 4 trains four of them at a time,
each on a device of its own. Several processes train one run together: under SLURM or
Open MPI they find each other, elsewhere --coordinator says where. The same command
(without --restart) on an existing run folder goes on where it stopped. Exit codes: 0
done; 2 wrong input or config; 75 stopped by a signal with everything saved; 1 a bug.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import command_line

from jaxseg import backend, signals
from jaxseg.errors import InputError


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_argument(parser)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="the run folder, new or to go on in"
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="archive the run in the folder and begin anew",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from a whole network: runs/NAME/model, or smp:FILE.safetensors of "
        "segmentation_models.pytorch; the same as --config.model.init",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="KEY=V,V,...",
        help="a run for each value of a config key: data.fold=0,1,2 or seed=0,1,2; "
        "several --sweep are combined",
    )
    parser.add_argument(
        "--parallel",
        type=command_line.positive,
        metavar="N",
        help="so many runs of the sweep at a time, each on one device (without an "
        "accelerator: on its share of the cores)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="RUN",
        help="a new run has the data and the split of this run folder",
    )
    command_line.add_host_arguments(parser)
    return parser


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    options = make_parser().parse_args(plain)
    refuse_contradictions(options)
    environment = dict(os.environ)
    if options.parallel:
        os.environ["JAX_PLATFORMS"] = "cpu"  # the devices are for the runs
    command_line.join_hosts(options)  # jax starts
    if options.init:
        overrides.append(f"model.init={options.init}")

    from jaxseg import hosts
    from jaxseg import run as program
    from jaxseg.sweep import run_sweep

    source = (options.config, overrides, program.SCHEMAS)
    if options.sweep:
        runs = command_line.load_sweep(*source, options.sweep)
        pool = options.parallel and make_pool(options, overrides, environment)
        train = partial(run_sweep, runs, pool=pool)
    else:
        config = hosts.in_turn(partial(command_line.load_config, *source))
        train = partial(program.run, config, like=options.like)
    origin = {"config": options.config.name, "overrides": overrides}
    try:
        train(options.workdir, restart=options.restart, origin=origin)
    except program.Interrupted as stopped:
        print(f"stopped by {stopped}; {signals.same_command()} goes on")
        sys.exit(command_line.STOPPED)
    except InputError:  # names of files may hold any word
        raise
    except Exception as error:
        hosts.end_if_lost(error, command_line.STOPPED)
        raise


def refuse_contradictions(options: argparse.Namespace) -> None:
    """Raises InputError for options that say nothing together."""
    if options.parallel and not options.sweep:
        raise InputError(
            "--parallel N for the runs of a --sweep",
            "a single run, which uses all devices by itself",
            "--sweep seed=0,1,2, or the same command without --parallel",
        )
    if options.like and options.sweep:
        raise InputError(
            "--like RUN for a single run",
            "--sweep, whose runs share a split where they differ in the seed",
            f"--config.data.split={options.like / 'split.csv'} instead of --like",
        )


def make_pool(options: argparse.Namespace, overrides: list[str], environment: dict):
    """This script once for each run of the sweep, as many at a time as wanted."""
    from jaxseg import grid, processes

    shared = [sys.executable, __file__, "--config", str(options.config)]
    if options.restart:
        shared.append("--restart")
    commands = {
        name: [*shared, *(f"--config.{text}" for text in (*overrides, *own))]
        for name, own in grid.expand(options.sweep).items()
    }
    slots = processes.find_slots(options.parallel, environment)
    return processes.Pool(commands, slots)


if __name__ == "__main__":
    backend.use_huge_pages()
    command_line.main(run)
