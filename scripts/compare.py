"""Compares runs: headline metrics, parameters, speed; best run first.

    python scripts/compare.py runs/unet runs/resnet34 'runs/folds_*'

The folder of a sweep (train.py --sweep) is one line with mean +- standard deviation.
Runs that were judged on other images or another split are marked; unfinished runs are
listed as such. Exit codes: 0 done; 2 wrong input.
"""

import argparse
from pathlib import Path

import command_line


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or patterns in quotes"
    )
    parser.add_argument(
        "--metrics",
        default="",
        metavar="A,B,C",
        help="other metrics of metrics.json; the first one sorts the runs",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="NAME",
        help="also write NAME.md and NAME.csv",
    )
    options = parser.parse_args(arguments)

    from jaxseg.report import comparison

    wanted = [name for name in options.metrics.split(",") if name]
    comparison.run_comparison(options.runs, wanted, options.out)


if __name__ == "__main__":
    command_line.main(run)
