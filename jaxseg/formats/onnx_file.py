"""ONNX, run and compared with onnxruntime."""

from pathlib import Path

from jaxseg.formats.finished import Finished
from jaxseg.formats.packages import refuse_missing
from jaxseg.formats.parity import Run
from jaxseg.to_onnx import to_onnx

EXAMPLE = """\
# pip install onnxruntime pillow
import numpy as np
import onnxruntime
{imports}
session = onnxruntime.InferenceSession({path})
{image}
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, {{"image": image}})))
{report}"""


def write(model: Finished, path: Path) -> None:
    """Batch, height and width are free as the network allows.

    Raises:
      InputError: a package is missing, or an operation is not translated.
    """
    refuse_missing("onnx", "onnxruntime", extra="onnx")
    facts = model.facts_of_network
    proto = to_onnx(
        model.forward,
        model.variables,
        model.image(),
        doc=f"{facts['input']}; {model.size.text}",
        facts=facts,
    )
    path.write_bytes(proto.SerializeToString())


def read(path: Path) -> Run:
    """The file as a function, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(images):
        return dict(zip(names, session.run(names, {"image": images}), strict=True))

    return run
