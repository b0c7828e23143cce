"""The networks as graphs of ONNX operations, built from their weights without PyTorch.

    graph = embedding_graph(read_weights("compact"))    # logmel -> embedding, for the engines
    graph = waveform_graph(read_weights("compact"))     # waveform -> embedding, tags, for export_onnx.py

onnx_file.py writes a graph to a file, numpy_network.py runs it. Batch norm is folded into the convolutions.
"""

from dataclasses import dataclass, field

import numpy as np

from models.architectures import CNN14_BLOCKS, COMPACT_STRIDES, MEL_BINS_OF, STEM_STRIDE, TABLE, scaled
from models.kaldimel import LOG_OFFSET, MEAN, PRE_EMPHASIS, SCALE, WINDOW_LENGTH, KaldiMel
from models.logmel import HOP_LENGTH, MIN_PEAK, MIN_SAMPLES, N_FFT, LogMel
from models.weights import Weights

Shape = tuple[int | str, ...]  # a text names a dynamic dimension
Attribute = int | float | str | list[int]


@dataclass(frozen=True)
class Node:
    """An operation of ONNX opset 18."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute]


@dataclass
class Graph:
    """A graph under construction: its methods add operations and return the names of their outputs."""

    input: tuple[str, Shape]
    outputs: list[tuple[str, Shape]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # in topological order
    tensors: dict[str, np.ndarray] = field(default_factory=dict)  # constants, float32 or int64

    def node(self, operation: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an operation."""
        output = f"{operation}{len(self.nodes)}"
        self.nodes.append(Node(operation, inputs, output, attributes))
        return output

    def tensor(self, values: np.ndarray | np.floating | list[int] | float) -> str:
        """Add a constant: float32, or int64 if it is a list."""
        array = np.asarray(values, np.int64 if isinstance(values, list) else np.float32)
        name = f"tensor{len(self.tensors)}"
        self.tensors[name] = np.asarray(array, order="C")
        return name

    def convolve(
        self, x: str, weight: np.ndarray, bias: np.ndarray | None = None, strides: tuple[int, ...] = (1, 1),
        groups: int = 1
    ) -> str:  # fmt: skip
        """Add a one- or two-dimensional convolution with "same" padding.

        Args:
            x: (batch, channels, …).
            weight: (filters, channels / groups, …).
            bias: (filters,), if any.
            strides: one for each dimension.
            groups: groups of the convolution.
        """
        kernel = list(weight.shape[2:])
        padding = [size // 2 for size in kernel]
        inputs = [x, self.tensor(weight), *([] if bias is None else [self.tensor(bias)])]
        return self.node("Conv", *inputs, kernel_shape=kernel, strides=list(strides), pads=2 * padding, group=groups)

    def filter(self, x: str, kernels: np.ndarray, stride: int = 1) -> str:
        """Add a one-dimensional convolution without padding.

        Args:
            x: (batch, channels, samples).
            kernels: (filters, channels, samples).
            stride: samples from one output to the next.
        """
        return self.node("Conv", x, self.tensor(kernels), kernel_shape=[kernels.shape[2]], strides=[stride])

    def add_output(self, x: str, name: str, shape: Shape) -> None:
        """Make ``x`` an output of the graph called ``name``."""
        self.nodes.append(Node("Identity", (x,), name, {}))
        self.outputs.append((name, shape))


def embedding_graph(weights: Weights) -> Graph:
    """Return the network from ``logmel``, (batch, 1, frames, mel bins), to ``embedding``, (batch, dimensions)."""
    graph = Graph(("logmel", ("batch", 1, "frames", MEL_BINS_OF[weights.architecture])))
    graph.add_output(_embedding(graph, weights, "logmel"), "embedding", ("batch", weights.info.dimensions))
    return graph


def waveform_graph(weights: Weights, samples: int | None = None) -> Graph:
    """Return the network with its front end and head.

    Its input is ``waveform``, (batch, samples). Its outputs are ``embedding``, (batch, dimensions), and ``tags``,
    (batch, classes), in [0, 1].

    Args:
        weights: the weights of the network.
        samples: a fixed length of the waveform, at least MIN_SAMPLES, with a batch size of 1; None for dynamic
            dimensions.
    """
    shape: Shape = ("batch", "samples") if samples is None else (1, samples)
    graph = Graph(("waveform", shape))
    x = _pad_short(graph, "waveform") if samples is None else "waveform"
    front_end, batch = weights.front_end, shape[0]
    logmel = _kaldi_mel(graph, front_end, x) if isinstance(front_end, KaldiMel) else _log_mel(graph, front_end, x)
    embedding = _embedding(graph, weights, logmel)
    tags = _head(graph, weights, embedding)
    graph.add_output(embedding, "embedding", (batch, weights.info.dimensions))
    graph.add_output(tags, "tags", (batch, weights.info.settings["classes"]))
    return graph


def _pad_short(graph: Graph, x: str) -> str:
    """Pad waveforms to MIN_SAMPLES with silence."""
    node, tensor = graph.node, graph.tensor
    missing = node("Sub", tensor([MIN_SAMPLES]), node("Shape", x, start=1, end=2))
    return node("Pad", x, node("Concat", tensor([0, 0, 0]), node("Max", missing, tensor([0])), axis=0))


def _log_mel(graph: Graph, front_end: LogMel, x: str) -> str:
    """Add the front end LogMel: (batch, samples) -> (batch, 1, frames, mel bins)."""
    node, tensor = graph.node, graph.tensor
    if front_end.normalise:
        peak = node("ReduceMax", node("Abs", x), tensor([1]), keepdims=1)
        x = node("Div", x, node("Max", peak, tensor(MIN_PEAK)))
    window = np.hanning(N_FFT + 1)[:-1]
    mel = _mel_power(graph, node("Unsqueeze", x, tensor([1])), window, front_end.mel_bank)
    decibels = node("Mul", node("Log", node("Max", mel, tensor(front_end.floor))), tensor(10 / np.log(10)))
    return node("Unsqueeze", node("Transpose", decibels, perm=[0, 2, 1]), tensor([1]))


def _kaldi_mel(graph: Graph, front_end: KaldiMel, x: str) -> str:
    """Add the front end KaldiMel: (batch, samples) -> (batch, 1, frames, mel bins)."""
    node, tensor = graph.node, graph.tensor
    emphasised = graph.filter(node("Unsqueeze", x, tensor([1])), np.array([[[-PRE_EMPHASIS, 1]]]))
    mel = _mel_power(graph, emphasised, np.hanning(WINDOW_LENGTH), front_end.mel_bank)
    logarithm = node("Log", node("Add", mel, tensor(LOG_OFFSET)))
    scaled_log = node("Div", node("Sub", logarithm, tensor(MEAN)), tensor(SCALE))
    return node("Unsqueeze", node("Transpose", scaled_log, perm=[0, 2, 1]), tensor([1]))


def _mel_power(graph: Graph, x: str, window: np.ndarray, mel_bank: np.ndarray) -> str:
    """Add a mel spectrogram: (batch, 1, samples) -> (batch, mel bins, frames).

    The Fourier transform is a convolution with cosines and sines, which runs on any accelerator; ONNX's STFT does not
    run on those of phones.

    Args:
        graph: the graph to extend.
        x: the samples.
        window: the window function.
        mel_bank: weights of the mel filters, (FFT bins, mel bins).
    """
    half = len(window) // 2
    padded = graph.node("Pad", x, graph.tensor([0, 0, half, 0, 0, half]), mode="reflect")
    num_bins = int(np.flatnonzero(mel_bank.any(axis=1))[-1]) + 1  # FFT bins up to the last one with a weight
    angles = 2 * np.pi * np.outer(np.arange(num_bins), np.arange(len(window))) / N_FFT
    kernels = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    spectrum = graph.filter(padded, kernels[:, None], HOP_LENGTH)  # real parts, then imaginary parts
    bank = mel_bank[:num_bins].T[:, :, None]
    return graph.filter(graph.node("Mul", spectrum, spectrum), np.concatenate([bank, bank], axis=1))


def _embedding(graph: Graph, weights: Weights, logmel: str) -> str:
    """Add the network: (batch, 1, frames, mel bins) -> (batch, dimensions)."""
    if weights.architecture == "mn04":
        return _mn04(graph, weights, logmel)
    node, tensor = graph.node, graph.tensor
    scale, shift = weights.norm("bn0")  # over mel bins
    x = node("Add", node("Mul", logmel, tensor(scale)), tensor(shift))
    x = _compact_blocks(graph, weights, x) if weights.architecture == "compact" else _cnn14_blocks(graph, weights, x)
    x = node("ReduceMean", x, tensor([3]), keepdims=0)  # over frequency
    maximum, mean = (node(name, x, tensor([2]), keepdims=0) for name in ("ReduceMax", "ReduceMean"))  # over time
    if weights.architecture == "compact":
        return node("Concat", mean, maximum, axis=1)
    fc1 = (tensor(weights.tensors["fc1.weight"]), tensor(weights.tensors["fc1.bias"]))
    return node("Relu", node("Gemm", node("Add", maximum, mean), *fc1, transB=1))


def _cnn14_blocks(graph: Graph, weights: Weights, x: str) -> str:
    """Add the convolution blocks: (batch, 1, frames, 64) -> (batch, channels, fewer frames, fewer bins)."""
    for number in range(1, CNN14_BLOCKS + 1):
        for layer in "12":
            folded = weights.folded(f"conv_block{number}.conv{layer}", f"conv_block{number}.bn{layer}")
            x = graph.node("Relu", graph.convolve(x, *folded))
        if number < CNN14_BLOCKS:
            x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return x


def _compact_blocks(graph: Graph, weights: Weights, x: str) -> str:
    """Add the stem and the residual blocks: (batch, 1, frames, 64) -> (batch, channels, fewer frames, fewer bins)."""
    node = graph.node
    x = node("Relu", graph.convolve(x, *weights.folded("stem", "bn_stem"), STEM_STRIDE))
    for number, stride in enumerate(COMPACT_STRIDES, start=1):
        block = f"block{number}"
        y = node("Relu", graph.convolve(x, *weights.folded(f"{block}.conv1", f"{block}.bn1"), stride))
        y = graph.convolve(y, *weights.folded(f"{block}.conv2", f"{block}.bn2"))
        x = node("AveragePool", x, kernel_shape=list(stride), strides=list(stride), ceil_mode=1)
        x = graph.convolve(x, *weights.folded(f"{block}.shortcut", f"{block}.bn_shortcut"))
        x = node("Relu", node("Add", y, x))
    return x


def _mn04(graph: Graph, weights: Weights, logmel: str) -> str:
    """Add mn04: (batch, 1, frames, 128) -> (batch, 384)."""
    node = graph.node

    def sequence(x: str, name: str, activation: str = "", stride: int = 1, groups: int = 1) -> str:
        x = graph.convolve(x, *weights.folded(f"{name}.0", f"{name}.1"), (stride, stride), groups)
        return node(activation, x) if activation else x

    def squeeze(x: str, name: str) -> str:
        y = node("GlobalAveragePool", x)
        for layer, activation in (("fc1", "Relu"), ("fc2", "Sigmoid")):
            weight, bias = (weights.tensors[f"{name}.{layer}.{part}"] for part in ("weight", "bias"))
            y = node(activation, graph.convolve(y, weight[:, :, None, None], bias))
        return node("Mul", x, y)

    x = node("Transpose", logmel, perm=[0, 1, 3, 2])
    x = sequence(x, "features.0", "HardSwish", stride=2)
    channels = scaled(TABLE[0].out)
    for number, row in enumerate(TABLE, start=1):
        expanded, out, name, layer, y = scaled(row.expanded), scaled(row.out), f"features.{number}.block", 0, x
        if expanded != channels:
            y, layer = sequence(y, f"{name}.0", row.activation), 1
        y = sequence(y, f"{name}.{layer}", row.activation, row.stride, expanded)
        if row.squeeze:
            layer += 1
            y = squeeze(y, f"{name}.{layer}.conc_se_layers.0")
        y = sequence(y, f"{name}.{layer + 1}")
        x = node("Add", x, y) if row.stride == 1 and channels == out else y
        channels = out
    x = sequence(x, f"features.{len(TABLE) + 1}", "HardSwish")
    return node("Flatten", node("GlobalAveragePool", x))


def _head(graph: Graph, weights: Weights, embedding: str) -> str:
    """Add the layers after the embedding: (batch, dimensions) -> scores, (batch, classes)."""
    head, x = weights.head, embedding
    for number, (weight, bias) in enumerate(head.layers):
        if number:
            x = graph.node("Relu" if head.activation == "relu" else "HardSwish", x)
        x = graph.node("Gemm", x, graph.tensor(weight), graph.tensor(bias), transB=1)
    return graph.node("Sigmoid", x) if weights.info.settings["multilabel"] else graph.node("Softmax", x, axis=1)
