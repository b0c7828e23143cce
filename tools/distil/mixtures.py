"""Random mixtures of three seconds, made of segments of a corpus.

Segments are cut at random positions and changed in speed and level; half of them have others added. No label has to be
mixed, as the teacher labels the mixture. A collection's probability is proportional to its size to the power of 0.6:
large collections are sampled more often, but small ones still take part.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from danger_safe.audio.decode import SAMPLE_RATE
from tools.distil.corpus import Corpus, Segment

EXAMPLE_SAMPLES = 3 * SAMPLE_RATE
BALANCE = 0.6  # exponent of a collection's size
SILENCE_AMPLITUDE = 1e-3  # of full scale


@dataclass(frozen=True)
class MixtureConfig:
    """Probabilities (``_p``) and ranges of the changes; levels are in dB of full scale."""

    speed_p: float = 0.4
    max_log_speed: float = 0.2  # e ** ±0.2: a fifth faster or slower
    repeat_p: float = 0.4  # of repeating a short sound; otherwise it is padded with silence
    second_p: float = 0.5  # of adding a second segment
    third_p: float = 0.1  # of adding a third one
    added_db: tuple[float, float] = (-15.0, 8.0)  # level of an added sound relative to the first
    noise_p: float = 0.12
    normal_peak_db: tuple[float, float] = (-26.0, 0.0)
    quiet_peak_db: tuple[float, float] = (-55.0, -20.0)
    quiet_p: float = 0.2
    mic_noise_p: float = 0.15
    mic_noise_db: tuple[float, float] = (-85.0, -50.0)
    clipping_p: float = 0.08
    max_clipping_db: float = 12.0


class MixtureMaker:
    """Samples mixtures of the segments of some collections."""

    def __init__(self, corpus: Corpus, collections: list[list[Segment]], rng: np.random.Generator):
        self.corpus, self.collections, self.rng = corpus, collections, rng
        self.config = MixtureConfig()
        weights = np.array([len(segments) for segments in collections]) ** BALANCE
        self._p = weights / weights.sum()

    def unmixed(self) -> np.ndarray:
        """Return the middle of a random segment, unchanged, for validation: (EXAMPLE_SAMPLES,) float32."""
        samples = self.corpus.samples(self._segment()).astype(np.float32) / 32_768
        start = max(0, (len(samples) - EXAMPLE_SAMPLES) // 2)
        samples = samples[start : start + EXAMPLE_SAMPLES]
        return np.pad(samples, (0, EXAMPLE_SAMPLES - len(samples)))

    def mixture(self) -> np.ndarray:
        """Return a mixture, (EXAMPLE_SAMPLES,) float32 in [-1, 1]."""
        rng, config = self.rng, self.config
        mixed = self._crop()
        random = rng.random()
        for probability in (config.second_p, config.third_p):
            if random < probability:
                mixed = self._add(mixed, self._crop())
        if rng.random() < config.noise_p:
            mixed = self._add(mixed, self._coloured_noise())
        peak_db = config.quiet_peak_db if rng.random() < config.quiet_p else config.normal_peak_db
        mixed = mixed * np.float32(_ratio(rng.uniform(*peak_db)) / _peak(mixed))
        if rng.random() < config.mic_noise_p:
            noise = rng.standard_normal(len(mixed), np.float32)
            mixed = mixed + np.float32(_ratio(rng.uniform(*config.mic_noise_db))) * noise
        if rng.random() < config.clipping_p:
            mixed = mixed * np.float32(_ratio(rng.uniform(0, config.max_clipping_db)) / _peak(mixed))
        return np.clip(mixed, -1, 1)

    def _segment(self) -> Segment:
        segments = self.collections[self.rng.choice(len(self.collections), p=self._p)]
        return segments[self.rng.integers(len(segments))]

    def _crop(self) -> np.ndarray:
        """Return three seconds of a random segment at a random speed, (EXAMPLE_SAMPLES,) float32."""
        rng, config = self.rng, self.config
        samples = self.corpus.samples(self._segment())
        has_other_speed = rng.random() < config.speed_p
        speed = np.exp(rng.uniform(-config.max_log_speed, config.max_log_speed)) if has_other_speed else 1.0
        size = int(EXAMPLE_SAMPLES * speed)
        if len(samples) < size:
            crop = self._fill(samples.astype(np.float32) / 32_768, size)
        else:
            crop = self._cut(samples, size)
            if np.abs(crop).max() < SILENCE_AMPLITUDE:  # a pause in the recording: try another position once
                crop = self._cut(samples, size)
        if size != EXAMPLE_SAMPLES:
            positions = np.linspace(0, size - 1, EXAMPLE_SAMPLES, dtype=np.float32)
            crop = np.interp(positions, np.arange(size, dtype=np.float32), crop).astype(np.float32)
        return crop

    def _cut(self, samples: np.ndarray, size: int) -> np.ndarray:
        start = self.rng.integers(0, len(samples) - size + 1)
        return samples[start : start + size].astype(np.float32) / 32_768

    def _fill(self, short: np.ndarray, size: int) -> np.ndarray:
        """Repeat a short sound, or pad it with silence, up to ``size`` samples."""
        if self.rng.random() < self.config.repeat_p:
            return np.resize(short, size)
        before = self.rng.integers(0, size - len(short) + 1)
        return np.pad(short, (before, size - len(short) - before))

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
