"""JAX's primitives in ONNX: those that our networks use.

Every function takes the graph, an equation of the jaxpr and its arguments, and returns
the one result. Arguments that are all known now never get here, see `jaxprs`.
"""

from collections.abc import Callable

import numpy as np

from jaxseg.to_onnx.graph import CHANNELS_FIRST, Arg, Graph, Value

Translator = Callable[..., Arg]

ALL = 2**62
"""The end of a slice that goes to the end of its axis."""


def elementwise(op: str) -> Translator:
    """`op` of tensors that broadcast."""

    def translate(graph: Graph, eqn, *args: Arg) -> Value:
        return apply(graph, op, *args)

    return translate


def apply(graph: Graph, op: str, *args: Arg, **attributes) -> Value:
    """An elementwise operation, stored as its arguments are."""
    first = any(isinstance(arg, Value) and arg.channels_first for arg in args)
    names = (graph.name(arg, channels_first=first) for arg in args)
    shapes = [arg.shape for arg in args if arg.shape]
    shape = tuple(
        next((dim for dim in dims if dim != 1), 1) for dims in zip(*shapes, strict=True)
    )
    return Value(graph.emit(op, *names, **attributes), shape, first)


def reduction(op: str) -> Translator:
    """`op` over the axes of the equation, which disappear."""

    def translate(graph: Graph, eqn, operand: Arg) -> Value:
        value = graph.whole(operand, eqn.invars[0].aval.shape)
        axes, first = _stored_axes(value, eqn.params["axes"])
        name = graph.name(value, channels_first=first)
        name = graph.emit(op, name, graph.integers(*axes), keepdims=0)
        return Value(name, eqn.outvars[0].aval.shape)

    return translate


def maximum(graph: Graph, eqn, left: Arg, right: Arg) -> Value:
    """max(x, 0) as the Relu that runtimes join with a convolution."""
    if isinstance(right, np.ndarray) and not right.any():
        return apply(graph, "Relu", left)
    return apply(graph, "Max", left, right)


def cast(graph: Graph, eqn, operand: Arg) -> Value:
    dtype = np.dtype(eqn.params["new_dtype"])
    if eqn.invars[0].aval.dtype == dtype:
        return operand
    return apply(graph, "Cast", operand, to=dtype)


def power(graph: Graph, eqn, operand: Arg) -> Value:
    if eqn.params["y"] == 2:
        return square(graph, eqn, operand)
    exponent = np.array(eqn.params["y"], eqn.invars[0].aval.dtype)
    return apply(graph, "Pow", operand, exponent)


def square(graph: Graph, eqn, operand: Arg) -> Value:
    return apply(graph, "Mul", operand, operand)


def reciprocal_root(graph: Graph, eqn, operand: Arg) -> Value:
    return apply(graph, "Reciprocal", apply(graph, "Sqrt", operand))


def exp_minus_one(graph: Graph, eqn, operand: Arg) -> Value:
    """Differs: not exact near 0, by one unit in the last place of 1."""
    one = np.ones((), eqn.invars[0].aval.dtype)
    return apply(graph, "Sub", apply(graph, "Exp", operand), one)


def select(graph: Graph, eqn, which: Arg, *cases: Arg) -> Value:
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise NotImplementedError("select_n of more than two cases in ONNX")
    return apply(graph, "Where", which, cases[1], cases[0])


def size_as_value(graph: Graph, eqn) -> Value:
    name = graph.emit("Squeeze", graph.size(eqn.params["dim"]), graph.integers(0))
    return Value(graph.emit("Cast", name, to=eqn.outvars[0].aval.dtype), ())


