"""Walks a jaxpr and writes it as an ONNX graph."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from jaxseg.errors import InputError
from jaxseg.to_onnx.composites import COMPOSITES
from jaxseg.to_onnx.graph import Arg, Graph, Value
from jaxseg.to_onnx.primitives import PRIMITIVES, apply


def translate(graph: Graph, closed: ClosedJaxpr, args: Sequence[Arg]) -> list[Arg]:
    """The results of a jaxpr, as tensors of the graph or, where known now, as arrays.

    Calls are written in place. Equations of arrays alone are computed here and now, so
    that only what depends on the image is in the graph.

    Raises:
      InputError: a primitive that ONNX is not taught here; names it.
    """
    jaxpr = closed.jaxpr
    inputs = [*map(np.asarray, closed.consts), *args]
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def read(atom):
        if isinstance(atom, Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return known[atom]

    for eqn in jaxpr.eqns:
        results = _equation(graph, eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(graph: Graph, eqn, args: list[Arg]) -> Sequence[Arg]:
    name, params = eqn.primitive.name, eqn.params
    if name == "composite" and params["name"] in COMPOSITES:
        return [_composite(graph, eqn, args)]
    # Written out, elu is six operations: a U-Net takes a fifth longer.
    if params.get("name") == "elu" and _is_one(args[1:]):
        return [apply(graph, "Elu", args[0])]
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    if inner is not None:
        return translate(graph, inner, args)
    if name != "dim_as_value" and _is_known(eqn, args):
        results = eqn.primitive.bind(*args, **params)
        results = results if eqn.primitive.multiple_results else [results]
        return [np.asarray(result) for result in results]
    if name not in PRIMITIVES:
        raise InputError(
            "a network of operations that the translation to ONNX knows",
            f"the primitive '{name}' of JAX in {eqn}"[:400],
            "--format stablehlo; or add it to jaxseg/to_onnx/primitives.py",
        )
    return [PRIMITIVES[name](graph, eqn, *args)]


def _composite(graph: Graph, eqn, args: list[Arg]) -> Value:
    settings = {
        key: jax.tree.unflatten(tree, leaves)
        for key, leaves, tree in eqn.params["attributes"]
    }
    name = COMPOSITES[eqn.params["name"]](graph, *args, **settings)
    shape = eqn.outvars[0].aval.shape
    return Value(name, shape, channels_first=len(shape) == 4)


def _is_one(args: list[Arg]) -> bool:
    return all(isinstance(arg, np.ndarray) and arg == 1 for arg in args)


def _is_known(eqn, args: list[Arg]) -> bool:
    """All arguments are arrays, as JAX sees them, and the results have fixed sizes."""
    return all(
        isinstance(arg, np.ndarray) and arg.shape == atom.aval.shape
        for arg, atom in zip(args, eqn.invars, strict=True)
    ) and all(isinstance(dim, int) for atom in eqn.outvars for dim in atom.aval.shape)
