"""The network in NumPy alone: what faster engines are held against, and what is heard with until one is ready.

A third of MNN's speed, but there at once: nothing has to be converted, and no library has to be loaded.
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
        return np.concatenate([compute(self._graph, clip[None, None]) for clip in logmel])  # each fits into caches

    def close(self) -> None:
        """Nothing to release: the same interface as MnnNetwork."""


def compute(graph: Graph, given: np.ndarray) -> np.ndarray:
    """The one output of a graph whose input is ``given``."""
    values = dict(graph.tensors) | {graph.input[0]: given}
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    for number, node in enumerate(graph.nodes):
        values[node.output] = _compute_node(node, [values[name] for name in node.inputs])
        for name in node.inputs:
            if last_use[name] == number:
                values.pop(name, None)  # memory
    return values[graph.outputs[0][0]]


def _compute_node(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    x = inputs[0]
    attributes: dict[str, Any] = node.attributes  # what each is, the operation says
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
    """A convolution in two dimensions; (batch, channels, height, width) both ways.

    In memory channels come last: each place of the kernel is then one product of matrices.
    """
    (_, _, kernel_h, kernel_w), (stride_h, stride_w), pads = weight.shape, attributes["strides"], attributes["pads"]
    x = np.pad(x.transpose(0, 2, 3, 1), [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel_h, kernel_w), axis=(1, 2))
    windows = windows[:, ::stride_h, ::stride_w]  # (batch, height, width, channels, kernel_h, kernel_w)
    if attributes["group"] > 1:  # a kernel for each channel
        result = np.einsum("bhwcij,cij->bhwc", windows, weight[:, 0])
    else:
        columns = np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, weight[0].size)
        result = (columns @ weight.transpose(2, 3, 1, 0).reshape(weight[0].size, -1)).reshape(*windows.shape[:3], -1)
    return (result + bias).transpose(0, 3, 1, 2)


def _average_pool(x: np.ndarray, strides: list[int], partial: bool) -> np.ndarray:
    """Means of rectangles side by side; ``partial``: also of those that reach over the end."""
    for axis, size in zip((2, 3), strides, strict=True):
        length = x.shape[axis]
        if not partial:
            x = x.take(range(length // size * size), axis)
            length = x.shape[axis]
        starts = np.arange(0, length, size)
        counts = np.minimum(size, length - starts).astype(np.float32)
        x = np.add.reduceat(x, starts, axis) / counts.reshape(-1, *[1] * (3 - axis))
    return x
