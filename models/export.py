"""A checkpoint written as an ONNX graph, with the sounds that a converted network is tried on. Run by converted.py.

    python -m models.export CHECKPOINT FOLDER

In a process of its own: it needs PyTorch, which extraction does not load otherwise, and four times the checkpoint's
memory. Writes network.onnx, front_end.npz (mel bank), probes.npz (log-mels and the reference's embeddings of them)
and info.json (what is known of the checkpoint) into FOLDER.
"""

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from danger_safe import cli
from models.checkpoints import load_model
from models.logmel import LogMel
from models.models import Cnn14
from models.parity import probe_batch
from models.torch_network import fold_batch_norm


class _LogMelToEmbedding(torch.nn.Module):
    def __init__(self, model: Cnn14):
        super().__init__()
        self.model = model

    def forward(self, logmel: torch.Tensor) -> torch.Tensor:
        return self.model.embed(logmel)


def main(arguments: list[str]) -> int:
    checkpoint, folder = arguments[0], Path(arguments[1])
    model, info = load_model(checkpoint)
    front_end = LogMel.of(model)
    probes = probe_batch(front_end)
    with torch.inference_mode():
        expected = np.concatenate([model.embed(torch.from_numpy(clip)[None, None]).numpy() for clip in probes])
    np.savez(folder / "probes.npz", logmel=probes, embedding=expected)
    np.savez(folder / "front_end.npz", mel_bank=front_end.mel_bank)
    known = asdict(info) | {"clips": sorted(info.clips), "categories": list(info.categories)}
    (folder / "info.json").write_text(json.dumps(known), encoding="utf-8")
    folded = fold_batch_norm(model)
    del model
    with warnings.catch_warnings():  # the exporter that needs no further packages calls itself legacy
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogMelToEmbedding(folded), (torch.zeros(1, 1, 501, 64),), folder / "network.onnx", dynamo=False,
            input_names=["logmel"], output_names=["embedding"],
            dynamic_axes={"logmel": {0: "batch", 2: "frames"}, "embedding": {0: "batch"}},
        )  # fmt: skip
    return cli.DONE


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
