"""Mixtures: three seconds that teacher and student hear alike, made of pieces of a corpus.

Sounds come from other places at other speeds and levels, half of them with others on top: the teacher says what is in a
mixture, so that no label has to be mixed. Collections are drawn by their size to the power of 0.6: large ones more
often, but not so often that small ones are never heard.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from danger_safe.audio.decode import SAMPLE_RATE
from tools.distil.corpus import Corpus, Piece

EXAMPLE_SAMPLES = 3 * SAMPLE_RATE
BALANCE = 0.6
SILENCE_AMPLITUDE = 1e-3


@dataclass(frozen=True)
class MixtureConfig:
    """How often and how strongly sounds are changed and mixed; probabilities end in _p, levels are dB of full scale."""

    speed_p: float = 0.4
    max_log_speed: float = 0.2  # e ** ±0.2: a fifth faster or slower
    repeat_p: float = 0.4  # a short sound is repeated; else silence is around it
    second_p: float = 0.5
    third_p: float = 0.1
    added_db: tuple[float, float] = (-15.0, 8.0)  # loudness of an added sound beside the first
    noise_p: float = 0.12
    normal_peak_db: tuple[float, float] = (-26.0, 0.0)
    quiet_peak_db: tuple[float, float] = (-55.0, -20.0)
    quiet_p: float = 0.2
    mic_noise_p: float = 0.15
    mic_noise_db: tuple[float, float] = (-85.0, -50.0)
    clipping_p: float = 0.08
    max_clipping_db: float = 12.0


class MixtureMaker:
    """Draws mixtures of the given collections' pieces."""

    def __init__(self, corpus: Corpus, collections: list[list[Piece]], rng: np.random.Generator):
        self.corpus, self.collections, self.rng = corpus, collections, rng
        self.config = MixtureConfig()
        weights = np.array([len(pieces) for pieces in collections]) ** BALANCE
        self._p = weights / weights.sum()

    def plain(self) -> np.ndarray:
        """The middle of a piece as it is, float32, (EXAMPLE_SAMPLES,): for validation."""
        samples = self.corpus.samples(self._piece()).astype(np.float32) / 32_768
        start = max(0, (len(samples) - EXAMPLE_SAMPLES) // 2)
        samples = samples[start : start + EXAMPLE_SAMPLES]
        return np.pad(samples, (0, EXAMPLE_SAMPLES - len(samples)))

    def mixture(self) -> np.ndarray:
        """float32, (EXAMPLE_SAMPLES,), in [-1, 1]."""
        rng, config = self.rng, self.config
        mixed = self._crop()
        drawn = rng.random()
        for probability in (config.second_p, config.third_p):
            if drawn < probability:
                mixed = self._add(mixed, self._crop())
        if rng.random() < config.noise_p:
            mixed = self._add(mixed, self._coloured_noise())
        quiet = rng.random() < config.quiet_p
        mixed = mixed * np.float32(
            _ratio(rng.uniform(*(config.quiet_peak_db if quiet else config.normal_peak_db))) / _peak(mixed)
        )
        if rng.random() < config.mic_noise_p:
            noise = rng.standard_normal(len(mixed), np.float32)
            mixed = mixed + np.float32(_ratio(rng.uniform(*config.mic_noise_db))) * noise
        if rng.random() < config.clipping_p:
            mixed = mixed * np.float32(_ratio(rng.uniform(0, config.max_clipping_db)) / _peak(mixed))
        return np.clip(mixed, -1, 1)

    def _piece(self) -> Piece:
        pieces = self.collections[self.rng.choice(len(self.collections), p=self._p)]
        return pieces[self.rng.integers(len(pieces))]

    def _crop(self) -> np.ndarray:
        """Three seconds of a random piece, at a random speed: float32, (EXAMPLE_SAMPLES,)."""
        rng, config = self.rng, self.config
        samples = self.corpus.samples(self._piece())
        speed = (
            np.exp(rng.uniform(-config.max_log_speed, config.max_log_speed)) if rng.random() < config.speed_p else 1.0
        )
        need = int(EXAMPLE_SAMPLES * speed)
        if len(samples) < need:
            crop = self._fill(samples.astype(np.float32) / 32_768, need)
        else:
            crop = self._cut(samples, need)
            if np.abs(crop).max() < SILENCE_AMPLITUDE:  # between two sounds of a clip: another place, once
                crop = self._cut(samples, need)
        if need != EXAMPLE_SAMPLES:
            positions = np.linspace(0, need - 1, EXAMPLE_SAMPLES, dtype=np.float32)
            crop = np.interp(positions, np.arange(need, dtype=np.float32), crop).astype(np.float32)
        return crop

    def _cut(self, samples: np.ndarray, need: int) -> np.ndarray:
        start = self.rng.integers(0, len(samples) - need + 1)
        return samples[start : start + need].astype(np.float32) / 32_768

    def _fill(self, short: np.ndarray, need: int) -> np.ndarray:
        """A short sound repeated, or somewhere in silence."""
        if self.rng.random() < self.config.repeat_p:
            return np.resize(short, need)
        before = self.rng.integers(0, need - len(short) + 1)
        return np.pad(short, (before, need - len(short) - before))

    def _add(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        ratio = _ratio(self.rng.uniform(*self.config.added_db)) * _rms(first) / _rms(second)
        return first + second * np.float32(ratio)

    def _coloured_noise(self) -> np.ndarray:
        spectrum = fft.rfft(self.rng.standard_normal(EXAMPLE_SAMPLES, np.float32))
        spectrum *= (np.arange(len(spectrum)) + 20.0) ** np.float32(-self.rng.uniform(0, 1.2))
        return fft.irfft(spectrum, EXAMPLE_SAMPLES).astype(np.float32)


def _ratio(decibels: float) -> float:
    return 10 ** (decibels / 20)


def _peak(samples: np.ndarray) -> float:
    return max(float(np.abs(samples).max()), 1e-4)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) + 1e-5
