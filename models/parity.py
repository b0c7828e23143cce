"""How far an engine's embeddings may be from the reference's, and the sounds that it is tried on before it is used."""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from models.kaldimel import KaldiMel
from models.logmel import LogMel

# The promise is 0.05 % of the mean embedding on every sound. Real clips go further astray than the probes do, so an
# engine has to stay under a fifth of that on the probes (benchmarks/speed.md has both, for every setting).
MAX_ENGINE_ERROR = 5e-4
MAX_PROBE_ERROR = MAX_ENGINE_ERROR / 5
PROBE_LENGTHS_S = (2, 5)  # an engine picks its algorithm by the length of the first clips that it gets


def largest_error(embeddings: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in any clip, as a fraction of its expected embedding's mean size; both (clips, dims)."""
    if not np.isfinite(embeddings).all():
        return float("inf")
    return float((np.abs(embeddings - expected).max(axis=1) / np.abs(expected).mean(axis=1)).max())


def probe_batch(front_end: LogMel | KaldiMel, seconds: int = 2) -> np.ndarray:
    """Log-mels, (16, about 100 * seconds, mel bins), of ``probe_sounds``."""
    return front_end(probe_sounds(seconds * SAMPLE_RATE))


def probe_sounds(samples: int) -> np.ndarray:
    """Eight sounds at two levels, the same on every machine: float32, (16, samples)."""
    time = np.arange(samples) / SAMPLE_RATE
    rng = np.random.default_rng(14)
    noise = rng.standard_normal(len(time))
    bursts = (time % 1.0 < 0.15) * np.exp(-20 * (time % 1.0))
    wail = np.sin(2 * np.pi * np.cumsum(900 + 500 * np.sin(2 * np.pi * 0.5 * time)) / SAMPLE_RATE)
    sounds = [
        noise,
        np.cumsum(noise) / 200,  # deep rumble
        noise * bursts,
        np.sin(2 * np.pi * (50 + 3_500 * time) * time),  # a sweep up to the band's end
        wail,
        sum(np.sin(2 * np.pi * 437 * k * time) / k for k in range(1, 12)) * bursts,  # barks
        np.where(rng.random(len(time)) < 3e-4, 8.0, 0.0),  # clicks
        np.sign(np.sin(2 * np.pi * 95 * time)) + 0.1 * noise,  # a motor
    ]
    levels = [level * sound / max(np.abs(sound).max(), 1e-9) for sound in sounds for level in (0.9, 0.01)]
    return np.stack(levels).astype(np.float32)
