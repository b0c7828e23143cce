"""Synthetic room tone: what a microphone records in a silent room. Noise of any colour, mains hum, digital silence.

Peak normalisation makes even the quietest room loud, and few collections contain such recordings. A network that was
trained without them classifies white noise as danger.
"""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

CATEGORY = "room_tone_noise"
DURATION_S = 5
MIN_COLOUR_HZ = 20.0  # below this frequency the spectrum of coloured noise is flat


def synthesize_room_tone(seed: int) -> np.ndarray:
    """Synthesise a room at -60 to -40 dBFS: float32, (DURATION_S * 32,000,). Seed 0 is digital silence."""
    size = DURATION_S * SAMPLE_RATE
    if seed == 0:
        return np.zeros(size, np.float32)
    rng = np.random.default_rng(seed)
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), MIN_COLOUR_HZ)
    exponent = rng.choice([0.0, rng.uniform(-0.3, 1.5)])  # half of the rooms have white noise
    spectrum = (frequency / MIN_COLOUR_HZ) ** -exponent / (1 + (frequency / rng.uniform(3_000, 32_000)) ** 4)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * spectrum)
    time = np.arange(size) / SAMPLE_RATE
    noise *= 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 1) * time)
    mains_hz = rng.choice([50, 60])
    hum = sum(np.sin(2 * np.pi * mains_hz * k * time) * rng.uniform(0, 1) / k for k in (1, 2, 3, 4))
    room = noise / noise.std() + rng.choice([0, rng.uniform(0, 2)]) * hum
    room *= 10 ** (rng.uniform(-60, -40) / 20)
    steps = 2 ** rng.choice([15, 23])  # quantise to 16 or 24 bits: a cheap microphone's noise spans few 16-bit steps
    return (np.round(room * steps) / steps).astype(np.float32)
