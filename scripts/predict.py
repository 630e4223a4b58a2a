"""Uses a trained model: masks, decisions and a table for a folder of images.

    python scripts/predict.py --model runs/road/model --images photos --out found

Writes to OUT, with the sub-folders of the images: masks/ (PNG of class ids, with a
palette that shows them), results.csv with score, decision and the measurements of what
was found, components.csv with a row per connected piece, and what else is asked for.
Lengths, widths and areas are in pixels of the image. The same command goes on where it
stopped. Images and folders that cannot be read are named at the end and in skipped.csv;
all others are done. Files of other kinds are counted.

How large images are treated: a model that was trained on windows (data.crop) works tile
by tile, at full resolution. One that was trained on resized images resizes: right where
the photos show as much as those of the training. Where they show more - the model was
trained on small cuts, and these are the whole photos - cracks would become thinner than
any that it has seen: --tile keeps the scale of the training. A classifier then scores
every tile (tiles.csv); with two classes the image is as its worst tile, with more its
probabilities are the mean over the tiles.

Exit codes: 0 done; 2 wrong input, or images that cannot be read (all others are done);
75 stopped, and the same command goes on; 1 a bug.
"""

import argparse
from pathlib import Path

import command_line


def run(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)

    from jaxseg import backend, paths
    from jaxseg.data import images
    from jaxseg.predict import folder, predictor
    from jaxseg.progress import console

    images.allow_pixels(options.max_pixels)
    backend.enable_compilation_cache(paths.cache_folder(""))
    model = predictor.load(
        options.model,
        tile=options.tile,
        overlap=options.overlap,
        batch_size=options.batch_size,
        flips=options.tta == "flips",
        precision=options.precision,
    )
    console.print(f"- {model}", markup=False)
    wanted = folder.Wanted(
        options.probabilities, options.overlays, options.format, options.mm_per_pixel
    )
    skipped = folder.predict_folder(model, options.images, options.out, wanted)
    console.print(f"- {options.out / 'results.csv'} is written", markup=False)
    if skipped and options.on_corrupt == "skip":
        console.print(f"WARNING: {len(skipped)} that cannot be read: skipped.csv")
    else:
        folder.refuse_broken(skipped, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the model/ folder of a finished run")
    add(
        "--images",
        nargs="+",
        required=True,
        metavar="DIR|FILE|GLOB",
        help="folders with their sub-folders, files, or patterns in quotes",
    )
    add("--out", type=Path, required=True, help="folder of results, new or to go on")
    add(
        "--tile",
        nargs="?",
        type=command_line.positive,
        const=True,
        default=False,
        metavar="SIDE",
        help="tile by tile at the scale of the training, see above; SIDE in pixels, by "
        "default what suits the network",
    )
    add(
        "--overlap",
        type=int,
        help="of tiles, pixels (a quarter of the side by default, 0 for a classifier): "
        "more of it hides the borders of tiles better and costs time",
    )
    add("--batch-size", type=command_line.positive, help="images or tiles at a time")
    add(
        "--tta",
        choices=("none", "flips"),
        default="none",
        help="flips: the mean over the image and its three mirror images; four times "
        "the work",
    )
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    add(
        "--probabilities",
        action="store_true",
        help="also probabilities/<class id>/, 16-bit PNG: 65535 is 1",
    )
    add("--overlays", action="store_true", help="also overlays/, pictures for people")
    add(
        "--format",
        choices=("labelme", "coco"),
        default="",
        help="also annotations of what was found, to correct and to train on again: "
        "labelme/ (a file that is there stays) or coco.json; needs no second "
        "prediction",
    )
    add(
        "--mm-per-pixel",
        "--mm_per_pixel",
        type=command_line.above_zero,
        help="of the images, for measurements in millimetres too; by default what the "
        "model was trained with. Needs no second prediction",
    )
    add(
        "--on-corrupt",
        choices=("fail", "skip"),
        default="fail",
        help="images or folders that cannot be read: exit code 2 at the end, or 0",
    )
    add(
        "--max-pixels",
        type=command_line.positive,
        default=178_956_970,
        help="larger images are refused, as they could fill the memory (default "
        "%(default)s); a pixel of the largest one takes about 9 bytes, "
        "beside up to 1 GB",
    )
    return parser


if __name__ == "__main__":
    command_line.main(run)
