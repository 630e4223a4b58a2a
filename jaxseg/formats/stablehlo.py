"""StableHLO by `jax.export`: for programs that have JAX and nothing else of ours.

Files can be read by the JAX that wrote them and, as JAX promises, by those of the six
months after. The archive of a model is its folder. A GPU or TPU multiplies with the
precision that JAX has there by default.
Source: https://docs.jax.dev/en/latest/export/export.html
"""

from pathlib import Path

import jax
from jax import export

from jaxseg.formats.finished import Finished
from jaxseg.formats.packages import refuse_missing
from jaxseg.formats.parity import Run
from jaxseg.tracing import traced_for

PLATFORMS = ("cpu", "cuda", "tpu")

EXAMPLE = """\
# pip install jax flatbuffers pillow
import jax
import numpy as np
from jax import export
{imports}
with open({path}, "rb") as file:
    network = jax.jit(export.deserialize(bytearray(file.read())).call)
{image}
outputs = jax.device_get(network(image))
{report}"""


def write(model: Finished, path: Path) -> None:
    """Batch, height and width are free as the network allows; weights are inside.

    Raises:
      InputError: the package that jax.export needs is missing.
    """
    refuse_missing("flatbuffers", extra="stablehlo")
    with traced_for("any platform"):
        exported = export.export(
            jax.jit(lambda image: model.forward(model.variables, image)),
            platforms=PLATFORMS,
        )(model.image())
    path.write_bytes(exported.serialize())


def read(path: Path) -> Run:
    """The file as a function."""
    network = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: jax.device_get(network(images))
