"""Weights in safetensors files of any program, matched by name with those wanted.

A pickle can run code when it is opened, so none ever is.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from jaxseg import config
from jaxseg.errors import InputError, shorten

Leaves = dict[str, np.ndarray]

# Entries of published files that have no use here: counters, classifiers, and the top
# that a U-Net on outputs of blocks does not reach.
_UNUSED = re.compile(
    r"num_batches_tracked$|^(fc|classifier|_fc|conv_head|bn2|_conv_head|_bn1)\.|"
    r"^(params|batch_stats)/encoder/top/"
)

FIX = "--config.model.encoder_weights=PATH.safetensors or =hf:timm/resnet34.a1_in1k"


def read_safetensors(path: Path) -> Leaves:
    """The arrays of a safetensors file, floating ones as float32.

    Raises:
      InputError: it is missing, damaged, or another kind of file.
    """
    if not path.is_file():
        raise InputError("a .safetensors file with weights", f"no file {path}", FIX)
    if _is_pickle(path):
        raise InputError(
            "weights as safetensors, which cannot run code when opened",
            f"{path} is a pickle (a .pth or .pt file of PyTorch)",
            'convert it where you trust it: python -c "import torch; from '
            "safetensors.torch import save_file; save_file(torch.load("
            f"'{path.name}', weights_only=True), '{path.stem}.safetensors')\"",
        )
    try:
        arrays = load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            "a whole .safetensors file", f"{path}: {error}", "download it once more"
        ) from None
    return {
        name: array.astype(np.float32) if array.dtype.kind in "fV" else array
        for name, array in arrays.items()
    }


def _is_pickle(path: Path) -> bool:
    """Of PyTorch, in a zip file or bare."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with eight bytes of any length, then JSON.
    return start[8:] != b"{" and start.startswith((b"PK", b"\x80"))


def match(
    wanted: Leaves, state: Leaves, names: dict[str, str], source: Path, layout: Callable
) -> Leaves:
    """The entries of `state` for every wanted leaf, in our layout.

    Raises:
      InputError: names every entry that is missing, left over or of another shape.
    """
    missing = [names[ours] for ours in wanted if names[ours] not in state]
    known = set(names.values())
    over = [
        name
        for name in state
        if name not in known and not _UNUSED.search(name.removeprefix("encoder."))
    ]
    loaded, misfits = {}, []
    for ours, leaf in wanted.items():
        if names[ours] in state:
            array = layout(state[names[ours]], len(leaf.shape))
            array = _fit_stem(array, leaf.shape) if "/stem/conv" in ours else array
            loaded[ours] = array
            if array.shape != leaf.shape:
                shapes = f"{array.shape} for {tuple(leaf.shape)}"
                misfits.append(f"{names[ours]} {shapes}")
    problems = [
        f"{len(group)} {kind}: {shorten(group, 8)}"
        for kind, group in (
            ("missing", missing),
            ("unknown", over),
            ("of another shape", misfits),
        )
        if group
    ]
    if problems:
        raise InputError(
            "weights of the network that the config names",
            "\n  ".join([f"{source}:", *problems]),
            "the weights of that encoder, or --config.model.encoder with theirs",
        )
    return loaded


def _fit_stem(kernel: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The first kernel [h, w, 3, D] for another number of channels.

    One channel gets the sum: a grey image weighs as it did in three equal channels.
    More are filled in turn, scaled by 3 / C. Source: timm, `adapt_input_conv`.
    """
    channels = shape[2]
    if kernel.ndim != 4 or kernel.shape[2] != 3 or channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    filled = np.take(kernel, np.arange(channels) % 3, axis=2)
    return filled * np.float32(3.0 / channels)


def refuse_other_normalisation(published, data: config.Data, source: Path) -> None:
    """The images must look as they did when the weights were trained."""
    wanted = [_per_channel(values, data.channels) for values in published]
    found = (data.mean, data.std)
    same = all(
        math.isclose(a, b, abs_tol=1e-3)
        for theirs, ours in zip(wanted, found, strict=True)
        for a, b in zip(theirs, ours, strict=True)
    )
    if not same:
        mean, std = (tuple(round(value, 4) for value in values) for values in wanted)
        raise InputError(
            f"images normalised as for {source}: mean {mean}, std {std}",
            f"config.data.mean={data.mean}, config.data.std={data.std}",
            f'--config.data.mean="{mean}" --config.data.std="{std}"',
        )


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    return (
        list(values) if len(values) == channels else [float(np.mean(values))] * channels
    )
