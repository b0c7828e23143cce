"""Find where a sound sets in to a tenth of a second, from its loudness: a window of three seconds is too coarse.

Loudness is compared in frequency bands, so that a siren that sets in over a loud street is seen, too. An offset is the
onset of the same loudness in reverse.
"""

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE

FRAME_S = 0.05  # seconds; approximate resolution of onsets
BAND_EDGES_HZ = np.geomspace(100, 14_000, 33)  # of 32 bands
MIN_BAND_POWER = 1e-9  # -90 dB of full scale: anything quieter counts as silence
CONTEXT_S = 0.8  # seconds of loudness before and after an onset that are compared
MIN_RISE_DB = 1.0  # smaller rises are chance
CLEAR_RISE_DB = 6.0  # mean over all bands; such a rise is an onset wherever it is


def frames_per_hop(hop_s: float) -> int:
    """Return how many frames of about FRAME_S cover one hop."""
    return max(1, round(hop_s / FRAME_S))


def band_levels(samples: np.ndarray, frames: int) -> np.ndarray:
    """(samples,) at 32 kHz -> dB of full scale, (frames, bands) float16.

    Samples at the beginning that do not fill a frame are left out.
    """
    size = len(samples) // frames if frames else 0
    if size < 2:
        return np.full((frames, len(BAND_EDGES_HZ) - 1), 10 * np.log10(MIN_BAND_POWER), np.float16)
    framed = samples[len(samples) - frames * size :].reshape(frames, size) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(framed)) ** 2 * (16 / size**2 / 1.5)  # a full-scale sine, over three bins, is 0 dB
    first_bins = np.searchsorted(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), BAND_EDGES_HZ)
    first_bins = np.minimum(first_bins, power.shape[1] - 1)  # short frames: at least one bin per band
    bands = np.add.reduceat(power, first_bins, axis=1)[:, :-1]
    return (10 * np.log10(np.maximum(bands, MIN_BAND_POWER))).astype(np.float16)


def onset_near(levels: np.ndarray, frame_s: float, estimate_s: float, std_s: float) -> float:
    """Return the most likely onset, in seconds, of a sound that was estimated to begin at ``estimate_s``.

    It is the steepest rise, weighted by a Gaussian around the estimate that is cut off at two standard deviations.

    Args:
        levels: Band levels in dB, (frames, bands).
        frame_s: Seconds from one frame to the next.
        estimate_s: The estimated onset, in seconds from the beginning of ``levels``.
        std_s: Standard deviation of the estimate, in seconds.

    Returns:
        Seconds from the beginning of ``levels``; the estimate itself if there is no frame near it.
    """
    if not len(levels):
        return estimate_s
    rises = _rises(levels, frame_s)
    times = np.arange(len(rises)) * frame_s
    is_near = np.abs(times - estimate_s) <= 2 * std_s
    if not is_near.any():
        return estimate_s
    likelihood = (rises + MIN_RISE_DB) * np.exp(-0.5 * ((times - estimate_s) / std_s) ** 2)
    return float(times[is_near][np.argmax(likelihood[is_near])])


def first_clear_onset(levels: np.ndarray, frame_s: float) -> float | None:
    """Return the time in seconds of the first rise of at least CLEAR_RISE_DB; None if there is none.

    Args:
        levels: Band levels in dB, (frames, bands).
        frame_s: Seconds from one frame to the next.
    """
    rises = _rises(levels, frame_s) if len(levels) else np.zeros(0)
    clear = np.flatnonzero(rises >= CLEAR_RISE_DB)
    if not len(clear):
        return None
    end = next((i for i in range(clear[0], len(rises)) if rises[i] < CLEAR_RISE_DB), len(rises))
    return float((clear[0] + np.argmax(rises[clear[0] : end])) * frame_s)


def _rises(levels: np.ndarray, frame_s: float) -> np.ndarray:
    """(frames, bands) in dB -> mean rise of the bands at the start of each frame and after the last, (frames + 1,)."""
    context = max(1, round(CONTEXT_S / frame_s))
    padded = np.pad(levels.astype(np.float64), ((context, context), (0, 0)), "edge")
    sums = np.concatenate([np.zeros((1, padded.shape[1])), np.cumsum(padded, axis=0)])
    rises = (sums[2 * context :] - 2 * sums[context:-context] + sums[: -2 * context]) / context
    return np.maximum(rises, 0).mean(axis=1)
