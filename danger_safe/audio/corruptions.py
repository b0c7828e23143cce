"""Corruptions of recordings: what phones, cheap microphones and small rooms do to a sound.

    corrupted = corrupt("telephone", samples, np.random.default_rng(0))

All functions take and return mono float32 at 32 kHz, (samples,), in [-1, 1]. benchmarks/judge_network.py evaluates
networks under each corruption.
"""

import io
from collections.abc import Callable

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, sosfiltfilt

from danger_safe.audio.decode import SAMPLE_RATE

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _gain(decibels: float) -> Corruption:
    """Amplify by a number of decibels, and clip."""
    return lambda samples, rng: np.clip(samples * 10 ** (decibels / 20), -1, 1)


def _noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio of 10 dB."""
    power = np.mean(np.square(samples, dtype=np.float64))
    return samples + rng.standard_normal(len(samples)) * np.sqrt(power / 10)


def _telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep only 300 to 3,400 Hz."""
    band = butter(4, (300, 3_400), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sosfiltfilt(band, samples, padlen=min(200, len(samples) - 1))


def _mp3(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Encode to MP3 at 32 kbit/s and decode again."""
    file = io.BytesIO()
    # The strongest compression level that libsndfile accepts; it gives 32 kbit/s at this sample rate.
    soundfile.write(file, samples, SAMPLE_RATE, format="MP3", compression_level=0.999, bitrate_mode="CONSTANT")
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return np.resize(decoded, len(samples))


def _small_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation with an RT60 of 0.2 to 0.5 s, as loud as the direct sound."""
    rt60_s = rng.uniform(0.2, 0.5)
    time = np.arange(int(rt60_s * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60_s)
    response[: int(0.002 * SAMPLE_RATE)] = 0
    response /= np.sqrt(np.square(response).sum())
    response[0] = 1.0  # the direct sound
    reverberant = fftconvolve(samples, response)[: len(samples)]
    return reverberant * (np.abs(samples).max() / max(np.abs(reverberant).max(), 1e-9))


def _clipping(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clip the peaks, as in a recording that is 12 dB too loud."""
    peak = max(float(np.abs(samples).max()), 1e-9)
    return np.clip(samples / peak * 4, -1, 1)


CORRUPTIONS: dict[str, Corruption] = {
    "30 dB softer": _gain(-30),
    "12 dB louder": _gain(12),
    "noise at 10 dB": _noise,
    "telephone": _telephone,
    "MP3 at 32 kbit/s": _mp3,
    "small room": _small_room,
    "clipping": _clipping,
}


def corrupt(name: str, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the corruption ``CORRUPTIONS[name]``; random ones draw from ``rng``."""
    return CORRUPTIONS[name](samples, rng).astype(np.float32)
