"""Makes the data of a config ready, so that a training begins at once.

    python scripts/prepare_data.py --config configs/sdnet.py --config.data.dir=DIR

For a machine that reads faster than the one that trains, or costs less: every file is
checked, copied into records and decoded to `data.image_size`, in the cache folder
(~/.cache/jaxseg, or --config.data.cache_dir=DIR, which the training needs as well).
Nothing is trained. Then it lists all sets in the cache folder. Exit codes: 0 done; 2
wrong data or config.
"""

import argparse

import command_line


def run(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_argument(parser)
    parser.add_argument(
        "--delete-unused",
        type=command_line.above_zero,
        metavar="DAYS",
        help="deletes sets in the cache folder that nothing has opened for so long; a "
        "training makes them again",
    )
    options = parser.parse_args(plain)

    from jaxseg import inspect_data
    from jaxseg.vocabulary import SCHEMAS

    run_config = command_line.load_config(options.config, overrides, SCHEMAS)
    inspect_data.prepare_data(run_config, options.delete_unused)


if __name__ == "__main__":
    command_line.main(run)
