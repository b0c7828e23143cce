"""The tolerance for the embeddings of an engine, and the probe sounds on which it is checked before it is used."""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from models.kaldimel import KaldiMel
from models.logmel import LogMel

# Fractions of the mean absolute embedding. Errors on real clips are larger than on the probes, so an engine has to stay
# below a fifth of the tolerance on the probes (benchmarks/speed.md has both errors of every engine and setting).
MAX_ENGINE_ERROR = 5e-4
MAX_PROBE_ERROR = MAX_ENGINE_ERROR / 5
PROBE_LENGTHS_S = (2, 5)  # seconds; engines choose algorithms by the length of the first clips


def largest_error(embeddings: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of any clip, as a fraction of the clip's mean absolute embedding.

    Args:
        embeddings: embeddings of the engine, (clips, dimensions).
        expected: embeddings of the reference, (clips, dimensions).
    """
    if not np.isfinite(embeddings).all():
        return float("inf")
    return float((np.abs(embeddings - expected).max(axis=1) / np.abs(expected).mean(axis=1)).max())


def probe_batch(front_end: LogMel | KaldiMel, seconds: int = 2) -> np.ndarray:
    """Return the log-mels of ``probe_sounds``, (16, about 100 * seconds, mel bins)."""
    return front_end(probe_sounds(seconds * SAMPLE_RATE))


def probe_sounds(samples: int) -> np.ndarray:
    """Synthesise eight sounds at two levels, the same on every computer: float32, (16, samples)."""
    time = np.arange(samples) / SAMPLE_RATE
    rng = np.random.default_rng(14)
    noise = rng.standard_normal(len(time))
    bursts = (time % 1.0 < 0.15) * np.exp(-20 * (time % 1.0))
    wail = np.sin(2 * np.pi * np.cumsum(900 + 500 * np.sin(2 * np.pi * 0.5 * time)) / SAMPLE_RATE)
    sounds = [
        noise,
        np.cumsum(noise) / 200,  # deep rumble
        noise * bursts,
        np.sin(2 * np.pi * (50 + 3_500 * time) * time),  # a sweep
        wail,
        sum(np.sin(2 * np.pi * 437 * k * time) / k for k in range(1, 12)) * bursts,  # barks
        np.where(rng.random(len(time)) < 3e-4, 8.0, 0.0),  # clicks
        np.sign(np.sin(2 * np.pi * 95 * time)) + 0.1 * noise,  # a motor
    ]
    levels = [level * sound / max(np.abs(sound).max(), 1e-9) for sound in sounds for level in (0.9, 0.01)]
    return np.stack(levels).astype(np.float32)
