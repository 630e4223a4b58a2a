"""Weights to start from: published encoders, networks of other programs, our own.

Files are safetensors. A pickle can run code when it is opened, so none ever is.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from jaxseg import config, export, files
from jaxseg.errors import InputError, shorten
from jaxseg.torch_names import from_torch, to_torch, torch_name

Leaves = dict[str, np.ndarray]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Entries of published files that have no use here: counters, classifiers, and the top
# that a U-Net on outputs of blocks does not reach.
_UNUSED = re.compile(
    r"num_batches_tracked$|^(fc|classifier|_fc|conv_head|bn2|_conv_head|_bn1)\.|"
    r"^(params|batch_stats)/encoder/top/"
)


def load_start(
    model: config.Model, data: config.Data, template: dict[str, Any]
) -> dict[str, Any] | None:
    """The arrays that training starts from in place of random ones.

    Args:
      template: shapes of all variables of the network, {'params': …, 'batch_stats': …}.

    Returns:
      Nested like `template`, with the loaded leaves only; None where the config names
      no weights.

    Raises:
      InputError: the file is missing, broken, no safetensors or of another network, or
        its images were normalised in another way.
    """
    leaves = flatten_dict(template, sep="/")
    if model.init.startswith("smp:"):
        loaded = _load_smp(Path(model.init.removeprefix("smp:")), model, data, leaves)
    elif model.init:
        loaded = _load_own(Path(model.init), "model.init", data, leaves)
    elif model.encoder_init:
        own = _encoder_leaves(leaves, model)
        loaded = _load_own(Path(model.encoder_init), "model.encoder_init", data, own)
    elif model.encoder_weights:
        loaded = _load_encoder(model, data, _encoder_leaves(leaves, model))
    else:
        return None
    return unflatten_dict(loaded, sep="/")


def save_smp(
    path: Path,
    network: config.Spec,
    variables: dict[str, Any],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes a state dict that segmentation_models.pytorch's `Unet` loads strictly.

    Its EfficientNets hold a top that `Unet` never uses; zeros stand for it.

    Args:
      path: of a safetensors file.
      network: an 'encoder_unet' in the form of that library.
      variables: of the network.
      facts: metadata of the file.

    Raises:
      InputError: the library has no such network, or the path cannot be written.
    """
    naming, depth = _smp_naming(network)
    state = {}
    for ours, leaf in flatten_dict(variables, sep="/").items():
        name = _smp_name(ours, naming, depth)
        state[name] = to_torch(np.asarray(leaf), name)
        if name.endswith("running_mean"):
            counter = name.replace("running_mean", "num_batches_tracked")
            state[counter] = np.zeros((), np.int64)
    if naming == "smp":
        state["encoder._conv_head.weight"] = np.zeros((1280, 320, 1, 1), np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"encoder._bn1.{name}"] = np.zeros(1280, np.float32)
        state["encoder._bn1.num_batches_tracked"] = np.zeros((), np.int64)
    temporary = path.with_name(f".{path.name}")
    try:
        save_file(state, temporary, facts)
        temporary.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            "a file that can be written", f"{path}: {error}", "--out in another folder"
        ) from None


def read_safetensors(path: Path) -> Leaves:
    """The arrays of a safetensors file, floating ones as float32.

    Raises:
      InputError: it is missing, damaged, or another kind of file.
    """
    if not path.is_file():
        raise InputError("a .safetensors file with weights", f"no file {path}", _FIX)
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


_FIX = "--config.model.encoder_weights=PATH.safetensors or =hf:timm/resnet34.a1_in1k"


def _load_encoder(model: config.Model, data: config.Data, wanted: Leaves) -> Leaves:
    path = _fetch(model.encoder_weights)
    state = read_safetensors(path)
    naming = _naming_of(state)
    name = model.network.kwargs["encoder"]
    if naming != ("torchvision" if name.startswith("resnet") else naming):
        found = f"{path} with the names of {naming}"
        raise InputError(f"weights of {name}", found, _FIX)
    if (naming == "smp") != name.startswith("smp_"):
        fitting = name[name.index("efficient") :]
        raise InputError(
            "an encoder of the form that these weights were trained in",
            f"config.model.encoder={name}, and {path} with the names of {naming}",
            f"--config.model.encoder={'smp_' if naming == 'smp' else ''}{fitting}",
        )
    _refuse_other_normalisation(_published_normalisation(path), data, path)
    names = {ours: torch_name(ours, naming, name[-2:]) for ours in wanted}
    return _match(wanted, state, names, path, from_torch)


