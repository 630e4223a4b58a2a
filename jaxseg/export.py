"""The model as files: weights in safetensors, everything else in JSON. No pickle."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxseg import files
from jaxseg.errors import InputError

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def save_model(folder: Path, variables: Any, description: dict[str, Any]) -> None:
    """Writes model.safetensors and model.json.

    Args:
      variables: nested collections; leaf names are joined by '/'.
      description: architecture, classes, preprocessing, thresholds and metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves, _ = jax.tree.flatten_with_path(jax.device_get(variables))
    arrays = {_name(path): np.ascontiguousarray(leaf) for path, leaf in leaves}
    temporary = folder / f".{WEIGHTS}"
    save_file(arrays, temporary)
    temporary.replace(folder / WEIGHTS)
    with files.atomic_file(folder / DESCRIPTION) as file:
        json.dump(files.to_json(description), file, indent=2, allow_nan=False)


def load_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(variables, description) as `save_model` was given them.

    Raises:
      InputError: a file is missing.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise InputError(
                f"a model folder with {WEIGHTS} and {DESCRIPTION}",
                f"{folder} without {name}",
                "the model/ folder of a finished run, e.g. runs/quickstart/model",
            )
    variables: dict[str, Any] = {}
    for path, array in load_file(folder / WEIGHTS).items():
        *parents, leaf = path.split("/")
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return variables, description


def _name(path: tuple) -> str:
    return "/".join(entry.key for entry in path)
