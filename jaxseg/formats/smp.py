"""A state dict for `segmentation_models_pytorch.Unet`, which gives the same logits."""

from pathlib import Path

from jaxseg import pretrained
from jaxseg.errors import InputError
from jaxseg.formats.examples import quoted
from jaxseg.formats.finished import Finished

EXAMPLE = """\
import segmentation_models_pytorch as smp
from safetensors.torch import load_file

model = smp.Unet("{encoder}", encoder_weights=None, classes={classes}, in_channels={c})
model.load_state_dict(load_file({path}))
model.eval()
# input: (RGB in [0, 1] - {mean}) / {std}, size {size}; {decide}"""


def write(model: Finished, path: Path) -> None:
    """Raises:
    InputError: the library has no such network.
    """
    try:
        pretrained.save_smp(
            path, model.network, model.variables, model.facts_of_weights
        )
    except InputError as error:
        fix = f"--format onnx, which every network has; or train with {error.fix}"
        raise InputError(error.expected, error.found, fix) from None


def example(model: Finished, path: Path) -> str:
    """Its use; the normalisation and the decision are left to the user there."""
    kept, classes = model.description["preprocessing"], model.description["classes"]
    encoder, threshold = model.network.kwargs["encoder"], model.thresholds.get("mask")
    return EXAMPLE.format(
        path=quoted(path),
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
