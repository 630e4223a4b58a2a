"""Writes a trained model in the form of another program.

    python scripts/export.py --model runs/speedlines/model --format pytorch \\
        --out speedlines.safetensors

pytorch: a state dict for `segmentation_models_pytorch.Unet`; after loading it there the
logits are the same. Exit codes: 0 done; 2 wrong input; 1 a bug.
"""

import argparse
from pathlib import Path

import command_line

USE = """\
import segmentation_models_pytorch as smp
from safetensors.torch import load_file

model = smp.Unet("{encoder}", encoder_weights=None, classes={classes}, in_channels={c})
model.load_state_dict(load_file("{path}"))
model.eval()
# input: (RGB in [0, 1] - {mean}) / {std}, size {size}; {decide}"""


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="the model/ folder of a finished run"
    )
    parser.add_argument("--format", choices=("pytorch",), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    options = parser.parse_args(arguments)

    from jaxseg import config, export, pretrained

    variables, description = export.load_model(options.model)
    keys = dict(description["model"])
    network = config.Spec(keys.pop("name"), keys)
    pretrained.save_smp(options.out, network, variables)
    print(
        f"{options.out} is written; to use it:\n\n{_example(options.out, description)}"
    )


def _example(path: Path, description: dict) -> str:
    kept, classes = description["preprocessing"], description["classes"]
    encoder = description["model"]["encoder"]
    threshold = description["thresholds"].get("mask", {}).get("value")
    return USE.format(
        path=path,
        encoder=encoder.removeprefix("smp_").replace("net_b", "net-b"),
        classes=1 if len(classes) == 2 else len(classes),
        c=kept["channels"],
        mean=tuple(kept["mean"]),
        std=tuple(kept["std"]),
        size=tuple(kept["image_size"]),
        decide=f"{classes[1]} where sigmoid(logit) >= {threshold:.4f}"
        if threshold is not None
        else "class = argmax of the logits",
    )


if __name__ == "__main__":
    command_line.main(run)
