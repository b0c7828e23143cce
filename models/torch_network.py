"""The network on PyTorch: on a GPU, or on a CPU if no faster engine is available.

Batch norm is folded into the convolutions, and memory is in channels-last format; results equal those of the original
network up to rounding. On a GPU, half precision is used if it has passed a test with these weights on this GPU
(``MAX_PROBE_ERROR``), transfers use pinned memory, and batches are limited by the free memory.
"""

import copy
from typing import cast

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from danger_safe.core.errors import UserError
from models.network import SoundNetwork, channels_last
from models.parity import MAX_PROBE_ERROR, largest_error, probe_batch

CONVOLUTION_AND_NORM = [torch.nn.Conv2d, torch.nn.BatchNorm2d]  # the first layers of mn04's sequences
_BYTES_PER_ACTIVATION = 4 * 4  # four float32 copies of the largest feature maps: input, output, two temporary


class TorchNetwork:
    """Log-mel batches in, embeddings out, with PyTorch."""

    def __init__(self, model: SoundNetwork, device: str = "cpu", threads: int | None = None):
        if threads is not None:
            torch.set_num_threads(threads)
        self.device, self.dtype, self.max_concurrency = device, torch.float32, 1
        self.dimensions = model.dimensions
        self.batch_size = 24 if device == "cpu" else 128
        self._activations_per_frame = model.activations_per_frame
        self._model = channels_last(fold_batch_norm(model).to(device))
        if device != "cpu":
            self._try_half_precision(probe_batch(model.front_end))
        precision = {torch.float32: "", torch.float16: ", half precision"}[self.dtype]
        self.name = self.backend = f"PyTorch {torch.__version__} on {device}{precision}"

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions)."""
        size = self._largest_batch(logmel.shape[1])
        return np.concatenate([self._run(logmel[i : i + size]) for i in range(0, len(logmel), size)])

    def close(self) -> None:
        """Nothing to release: the same interface as MnnNetwork."""

    def _run(self, logmel: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(logmel))[:, None]
            if self.device != "cpu":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            batch = batch.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return self._model.embed(batch).float().cpu().numpy()

    def _largest_batch(self, frames: int) -> int:
        """Return how many clips of ``frames`` frames fit in half of the GPU's free memory."""
        if self.device == "cpu":
            return 1 << 30  # no limit
        free, _ = torch.cuda.mem_get_info()
        return max(1, free // 2 // (self._activations_per_frame * frames * _BYTES_PER_ACTIVATION))

    def _try_half_precision(self, probes: np.ndarray) -> None:
        """Switch to float16 if its embeddings of the probes agree with those of float32."""
        full_precision, expected = self._model, self._run(probes)
        self._model, self.dtype = copy.deepcopy(full_precision).half(), torch.float16
        if largest_error(self._run(probes), expected) > MAX_PROBE_ERROR:
            self._model, self.dtype = full_precision, torch.float32


def choose_device(device: str) -> str:
    """Resolve ``auto`` to ``cuda`` or ``cpu``. Raises UserError if ``cuda`` is requested but not available."""
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise UserError("--device cuda: this PyTorch sees no CUDA GPU; use --device cpu, or install a CUDA build")
    return device


def fold_batch_norm(model: SoundNetwork) -> SoundNetwork:
    """Return a copy of a network with batch norm folded into the convolutions, which saves a quarter of the time."""
    folded = copy.deepcopy(model).eval()
    pairs = {"conv1": "bn1", "conv2": "bn2", "shortcut": "bn_shortcut", "stem": "bn_stem"}
    for module in folded.modules():
        is_sequence = isinstance(module, torch.nn.Sequential)
        if is_sequence and [type(layer) for layer in list(module)[:2]] == CONVOLUTION_AND_NORM:
            first, second = cast(torch.nn.Conv2d, module[0]), cast(torch.nn.BatchNorm2d, module[1])
            module[0], module[1] = fuse_conv_bn_eval(first, second), torch.nn.Identity()
        for convolution, norm in pairs.items():
            if hasattr(module, convolution):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, torch.nn.Identity())
    return folded
