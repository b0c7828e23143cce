"""What a microphone hears where nothing happens: its own noise of any colour, mains hum, digital silence.

Peak normalisation makes the quietest room loud. Collections have few such recordings, and a network that has heard none
calls white noise danger.
"""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

CATEGORY = "room_tone_noise"
SECONDS = 5
SLOWEST = 20.0  # Hz, below which noise of any colour stops growing


def synthesize_room_tone(number: int) -> np.ndarray:
    """Room number 0 is digital silence; the others are noise and hum, at -60 to -40 dB: float32, (samples,)."""
    size = SECONDS * SAMPLE_RATE
    if number == 0:
        return np.zeros(size, np.float32)
    rng = np.random.default_rng(number)
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), SLOWEST)
    colour = rng.choice([0.0, rng.uniform(-0.3, 1.5)])  # half of the rooms are white
    shape = (frequency / SLOWEST) ** -colour / (1 + (frequency / rng.uniform(3_000, 32_000)) ** 4)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape)
    times = np.arange(size) / SAMPLE_RATE
    noise *= 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 1) * times)
    mains = rng.choice([50, 60])
    hum = sum(np.sin(2 * np.pi * mains * k * times) * rng.uniform(0, 1) / k for k in (1, 2, 3, 4))
    room = noise / noise.std() + rng.choice([0, rng.uniform(0, 2)]) * hum
    room *= 10 ** (rng.uniform(-60, -40) / 20)
    steps = 2 ** rng.choice([15, 23])  # a cheap microphone's noise is a few steps of 16 bits
    return (np.round(room * steps) / steps).astype(np.float32)
