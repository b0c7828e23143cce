"""The network on ONNX Runtime, for systems on which MNN has no wheel, such as Windows on ARM."""

from importlib.metadata import version

import numpy as np
import onnxruntime

from models.graph import embedding_graph
from models.onnx_file import onnx_bytes
from models.weights import Weights


class OnnxNetwork:
    """Log-mel batches in, embeddings out, with ONNX Runtime."""

    batch_size, max_concurrency = 24, 1

    def __init__(self, weights: Weights, cores: int):
        self.backend = f"ONNX Runtime {version('onnxruntime')}"
        self.name = f"{self.backend}, {cores} core{'s' * (cores > 1)}"
        self._session = open_session(onnx_bytes(embedding_graph(weights)), cores)

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        return self._session.run(["embedding"], {"logmel": logmel[:, None]})[0]

    def close(self) -> None:
        """Nothing to release: the same interface as MnnNetwork."""


def open_session(model: bytes | str, cores: int) -> onnxruntime.InferenceSession:
    """Open a model, given by its bytes or its path, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.log_severity_level = 3  # only errors
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
