"""A checkpoint written down for MNN's converter, with the sounds that the result is tried on. converted.py runs this in a
process of its own, since it needs four times the checkpoint's memory.

Files: network.onnx, arrays.npz (mel bank, head), probes_*.npz (log-mels, and the embeddings that NumPy computes of them)
and info.json (what is known of the checkpoint).
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from danger_safe.core import cli
from models.graph import embedding_graph
from models.numpy_network import NumpyNetwork
from models.onnx_file import write_onnx
from models.parity import PROBE_SECONDS, probe_batch
from models.weights import read_weights


def main(arguments: list[str]) -> int:
    """``arguments``: the checkpoint, by name or path, and the folder to write into."""
    checkpoint, folder = arguments[0], Path(arguments[1])
    weights = read_weights(checkpoint)
    info, front_end = weights.info, weights.front_end
    known = asdict(info) | {"fingerprints": sorted(info.fingerprints), "categories": list(info.categories)}
    (folder / "info.json").write_text(json.dumps(known), encoding="utf-8")
    np.savez(folder / "arrays.npz", mel_bank=front_end.mel_bank, **weights.head.arrays())
    with open(folder / "network.onnx", "wb") as file:
        write_onnx(embedding_graph(weights), file)
    network = NumpyNetwork(weights)
    for seconds in PROBE_SECONDS:
        logmel = probe_batch(front_end, seconds)
        np.savez(folder / f"probes_{seconds}.npz", logmel=logmel, embedding=network.embed(logmel))
    return cli.DONE
