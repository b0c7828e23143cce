"""Estimate when the sound of an event began and ended, from the scores and the loudness around it.

While a window slides onto a sound, its score rises; when the sound fills half of the window, the score has reached
about half of its maximum. The loudness near that point gives the exact time. An offset is the onset of the same windows
in reverse.
"""

from collections.abc import Sequence

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.onset import first_clear_onset, frames_per_hop, onset_near

FULL_RATIO = 0.8  # of the highest raw score nearby: the sound fills the window
HALF_RATIO = 0.5  # of that score: the sound fills half of the window


def find_onset(windows: Sequence[ScoredWindow], danger: int, window_s: float, hop_s: float) -> float:
    """Return when the sound of an event began, in seconds of the recording.

    Args:
        windows: Consecutive windows, from well before the event until its sound fills a window.
        danger: Index of the first window of the event that is a danger.
        window_s: Length of full windows in seconds.
        hop_s: Seconds from one window to the next.
    """
    levels, begin = _join_levels(windows, hop_s)
    recording_start = windows[0].start if windows[0].start == 0 else None
    ends, raw_scores = [window.end for window in windows], [window.raw_score for window in windows]
    return _find_edge(ends, raw_scores, danger, levels, begin, recording_start, window_s, hop_s)


def find_offset(
    windows: Sequence[ScoredWindow], danger: int, window_s: float, hop_s: float, is_recording_end: bool
) -> float:
    """Return when the sound of an event ended, in seconds of the recording.

    Args:
        windows: Consecutive windows, from a window that the sound fills until well after the event.
        danger: Index of the last window of the event that is a danger.
        window_s: Length of full windows in seconds.
        hop_s: Seconds from one window to the next.
        is_recording_end: Whether the recording ends with the last window.
    """
    levels, begin = _join_levels(windows, hop_s)
    recording_end = -windows[-1].end if is_recording_end else None
    ends = [-window.start for window in reversed(windows)]
    raw_scores = [window.raw_score for window in reversed(windows)]
    if levels is not None:
        levels, begin = levels[::-1], -(begin + len(levels) * hop_s / frames_per_hop(hop_s))
    danger = len(windows) - 1 - danger
    return -_find_edge(ends, raw_scores, danger, levels, begin, recording_end, window_s, hop_s)


def _find_edge(
    ends: Sequence[float],
    raw_scores: Sequence[float],
    danger: int,
    levels: np.ndarray | None,
    begin: float,
    boundary: float | None,
    window_s: float,
    hop_s: float,
) -> float:
    """Return the onset in seconds.

    Args:
        ends: End of each window in seconds.
        raw_scores: Score of each window by itself.
        danger: Index of the first danger.
        levels: Band levels in dB, (frames, bands); None if unknown.
        begin: Time of the first frame of ``levels`` in seconds.
        boundary: Where the recording begins, if the windows reach that far.
        window_s: Length of full windows in seconds.
        hop_s: Seconds from one window to the next.
    """
    frame_s = hop_s / frames_per_hop(hop_s)
    lead = round(window_s / 2 / hop_s)  # smoothed scores lag behind raw ones by about so many windows
    nearby = range(max(0, danger - lead), min(len(ends), danger + round(window_s / hop_s) + 1))
    max_score = max(raw_scores[n] for n in nearby)
    first = next(n for n in nearby if raw_scores[n] >= FULL_RATIO * max_score)
    while first > 0 and raw_scores[first - 1] >= HALF_RATIO * max_score:
        first -= 1
    if first == 0 and boundary is not None:
        onset = None if levels is None else first_clear_onset(levels[: round(window_s / frame_s)], frame_s)
        return boundary if onset is None else begin + onset
    estimate = ends[first] - window_s / 2
    if levels is None:
        return estimate
    return begin + onset_near(levels, frame_s, estimate - begin, window_s / 2)


def _join_levels(windows: Sequence[ScoredWindow], hop_s: float) -> tuple[np.ndarray | None, float]:
    """Return the band levels of the windows, (frames, bands) in dB or None if unknown, and their start in seconds."""
    levels = [window.band_levels for window in windows if window.band_levels is not None]
    if len(levels) < len(windows):
        return None, 0.0
    begin = windows[0].end - len(levels[0]) * hop_s / frames_per_hop(hop_s)
    return np.concatenate(levels), begin
