"""When the sound of an event began and ended, from the scores and the loudness around it.

While a window slides onto a sound, its score rises; it is half as sure as it will be with about half of it filled by
the sound. The loudness near that place says where exactly. An offset is the onset of the same windows heard backwards.
"""

from collections.abc import Sequence

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.onset import first_clear_onset, frames_per_hop, onset_near

SURE = 0.8  # a window with this fraction of the highest raw score nearby is fully sure of the sound
HALF_SURE = 0.5  # one with this fraction hears half of it


def find_onset(windows: Sequence[ScoredWindow], danger: int, window_s: float, hop_s: float) -> float:
    """When the sound began (seconds) that is heard in ``windows[danger]``, the first danger of an event.

    Args:
        windows: Windows next to each other, from well before that one until its sound is fully heard.
        danger: Its place among them.
        window_s: Length of whole windows.
        hop_s: Seconds from one window to the next.
    """
    levels, begin = _levels(windows, hop_s)
    outermost = windows[0].start if windows[0].start == 0 else None
    ends = [window.end for window in windows]
    return _find_edge(ends, [w.raw_score for w in windows], danger, levels, begin, outermost, window_s, hop_s)


def find_offset(
    windows: Sequence[ScoredWindow], danger: int, window_s: float, hop_s: float, is_recording_end: bool
) -> float:
    """When the sound ended (seconds) that is heard in ``windows[danger]``, the last danger of an event.

    ``is_recording_end``: nothing comes after these windows. The other arguments are those of ``find_onset``.
    """
    levels, begin = _levels(windows, hop_s)
    outermost = -windows[-1].end if is_recording_end else None
    ends = [-window.start for window in reversed(windows)]
    raw_scores = [window.raw_score for window in reversed(windows)]
    if levels is not None:
        levels, begin = levels[::-1], -(begin + len(levels) * hop_s / frames_per_hop(hop_s))
    return -_find_edge(ends, raw_scores, len(windows) - 1 - danger, levels, begin, outermost, window_s, hop_s)


def _find_edge(
    ends: Sequence[float],
    raw_scores: Sequence[float],
    danger: int,
    levels: np.ndarray | None,
    begin: float,
    outermost: float | None,
    window_s: float,
    hop_s: float,
) -> float:
    """The onset; ``levels`` begin at ``begin``, and the recording does so at ``outermost`` where that is known."""
    frame_s = hop_s / frames_per_hop(hop_s)
    lead = round(window_s / 2 / hop_s)  # smoothed scores lag: windows a little before are as sure already
    nearby = range(max(0, danger - lead), min(len(ends), danger + round(window_s / hop_s) + 1))
    highest = max(raw_scores[n] for n in nearby)
    first = next(n for n in nearby if raw_scores[n] >= SURE * highest)
    while first > 0 and raw_scores[first - 1] >= HALF_SURE * highest:
        first -= 1
    if first == 0 and outermost is not None:
        clear = None if levels is None else first_clear_onset(levels[: round(window_s / frame_s)], frame_s)
        return outermost if clear is None else begin + clear
    estimate = ends[first] - window_s / 2
    if levels is None:
        return estimate
    return begin + onset_near(levels, frame_s, estimate - begin, window_s / 2)


def _levels(windows: Sequence[ScoredWindow], hop_s: float) -> tuple[np.ndarray | None, float]:
    """(the loudness of those windows joined, dB, (frames, bands), or None where it is not known; when it begins)."""
    levels = [window.band_levels for window in windows if window.band_levels is not None]
    if len(levels) < len(windows):
        return None, 0.0
    begin = windows[0].end - len(levels[0]) * hop_s / frames_per_hop(hop_s)
    return np.concatenate(levels), begin
