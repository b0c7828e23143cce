"""A checkpoint written as an ONNX graph, with the sounds that a converted network is tried on. Run by converted.py.

    python -m models.export CHECKPOINT FOLDER

In a process of its own: it needs PyTorch, which extraction does not load otherwise, and four times the checkpoint's
memory. Writes network.onnx, front_end.npz (mel bank), probes_*.npz (log-mels and the reference's embeddings of them)
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
from models.compact import ResidualBlock
from models.logmel import MEL_BINS, LogMel
from models.models import ConvBlock
from models.network import SoundNetwork
from models.parity import PROBE_SECONDS, probe_batch
from models.torch_network import fold_batch_norm


def main(arguments: list[str]) -> int:
    checkpoint, folder = arguments[0], Path(arguments[1])
    model, info = load_model(checkpoint)
    front_end = LogMel.of(model)
    for seconds in PROBE_SECONDS:
        probes = probe_batch(front_end, seconds)
        with torch.inference_mode():
            expected = np.concatenate([model.embed(torch.from_numpy(clip)[None, None]).numpy() for clip in probes])
        np.savez(folder / f"probes_{seconds}.npz", logmel=probes, embedding=expected)
    np.savez(folder / "front_end.npz", mel_bank=front_end.mel_bank)
    known = asdict(info) | {"clips": sorted(info.clips), "categories": list(info.categories)}
    (folder / "info.json").write_text(json.dumps(known), encoding="utf-8")
    folded = fold_batch_norm(model)
    del model  # memory: each of these is as large as the checkpoint
    graph = build_graph(folded)
    del folded
    onnx.save(graph, folder / "network.onnx")
    return cli.DONE


def build_graph(folded: SoundNetwork) -> onnx.ModelProto:
    """``SoundNetwork.embed`` with its batch norm folded: ``logmel`` (batch, 1, frames, 64) -> ``embedding``."""
    nodes, tensors = [], []

    def node(operation: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operation}{len(nodes)}"
        nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def tensor(values: torch.Tensor | np.ndarray) -> str:
        values = values.detach().numpy() if isinstance(values, torch.Tensor) else values
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), f"tensor{len(tensors)}"))
        return tensors[-1].name

    def convolve(x: str, layer: torch.nn.Conv2d) -> str:
        shape = {
            "kernel_shape": list(layer.kernel_size),
            "strides": list(layer.stride),
            "pads": 2 * list(layer.padding),
        }
        return node("Conv", x, tensor(layer.weight), tensor(layer.bias), **shape)

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
            if block.stride > 1:
                x = node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
            y = node("Add", y, convolve(x, block.shortcut))
        x = node("Relu", y)
        if isinstance(block, ConvBlock) and block is not blocks[-1]:
            x = node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("ReduceMean", x, tensor(np.array([3])), keepdims=0)  # over frequency
    loudest, mean = (node(name, x, tensor(np.array([2])), keepdims=0) for name in ("ReduceMax", "ReduceMean"))
    x = node("Gemm", node("Add", loudest, mean), tensor(folded.fc1.weight), tensor(folded.fc1.bias), transB=1)
    nodes.append(helper.make_node("Relu", [x], ["embedding"]))
    graph = helper.make_graph(
        nodes, "embed",
        [helper.make_tensor_value_info("logmel", onnx.TensorProto.FLOAT, ["batch", 1, "frames", MEL_BINS])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", folded.dimensions])],
        tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
