"""Checks the data that a config names, and shows how its samples are augmented.

    python scripts/check_data.py --config configs/folder_segmentation.py \\
        --config.data.dir=DIR --augmented 6 --out augmented.png

Everything is checked as before a training: files, masks, the split, the config. With
--augmented a picture is drawn of so many training samples: each as it is, then as the
first steps would train on it, with the mask outlined. Exit codes: 0 done; 2 wrong data
or config.
"""

import argparse
from pathlib import Path

import command_line
from make_synthetic import at_least


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_argument(parser)
    parser.add_argument(
        "--augmented", type=at_least(1), metavar="N", help="draw N training samples"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("augmented.png"),
        metavar="FILE.png",
        help="the picture of --augmented (default: augmented.png)",
    )
    options = parser.parse_args(plain)

    from jaxseg import run as program

    run_config = command_line.load_config(options.config, overrides, program.SCHEMAS)
    program.check_data(run_config, num_augmented=options.augmented, path=options.out)


if __name__ == "__main__":
    command_line.main(run)
