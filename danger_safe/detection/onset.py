"""Where a sound sets in, to a tenth of a second: a window of three seconds cannot say it, the sound's own loudness can.

Loudness is compared in bands, so that a siren that sets in over a loud street is seen, too. An offset is the onset of
the same loudness heard backwards.
"""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

FRAME_S = 0.05  # about the grain in which onsets are looked for
BAND_EDGES_HZ = np.geomspace(100, 14_000, 33)  # of 32 bands
MIN_BAND_POWER = 1e-9  # -90 dB of full scale: what is softer counts as silence
CONTEXT_S = 0.8  # of loudness before and after an onset that are compared
MIN_RISE_DB = 1.0  # rises of less are chance
CLEAR_RISE_DB = 6.0  # a rise of as much, as the mean of all bands, is an onset wherever it is


def frames_per_hop(hop_s: float) -> int:
    """How many frames of about FRAME_S cover one hop."""
    return max(1, round(hop_s / FRAME_S))


def loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """(samples,) at 32 kHz -> dB of full scale, (frames, bands). Samples at the beginning that fill no frame are left
    out."""
    size = len(samples) // frames if frames else 0
    if size < 2:
        return np.full((frames, len(BAND_EDGES_HZ) - 1), 10 * np.log10(MIN_BAND_POWER), np.float16)
    cut = samples[len(samples) - frames * size :].reshape(frames, size) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(cut)) ** 2 * (16 / size**2 / 1.5)  # a full-scale sine is 0 dB, spread over three bins
    first = np.searchsorted(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), BAND_EDGES_HZ)
    bands = np.add.reduceat(power, np.minimum(first, power.shape[1] - 1), axis=1)[:, :-1]  # at least one bin each
    return (10 * np.log10(np.maximum(bands, MIN_BAND_POWER))).astype(np.float16)


def onset_near(levels: np.ndarray, frame_s: float, estimate_s: float, std_s: float) -> float:
    """The most likely onset (seconds) of a sound that was estimated to begin at ``estimate_s``.

    The steepest rise of ``levels``, weighted by a Gaussian of ``std_s`` around the estimate and cut off at twice as
    much.

    Args:
        levels: dB, (frames, bands), one frame every ``frame_s`` seconds.
        frame_s: Seconds between two frames.
        estimate_s: Where the onset is believed to be, in seconds from the beginning of ``levels``.
        std_s: How far off that estimate is believed to be, one standard deviation in seconds.

    Returns:
        Seconds from the beginning of ``levels``; the estimate itself where there is too little to compare.
    """
    if not len(levels):
        return estimate_s
    rises = _rises(levels, frame_s)
    times = np.arange(len(rises)) * frame_s
    near = np.abs(times - estimate_s) <= 2 * std_s
    if not near.any():
        return estimate_s
    likelihood = (rises + MIN_RISE_DB) * np.exp(-0.5 * ((times - estimate_s) / std_s) ** 2)
    return float(times[near][np.argmax(likelihood[near])])


def first_clear_onset(levels: np.ndarray, frame_s: float) -> float | None:
    """The first rise (seconds) that is an onset beyond doubt; None where ``levels``, (frames, bands), have none."""
    rises = _rises(levels, frame_s) if len(levels) else np.zeros(0)
    clear = np.flatnonzero(rises >= CLEAR_RISE_DB)
    if not len(clear):
        return None
    end = next((i for i in range(clear[0], len(rises)) if rises[i] < CLEAR_RISE_DB), len(rises))
    return float((clear[0] + np.argmax(rises[clear[0] : end])) * frame_s)


def _rises(levels: np.ndarray, frame_s: float) -> np.ndarray:
    """By how many dB the bands rise, on average, at the beginning of each frame and after the last one: (frames +
    1,)."""
    context = max(1, round(CONTEXT_S / frame_s))
    padded = np.pad(levels.astype(np.float64), ((context, context), (0, 0)), "edge")
    sums = np.concatenate([np.zeros((1, padded.shape[1])), np.cumsum(padded, axis=0)])
    rises = (sums[2 * context :] - 2 * sums[context:-context] + sums[: -2 * context]) / context
    return np.maximum(rises, 0).mean(axis=1)
