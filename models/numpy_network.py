"""The network in NumPy: the reference for converted networks, and the engine until a conversion is finished.

It has a third of MNN's speed, but starts at once: no conversion, and no library to import.
"""

from typing import Any

import numpy as np

from models.graph import Graph, Node, embedding_graph
from models.weights import Weights


class NumpyNetwork:
    """Log-mel batches in, embeddings out, with NumPy."""

    batch_size, max_concurrency = 24, 1

    def __init__(self, weights: Weights):
        self.name = self.backend = f"NumPy {np.__version__}"
        self._graph = embedding_graph(weights)

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        # One clip at a time, because its feature maps fit in the processor's cache.
        return np.concatenate([run_graph(self._graph, clip[None, None]) for clip in logmel])

    def close(self) -> None:
        """Nothing to release: the same interface as MnnNetwork."""


def run_graph(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Compute the output of a graph with one output from its input ``x``."""
    values = dict(graph.tensors) | {graph.input[0]: x}
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    for number, node in enumerate(graph.nodes):
        values[node.output] = _run_node(node, [values[name] for name in node.inputs])
        for name in node.inputs:
            if last_use[name] == number:
                values.pop(name, None)  # free its memory
    return values[graph.outputs[0][0]]


def _run_node(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """Compute one operation. Covers only the operations and attributes that ``embedding_graph`` uses."""
    x = inputs[0]
    attributes: dict[str, Any] = node.attributes  # their types depend on the operation
    match node.operation:
        case "Conv":
            return _convolve(*inputs, **attributes)
        case "AveragePool":
            return _average_pool(x, attributes["strides"], bool(attributes.get("ceil_mode")))
        case "Relu":
            return np.maximum(x, 0)
        case "HardSwish":
            return x * np.clip(x / 6 + np.float32(0.5), 0, 1)
        case "Sigmoid":
            return 1 / (1 + np.exp(-x))
        case "Add":
            return x + inputs[1]
        case "Mul":
            return x * inputs[1]
        case "Gemm":
            return x @ inputs[1].T + inputs[2]
        case "ReduceMean":
            return x.mean(axis=int(inputs[1][0]))
        case "ReduceMax":
            return x.max(axis=int(inputs[1][0]))
        case "GlobalAveragePool":
            return x.mean(axis=(2, 3), keepdims=True)
        case "Concat":
            return np.concatenate(inputs, axis=attributes["axis"])
        case "Transpose":
            return x.transpose(attributes["perm"])
        case "Flatten":
            return x.reshape(len(x), -1)
        case "Identity":
            return x
    raise NotImplementedError(node.operation)


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, **attributes: Any) -> np.ndarray:
    """Two-dimensional convolution: (batch, channels, height, width) -> the same axes.

    It is computed channels-last as one matrix product over all positions of the kernel (im2col).
    """
    (_, _, kernel_h, kernel_w), (stride_h, stride_w), pads = weight.shape, attributes["strides"], attributes["pads"]
    x = np.pad(x.transpose(0, 2, 3, 1), [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel_h, kernel_w), axis=(1, 2))
    windows = windows[:, ::stride_h, ::stride_w]  # (batch, height, width, channels, kernel_h, kernel_w)
    if attributes["group"] > 1:  # depthwise: one kernel per channel
        result = np.einsum("bhwcij,cij->bhwc", windows, weight[:, 0])
    else:
        columns = np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, weight[0].size)
        result = (columns @ weight.transpose(2, 3, 1, 0).reshape(weight[0].size, -1)).reshape(*windows.shape[:3], -1)
    return (result + bias).transpose(0, 3, 1, 2)


def _average_pool(x: np.ndarray, strides: list[int], partial: bool) -> np.ndarray:
    """Average pooling without overlap; ``partial`` keeps incomplete windows at the end (ONNX's ceil_mode)."""
    for axis, size in zip((2, 3), strides, strict=True):
        length = x.shape[axis]
        if not partial:
            x = x.take(range(length // size * size), axis)
            length = x.shape[axis]
        starts = np.arange(0, length, size)
        counts = np.minimum(size, length - starts).astype(np.float32)
        x = np.add.reduceat(x, starts, axis) / counts.reshape(-1, *[1] * (3 - axis))
    return x