def broadcast(graph: Graph, eqn, operand: Arg, *sizes: Arg) -> Arg:
    """Only puts the axes in place; see `Value.shape`."""
    rank, places = len(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    shape = [1] * rank
    for place, dim in zip(places, operand.shape, strict=True):
        shape[place] = dim
    if len(operand.shape) == rank:
        return operand
    if isinstance(operand, np.ndarray):
        return operand.reshape(shape)
    return _reshaped(graph, operand, tuple(shape))


def reshape(graph: Graph, eqn, operand: Arg, *sizes: Arg) -> Value:
    value = graph.whole(operand, eqn.invars[0].aval.shape)
    return _reshaped(graph, value, eqn.params["new_sizes"])


def squeeze(graph: Graph, eqn, operand: Arg) -> Value:
    value = graph.whole(operand, eqn.invars[0].aval.shape)
    axes, first = _stored_axes(value, eqn.params["dimensions"])
    name = graph.name(value, channels_first=first)
    name = graph.emit("Squeeze", name, graph.integers(*axes))
    return Value(name, eqn.outvars[0].aval.shape)


def concatenate(graph: Graph, eqn, *args: Arg) -> Value:
    args = [
        graph.whole(arg, v.aval.shape) for arg, v in zip(args, eqn.invars, strict=True)
    ]
    first = any(isinstance(arg, Value) and arg.channels_first for arg in args)
    axis = eqn.params["dimension"]
    axis = CHANNELS_FIRST.index(axis) if first else axis
    names = (graph.name(arg, channels_first=first) for arg in args)
    shape = eqn.outvars[0].aval.shape
    return Value(graph.emit("Concat", *names, axis=axis), shape, first)


def cut(graph: Graph, eqn, operand: Arg) -> Value:
    """A slice; along a symbolic axis it ends at a number from either end of it."""
    value, params = graph.whole(operand, eqn.invars[0].aval.shape), eqn.params
    steps = params["strides"] or (1,) * len(value.shape)
    ranges = enumerate(
        zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    )
    cuts = [(k, *r) for k, r in ranges if r != (0, value.shape[k], 1)]
    if not cuts:
        return value
    axes, starts, ends, steps = zip(*cuts, strict=True)
    sizes = [value.shape[axis] for axis in axes]
    starts, ends = ([*map(_from_behind, bounds, sizes)] for bounds in (starts, ends))
    if not all(isinstance(number, int) for number in (*starts, *ends)):
        raise NotImplementedError("a slice that depends on the size otherwise")
    first = value.channels_first
    axes = [CHANNELS_FIRST.index(axis) if first else axis for axis in axes]
    bounds = (graph.integers(*numbers) for numbers in (starts, ends, axes, steps))
    name = graph.emit("Slice", graph.name(value, channels_first=first), *bounds)
    return Value(name, eqn.outvars[0].aval.shape, first)


def _from_behind(bound, size):
    """Of a symbolic size as ONNX counts from behind: size - 4 is -4."""
    if isinstance(bound, int):
        return bound
    behind = bound - size
    return ALL if behind == 0 else behind


def dense(graph: Graph, eqn, operand: Arg, weights: Arg) -> Value:
    """A matrix product with the last axis; of an image, a 1x1 convolution."""
    last = len(operand.shape) - 1
    is_plain = eqn.params["dimension_numbers"] == (((last,), (0,)), ((), ()))
    if not is_plain or len(weights.shape) != 2 or isinstance(operand, np.ndarray):
        raise NotImplementedError("a dot_general that is no dense layer")
    shape = eqn.outvars[0].aval.shape
    shape = (*operand.shape[:-1], shape[-1])
    if operand.channels_first and isinstance(weights, np.ndarray):
        kernel = graph.constant(weights.T[:, :, None, None])
        return Value(graph.emit("Conv", operand.name, kernel), shape, True)
    return Value(graph.emit("MatMul", graph.name(operand), graph.name(weights)), shape)


def argmax(graph: Graph, eqn, operand: Arg) -> Value:
    value = graph.whole(operand, eqn.invars[0].aval.shape)
    (axis,), first = _stored_axes(value, eqn.params["axes"])
    name = graph.name(value, channels_first=first)
    name = graph.emit("ArgMax", name, axis=axis, keepdims=0)
    name = graph.emit("Cast", name, to=np.dtype(eqn.params["index_dtype"]))
    return Value(name, eqn.outvars[0].aval.shape)


def _stored_axes(value: Value, axes) -> tuple[list[int], bool]:
    """Places of axes that disappear, and whether to take the value channels first.

    Only where the axes that are left then stand in JAX's order.
    """
    if value.channels_first:
        left = [axis for axis in CHANNELS_FIRST if axis not in axes]
        if left == sorted(left):
            return [CHANNELS_FIRST.index(axis) for axis in axes], True
    return list(axes), False


def _reshaped(graph: Graph, value: Arg, shape) -> Value:
    """0 stands for an axis that stays, -1 for what is left over."""
    old = value.shape
    sizes = [
        dim if isinstance(dim, int) else 0 if k < len(old) and old[k] == dim else None
        for k, dim in enumerate(shape)
    ]
    if sizes.count(None) > 1:
        target = graph.sizes(shape)
    else:
        target = graph.integers(*(-1 if size is None else size for size in sizes))
    return Value(graph.emit("Reshape", graph.name(value), target), tuple(shape))


PRIMITIVES: dict[str, Translator] = {
    **{
        name: elementwise(op)
        for name, op in {
            "add": "Add",
            "sub": "Sub",
            "mul": "Mul",
            "div": "Div",
            "min": "Min",
            "pow": "Pow",
            "neg": "Neg",
            "abs": "Abs",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
            "erf": "Erf",
            "logistic": "Sigmoid",
            "gt": "Greater",
            "ge": "GreaterOrEqual",
            "lt": "Less",
            "le": "LessOrEqual",
            "eq": "Equal",
            "and": "And",
            "or": "Or",
            "not": "Not",
            "stop_gradient": "Identity",
            "name": "Identity",  # of a value, for the gradient
        }.items()
    },
    "max": maximum,
    "reduce_sum": reduction("ReduceSum"),
    "reduce_max": reduction("ReduceMax"),
    "reduce_min": reduction("ReduceMin"),
    "argmax": argmax,
    "convert_element_type": cast,
    "integer_pow": power,
    "square": square,
    "rsqrt": reciprocal_root,
    "expm1": exp_minus_one,
    "select_n": select,
    "dim_as_value": size_as_value,
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": squeeze,
    "concatenate": concatenate,
    "slice": cut,
    "dot_general": dense,
}
