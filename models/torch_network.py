"""The network on PyTorch: on a GPU, and on a CPU where the faster engine is not to be had.

Batch norm is folded into the convolutions and memory is laid out channels-last: the same function as
the network itself, to rounding. On a GPU, half precision is used only after it has proved itself on this GPU with
these weights (``MAX_PROBE_ERROR``), transfers are pinned, and a batch is as large as the memory that is free allows.
"""

import copy
from typing import cast

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from danger_safe.core.errors import UserError
from models.network import SoundNetwork, channels_last
from models.parity import MAX_PROBE_ERROR, largest_error, probe_batch

CONVOLUTION_AND_NORM = [torch.nn.Conv2d, torch.nn.BatchNorm2d]  # as mn04's sequences begin
_BYTES_PER_CELL = 4 * 4  # float32: each of the largest feature maps' activations, in, out and two in flight


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
        """Clips of so many frames that fit in half of the GPU's free memory; on a CPU the caller's size is right."""
        if self.device == "cpu":
            return 1 << 30
        free, _ = torch.cuda.mem_get_info()
        return max(1, free // 2 // (self._activations_per_frame * frames * _BYTES_PER_CELL))

    def _try_half_precision(self, probes: np.ndarray) -> None:
        """Keep float16 if, on this GPU, it gives the embeddings that float32 gives."""
        whole, expected = self._model, self._run(probes)
        self._model, self.dtype = copy.deepcopy(whole).half(), torch.float16
        if largest_error(self._run(probes), expected) > MAX_PROBE_ERROR:
            self._model, self.dtype = whole, torch.float32


def choose_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is one. Raises UserError when CUDA is asked for in vain."""
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise UserError("--device cuda: this PyTorch sees no CUDA GPU; use --device cpu, or install a CUDA build")
    return device


def fold_batch_norm(model: SoundNetwork) -> SoundNetwork:
    """A copy of an evaluated network whose convolutions have their batch norm in them: a quarter less work."""
    folded = copy.deepcopy(model).eval()
    pairs = {"conv1": "bn1", "conv2": "bn2", "shortcut": "bn_shortcut", "stem": "bn_stem"}
    for holder in folded.modules():
        if (
            isinstance(holder, torch.nn.Sequential)
            and [type(layer) for layer in list(holder)[:2]] == CONVOLUTION_AND_NORM
        ):
            first, second = cast(torch.nn.Conv2d, holder[0]), cast(torch.nn.BatchNorm2d, holder[1])
            holder[0], holder[1] = fuse_conv_bn_eval(first, second), torch.nn.Identity()
        for convolution, norm in pairs.items():
            if hasattr(holder, convolution):
                fused = fuse_conv_bn_eval(getattr(holder, convolution), getattr(holder, norm))
                setattr(holder, convolution, fused)
                setattr(holder, norm, torch.nn.Identity())
    return folded
