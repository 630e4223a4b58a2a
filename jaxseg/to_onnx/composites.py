"""The calls of `jaxseg.ops` in ONNX, whole, with their settings.

Every function takes the graph, the image, its kernel if it has one, and the settings by
their names in `ops`; it returns the name of a tensor that is stored channels first.
"""

from collections.abc import Callable

import numpy as np

from jaxseg.ops import Padding
from jaxseg.to_onnx.graph import Arg, Graph


def conv(
    graph: Graph, image: Arg, kernel: np.ndarray, *, stride: int, padding: Padding
) -> str:
    weights = graph.constant(kernel.transpose(3, 2, 0, 1))  # [D, C, kh, kw]
    return _conv(graph, image, weights, stride, padding)


def depthwise_conv(
    graph: Graph, image: Arg, kernel: np.ndarray, *, stride: int, padding: Padding
) -> str:
    weights = graph.constant(kernel.transpose(2, 0, 1)[:, None])  # [C, 1, kh, kw]
    groups = kernel.shape[-1]
    return _conv(graph, image, weights, stride, padding, group=groups)


def max_pool(
    graph: Graph, image: Arg, *, window: int, stride: int, padding: int
) -> str:
    return graph.emit(
        "MaxPool",
        graph.name(image, channels_first=True),
        kernel_shape=[window] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
    )


def global_max(graph: Graph, image: Arg) -> str:
    name = graph.name(image, channels_first=True)
    return graph.emit("ReduceMax", name, graph.integers(2, 3), keepdims=0)


def conv_transpose_2x2(graph: Graph, image: Arg, kernel: np.ndarray) -> str:
    weights = graph.constant(kernel.transpose(2, 3, 0, 1))  # [C, D, 2, 2]
    name = graph.name(image, channels_first=True)
    return graph.emit("ConvTranspose", name, weights, strides=[2, 2])


def upsample_nearest(graph: Graph, image: Arg) -> str:
    return _resize(
        graph,
        image,
        2,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def upsample_bilinear(graph: Graph, image: Arg, *, factor: int) -> str:
    return _resize(
        graph,
        image,
        factor,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _conv(graph, image, weights, stride, padding, **attributes) -> str:
    return graph.emit(
        "Conv",
        graph.name(image, channels_first=True),
        weights,
        strides=[stride] * 2,
        # ONNX lists all beginnings, then all ends.
        pads=[border[side] for side in (0, 1) for border in padding],
        **attributes,
    )


def _resize(graph, image, factor, **attributes) -> str:
    name = graph.name(image, channels_first=True)
    scales = graph.constant(np.array([1, 1, factor, factor], np.float32))
    return graph.emit("Resize", name, "", scales, **attributes)


COMPOSITES: dict[str, Callable[..., str]] = {
    f"jaxseg.{function.__name__}": function
    for function in (
        conv,
        depthwise_conv,
        max_pool,
        global_max,
        conv_transpose_2x2,
        upsample_nearest,
        upsample_bilinear,
    )
}
