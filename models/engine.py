"""Inference engines: sounds to embeddings, by the fastest library that is installed.

    with open_engine("compact") as engine:
        logmel = engine.front_end(samples)             # (frames, mel bins); may run in other threads
        embeddings = engine.embed(logmel[None])        # (1, dimensions)
        logits = engine.head(embeddings)               # (1, classes), of the network's own classes

The device ``auto`` means a CUDA GPU (PyTorch), otherwise MNN on the CPU, otherwise ONNX Runtime, PyTorch or NumPy. The
packages of requirements/predict.txt are sufficient. ``engine.name`` says which engine it is. All of them are compared
with models.models.Cnn14 in tests/models/test_engine.py.
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
from models.logmel import cnn14_front_end
from models.mnn_network import MnnNetwork
from models.numpy_network import NumpyNetwork
from models.weights import Weights, read_weights


class Network(Protocol):
    """A network with the weights of a checkpoint, in some inference library."""

    name: str  # library, version, device, number of cores
    backend: str  # the part of the name that determines the last digits of an embedding
    max_concurrency: int  # number of threads that may call ``embed`` at the same time
    batch_size: int  # efficient number of five-second clips per batch

    def embed(self, logmel: np.ndarray, /) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        ...

    def close(self) -> None:
        """Release processes and memory."""


@dataclass(frozen=True)
class Engine:
    """The front end, network and head of a checkpoint."""

    info: CheckpointInfo
    front_end: Callable[[np.ndarray], np.ndarray]  # float32 samples at 32 kHz -> input of the network, a log-mel
    network: Network
    head: Head | None = None  # embeddings -> logits of the network's own classes; None for MFCC
    is_fallback: bool = False  # a faster engine needs a conversion first; see convert_for_next_time

    @property
    def name(self) -> str:
        """Library, version, device, number of cores."""
        return self.network.name

    @property
    def backend(self) -> str:
        """The part of the name that determines the last digits of an embedding."""
        return self.network.backend

    @property
    def max_concurrency(self) -> int:
        """Number of threads that may call ``embed`` at the same time."""
        return self.network.max_concurrency

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        return self.network.embed(logmel)

    def close(self) -> None:
        """Release processes and memory; a ``with`` block does this at its end."""
        self.network.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_engine(checkpoint: str, device: str = "auto", cores: int = 2, low_latency: bool = False) -> Engine:
    """Open the fastest available engine.

    Args:
        checkpoint: name or path of a checkpoint.
        device: ``auto``, ``cpu`` or ``cuda``.
        cores: processor cores for the network, on a CPU.
        low_latency: start at once, for short recordings. If the network has not been converted for MNN yet, which takes
            several seconds, a slower engine is used; call ``convert_for_next_time`` after the work.

    Raises:
        UserError: the checkpoint cannot be read, or there is no such device.
    """
    if checkpoint == "mfcc":
        return _mfcc_engine()
    if device == "cuda" or (device == "auto" and has_cuda() and _torch_has_cuda()):
        return _torch_engine(checkpoint, device, cores)
    if not is_installed("MNN"):  # it has no wheel for some systems and Python versions
        return _engine_without_mnn(checkpoint, cores)
    if low_latency and not is_converted(checkpoint):
        weights = read_weights(checkpoint)
        if weights.architecture != "cnn14":
            return _engine(weights, NumpyNetwork(weights), is_fallback=True)
        if is_installed("torch"):
            return replace(_torch_engine(checkpoint, "cpu", cores), is_fallback=True)
    try:
        converted = find_or_convert(checkpoint)
    except ConversionError as error:
        engine = _engine_without_mnn(checkpoint, cores)
        warn(f"{engine.backend} runs instead of MNN, slower: {error}")
        return engine
    network = MnnNetwork(converted.file, cores, converted.winograd)
    network.start()  # loads while the file is being verified
    if not converted.is_intact():
        network.close()
        converted.discard()
        return open_engine(checkpoint, device, cores)
    return Engine(converted.info, converted.front_end, network, converted.head)


class FunctionNetwork:
    """Adapts a function that embeds waveforms to the interface of a network."""

    name = backend = "a function"
    max_concurrency, batch_size = 1, 1

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], dimensions: int):
        """
        Args:
            function: float32 samples at 32 kHz, (samples,) -> an embedding, (dimensions,).
            dimensions: dimensions of an embedding.
        """
        self._function, self._dimensions = function, dimensions

    def embed(self, waveforms: np.ndarray) -> np.ndarray:
        """float32, (batch, samples) -> (batch, dimensions). Raises UserError if an embedding has another shape."""
        embeddings = [np.asarray(self._function(waveform), np.float32) for waveform in waveforms]
        if any(embedding.shape != (self._dimensions,) for embedding in embeddings):
            raise UserError(
                f"the function that embeds must return {self._dimensions} numbers, not {embeddings[0].shape}"
            )
        return np.stack(embeddings)

    def close(self) -> None:
        """Nothing to release."""


def function_engine(function: Callable[[np.ndarray], np.ndarray], info: CheckpointInfo) -> Engine:
    """Return an engine for a user's own embedding function; ``info`` describes it, as stored in a model file."""
    return Engine(info, lambda samples: samples, FunctionNetwork(function, info.dimensions))


def convert_for_next_time(checkpoint: str) -> None:
    """Convert a network after a fallback was used. Errors are ignored: the next longer run reports them."""
    with contextlib.suppress(ConversionError, UserError):
        find_or_convert(checkpoint)


def _mfcc_engine() -> Engine:
    prepare_numba()
    from models import mfcc  # librosa takes a second to import

    return Engine(mfcc.checkpoint_info(verified_sha256("mfcc", BASELINE)), cnn14_front_end(), mfcc.MfccStatistics())


def _engine_without_mnn(checkpoint: str, cores: int) -> Engine:
    """Open the fastest installed CPU engine other than MNN."""
    if is_installed("onnxruntime"):
        from models.onnx_network import OnnxNetwork  # an optional package, installed where MNN has no wheel

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
    from models.checkpoints import load_model  # PyTorch takes seconds to import
    from models.torch_network import TorchNetwork, choose_device

    device = choose_device(device)
    model, info = load_model(checkpoint)
    return Engine(info, model.front_end, TorchNetwork(model, device, cores), model.head)


def _torch_has_cuda() -> bool:
    """Return whether PyTorch can use the GPU; warn if it cannot."""
    if not is_installed("torch"):  # with requirements/predict.txt, only the CPU is used
        return False
    import torch

    if torch.cuda.is_available():
        return True
    problem = f"there is an NVIDIA GPU, but PyTorch {torch.__version__} cannot use it"
    warn(f"{problem}: the CPU does the work (pytorch.org has builds with CUDA)")
    return False


def has_cuda() -> bool:
    """Return whether there is an NVIDIA GPU with a driver, by asking the driver, which does not import PyTorch."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False
