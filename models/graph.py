"""A network as a graph of ONNX's operations, made of its weights without PyTorch.

    graph = embedding_graph(read_weights("compact"))    # logmel -> embedding: what engines run
    graph = waveform_graph(read_weights("compact"))        # waveform -> embedding, tags: what export_onnx.py writes

onnx_file.py writes such a graph, numpy_network.py computes it. Batch norm is folded into the convolutions.
"""

from dataclasses import dataclass, field

import numpy as np

from models.architectures import CNN14_BLOCKS, COMPACT_STRIDES, MEL_BINS_OF, STEM_STRIDE, TABLE, scaled
from models.kaldimel import LOG_OFFSET, MEAN, PRE_EMPHASIS, SCALE, WINDOW_LENGTH, KaldiMel
from models.logmel import HOP_LENGTH, MIN_PEAK, MIN_SAMPLES, N_FFT, LogMel
from models.weights import Weights

Shape = tuple[int | str, ...]  # a name stands for a length that is free
Attribute = int | float | str | list[int]


@dataclass(frozen=True)
class Node:
    """One operation of ONNX's opset 18."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute]


@dataclass
class Graph:
    """Operations in the order in which they can be computed, and the arrays that they need."""

    input: tuple[str, Shape]
    outputs: list[tuple[str, Shape]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)  # float32 or int64

    def node(self, operation: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an operation; returns the name of its output."""
        output = f"{operation}{len(self.nodes)}"
        self.nodes.append(Node(operation, inputs, output, attributes))
        return output

    def tensor(self, values: np.ndarray | np.floating | list[int] | float) -> str:
        """Add constant values, a list being integers; returns their name."""
        array = np.asarray(values, np.int64 if isinstance(values, list) else np.float32)
        name = f"tensor{len(self.tensors)}"
        self.tensors[name] = np.asarray(array, order="C")
        return name

    def convolve(
        self, x: str, weight: np.ndarray, bias: np.ndarray | None = None, strides: tuple[int, ...] = (1, 1),
        groups: int = 1
    ) -> str:  # fmt: skip
        """A convolution in one or two dimensions whose maps keep their size but for the stride."""
        kernel = list(weight.shape[2:])
        padding = [size // 2 for size in kernel]
        inputs = [x, self.tensor(weight), *([] if bias is None else [self.tensor(bias)])]
        return self.node("Conv", *inputs, kernel_shape=kernel, strides=list(strides), pads=2 * padding, group=groups)

    def filter(self, x: str, kernels: np.ndarray, stride: int = 1) -> str:
        """(batch, channels, samples) through ``kernels``, (filters, channels, samples), without padding."""
        return self.node("Conv", x, self.tensor(kernels), kernel_shape=[kernels.shape[2]], strides=[stride])

    def give(self, x: str, name: str, shape: Shape) -> None:
        """Make what is called ``x`` the output ``name``."""
        self.nodes.append(Node("Identity", (x,), name, {}))
        self.outputs.append((name, shape))


def embedding_graph(weights: Weights) -> Graph:
    """``logmel`` (batch, 1, frames, mel bins) -> ``embedding`` (batch, dimensions)."""
    graph = Graph(("logmel", ("batch", 1, "frames", MEL_BINS_OF[weights.architecture])))
    graph.give(_embedding(graph, weights, "logmel"), "embedding", ("batch", weights.info.dimensions))
    return graph


def waveform_graph(weights: Weights, samples: int | None = None) -> Graph:
    """``waveform`` (batch, samples) -> ``embedding`` (batch, dimensions) and ``tags`` (batch, classes) in [0, 1].

    samples: the length of each sound, at least MIN_SAMPLES, in batches of one; None leaves both free.
    """
    shape: Shape = ("batch", "samples") if samples is None else (1, samples)
    graph = Graph(("waveform", shape))
    x = _padded(graph, "waveform") if samples is None else "waveform"
    front_end, batch = weights.front_end, shape[0]
    logmel = _kaldi_mel(graph, front_end, x) if isinstance(front_end, KaldiMel) else _log_mel(graph, front_end, x)
    embedding = _embedding(graph, weights, logmel)
    tags = _head(graph, weights, embedding)
    graph.give(embedding, "embedding", (batch, weights.info.dimensions))
    graph.give(tags, "tags", (batch, weights.info.settings["classes"]))
    return graph


def _padded(graph: Graph, x: str) -> str:
    """Silence behind sounds that are too short: as much as they lack."""
    node, tensor = graph.node, graph.tensor
    lacking = node("Sub", tensor([MIN_SAMPLES]), node("Shape", x, start=1, end=2))
    return node("Pad", x, node("Concat", tensor([0, 0, 0]), node("Max", lacking, tensor([0])), axis=0))


def _log_mel(graph: Graph, front_end: LogMel, x: str) -> str:
    """LogMel; returns the name of the log-mels, (batch, 1, frames, mel bins)."""
    node, tensor = graph.node, graph.tensor
    if front_end.normalise:
        peak = node("ReduceMax", node("Abs", x), tensor([1]), keepdims=1)
        x = node("Div", x, node("Max", peak, tensor(MIN_PEAK)))
    window = np.hanning(N_FFT + 1)[:-1]
    mel = _mel_power(graph, node("Unsqueeze", x, tensor([1])), window, front_end.mel_bank)
    decibels = node("Mul", node("Log", node("Max", mel, tensor(front_end.floor))), tensor(10 / np.log(10)))
    return node("Unsqueeze", node("Transpose", decibels, perm=[0, 2, 1]), tensor([1]))


def _kaldi_mel(graph: Graph, front_end: KaldiMel, x: str) -> str:
    """KaldiMel; returns the name of the log-mels, (batch, 1, frames, mel bins)."""
    node, tensor = graph.node, graph.tensor
    emphasised = graph.filter(node("Unsqueeze", x, tensor([1])), np.array([[[-PRE_EMPHASIS, 1]]]))
    mel = _mel_power(graph, emphasised, np.hanning(WINDOW_LENGTH), front_end.mel_bank)
    logarithm = node("Log", node("Add", mel, tensor(LOG_OFFSET)))
    scaled_log = node("Div", node("Sub", logarithm, tensor(MEAN)), tensor(SCALE))
    return node("Unsqueeze", node("Transpose", scaled_log, perm=[0, 2, 1]), tensor([1]))


def _mel_power(graph: Graph, x: str, window: np.ndarray, mel_bank: np.ndarray) -> str:
    """(batch, 1, samples) -> mel power, (batch, mel bins, frames).

    The Fourier transform is a convolution with cosines and sines, which runs wherever a convolution does; ONNX's STFT
    does not run on the accelerators of phones.
    """
    half = len(window) // 2
    padded = graph.node("Pad", x, graph.tensor([0, 0, half, 0, 0, half]), mode="reflect")
    used = int(np.flatnonzero(mel_bank.any(axis=1))[-1]) + 1  # FFT bins that any mel bin hears
    angles = 2 * np.pi * np.outer(np.arange(used), np.arange(len(window))) / N_FFT
    waves = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    parts = graph.filter(padded, waves[:, None], HOP_LENGTH)
    bank = mel_bank[:used].T[:, :, None]
    return graph.filter(
        graph.node("Mul", parts, parts), np.concatenate([bank, bank], axis=1)
    )  # sums real and imaginary


def _embedding(graph: Graph, weights: Weights, logmel: str) -> str:
    """The network itself; returns the name of the embedding."""
    if weights.architecture == "mn04":
        return _mn04(graph, weights, logmel)
    node, tensor = graph.node, graph.tensor
    scale, shift = weights.norm("bn0")  # over mel bins
    x = node("Add", node("Mul", logmel, tensor(scale)), tensor(shift))
    x = _compact_blocks(graph, weights, x) if weights.architecture == "compact" else _cnn14_blocks(graph, weights, x)
    x = node("ReduceMean", x, tensor([3]), keepdims=0)  # over frequency
    loudest, mean = (node(name, x, tensor([2]), keepdims=0) for name in ("ReduceMax", "ReduceMean"))
    if weights.architecture == "compact":
        return node("Concat", mean, loudest, axis=1)
    fc1 = (tensor(weights.tensors["fc1.weight"]), tensor(weights.tensors["fc1.bias"]))
    return node("Relu", node("Gemm", node("Add", loudest, mean), *fc1, transB=1))


def _cnn14_blocks(graph: Graph, weights: Weights, x: str) -> str:
    for number in range(1, CNN14_BLOCKS + 1):
        for layer in "12":
            folded = weights.folded(f"conv_block{number}.conv{layer}", f"conv_block{number}.bn{layer}")
            x = graph.node("Relu", graph.convolve(x, *folded))
        if number < CNN14_BLOCKS:
            x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return x


def _compact_blocks(graph: Graph, weights: Weights, x: str) -> str:
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
        expanded, out, name, part, y = scaled(row.expanded), scaled(row.out), f"features.{number}.block", 0, x
        if expanded != channels:
            y, part = sequence(y, f"{name}.0", row.activation), 1
        y = sequence(y, f"{name}.{part}", row.activation, row.stride, expanded)
        if row.squeeze:
            part += 1
            y = squeeze(y, f"{name}.{part}.conc_se_layers.0")
        y = sequence(y, f"{name}.{part + 1}")
        x = node("Add", x, y) if row.stride == 1 and channels == out else y
        channels = out
    x = sequence(x, f"features.{len(TABLE) + 1}", "HardSwish")
    return node("Flatten", node("GlobalAveragePool", x))


def _head(graph: Graph, weights: Weights, embedding: str) -> str:
    """The layers after the embedding; returns the name of the classes' scores."""
    head, x = weights.head, embedding
    for number, (weight, bias) in enumerate(head.layers):
        if number:
            x = graph.node("Relu" if head.activation == "relu" else "HardSwish", x)
        x = graph.node("Gemm", x, graph.tensor(weight), graph.tensor(bias), transB=1)
    return graph.node("Sigmoid", x) if weights.info.settings["multilabel"] else graph.node("Softmax", x, axis=1)
