"""The log-mel spectrogram of mn04, as Kaldi computes it, in NumPy and SciPy.

    front_end = KaldiMel()
    logmel = front_end(samples)     # (samples,) at 32 kHz -> (frames, 128)

This is the front end of EfficientAT: pre-emphasis, a window of 25 ms in an FFT of 32 ms, filters that are triangular on
Kaldi's mel scale, a logarithm and a fixed scaling. Levels are not normalised, so louder sounds have larger values.
tests/models/test_mn04.py compares it with the reference implementation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from models.logmel import HOP_LENGTH, MIN_SAMPLES, N_FFT, MelBlock, mel_blocks, mel_power, pad_last_axis, power_blocks

WINDOW_LENGTH = 800  # samples: 25 ms
KALDI_MEL_BINS = 128
FMIN, FMAX = 0.0, 15_000.0  # Hz
PRE_EMPHASIS = np.float32(0.97)
LOG_OFFSET = np.float32(1e-5)
MEAN, SCALE = np.float32(-4.5), np.float32(5.0)  # of the log-mels; most scaled values lie in [-1, 1]


def kaldi_mel_bank() -> np.ndarray:
    """Return filters that are triangular in mel and reach 1 at their centre: float32, (513, 128)."""
    lowest, highest = _hz_to_mel(np.array([FMIN, FMAX]))
    edges = np.linspace(lowest, highest, KALDI_MEL_BINS + 2)
    frequencies = _hz_to_mel(np.arange(N_FFT // 2) * SAMPLE_RATE / N_FFT)[:, None]  # the last FFT bin has no weight
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    return np.pad(np.maximum(0, np.minimum(rising, falling)), [(0, 1), (0, 0)]).astype(np.float32)


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    return 1127 * np.log(1 + hz / 700)


@dataclass(frozen=True)
class KaldiMel:
    """The front end of mn04. All methods take one clip, or a batch with further leading axes."""

    mel_bank: np.ndarray = field(default_factory=kaldi_mel_bank)  # weights of the mel filters, (513, 128)

    normalise: ClassVar[bool] = False  # see LogMel
    supports_half_rate: ClassVar[bool] = False  # the filters reach up to 15 kHz

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Compute the scaled log-mel power: (samples,) float32 at 32 kHz -> (frames, 128).

        Clips shorter than MIN_SAMPLES are padded with silence.
        """
        if samples.shape[-1] < MIN_SAMPLES:
            samples = pad_last_axis(samples, 0, MIN_SAMPLES - samples.shape[-1], "constant")
        return np.concatenate([self._log_mel(power) for power in self._emphasised_power(samples)], axis=-2)

    def power(self, samples: np.ndarray) -> np.ndarray:
        """Compute the power spectrogram without pre-emphasis: (samples,) -> ((samples - 1) // 320 + 1, 480)."""
        return np.concatenate(list(self._emphasised_power(samples)), axis=-2) / self._emphasis

    def from_power(self, power: np.ndarray) -> np.ndarray:
        """Convert a power spectrogram, as returned by ``power``, to scaled log-mel power, (frames, 128)."""
        return self._log_mel(power * self._emphasis)

    def _emphasised_power(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yield blocks of the power spectrogram with pre-emphasis, each (frames, 480)."""
        emphasised = samples[..., 1:] - PRE_EMPHASIS * samples[..., :-1]
        padded = pad_last_axis(emphasised, WINDOW_LENGTH // 2, WINDOW_LENGTH // 2, "reflect")
        return power_blocks(padded, self._window, N_FFT, HOP_LENGTH, self._num_bins)

    def _log_mel(self, power: np.ndarray) -> np.ndarray:
        mel = mel_power(power, self._blocks)
        mel += LOG_OFFSET
        np.log(mel, out=mel)
        mel -= MEAN
        mel /= SCALE
        return mel

    @cached_property
    def _window(self) -> np.ndarray:
        return np.hanning(WINDOW_LENGTH).astype(np.float32)  # symmetric, as in the reference implementation

    @cached_property
    def _emphasis(self) -> np.ndarray:
        """Power response of the pre-emphasis filter at each FFT bin, (480,)."""
        z = np.exp(-2j * np.pi * np.arange(self._num_bins) / N_FFT)
        return (np.abs(1 - PRE_EMPHASIS * z) ** 2).astype(np.float32)

    @cached_property
    def _num_bins(self) -> int:
        """Number of FFT bins up to the last one with a weight in the mel bank."""
        return int(np.flatnonzero(self.mel_bank.any(axis=1))[-1]) + 1

    @cached_property
    def _blocks(self) -> list[MelBlock]:
        return mel_blocks(self.mel_bank)
