"""A network as an ONNX file, written from its jaxpr.

Only what our networks use is translated: the calls of `jaxseg.ops`, which arrive whole
as composites, and some thirty primitives. Why not jax2onnx: it asks for an older
orbax-checkpoint than the one that trains here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxseg.to_onnx.graph import Graph, Node, Value
from jaxseg.to_onnx.jaxprs import translate
from jaxseg.tracing import traced_for

OPSET, IR = 18, 8  # of ONNX 1.13 (2022); newer runtimes read them


def to_onnx(
    forward: Callable[[Any, jax.Array], dict[str, jax.Array]],
    variables: Any,
    image: jax.ShapeDtypeStruct,
    *,
    doc: str,
    facts: Mapping[str, str],
) -> Any:
    """The `onnx.ModelProto` of `forward(variables, image)`, checked by onnx.

    Args:
      forward: outputs by name.
      variables: arrays, which become constants of the file.
      image: its shape may have symbolic dimensions, each a symbol or a multiple of one.
      doc: what the input must be like, for people.
      facts: metadata by name.

    Raises:
      InputError: the network has an operation that is not translated.
      ImportError: the package onnx is not installed.
    """
    with traced_for("translation"):
        closed, outputs = jax.make_jaxpr(
            lambda variables, image: forward(variables, image), return_shape=True
        )(variables, image)
    graph = Graph("image", image.shape)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
    results = translate(graph, closed, [*leaves, Value("image", image.shape)])
    avals = jax.tree.leaves(outputs)
    names = {}
    for name, result, aval in zip(sorted(outputs), results, avals, strict=True):
        stored = graph.name(graph.whole(result, aval.shape))
        names[name] = graph.emit("Identity", stored), aval
    return _assemble(graph, image, names, doc, facts)


def _assemble(graph: Graph, image, outputs, doc: str, facts: Mapping[str, str]) -> Any:
    import onnx
    from onnx import helper, numpy_helper

    letters = {str(dim): x for dim, x in zip(image.shape, "NHWC", strict=True)}

    def described(name, aval, text=""):
        shape = [d if isinstance(d, int) else letters.get(str(d)) for d in aval.shape]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
        return helper.make_tensor_value_info(name, kind, shape, text)

    names = {inner: name for name, (inner, _) in outputs.items()}
    nodes = _needed(graph, set(names))
    used = {name for node in nodes for name in node.inputs}
    body = helper.make_graph(
        [_node(helper, node, names.get(node.output, node.output)) for node in nodes],
        "network",
        [described("image", image, doc)],
        [described(name, aval) for name, (_, aval) in outputs.items()],
        [
            numpy_helper.from_array(array, name)
            for name, array in graph.constants.items()
            if name in used
        ],
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="jaxseg",
        producer_version=facts["jaxseg"],
        doc_string=doc,
    )
    helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    return model


def _needed(graph: Graph, wanted: set[str]) -> list[Node]:
    """The nodes that an output depends on, in order."""
    needed = []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            needed.append(node)
            wanted |= set(node.inputs)
    return needed[::-1]


def _node(helper: Any, node: Node, output: str) -> Any:
    attributes = {
        key: helper.np_dtype_to_tensor_dtype(value)
        if isinstance(value, np.dtype)
        else value
        for key, value in node.attributes.items()
    }
    return helper.make_node(node.op, list(node.inputs), [output], **attributes)
