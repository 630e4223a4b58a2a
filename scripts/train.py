"""Trains what a config names, judges it on the test set and leaves a run folder.

    python scripts/train.py --config configs/sdnet.py --config.data.dir=DIR \\
        --workdir runs/sdnet

With --sweep data.fold=0,1,2 it trains a run for each value, WORKDIR/fold_0 and so on,
and writes a table of their test metrics. Several processes train one run together:
under SLURM or Open MPI they find each other, elsewhere --coordinator says where. The
same command on an existing run folder goes on where it stopped. Exit codes: 0 done; 2
wrong input or config; 75 stopped by a signal with everything saved; 1 a bug.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import command_line


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
    command_line.add_host_arguments(parser)
    return parser


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    options = make_parser().parse_args(plain)
    command_line.join_hosts(options)
    if options.init:
        overrides.append(f"model.init={options.init}")

    from jaxseg import hosts
    from jaxseg import run as program
    from jaxseg.sweep import run_sweep

    source = (options.config, overrides, program.SCHEMAS)
    if options.sweep:
        train = partial(run_sweep, command_line.load_sweep(*source, options.sweep))
    else:
        train = partial(program.run, command_line.load_config(*source))
    origin = {"config": options.config.name, "overrides": overrides}
    try:
        train(options.workdir, restart=options.restart, origin=origin)
    except program.Interrupted as stopped:
        print(f"stopped by {stopped}; the same command goes on")
        sys.exit(command_line.STOPPED)
    except Exception as error:
        hosts.end_if_lost(error, command_line.STOPPED)
        raise


if __name__ == "__main__":
    command_line.main(run)
