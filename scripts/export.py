"""Writes a trained model as one file for other programs.

    python scripts/export.py --model runs/road/model --format onnx --out road.onnx

stablehlo, onnx: from uint8 pixels to probabilities and decisions; normalisation,
activation and threshold are inside. Any number of images, of any size that the size
rule in the file allows. The file is run and compared with the model before it is kept.
stablehlo is read by jax.export, of the JAX that wrote it and of the six months after;
what ONNX has as metadata stands in FILE.json. They need pip install "jaxseg[stablehlo]"
and "jaxseg[onnx]".
safetensors: the weights with model.json as metadata. pytorch: a state dict for
`segmentation_models_pytorch.Unet`; after loading it there the logits are the same.

Exit codes: 0 done; 2 wrong input; 1 a bug, also when the file and the model differ.
"""

import argparse
import sys
from pathlib import Path

import command_line


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="the model/ folder of a finished run"
    )
    parser.add_argument(
        "--format",
        choices=("stablehlo", "onnx", "safetensors", "pytorch"),
        required=True,
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder of images to compare the file and the model on; else on noise",
    )
    options = parser.parse_args(arguments)

    from jaxseg import formats

    try:
        notes, example = formats.export_model(
            options.model, options.format, options.out, options.images
        )
    except formats.Mismatch as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    print(*(f"- {note}" for note in notes), f"\nto use it:\n\n{example}", sep="\n")


if __name__ == "__main__":
    command_line.main(run)
