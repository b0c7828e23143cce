"""The log-mel spectrogram of Cnn14 and the compact network, computed by a real FFT in NumPy and SciPy.

    front_end = model.front_end
    logmel = front_end(samples)     # (samples,) at 32 kHz -> (frames, 64), in dB

torchlibrosa, which PANNs use, multiplies each frame by a 1,024 x 1,026 matrix; an FFT gives the same values in a
fraction of the time (tests/models/test_cnn14.py). Nothing here needs PyTorch, which takes seconds to import.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

N_FFT = 1024  # samples: 32 ms
HOP_LENGTH = 320  # samples: 10 ms, 100 frames per second
MEL_BINS = 64
MIN_SAMPLES = 31 * HOP_LENGTH  # 9,920 samples (0.31 s): 32 frames, the minimum for the five poolings of Cnn14
# Frames per FFT. Arrays for a whole clip would be so large that the allocator returns them to the system every time,
# and the page faults cost more time than all the arithmetic.
BLOCK_FRAMES = 64
BLOCK_BINS = 8  # mel bins per matrix product
MIN_PEAK = 1e-4  # -80 dBFS; peak normalisation does not amplify quieter clips to full scale

MelBlock = tuple[slice, slice, np.ndarray]


@dataclass(frozen=True)
class LogMel:
    """A log-mel front end. All methods take one clip, or a batch with further leading axes."""

    mel_bank: np.ndarray  # weights of the mel filters, (513, 64)
    floor: float  # lower limit of the mel power
    normalise: bool  # scale each clip to a peak of 1 first
    n_fft: int = N_FFT
    hop_length: int = HOP_LENGTH

    def at_half_rate(self) -> "LogMel":
        """Return a front end for samples at 16 kHz that costs half as much, for training.

        Its values differ by a tenth of a dB on average. Valid only if ``supports_half_rate``.
        """
        bins = N_FFT // 4 + 1
        return LogMel(4 * self.mel_bank[:bins], self.floor, self.normalise, N_FFT // 2, HOP_LENGTH // 2)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Compute the log-mel power in dB: (samples,) float32 at 32 kHz -> (frames, 64).

        Clips shorter than MIN_SAMPLES are padded with silence.
        """
        min_samples = MIN_SAMPLES * self.hop_length // HOP_LENGTH
        if samples.shape[-1] < min_samples:
            samples = pad_last_axis(samples, 0, min_samples - samples.shape[-1], "constant")
        if self.normalise:
            samples = samples / np.maximum(np.abs(samples).max(axis=-1, keepdims=True), np.float32(MIN_PEAK))
        return np.concatenate([self.from_power(power) for power in self._power_blocks(samples)], axis=-2)

    def power(self, samples: np.ndarray) -> np.ndarray:
        """Compute the power spectrogram of the FFT bins that are used: (samples,) -> (samples // 320 + 1, bins)."""
        return np.concatenate(list(self._power_blocks(samples)), axis=-2)

    def _power_blocks(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        padded = pad_last_axis(samples, self.n_fft // 2, self.n_fft // 2, "reflect")
        return power_blocks(padded, self._window, self.n_fft, self.hop_length, self._num_bins)

    def from_power(self, power: np.ndarray) -> np.ndarray:
        """Convert a power spectrogram, as returned by ``power``, to log-mel power in dB, (frames, 64)."""
        mel = mel_power(power, self._blocks)
        return np.float32(10.0) * np.log10(np.maximum(mel, np.float32(self.floor)))

    @property
    def supports_half_rate(self) -> bool:
        """Whether samples at 16 kHz contain all frequencies that are used, below the resampler's transition band."""
        return self._num_bins * SAMPLE_RATE / N_FFT <= 0.9 * SAMPLE_RATE / 4

    @cached_property
    def _window(self) -> np.ndarray:
        return np.hanning(self.n_fft + 1)[:-1].astype(np.float32)

    @cached_property
    def _num_bins(self) -> int:
        """Number of FFT bins up to the last one with a weight in the mel bank."""
        return int(np.flatnonzero(self.mel_bank.any(axis=1))[-1]) + 1

    @cached_property
    def _blocks(self) -> list[MelBlock]:
        return mel_blocks(self.mel_bank)


def cnn14_front_end() -> LogMel:
    """Return the front end of the official Cnn14."""
    return LogMel(mel_bank(50.0, 14_000.0), floor=1e-10, normalise=False)


def mel_blocks(mel_bank: np.ndarray) -> list[MelBlock]:
    """Split a mel bank, (FFT bins, mel bins), into dense blocks of BLOCK_BINS mel bins.

    Each filter spans few FFT bins, so the whole matrix is mostly zeros. BLAS would also split the whole product among
    threads, which spend more time waiting for each other and for the cores of the network than computing.

    Returns:
        (slice of FFT bins, slice of mel bins, weights between them) for each block.
    """
    blocks = []
    for start in range(0, mel_bank.shape[1], BLOCK_BINS):
        mel_bins = slice(start, start + BLOCK_BINS)
        nonzero = np.flatnonzero(mel_bank[:, mel_bins].any(axis=1))
        fft_bins = slice(int(nonzero[0]), int(nonzero[-1]) + 1)
        blocks.append((fft_bins, mel_bins, np.ascontiguousarray(mel_bank[fft_bins, mel_bins])))
    return blocks


def mel_power(power: np.ndarray, blocks: list[MelBlock]) -> np.ndarray:
    """Apply the blocks of ``mel_blocks`` to a power spectrogram: (…, frames, FFT bins) -> (…, frames, mel bins)."""
    mel = np.empty((*power.shape[:-1], blocks[-1][1].start + blocks[-1][2].shape[1]), np.float32)
    for fft_bins, mel_bins, weights in blocks:
        mel[..., mel_bins] = power[..., fft_bins] @ weights
    return mel


def power_blocks(
    padded: np.ndarray, window: np.ndarray, n_fft: int, hop_length: int, bins: int
) -> Iterator[np.ndarray]:
    """Compute a power spectrogram in blocks of BLOCK_FRAMES frames.

    Args:
        padded: samples, (…, samples), already padded at both ends.
        window: the window function. If it is shorter than ``n_fft``, zeros follow it; its position does not matter.
        n_fft: length of the FFT.
        hop_length: samples from one frame to the next.
        bins: number of FFT bins to keep.

    Yields:
        Power, (…, frames, bins).
    """
    fft = fft_module()
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window), axis=-1)[..., ::hop_length, :]
    windowed = np.zeros((*frames.shape[:-2], BLOCK_FRAMES, n_fft), np.float32)
    for start in range(0, frames.shape[-2], BLOCK_FRAMES):
        block = frames[..., start : start + BLOCK_FRAMES, :]
        size = block.shape[-2]
        np.multiply(block, window, out=windowed[..., :size, : len(window)])
        spectrum = fft.rfft(windowed[..., :size, :])[..., :bins]
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        yield power


