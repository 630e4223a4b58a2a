"""The model as files: weights in safetensors, everything else in JSON. No pickle."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxseg import files
from jaxseg.errors import InputError

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

FORMAT = 1
"""Of model.json; to be raised when a key of it changes its meaning."""


def save_model(folder: Path, variables: Any, description: dict[str, Any]) -> None:
    """Writes model.safetensors and model.json.

    Args:
      variables: nested collections; leaf names are joined by '/'.
      description: architecture, classes, preprocessing, thresholds and metrics; the
        `format` is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves, _ = jax.tree.flatten_with_path(jax.device_get(variables))
    arrays = {_name(path): np.ascontiguousarray(leaf) for path, leaf in leaves}
    temporary = folder / f".{WEIGHTS}"
    save_file(arrays, temporary)
    temporary.replace(folder / WEIGHTS)
    with files.atomic_file(folder / DESCRIPTION) as file:
        described = {"format": FORMAT, **files.to_json(description)}
        json.dump(described, file, indent=2, allow_nan=False)


def load_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(variables, description) as `save_model` was given them.

    Raises:
      InputError: a file is missing or damaged, or of a newer version.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise InputError(
                f"a model folder with {WEIGHTS} and {DESCRIPTION}",
                f"{folder} without {name}",
                "the model/ folder of a finished run, e.g. runs/quickstart/model",
            )
    description = _read_description(folder / DESCRIPTION)
    try:
        arrays = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"a whole {WEIGHTS}", f"{folder / WEIGHTS}: {error}", "copy it once more"
        ) from None
    variables: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, leaf = path.split("/")
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return variables, description


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = files.parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"a whole {DESCRIPTION}", f"{path}: {error}", "copy it once more"
        ) from None
    if not isinstance(description, dict):
        found = f"{path} of another program"
        raise InputError("the model/ folder of a finished run", found, "another folder")
    version = description.pop("format", FORMAT)
    if version != FORMAT:
        raise InputError(
            f"a {DESCRIPTION} of format {FORMAT}, which this version of jaxseg reads",
            f"{path} of format {version}",
            "pip install --upgrade jaxseg",
        )
    return description


def _name(path: tuple) -> str:
    return "/".join(entry.key for entry in path)
