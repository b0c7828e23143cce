"""The log-mel spectrogram by a real FFT: the values of torchlibrosa's convolution, in a fraction of its time.

    front_end = model.front_end
    logmel = front_end(samples)     # (samples,) at 32 kHz -> (frames, 64), in dB

torchlibrosa multiplies each frame with a 1,024 x 1,026 matrix; an FFT gives the same numbers. Nothing here needs
PyTorch, which takes seconds to load. tests/models/test_cnn14.py holds the two against each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

N_FFT = 1024  # samples: 32 ms
HOP_LENGTH = 320  # samples: 10 ms, so 100 frames a second
MEL_BINS = 64
MIN_SAMPLES = 31 * HOP_LENGTH  # 9,920 (0.31 s): 32 frames, the fewest that survive Cnn14's five poolings
# Of one FFT. Arrays of a whole clip would go back to the system each time, and come anew page by page: that took more
# time than all the arithmetic.
BLOCK_FRAMES = 64
BLOCK_BINS = 8  # mel bins of one matrix product
MIN_PEAK = 1e-4  # -80 dB: peak normalisation amplifies nothing that is quieter than this to full scale

MelBlock = tuple[slice, slice, np.ndarray]


@dataclass(frozen=True)
class LogMel:
    """The front end of one network. Every method takes one clip, or a batch as further leading axes."""

    mel_bank: np.ndarray  # (513, 64)
    floor: float  # the least mel power
    normalise: bool  # scale each clip to a peak of 1 first
    n_fft: int = N_FFT
    hop_length: int = HOP_LENGTH

    def at_half_rate(self) -> "LogMel":
        """The same values, to a tenth of a dB in the mean, from sounds at 16 kHz: half the work for a training, which
        hears hundreds of thousands. Only where ``supports_half_rate``."""
        bins = N_FFT // 4 + 1
        return LogMel(4 * self.mel_bank[:bins], self.floor, self.normalise, N_FFT // 2, HOP_LENGTH // 2)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) float32 at 32 kHz -> log-mel power in dB, (frames, 64). Short clips are padded with silence."""
        shortest = MIN_SAMPLES * self.hop_length // HOP_LENGTH
        if samples.shape[-1] < shortest:
            samples = pad_last_axis(samples, 0, shortest - samples.shape[-1], "constant")
        if self.normalise:
            samples = samples / np.maximum(np.abs(samples).max(axis=-1, keepdims=True), np.float32(MIN_PEAK))
        return np.concatenate([self.from_power(power) for power in self._power_blocks(samples)], axis=-2)

    def power(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) -> power spectrogram up to the last mel bin's end, (samples // 320 + 1, at most 513)."""
        return np.concatenate(list(self._power_blocks(samples)), axis=-2)

    def _power_blocks(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        padded = pad_last_axis(samples, self.n_fft // 2, self.n_fft // 2, "reflect")
        return power_blocks(padded, self._window, self.n_fft, self.hop_length, self._used)

    def from_power(self, power: np.ndarray) -> np.ndarray:
        """What ``power`` returned -> log-mel power in dB, (frames, 64)."""
        mel = mel_power(power, self._blocks)
        return np.float32(10.0) * np.log10(np.maximum(mel, np.float32(self.floor)))

    @property
    def supports_half_rate(self) -> bool:
        """Whether nothing is heard that sounds at 16 kHz would not hold: up to where resampling begins to fade."""
        return self._used * SAMPLE_RATE / N_FFT <= 0.9 * SAMPLE_RATE / 4

    @cached_property
    def _window(self) -> np.ndarray:
        return np.hanning(self.n_fft + 1)[:-1].astype(np.float32)

    @cached_property
    def _used(self) -> int:
        """FFT bins that any mel bin hears."""
        return int(np.flatnonzero(self.mel_bank.any(axis=1))[-1]) + 1

    @cached_property
    def _blocks(self) -> list[MelBlock]:
        return mel_blocks(self.mel_bank)


def mel_blocks(mel_bank: np.ndarray) -> list[MelBlock]:
    """(FFT bins, mel bins, weights between them): all weights of a bank, (FFT bins, mel bins), that are not zero.

    A triangle spans few FFT bins, so most of one whole product would be zeros. And BLAS would give that to several
    threads, which wait for each other and for the network's cores longer than they compute.
    """
    blocks = []
    for start in range(0, mel_bank.shape[1], BLOCK_BINS):
        bins = slice(start, start + BLOCK_BINS)
        heard = np.flatnonzero(mel_bank[:, bins].any(axis=1))
        heard = slice(int(heard[0]), int(heard[-1]) + 1)
        blocks.append((heard, bins, np.ascontiguousarray(mel_bank[heard, bins])))
    return blocks


def mel_power(power: np.ndarray, blocks: list[MelBlock]) -> np.ndarray:
    """(…, frames, FFT bins) -> (…, frames, mel bins)."""
    mel = np.empty((*power.shape[:-1], blocks[-1][1].start + blocks[-1][2].shape[1]), np.float32)
    for heard, bins, weights in blocks:
        mel[..., bins] = power[..., heard] @ weights
    return mel


def power_blocks(
    padded: np.ndarray, window: np.ndarray, n_fft: int, hop_length: int, bins: int
) -> Iterator[np.ndarray]:
    """Power of the first ``bins`` FFT bins of a windowed sound, BLOCK_FRAMES at a time: each (…, frames, bins).

    A window shorter than ``n_fft`` is followed by zeros: where it lies in the FFT does not change the power.
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
    """SciPy's, five times as fast as NumPy's; or those, with the same values to rounding, where prediction is installed
    alone (requirements/predict.txt): SciPy is as large as all the rest of that."""
    try:
        from scipy import fft  # half a second to load: threads do it while the network starts
    except ModuleNotFoundError:
        from numpy import fft
    return fft


def mel_bank(fmin: float, fmax: float) -> np.ndarray:
    """Triangles on Slaney's mel scale, each of the same area, as librosa.filters.mel has them: float32, (513, 64)."""
    lowest, highest = _mel(np.array([fmin, fmax]))
    edges = _hertz(np.linspace(lowest, highest, MEL_BINS + 2))
    slopes = edges[:, None] - np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    rising, falling = -slopes[:-2] / np.diff(edges)[:-1, None], slopes[2:] / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return np.ascontiguousarray(bank.T)


def _mel(hertz: np.ndarray) -> np.ndarray:
    """Linear to 1 kHz, which is 15 mel, logarithmic above."""
    above = 15 + 27 * np.log(np.maximum(hertz, 1_000) / 1_000) / np.log(6.4)
    return np.where(hertz < 1_000, hertz * 3 / 200, above)


def _hertz(mel: np.ndarray) -> np.ndarray:
    above = 1_000 * np.exp(np.log(6.4) / 27 * (mel - 15))
    return np.where(mel < 15, mel * 200 / 3, above)


def pad_last_axis(samples: np.ndarray, before: int, after: int, mode: Literal["constant", "reflect"]) -> np.ndarray:
    """Pad the last axis alone."""
    return np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(before, after)], mode)
