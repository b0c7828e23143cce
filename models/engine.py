"""The engine: sounds in, embeddings out, by the fastest means that this computer has.

    with open_engine("compact") as engine:
        logmel = engine.front_end(samples)             # (frames, mel bins); threads may do this ahead
        embeddings = engine.embed(logmel[None])        # (1, dimensions)
        logits = engine.head(embeddings)               # (1, classes): what the network itself calls it

``auto`` takes a CUDA GPU (PyTorch), else MNN on the CPU, else ONNX Runtime, PyTorch or, if there is nothing else,
NumPy: what requirements/predict.txt installs is enough. ``engine.name`` says which it is. models.models.Cnn14 remains
the reference: tests/models/test_engine.py holds every engine against it.
"""

import contextlib
import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from danger_safe.core.cache_folder import prepare_numba
from danger_safe.core.cli import warn
from danger_safe.core.errors import UserError
from danger_safe.core.packages import is_installed
from models.checkpoint_files import BASELINE, CheckpointInfo, verified_sha256
from models.converted import ConversionError, find_or_convert, is_converted
from models.head import Head
from models.mnn_network import MnnNetwork
from models.numpy_network import NumpyNetwork
from models.weights import Weights, read_weights


class Network(Protocol):
    """What computes: one object for one checkpoint."""

    name: str  # library, version, device
    backend: str  # what decides the last digits of an embedding
    max_concurrency: int  # batches that may be computed at once
    batch_size: int  # clips of five seconds in a batch that suit it

    def embed(self, logmel: np.ndarray, /) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        ...

    def close(self) -> None:
        """Release what it holds."""


@dataclass(frozen=True)
class Engine:
    """A front end and a network of one checkpoint."""

    info: CheckpointInfo
    front_end: Callable[[np.ndarray], np.ndarray]  # float32 samples, 32 kHz -> what the network gets, a log-mel
    network: Network
    head: Head | None = None  # embeddings -> logits of ``info``'s classes; None for MFCC
    is_fallback: bool = False  # for a faster one that would have to be made ready first: convert_for_next_time

    @property
    def name(self) -> str:
        """Library, version, device."""
        return self.network.name

    @property
    def backend(self) -> str:
        """What decides the last digits of an embedding."""
        return self.network.backend

    @property
    def max_concurrency(self) -> int:
        """How many batches may be computed at once, by as many threads."""
        return self.network.max_concurrency

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        return self.network.embed(logmel)

    def close(self) -> None:
        """Release what it holds; a ``with`` block does so."""
        self.network.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_engine(checkpoint: str, device: str = "auto", cores: int = 2, low_latency: bool = False) -> Engine:
    """The engine of a checkpoint given by name or path; ``cores`` is for the network on a CPU.

    ``low_latency``: there is little to hear. Where the network was not converted for MNN yet, which takes longer than
    to hear it, NumPy stands in, or for Cnn14 PyTorch, and ``convert_for_next_time`` is for afterwards. Raises UserError
    for a checkpoint that is none, or for a GPU that is not there.
    """
    if checkpoint == "mfcc":
        return _mfcc_engine()
    if device == "cuda" or (device == "auto" and has_cuda() and _torch_has_cuda()):
        return _torch_engine(checkpoint, device, cores)
    if not is_installed("MNN"):  # no wheel for this system or Python
        return _other_engine(checkpoint, cores)
    if low_latency and not is_converted(checkpoint):
        weights = read_weights(checkpoint)
        if weights.architecture != "cnn14":
            return _engine(weights, NumpyNetwork(weights), is_fallback=True)
        if is_installed("torch"):
            return replace(_torch_engine(checkpoint, "cpu", cores), is_fallback=True)
    try:
        converted = find_or_convert(checkpoint)
    except ConversionError as error:
        engine = _other_engine(checkpoint, cores)
        warn(f"{engine.backend} runs instead of MNN, slower: {error}")
        return engine
    network = MnnNetwork(converted.file, cores, converted.winograd)
    network.start()  # it loads while its file is checked
    if not converted.is_intact():
        network.close()
        converted.discard()
        return open_engine(checkpoint, device, cores)
    return Engine(converted.info, converted.front_end, network, converted.head)


class FunctionNetwork:
    """A function that embeds waveforms, in a network's place."""

    name = backend = "a function"
    max_concurrency, batch_size = 1, 1

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], dimensions: int):
        """``function``: float32 samples at 32 kHz, (samples,) -> an embedding, (dimensions,)."""
        self._function, self._dimensions = function, dimensions

    def embed(self, waveforms: np.ndarray) -> np.ndarray:
        """float32, (batch, samples) -> (batch, dimensions). Raises UserError for embeddings of another length."""
        embeddings = [np.asarray(self._function(waveform), np.float32) for waveform in waveforms]
        if any(embedding.shape != (self._dimensions,) for embedding in embeddings):
            raise UserError(
                f"the function that embeds must return {self._dimensions} numbers, not {embeddings[0].shape}"
            )
        return np.stack(embeddings)

    def close(self) -> None:
        """There is nothing to release."""


def function_engine(function: Callable[[np.ndarray], np.ndarray], info: CheckpointInfo) -> Engine:
    """The engine of a network that is not this project's; ``info`` is what a model says of it."""
    return Engine(info, lambda samples: samples, FunctionNetwork(function, info.dimensions))


def convert_for_next_time(checkpoint: str) -> None:
    """Convert a network after another engine has stood in; where that fails, the next longer run says why."""
    with contextlib.suppress(ConversionError, UserError):
        find_or_convert(checkpoint)


def _mfcc_engine() -> Engine:
    prepare_numba()
    from models import mfcc  # librosa takes a second to load

    return Engine(mfcc.checkpoint_info(verified_sha256("mfcc", BASELINE)), mfcc.front_end(), mfcc.MfccStatistics())


def _other_engine(checkpoint: str, cores: int) -> Engine:
    """The fastest on a CPU that is installed, but for MNN."""
    if is_installed("onnxruntime"):
        from models.onnx_network import OnnxNetwork  # not installed where MNN is

        weights = read_weights(checkpoint)
        return _engine(weights, OnnxNetwork(weights, cores))
    if is_installed("torch"):
        return _torch_engine(checkpoint, "cpu", cores)
    weights = read_weights(checkpoint)
    return _engine(weights, NumpyNetwork(weights))


def _engine(weights: Weights, network: Network, is_fallback: bool = False) -> Engine:
    return Engine(weights.info, weights.front_end, network, weights.head, is_fallback)


def _torch_engine(checkpoint: str, device: str, cores: int) -> Engine:
    if not is_installed("torch"):
        raise UserError("--device cuda needs PyTorch: pip install -r requirements.txt")
    from models.checkpoints import load_model  # PyTorch takes seconds to load
    from models.torch_network import TorchNetwork, choose_device

    device = choose_device(device)
    model, info = load_model(checkpoint)
    return Engine(info, model.front_end, TorchNetwork(model, device, cores), model.head)


def _torch_has_cuda() -> bool:
    if not is_installed("torch"):  # requirements/predict.txt, whose engine is a CPU's
        return False
    import torch

    if torch.cuda.is_available():
        return True
    warn(
        f"there is an NVIDIA GPU, but PyTorch {torch.__version__} cannot use it: the CPU does the work (pytorch.org "
        f"has builds with CUDA)"
    )
    return False


def has_cuda() -> bool:
    """Whether an NVIDIA driver with a GPU is here: asked of the driver, without loading PyTorch."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False