def _load_smp(
    path: Path, model: config.Model, data: config.Data, wanted: Leaves
) -> Leaves:
    naming, depth = _smp_naming(model.network)
    state = read_safetensors(path)
    names = {ours: _smp_name(ours, naming, depth) for ours in wanted}
    _refuse_other_normalisation(_published_normalisation(path), data, path)
    return _match(wanted, state, names, path, from_torch)


def _load_own(folder: Path, key: str, data: config.Data, wanted: Leaves) -> Leaves:
    variables, description = export.load_model(folder)
    kept = description["preprocessing"]
    _refuse_other_normalisation((kept["mean"], kept["std"]), data, folder)
    state = flatten_dict(variables, sep="/")
    if key == "model.encoder_init":
        state = {k: leaf for k, leaf in state.items() if k.split("/")[1] == "encoder"}
    names = {ours: ours for ours in wanted}
    return _match(wanted, state, names, folder, lambda array, ndim: array)


def _match(
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


def _encoder_leaves(leaves: Leaves, model: config.Model) -> Leaves:
    own = {
        path: leaf for path, leaf in leaves.items() if path.split("/")[1] == "encoder"
    }
    if not own:
        raise InputError(
            "a network with an encoder, to start it from weights",
            f"config.model.name={model.network.name}",
            "--config.model.name=encoder_unet or classifier with its keys",
        )
    return own


def _smp_naming(network: config.Spec) -> tuple[str, str]:
    """(naming, depth) of an encoder_unet that segmentation_models.pytorch has."""
    keys = network.kwargs
    encoder = keys.get("encoder", "")
    fits = (
        network.name == "encoder_unet"
        and keys["skips"] == "blocks"
        and not keys["image_head"]
        and encoder.startswith(("resnet", "smp_"))
    )
    if not fits:
        raise InputError(
            "an encoder_unet that segmentation_models.pytorch has: encoder resnet18, "
            "resnet34 or smp_efficientnet_b0/b1, skips='blocks', no image head",
            f"{network.name} with {dict(keys)}",
            "--config.model.encoder=smp_efficientnet_b0 --config.model.skips=blocks",
        )
    return ("torchvision" if encoder.startswith("resnet") else "smp"), encoder[-2:]


def _smp_name(path: str, naming: str, depth: str) -> str:
    name = torch_name(path, naming, depth)
    return f"encoder.{name}" if path.split("/")[1] == "encoder" else name


def _naming_of(state: Leaves) -> str:
    if "_conv_stem.weight" in state:
        return "smp"
    return "timm" if "conv_stem.weight" in state else "torchvision"


def _fetch(weights: str) -> Path:
    """The file of 'PATH' or of 'hf:REPO', from the hub's own cache or the network."""
    if not weights.startswith("hf:"):
        return Path(weights).expanduser()
    repo = weights.removeprefix("hf:")
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            "the package huggingface_hub, for weights of the form hf:REPO",
            "it is not installed",
            'pip install "jaxseg[hub]", or encoder_weights=PATH.safetensors',
        ) from None
    try:
        path = huggingface_hub.hf_hub_download(repo, "model.safetensors")
        huggingface_hub.hf_hub_download(repo, "config.json")
    except Exception as error:  # a dozen classes, of three libraries
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"the files model.safetensors and config.json of {repo}, cached or from "
            "the network",
            f"{type(error).__name__}: {reason}",
            "a network connection, another name, or a downloaded file: "
            "--config.model.encoder_weights=PATH.safetensors",
        ) from None
    return Path(path)


def _published_normalisation(path: Path) -> tuple[Sequence[float], Sequence[float]]:
    """(mean, std) of timm's config.json beside the weights, else ImageNet's."""
    try:
        text = path.with_name("config.json").read_text(encoding="utf-8")
        beside = files.parse_json(text)
        published = beside["pretrained_cfg"]
        return published["mean"], published["std"]
    except (OSError, ValueError, KeyError, TypeError):
        return IMAGENET


def _refuse_other_normalisation(published, data: config.Data, source: Path) -> None:
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
