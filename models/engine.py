"""The engine: sounds in, embeddings out, on CPU or GPU. The hot path of extraction, in one place.

On a CPU the batch norm is folded into the convolutions, memory is laid out channels-last, and the log-mel uses a real
FFT: the same function as models.models.Cnn14, to rounding (tests/test_cnn14.py).
"""

import copy

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from danger_safe.errors import UserError
from models.logmel import LogMel
from models.models import MIN_SAMPLES, Cnn14, ConvBlock

WINDOW_SECONDS = 30.0  # longer recordings are read and embedded in windows of this length: memory stays bounded


def choose_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is one. Raises UserError when CUDA is asked for in vain."""
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise UserError("--device cuda: this PyTorch sees no CUDA GPU; use --device cpu, or install a CUDA build")
    return device


class Engine:
    """Embeds batches of clips with one network."""

    def __init__(self, model: Cnn14, device: str = "cpu"):
        self.device = device
        self.model = fold_batch_norm(model).to(device).to(memory_format=torch.channels_last)
        self.front_end = LogMel(self.model)
        self.dimensions = model.dimensions
        self.name = f"PyTorch {torch.__version__} on {device}"

    def embed(self, clips: list[np.ndarray]) -> np.ndarray:
        """Mono float32 clips at 32 kHz, of one length or several: float32 of shape (clips, dimensions).

        Clips under 9,920 samples are padded with silence. Memory grows with the longest clip: what is longer than
        WINDOW_SECONDS comes here in windows (danger_safe/extraction.py).
        """
        result = np.empty((len(clips), self.dimensions), np.float32)
        by_length: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            by_length.setdefault(max(len(clip), MIN_SAMPLES), []).append(index)
        for length, members in by_length.items():
            batch = np.zeros((len(members), length), np.float32)
            for row, index in zip(batch, members, strict=True):
                row[: len(clips[index])] = clips[index]
            result[members] = self._run(batch)
        return result

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """(batch, samples) -> (batch, dimensions)."""
        with torch.inference_mode():
            waveform = torch.from_numpy(batch).to(self.device)
            logmel = self.front_end(waveform).contiguous(memory_format=torch.channels_last)
            return self.model.embed(logmel).float().cpu().numpy()


def fold_batch_norm(model: Cnn14) -> Cnn14:
    """A copy of an evaluated network whose convolutions have their batch norm in them: a quarter less work."""
    folded = copy.deepcopy(model).eval()
    for block in folded.children():
        if isinstance(block, ConvBlock):
            block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), torch.nn.Identity()
            block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), torch.nn.Identity()
    return folded
