"""Judges a finished run on one of its parts, at the threshold that its model stores.

    python scripts/evaluate.py --workdir runs/sdnet --split test

Writes <workdir>/<split>/ anew and prints the table; --epoch last writes <split>_last/,
at a threshold of its own, as the model is that of the best epoch.
Exit codes: 0 done; 2 wrong input.
"""

import argparse
from pathlib import Path

import command_line

from jaxseg.schema import matches, parse_literal


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="the run folder")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="which part"
    )
    parser.add_argument(
        "--epoch",
        choices=("best", "last"),
        default="best",
        help="the best on validation, as in the model of the run, or the last",
    )
    parser.add_argument(
        "--threshold",
        nargs="+",
        action="extend",
        type=_threshold,
        default=[],
        metavar="KIND=VALUE",
        help="to judge at and to keep in the model, for predict, serve and export: "
        "image=0.31, mask=0.4 or both; of masks to 1/256",
    )
    options = parser.parse_args(plain)

    from jaxseg import run as program

    run_config = command_line.load_run(options.workdir, overrides, program.SCHEMAS)
    program.evaluate(
        run_config,
        options.workdir,
        options.split,
        options.epoch,
        dict(options.threshold),
    )


def _threshold(text: str) -> tuple[str, float]:
    kind, _, number = text.partition("=")
    value = parse_literal(number)
    is_share = matches(value, float) and 0 <= value <= 1
    if kind not in ("image", "mask") or not is_share:
        words = f"expected image=VALUE or mask=VALUE, 0 to 1, found {text}"
        raise argparse.ArgumentTypeError(words)
    return kind, float(value)


if __name__ == "__main__":
    command_line.main(run)
