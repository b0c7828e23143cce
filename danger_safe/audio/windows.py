"""Overlapping windows over sound that arrives in pieces, and what is known of each once it is scored."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE, AudioError

# The mean score of so many seconds of windows decides. A short sound is in as many windows as a window is long, so a
# mean over that length dilutes no sound, and removes windows that are dangerous by chance. A sound that a third as many
# seconds are far surer of needs no more of them: its alarm comes earlier, and false alarms stayed as few
# (benchmarks/detector.md).
SMOOTHING_S = 3.0
FAST_SMOOTHING_S = 1.0
FAST_MARGIN = 0.1  # that the mean over FAST_SMOOTHING_S gives away


@dataclass(frozen=True)
class Window:
    """A stretch of a recording."""

    start: float  # seconds from the beginning
    end: float
    samples: np.ndarray  # float32, 32 kHz, (samples,) or (samples, channels)


@dataclass(frozen=True)
class ScoredWindow:
    """A window with what the detector says of it."""

    start: float  # seconds from the beginning
    end: float
    raw_score: float  # of this window by itself: tells when a sound begins and ends
    smoothed_score: float  # mean of SMOOTHING_S of windows up to this one, or nearly that of the newest: decides
    embedding: np.ndarray  # (dimensions,)
    is_unknown: bool = False  # it sounds like nothing that the detector was taught
    is_silent: bool = False  # nothing in it is loud enough to be judged
    band_levels: np.ndarray | None = None  # dB, (frames, bands), of the sound that the window before did not have
    similar_false_alarms: int = (
        0  # it would be danger, but resembles so many false alarms of this household: detection/personal.py
    )

    @property
    def suppression_note(self) -> str:
        """Why it is no danger, though it sounds like one; empty where nothing was learnt about it."""
        if not self.similar_false_alarms:
            return ""
        count = self.similar_false_alarms
        return f"quiet since learnt: resembles {count} false alarm{'s' if count > 1 else ''}"


def sliding_windows(pieces: Iterable[np.ndarray], seconds: float, hop: float) -> Generator[Window, None, None]:
    """A window of ``seconds`` every ``hop`` seconds, each as soon as its last sample is there.

    The last one, shorter, comes where whole windows left sound over; so does the only one of a short recording. Raises
    the AudioError of ``pieces`` that break off, after the last window.
    """
    size, step = max(1, round(seconds * SAMPLE_RATE)), max(1, round(hop * SAMPLE_RATE))
    held: np.ndarray | None = None
    begin = 0  # of ``held``, in samples of the recording
    covered = 0  # up to here a window has been
    broken = None
    try:
        for piece in pieces:
            held = piece if held is None else _joined(held, piece)
            while len(held) >= size:
                yield Window(begin / SAMPLE_RATE, (begin + size) / SAMPLE_RATE, held[:size])
                covered = begin + size
                held, begin = held[step:], begin + step
    except AudioError as error:
        broken = error
    if held is not None and len(held) and begin + len(held) > covered:
        yield Window(begin / SAMPLE_RATE, (begin + len(held)) / SAMPLE_RATE, held)
    if broken:
        raise broken


def _joined(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """One piece behind another; where one has fewer channels, its last one goes on in those that it lacks."""
    if before.ndim != after.ndim or before.shape[1:] != after.shape[1:]:
        before, after = (piece.reshape(len(piece), -1) for piece in (before, after))
        channels = max(before.shape[1], after.shape[1])
        before, after = (np.pad(piece, ((0, 0), (0, channels - piece.shape[1])), "edge") for piece in (before, after))
    return np.concatenate([before, after])
