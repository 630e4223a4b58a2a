"""Weights and model.json in one safetensors file, for code of one's own.

Names are paths in the network, 'params/encoder_0/Conv_0/kernel'. Convolutions are
[kh, kw, in, out], depthwise ones [kh, kw, C], 2x2 transposed ones [2, 2, in, out] with
kernel[i, j] for the output pixels (2y + i, 2x + j), dense layers [in, out]. A batch
norm is `scale` and `bias` in params, `mean` and `var` in batch_stats. Images are NHWC.
"""

import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save

from jaxseg.formats.finished import Finished
from jaxseg.formats.parity import Mismatch

EXAMPLE = """\
import json

from safetensors import safe_open

with safe_open({path}, framework="numpy") as file:
    description = json.loads(file.metadata()["model.json"])
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
    print(file.metadata()["layout"])
for name, array in weights.items():
    print(name, array.shape)"""


def write(model: Finished, path: Path) -> None:
    """The metadata hold model.json, the layout of the arrays, and the other facts."""
    metadata = {
        **model.facts_of_weights,
        "model.json": json.dumps(model.description),
        "layout": " ".join(__doc__.split("\n\n", 1)[1].split()),
    }
    path.write_bytes(save(_leaves(model), metadata))


def refuse_other(model: Finished, path: Path) -> None:
    """Raises:
    Mismatch: the file does not read back bit for bit.
    """
    found, wanted = load_file(path), _leaves(model)
    if found.keys() != wanted.keys() or not all(
        np.array_equal(found[name], wanted[name]) for name in wanted
    ):
        raise Mismatch("the weights do not read back as they were written")


def _leaves(model: Finished) -> dict[str, np.ndarray]:
    leaves = flatten_dict(model.variables, sep="/")
    return {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
