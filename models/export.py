"""A checkpoint written as an ONNX graph, with the sounds that a converted network is tried on. Run by converted.py.

    python -m models.export CHECKPOINT FOLDER

In a process of its own: it needs PyTorch, which extraction does not load otherwise, and four times the checkpoint's
memory. Writes network.onnx, arrays.npz (mel bank, head), probes_*.npz (log-mels and the reference's embeddings of them)
and info.json (what is known of the checkpoint) into FOLDER.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from danger_safe.core import cli
from models.checkpoints import load_model
from models.compact import CompactNet, ResidualBlock
from models.kaldimel import KALDI_MEL_BINS
from models.logmel import MEL_BINS
from models.mn04 import InvertedResidual, Mn04, Squeeze
from models.models import ConvBlock
from models.network import LogMelNetwork, SoundNetwork
from models.parity import PROBE_SECONDS, probe_batch
from models.torch_network import fold_batch_norm


def main(arguments: list[str]) -> int:
    checkpoint, folder = arguments[0], Path(arguments[1])
    model, info = load_model(checkpoint)
    front_end = model.front_end
    for seconds in PROBE_SECONDS:
        probes = probe_batch(front_end, seconds)
        with torch.inference_mode():
            expected = np.concatenate([model.embed(torch.from_numpy(clip)[None, None]).numpy() for clip in probes])
        np.savez(folder / f"probes_{seconds}.npz", logmel=probes, embedding=expected)
    np.savez(folder / "arrays.npz", mel_bank=front_end.mel_bank, **model.head.arrays())
    known = asdict(info) | {"fingerprints": sorted(info.fingerprints), "categories": list(info.categories)}
    (folder / "info.json").write_text(json.dumps(known), encoding="utf-8")
    folded = fold_batch_norm(model)
    del model  # memory: each of these is as large as the checkpoint
    graph = build_graph(folded)
    del folded
    onnx.save(graph, folder / "network.onnx")
    return cli.DONE


class Graph:
    """Nodes and tensors of an ONNX graph, added one after another."""

    def __init__(self) -> None:
        self.nodes, self.tensors = [], []

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation; returns the name of its output."""
        output = f"{operation}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def tensor(self, values: torch.Tensor | np.ndarray) -> str:
        """Add constant values; returns their name."""
        values = values.detach().numpy() if isinstance(values, torch.Tensor) else values
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), f"tensor{len(self.tensors)}"))
        return self.tensors[-1].name

    def convolve(self, x: str, layer: torch.nn.Conv2d) -> str:
        """A convolution with a bias."""
        shape = {
            "kernel_shape": list(layer.kernel_size), "strides": list(layer.stride), "pads": 2 * list(layer.padding),
            "group": layer.groups,
        }  # fmt: skip
        return self.node("Conv", x, self.tensor(layer.weight), self.tensor(layer.bias), **shape)

    def model(self, output: str, mel_bins: int, dimensions: int) -> onnx.ModelProto:
        """The whole, whose input is ``logmel``; ``output`` becomes ``embedding``."""
        self.nodes.append(helper.make_node("Identity", [output], ["embedding"]))
        graph = helper.make_graph(
            self.nodes, "embed",
            [helper.make_tensor_value_info("logmel", onnx.TensorProto.FLOAT, ["batch", 1, "frames", mel_bins])],
            [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", dimensions])],
            self.tensors,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def build_graph(folded: SoundNetwork) -> onnx.ModelProto:
    """``SoundNetwork.embed`` with its batch norm folded: ``logmel`` (batch, 1, frames, mel bins) -> ``embedding``."""
    graph = Graph()
    embedding = _mn04(graph, folded) if isinstance(folded, Mn04) else _log_mel_network(graph, folded)
    mel_bins = KALDI_MEL_BINS if isinstance(folded, Mn04) else MEL_BINS
    return graph.model(embedding, mel_bins, folded.dimensions)


def _log_mel_network(graph: Graph, folded: LogMelNetwork) -> str:
    """Cnn14 or the compact network; returns the name of the embedding."""
    node, tensor, convolve = graph.node, graph.tensor, graph.convolve
    bn0 = folded.bn0  # over mel bins: a scale and a shift each
    scale = bn0.weight / torch.sqrt(bn0.running_var + bn0.eps)
    x = node("Mul", "logmel", tensor(scale))
    x = node("Add", x, tensor(bn0.bias - bn0.running_mean * scale))
    if hasattr(folded, "stem"):
        x = node("Relu", convolve(x, folded.stem))
    blocks = [block for block in folded.children() if isinstance(block, ConvBlock | ResidualBlock)]
    for block in blocks:
        y = convolve(node("Relu", convolve(x, block.conv1)), block.conv2)
        if isinstance(block, ResidualBlock):
            x = node("AveragePool", x, kernel_shape=list(block.stride), strides=list(block.stride), ceil_mode=1)
            y = node("Add", y, convolve(x, block.shortcut))
        x = node("Relu", y)
        if isinstance(block, ConvBlock) and block is not blocks[-1]:
            x = node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("ReduceMean", x, tensor(np.array([3])), keepdims=0)  # over frequency
    loudest, mean = (node(name, x, tensor(np.array([2])), keepdims=0) for name in ("ReduceMax", "ReduceMean"))
    if isinstance(folded, CompactNet):
        return node("Concat", mean, loudest, axis=1)
    x = node("Gemm", node("Add", loudest, mean), tensor(folded.fc1.weight), tensor(folded.fc1.bias), transB=1)
    return node("Relu", x)


ACTIVATIONS = {torch.nn.ReLU: "Relu", torch.nn.Hardswish: "HardSwish"}


def _mn04(graph: Graph, folded: Mn04) -> str:
    """mn04; returns the name of the embedding."""

    def sequence(x: str, layers: torch.nn.Sequential) -> str:
        """A convolution, the place of its batch norm and, where there is one, an activation."""
        x = graph.convolve(x, layers[0])
        return graph.node(ACTIVATIONS[type(layers[2])], x) if len(layers) > 2 else x

    def squeeze(x: str, layers: torch.nn.ModuleDict) -> str:
        y = graph.node("GlobalAveragePool", x)
        for name, activation in (("fc1", "Relu"), ("fc2", "Sigmoid")):
            weight = graph.tensor(layers[name].weight[:, :, None, None])
            y = graph.node(activation, graph.node("Conv", y, weight, graph.tensor(layers[name].bias)))
        return graph.node("Mul", x, y)

    x = graph.node("Transpose", "logmel", perm=[0, 1, 3, 2])
    for layer in folded.features:
        if not isinstance(layer, InvertedResidual):
            x = sequence(x, layer)
            continue
        y = x
        for part in layer.block:
            y = squeeze(y, part.conc_se_layers[0]) if isinstance(part, Squeeze) else sequence(y, part)
        x = graph.node("Add", x, y) if layer.residual else y
    return graph.node("Flatten", graph.node("GlobalAveragePool", x))


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
