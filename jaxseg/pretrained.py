"""Weights to start from: published encoders, networks of other programs, our own."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from jaxseg import config, export, files, trained
from jaxseg.errors import InputError
from jaxseg.progress import console
from jaxseg.schema import freeze
from jaxseg.torch_names import from_torch, to_torch, torch_name
from jaxseg.weight_files import (
    FIX,
    Leaves,
    match,
    read_safetensors,
    refuse_other_normalisation,
)

_OF_TRAINING = {"dropout", "drop_path", "bn_group", "adjust_gradient"}
"""Keys of networks that change nothing in a trained one."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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
        path = _path(model.init.removeprefix("smp:"))
        loaded = _load_smp(path, model, data, leaves)
    elif model.init:
        loaded = _load_own(_path(model.init), model.network, data, leaves)
    elif model.encoder_init:
        own = _encoder_leaves(leaves, model)
        loaded = _load_own_encoder(_path(model.encoder_init), model.network, data, own)
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


def _load_encoder(model: config.Model, data: config.Data, wanted: Leaves) -> Leaves:
    path = _fetch(model.encoder_weights)
    state = read_safetensors(path)
    naming = _naming_of(state)
    name = model.network.kwargs["encoder"]
    if (naming == "torchvision") != name.startswith("resnet"):
        found = f"{path} with the names of {naming}"
        raise InputError(f"weights of {name}", found, FIX)
    if (naming == "smp") != name.startswith("smp_"):
        fitting = name[name.index("efficient") :]
        raise InputError(
            "an encoder of the form that these weights were trained in",
            f"config.model.encoder={name}, and {path} with the names of {naming}",
            f"--config.model.encoder={'smp_' if naming == 'smp' else ''}{fitting}",
        )
    published = _published_config(path)
    architecture = published.get("architecture", name)
    if naming == "timm" and architecture != name:
        raise InputError(
            f"weights of {name}",
            f"{path} of {architecture}, which pads and normalises in another way",
            f"--config.model.encoder={architecture}",
        )
    refuse_other_normalisation(_normalisation_in(published), data, path)
    names = {ours: torch_name(ours, naming, name[-2:]) for ours in wanted}
    return match(wanted, state, names, path, from_torch)


def _load_smp(
    path: Path, model: config.Model, data: config.Data, wanted: Leaves
) -> Leaves:
    naming, depth = _smp_naming(model.network)
    state = read_safetensors(path)
    names = {ours: _smp_name(ours, naming, depth) for ours in wanted}
    published = _normalisation_in(_published_config(path))
    refuse_other_normalisation(published, data, path)
    return match(wanted, state, names, path, from_torch)


def _load_own(
    folder: Path, network: config.Spec, data: config.Data, wanted: Leaves
) -> Leaves:
    """A whole network; a head for another number of classes starts anew."""
    keys = {"name": network.name, **network.kwargs}.keys() - _OF_TRAINING
    state = _read_own(folder, network, sorted(keys), data)
    anew = {
        path
        for path, leaf in wanted.items()
        if path.split("/")[1] in ("mask_head", "image_head")
        and path in state
        and state[path].shape != leaf.shape
    }
    if anew:
        console.print(f"- starts anew, for other classes: {', '.join(sorted(anew))}")
    kept = {path: leaf for path, leaf in wanted.items() if path not in anew}
    state = {path: leaf for path, leaf in state.items() if path not in anew}
    return match(kept, state, {path: path for path in kept}, folder, _as_it_is)


def _load_own_encoder(
    folder: Path, network: config.Spec, data: config.Data, wanted: Leaves
) -> Leaves:
    state = _read_own(folder, network, ["encoder"], data)
    state = {k: leaf for k, leaf in state.items() if k.split("/")[1] == "encoder"}
    return match(wanted, state, {path: path for path in wanted}, folder, _as_it_is)


def _read_own(
    folder: Path, network: config.Spec, keys: Sequence[str], data: config.Data
) -> Leaves:
    """The weights of a model folder, which computes as the network of the config."""
    variables, description = export.load_model(folder)
    trained.refuse_wrong_keys(folder, description)
    kept, theirs = description["preprocessing"], description["model"]
    ours = {"name": network.name, **network.kwargs}
    other = {key for key in keys if freeze(theirs.get(key)) != ours[key]}
    if other:
        other = other & {"name"} or other
        raise InputError(
            f"a network in the form of {folder}: {_as_text(theirs, other)}",
            _as_text(ours, other),
            "the config of that run, or another folder",
        )
    refuse_other_normalisation((kept["mean"], kept["std"]), data, folder)
    return flatten_dict(variables, sep="/")


def _as_text(keys: Mapping[str, Any], chosen: Iterable[str]) -> str:
    return ", ".join(f"config.model.{key}={keys.get(key)}" for key in sorted(chosen))


def _as_it_is(array: np.ndarray, ndim: int) -> np.ndarray:
    del ndim
    return array


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


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _fetch(weights: str) -> Path:
    """The file of 'PATH' or of 'hf:REPO', from the hub's own cache or the network."""
    if not weights.startswith("hf:"):
        return _path(weights)
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


def _published_config(path: Path) -> Mapping[str, Any]:
    """timm's config.json beside the weights; {} where there is none."""
    try:
        published = files.parse_json(path.with_name("config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return published if isinstance(published, Mapping) else {}


def _normalisation_in(published: Mapping) -> tuple[Sequence[float], Sequence[float]]:
    """(mean, std), ImageNet's where it is not said."""
    try:
        own = published["pretrained_cfg"]
        return own["mean"], own["std"]
    except (KeyError, TypeError):
        return IMAGENET