def fft_module() -> ModuleType:
    """Return ``scipy.fft``, which is five times as fast as ``numpy.fft``, or the latter if SciPy is not installed.

    requirements/predict.txt leaves SciPy out, because it is as large as everything else in that file together. The
    values are equal up to rounding.
    """
    try:
        from scipy import fft  # takes half a second to import; threads do so while the network starts
    except ModuleNotFoundError:
        from numpy import fft
    return fft


def mel_bank(fmin: float, fmax: float) -> np.ndarray:
    """Return triangular filters of equal area on Slaney's mel scale: float32, (513, 64).

    Equal to ``librosa.filters.mel``, which takes seconds to import.

    Args:
        fmin: lower limit of the first filter in Hz.
        fmax: upper limit of the last filter in Hz.
    """
    lowest, highest = _hz_to_mel(np.array([fmin, fmax]))
    edges = _mel_to_hz(np.linspace(lowest, highest, MEL_BINS + 2))
    slopes = edges[:, None] - np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    rising, falling = -slopes[:-2] / np.diff(edges)[:-1, None], slopes[2:] / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return np.ascontiguousarray(bank.T)


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear up to 1 kHz, which is 15 mel, and logarithmic above."""
    logarithmic = 15 + 27 * np.log(np.maximum(hz, 1_000) / 1_000) / np.log(6.4)
    return np.where(hz < 1_000, hz * 3 / 200, logarithmic)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    logarithmic = 1_000 * np.exp(np.log(6.4) / 27 * (mel - 15))
    return np.where(mel < 15, mel * 200 / 3, logarithmic)


def pad_last_axis(samples: np.ndarray, before: int, after: int, mode: Literal["constant", "reflect"]) -> np.ndarray:
    """Pad the last axis by ``before`` and ``after`` samples, in a mode of ``np.pad``."""
    return np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(before, after)], mode)
