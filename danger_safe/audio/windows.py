"""Overlapping windows over a stream of audio chunks, and the scores of these windows."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE, AudioError

# A window's decision is based on the mean score of the last SMOOTHING_S of windows. A short sound lies in all windows
# within one window length, so a mean over that length does not dilute it, but removes single-window false alarms.
# If the mean over the last FAST_SMOOTHING_S is higher by FAST_MARGIN, it decides instead: alarms come earlier, at the
# same rate of false alarms (benchmarks/detector.md).
SMOOTHING_S = 3.0  # seconds
FAST_SMOOTHING_S = 1.0  # seconds
FAST_MARGIN = 0.1  # subtracted from the fast mean score


@dataclass(frozen=True)
class Window:
    """A stretch of a recording."""

    start: float  # seconds from the start of the recording
    end: float
    samples: np.ndarray  # float32, 32 kHz, (samples,) or (samples, channels)


@dataclass(frozen=True)
class ScoredWindow:
    """The detector's output for a window."""

    start: float  # seconds from the start of the recording
    end: float
    raw_score: float  # danger score of this window alone; locates onsets and offsets
    smoothed_score: float  # mean over recent windows (see above); compared with the threshold
    embedding: np.ndarray = field(repr=False)  # (dimensions,)
    is_unknown: bool = False  # unlike every sound in the training data
    is_silent: bool = False  # too quiet to be classified
    # dB, (frames, bands), of the part that the previous window did not contain
    band_levels: np.ndarray | None = field(default=None, repr=False)
    similar_false_alarms: int = 0  # if > 0, so many reported false alarms are so similar that it is not a danger

    @property
    def suppression_note(self) -> str:
        """Why a window that scores as danger is not reported; empty if it has not been suppressed."""
        if not self.similar_false_alarms:
            return ""
        count = self.similar_false_alarms
        return f"suppressed: similar to {count} reported false alarm{'s' if count > 1 else ''}"


def sliding_windows(chunks: Iterable[np.ndarray], window_s: float, hop_s: float) -> Generator[Window, None, None]:
    """Cut a stream into overlapping windows, each yielded as soon as its last sample has arrived.

    The last window is shorter if samples remain after the last full one, or if the recording is shorter than a window.

    Args:
        chunks: consecutive samples at 32 kHz, (samples,) or (samples, channels).
        window_s: length of a window in seconds.
        hop_s: seconds from the start of one window to the start of the next.

    Raises:
        AudioError: ``chunks`` raised it; after the last window.
    """
    size, hop = max(1, round(window_s * SAMPLE_RATE)), max(1, round(hop_s * SAMPLE_RATE))
    buffer: np.ndarray | None = None
    start = 0  # of the buffer, in samples from the start of the recording
    covered = 0  # end of the last window, in samples
    error = None
    try:
        for chunk in chunks:
            buffer = chunk if buffer is None else _append(buffer, chunk)
            while len(buffer) >= size:
                yield Window(start / SAMPLE_RATE, (start + size) / SAMPLE_RATE, buffer[:size])
                covered = start + size
                buffer, start = buffer[hop:], start + hop
    except AudioError as audio_error:
        error = audio_error
    if buffer is not None and len(buffer) and start + len(buffer) > covered:
        yield Window(start / SAMPLE_RATE, (start + len(buffer)) / SAMPLE_RATE, buffer)
    if error:
        raise error


def _append(buffer: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Concatenate two arrays; if they differ in channels, the last channel of the narrower one is repeated."""
    if buffer.ndim != chunk.ndim or buffer.shape[1:] != chunk.shape[1:]:
        buffer, chunk = (part.reshape(len(part), -1) for part in (buffer, chunk))
        channels = max(buffer.shape[1], chunk.shape[1])
        buffer, chunk = (np.pad(part, ((0, 0), (0, channels - part.shape[1])), "edge") for part in (buffer, chunk))
    return np.concatenate([buffer, chunk])
