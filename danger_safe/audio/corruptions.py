"""The same sound, recorded badly: what phones, cheap microphones and small rooms do to it.

    worse = corrupt("telephone", samples, np.random.default_rng(0))

Every function takes and returns mono float32 at 32 kHz, (samples,), in [-1, 1], and draws from the generator it is
given. benchmarks/judge_network.py measures networks on all of them.
"""

import io
from collections.abc import Callable

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, sosfiltfilt

from danger_safe.audio.decode import SAMPLE_RATE

Random = np.random.Generator


def _gain(decibels: float) -> Callable[[np.ndarray, Random], np.ndarray]:
    return lambda samples, rng: np.clip(samples * 10 ** (decibels / 20), -1, 1)


def _noise(samples: np.ndarray, rng: Random) -> np.ndarray:
    """White noise, 10 dB under the sound's own power."""
    power = np.mean(np.square(samples, dtype=np.float64))
    return samples + rng.standard_normal(len(samples)) * np.sqrt(power / 10)


def _telephone(samples: np.ndarray, rng: Random) -> np.ndarray:
    """Nothing under 300 Hz and above 3,400."""
    band = butter(4, (300, 3_400), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sosfiltfilt(band, samples, padlen=min(200, len(samples) - 1))


def _mp3(samples: np.ndarray, rng: Random) -> np.ndarray:
    """Through MP3 at 32 kbit/s."""
    file = io.BytesIO()
    # libsndfile's scale ends just under 1, with 32 kbit/s at this rate
    soundfile.write(file, samples, SAMPLE_RATE, format="MP3", compression_level=0.999, bitrate_mode="CONSTANT")
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return np.resize(decoded, len(samples))


def _small_room(samples: np.ndarray, rng: Random) -> np.ndarray:
    """Echoes of a small room: noise that dies away by 60 dB in 0.2 to 0.5 s, as loud as the direct sound."""
    length = rng.uniform(0.2, 0.5)
    times = np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = rng.standard_normal(len(times)) * 10 ** (-3 * times / length)
    echoes[: int(0.002 * SAMPLE_RATE)] = 0
    echoes /= np.sqrt(np.square(echoes).sum())
    echoes[0] = 1.0  # the direct sound
    wet = fftconvolve(samples, echoes)[: len(samples)]
    return wet * (np.abs(samples).max() / max(np.abs(wet).max(), 1e-9))


def _clipping(samples: np.ndarray, rng: Random) -> np.ndarray:
    """Recorded 12 dB too loud: the peaks are cut off."""
    peak = max(float(np.abs(samples).max()), 1e-9)
    return np.clip(samples / peak * 4, -1, 1)


CORRUPTIONS: dict[str, Callable[[np.ndarray, Random], np.ndarray]] = {
    "30 dB softer": _gain(-30),
    "12 dB louder": _gain(12),
    "noise at 10 dB": _noise,
    "telephone": _telephone,
    "MP3 at 32 kbit/s": _mp3,
    "small room": _small_room,
    "clipping": _clipping,
}


def corrupt(name: str, samples: np.ndarray, rng: Random) -> np.ndarray:
    """The sound as ``CORRUPTIONS[name]`` leaves it."""
    return CORRUPTIONS[name](samples, rng).astype(np.float32)
