"""The log-mel spectrogram in PyTorch, for training and as the reference of logmel.py.

PANNs compute it with torchlibrosa, by convolutions with sines and cosines. Modules and tensors have the same names and
values here, because the official checkpoint contains them (tests/models/test_engine.py compares both). torchlibrosa
itself is no longer maintained and takes seconds to import.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.logmel import HOP_LENGTH, N_FFT, mel_bank

BINS = N_FFT // 2 + 1  # 513


class Spectrogram(nn.Module):
    """Power spectrogram: (batch, samples) -> (batch, 1, samples // 320 + 1, 513)."""

    def __init__(self):
        super().__init__()
        self.stft = _Stft()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        padded = F.pad(waveform[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        power = self.stft.conv_real(padded) ** 2 + self.stft.conv_imag(padded) ** 2  # (batch, bins, frames)
        return power[:, None].transpose(2, 3)


class LogmelFilterBank(nn.Module):
    """Power spectrogram, (…, 513) -> log-mel power in dB, (…, 64).

    Args:
        fmin, fmax: limits of the mel bank in Hz.
        floor: lower limit of the mel power.
    """

    def __init__(self, fmin: float, fmax: float, floor: float):
        super().__init__()
        self.floor = floor
        self.melW = nn.Parameter(torch.from_numpy(mel_bank(fmin, fmax)), requires_grad=False)

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        return 10.0 * torch.log10((power @ self.melW).clamp_min(self.floor))


class _Stft(nn.Module):
    """Holds the windowed cosines and sines under their official names."""

    def __init__(self):
        super().__init__()
        samples = np.arange(N_FFT)
        window = np.hanning(N_FFT + 1)[:-1]
        angles = np.outer(np.arange(BINS), samples) % N_FFT * (-2 * np.pi / N_FFT)
        self.conv_real, self.conv_imag = _convolution(np.cos(angles) * window), _convolution(np.sin(angles) * window)


def _convolution(filters: np.ndarray) -> nn.Conv1d:
    """Return a convolution with fixed weights: (bins, N_FFT)."""
    layer = nn.Conv1d(1, BINS, N_FFT, stride=HOP_LENGTH, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(filters.astype(np.float32))[:, None], requires_grad=False)
    return layer
