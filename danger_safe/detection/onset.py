"""Where a sound sets in, to a tenth of a second: a window of three seconds cannot say it, the sound's own loudness can.

Loudness is looked at in bands, so that a siren over a loud street is seen to begin, too.
"""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

FRAME = 0.05  # seconds, about: the grain in which beginnings are looked for
BANDS = np.geomspace(100, 14_000, 33)  # Hz: the edges of 32 bands
QUIETEST = 1e-9  # power of a band, -90 dB of full scale: below is silence
SIDE = 0.6  # seconds before and after a beginning that are compared
NEAR = 0.8  # seconds, one standard deviation: how far from its first estimate a beginning is believed to be
FURTHEST = 2.0  # seconds: and where no one looks any more
FAINTEST = 1.0  # dB: rises of less are chance


def frames_in(seconds: float) -> int:
    """How many frames cover so many seconds."""
    return max(1, round(seconds / FRAME))


def loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """(samples,) at 32 kHz -> dB of full scale, (frames, bands). What does not fill a frame, at the beginning, is left out."""
    size = len(samples) // frames
    if size < 2:
        return np.full((frames, len(BANDS) - 1), 10 * np.log10(QUIETEST), np.float16)
    cut = samples[len(samples) - frames * size :].reshape(frames, size) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(cut)) ** 2 * (16 / size**2 / 1.5)  # a full-scale sine: 0 dB, spread over three bins
    first = np.searchsorted(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), BANDS)
    bands = np.add.reduceat(power, np.minimum(first, power.shape[1] - 1), axis=1)[:, :-1]  # at least a bin each
    return (10 * np.log10(np.maximum(bands, QUIETEST))).astype(np.float16)


def onset(levels: np.ndarray, step: float, near: float) -> tuple[float, float]:
    """Where a sound sets in that was first thought to begin at ``near`` seconds, and by how many dB its bands rise.

    ``levels``: dB, (frames, bands), one frame every ``step`` seconds. Where they are too few, it is as was thought, and 0.
    """
    side = max(1, round(SIDE / step))
    first = max(side, round((near - FURTHEST) / step))
    frames = np.arange(first, min(len(levels) - side, round((near + FURTHEST) / step)))
    if not len(frames):
        return near, 0.0
    sums = np.concatenate([np.zeros((1, levels.shape[1])), np.cumsum(levels, axis=0, dtype=np.float64)])
    rise = np.maximum((sums[frames + side] - 2 * sums[frames] + sums[frames - side]) / side, 0).mean(axis=1)
    trust = np.exp(-0.5 * ((frames * step - near) / NEAR) ** 2)
    best = int(np.argmax((rise + FAINTEST) * trust))
    return float(frames[best] * step), float(rise[best])
