"""The ONNX graph while it is built: nodes, constants, and how each tensor is stored.

JAX's images are [N, H, W, C]; ONNX's convolutions read [N, C, H, W]. A tensor of rank 4
is stored in either way. It stays as its maker left it until somebody needs the other,
who gets one Transpose, made once; a network of convolutions has two in all.
"""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

CHANNELS_FIRST = (0, 3, 1, 2)  # place in storage -> axis of JAX
CHANNELS_LAST = (0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor that is known when the file runs; one known now is a NumPy array.

    Attributes:
      name: in the graph.
      shape: as JAX sees it, with numbers and symbolic dimensions, and 1 along axes that
        are not broadcast yet: ONNX does that by itself in all that is elementwise.
      channels_first: [N, H, W, C] is stored as [N, C, H, W].
    """

    name: str
    shape: tuple
    channels_first: bool = False


Arg = Value | np.ndarray


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of ONNX, of a single output."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Nodes in order, and constants by name.

    Args:
      image: name of the one input.
      shape: of the image; each symbolic dimension is a symbol or a multiple of one.
    """

    def __init__(self, image: str, shape: Sequence):
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._done: dict[tuple, str] = {}  # what needs to be made only once
        self._symbols = {}  # 'h' -> (axis, 32) for an axis of 32 h pixels
        self._image = image
        for axis, dim in enumerate(shape):
            factor, _, symbol = str(dim).rpartition("*")
            if not symbol.isdigit():
                self._symbols[symbol] = axis, int(factor or 1)

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, name, attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant; equal small ones are one."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if array.size > 64 or key not in self._done:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = array
            if array.size > 64:
                return name
            self._done[key] = name
        return self._done[key]

    def integers(self, *numbers: int) -> str:
        """A constant vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def name(self, arg: Arg, *, channels_first: bool = False) -> str:
        """The name of a tensor stored as asked; below rank 4 there is one way only."""
        wanted = channels_first and len(arg.shape) == 4
        if isinstance(arg, np.ndarray):
            return self.constant(arg.transpose(CHANNELS_FIRST) if wanted else arg)
        if arg.channels_first == wanted:
            return arg.name
        order = CHANNELS_FIRST if wanted else CHANNELS_LAST
        return self._once(("Transpose", arg.name), perm=order)

    def whole(self, arg: Arg, shape: Sequence) -> Arg:
        """The tensor with all its axes broadcast."""
        if arg.shape == tuple(shape):
            return arg
        expanded = self.emit("Expand", self.name(arg), self.sizes(shape))
        return Value(expanded, tuple(shape))

    def sizes(self, shape: Sequence) -> str:
        """A vector of int64 with the sizes of a shape."""
        if all(isinstance(dim, int) for dim in shape):
            return self.integers(*shape)
        return self.emit("Concat", *map(self.size, shape), axis=0)

    def size(self, dim: Any) -> str:
        """One size as a vector of length 1.

        The text of a symbolic dimension is the documented grammar of
        `jax.export.symbolic_shape`: numbers, symbols, + - * ^, floordiv and mod.
        """
        text = str(dim).replace("^", "**")
        return self._size_of(ast.parse(text, mode="eval").body)

    def _size_of(self, tree: ast.expr) -> str:
        match tree:
            case ast.Constant(value=int(number)):
                return self.integers(number)
            case ast.Name(id=symbol):
                return self._symbol(symbol)
            case ast.UnaryOp(op=ast.USub(), operand=term):
                return self._once(("Neg", self._size_of(term)))
            case ast.BinOp(left=left, op=sign, right=right):
                op = _SIGNS[type(sign)]
                return self._once((op, self._size_of(left), self._size_of(right)))
            # Sizes are not negative, so that ONNX's division, which cuts, is a floor.
            case ast.Call(func=ast.Name(id=("floordiv" | "mod") as kind), args=[a, b]):
                op = {"floordiv": "Div", "mod": "Mod"}[kind]
                return self._once((op, self._size_of(a), self._size_of(b)))
        raise NotImplementedError(f"the size {ast.unparse(tree)} in ONNX")

    def _symbol(self, symbol: str) -> str:
        axis, factor = self._symbols[symbol]
        shape = self._once(("Shape", self._image))
        pixels = self._once(("Gather", shape, self.integers(axis)), axis=0)
        if factor == 1:
            return pixels
        return self._once(("Div", pixels, self.integers(factor)))

    def _once(self, call: tuple[str, ...], **attributes: Any) -> str:
        if call not in self._done:
            self._done[call] = self.emit(*call, **attributes)
        return self._done[call]


_SIGNS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
