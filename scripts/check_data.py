"""Tells what the data that a config names are like, before anything is trained.

    python scripts/check_data.py --config configs/folder_segmentation.py \\
        --config.data.dir=DIR --out check

Every file is opened, as before a training. On the terminal and in OUT/check.html stand
counts, sizes, pixels and shapes, copies and lookalikes, what a random split would leak,
and what to change, with the option that does it; with pictures of samples and of what
augmentation makes of them. OUT/check.json is for programs. Exit codes: 0 done, perhaps
with warnings; 2 wrong data or config.
"""

import argparse
from pathlib import Path

import command_line


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_argument(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("check"),
        metavar="DIR",
        help="folder of check.html, check.json and the pictures (default: check)",
    )
    parser.add_argument(
        "--augmented",
        type=command_line.positive,
        default=6,
        metavar="N",
        help="training samples that are drawn augmented (default: 6)",
    )
    options = parser.parse_args(plain)

    from jaxseg import inspect_data
    from jaxseg.vocabulary import SCHEMAS

    run_config = command_line.load_config(options.config, overrides, SCHEMAS)
    inspect_data.check_data(
        run_config,
        options.out,
        title=f"{options.config.stem}, {run_config.data.dir}",
        num_augmented=options.augmented,
    )


if __name__ == "__main__":
    command_line.main(run)
