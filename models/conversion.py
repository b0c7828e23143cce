"""The first step of a conversion: exports a checkpoint for MNN's converter, with probes to check the result on.

converted.py runs this in a process of its own, because it needs several times the memory of the checkpoint. It writes:

- network.onnx: log-mel -> embedding.
- arrays.npz: the mel bank and the head.
- probes_*.npz: log-mels of the probe sounds, and the embeddings that a reference engine computes from them.
- info.json: the metadata of the checkpoint.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from danger_safe.core import cli
from danger_safe.core.packages import is_installed
from models.graph import embedding_graph
from models.numpy_network import NumpyNetwork
from models.onnx_file import write_onnx
from models.parity import PROBE_LENGTHS_S, probe_batch
from models.weights import Weights, read_weights


def main(arguments: list[str]) -> int:
    """Export a checkpoint. ``arguments`` are its name or path, and the folder to write to."""
    checkpoint, folder = arguments[0], Path(arguments[1])
    weights = read_weights(checkpoint)
    info, front_end = weights.info, weights.front_end
    metadata = asdict(info) | {"fingerprints": sorted(info.fingerprints), "categories": list(info.categories)}
    (folder / "info.json").write_text(json.dumps(metadata), encoding="utf-8")
    arrays: dict[str, Any] = {"mel_bank": front_end.mel_bank, **weights.head.arrays()}
    np.savez(folder / "arrays.npz", **arrays)
    with open(folder / "network.onnx", "wb") as file:
        write_onnx(embedding_graph(weights), file)
    network = _reference(weights)
    for seconds in PROBE_LENGTHS_S:
        logmel = probe_batch(front_end, seconds)
        # Eight at a time: as fast as all at once, in less memory than the weights take.
        embedding = np.concatenate([network.embed(batch) for batch in np.split(logmel, 2)])
        np.savez(folder / f"probes_{seconds}.npz", logmel=logmel, embedding=embedding)
    return cli.DONE


def _reference(weights: Weights):
    """Return the reference engine: NumPy, which starts at once, or for Cnn14 PyTorch, if installed."""
    if weights.architecture == "cnn14" and is_installed("torch"):
        from models.checkpoints import network_of  # PyTorch takes seconds to import, but saves most of a minute here
        from models.torch_network import TorchNetwork

        return TorchNetwork(network_of(weights))
    return NumpyNetwork(weights)
