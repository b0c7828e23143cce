"""Turn the scores of windows into events: one siren is one event, not thirty windows.

First pass, window by window: hysteresis, as in pyannote's ``Binarize``. An event opens with a window whose smoothed
score reaches the onset, lasts while scores stay above a lower offset, and outlives short gaps. So the windows of an
event at a high threshold are among those of an event at any lower threshold. If the score rises far above that of the
open event, a new sound has set in, which becomes an event of its own.

Second pass, over a finished event: when did its sound begin and end (refinement.py)? That can shorten the event, but
never past its peaks: each local maximum of the smoothed score has a peak time (``_peak_time``), which depends on the
scores alone and not on the threshold. Therefore an event always overlaps with one at any lower threshold, and contains
its own peak.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from danger_safe.audio.windows import SMOOTHING_S, ScoredWindow
from danger_safe.detection.refinement import find_offset, find_onset

CONTEXT_S = 8.0  # seconds before an event's first danger in which its onset is searched
PEAK_RATIO = 0.7  # of a peak's highest raw score: windows above it contain the same sound
MIN_EVENT_S = 0.1  # seconds; minimum length of every event, as no hop is shorter
SPLIT_RATIO = 1.5  # of the highest smoothed score so far: from there on it is an event of its own


@dataclass(frozen=True)
class EventConfig:
    """When windows form an event."""

    onset: float  # smoothed score that opens an event: the threshold
    offset_ratio: float = 0.6  # of ``onset``: an event lasts while the smoothed score is at or above it
    max_gap_s: float = 2.0  # seconds; a shorter time below the offset does not end an event
    min_duration_s: float = 0.0  # seconds; shorter events are dropped


@dataclass
class Event:
    """A danger from ``start`` to ``end`` (seconds)."""

    start: float
    end: float
    peak: float  # time in seconds at which the score is highest
    score: float  # the highest smoothed score
    embedding: np.ndarray = field(repr=False)  # (dimensions,), of the window with the highest score
    heard: tuple[tuple[str, float], ...] = ()  # (category, similarity), most similar first


@dataclass
class _OpenEvent:
    """The state of an event that has not ended; its size does not grow. Windows are numbered from the recording's
    start."""

    first_window: int  # number of the event's first window
    head: list[ScoredWindow]  # windows around its first danger
    first_danger: int  # index in ``head``
    tail: list[ScoredWindow]  # windows around its last danger
    last_danger: int  # index in ``tail``
    last_active: int  # number of the last window above the offset
    best_window: ScoredWindow  # the one with the highest smoothed score
    running_max: deque[float]  # of the smoothed score, at each of the newest windows
    embedding: np.ndarray  # of the highest peak; until there is a peak, of ``best_window``
    first_peak: float = math.inf  # time in seconds
    last_peak: float = -math.inf  # time in seconds
    peak: float = 0.0  # time in seconds of the highest peak
    score: float = -math.inf
    is_long_enough: bool = False  # it has lasted ``min_duration_s``, even if its end is moved back later


class EventFinder:
    """Finds the events of one recording whose windows are added in order.

    It holds at most one open event and some seconds of windows. An event is returned as soon as scores have been low
    for longer than ``max_gap_s``; until then ``open_event`` shows it.
    """

    def __init__(self, config: EventConfig, hop_s: float):
        """``hop_s``: seconds from one window to the next."""
        self.config, self.hop_s = config, hop_s
        self._max_gap = int(config.max_gap_s / hop_s + 1e-6)  # in windows, as the two below
        self._smoothing = max(1, round(SMOOTHING_S / hop_s))
        self._context = max(round(CONTEXT_S / hop_s), 2 * self._max_gap + self._smoothing) + 2
        self._recent: deque[ScoredWindow] = deque(maxlen=self._context)
        self._count = 0  # windows so far
        self._window_s = 0.0  # length of full windows
        self._maxima: deque[int] = deque()  # numbers of the windows at local maxima without a peak time yet
        self._previous_peak = 0.0  # peak time of the local maximum before, in seconds
        self._open: _OpenEvent | None = None
        self._previous_end = 0.0  # end of the event before, in seconds

    @property
    def open_event(self) -> Event | None:
        """The event that has not ended, as far as it is known; its end is that of the last danger.

        None if no event is open, or it has not lasted ``min_duration_s`` yet. An event that was shown here is returned
        when it has ended.
        """
        event = self._open
        if event is None or not event.is_long_enough:
            return None
        best = event.best_window
        end = event.tail[event.last_danger].end
        start = min(max(self._onset(event), self._previous_end), end)
        peak = min(max((best.start + best.end) / 2, start), end)
        return Event(start, end, peak, best.smoothed_score, best.embedding)

    def add(self, window: ScoredWindow) -> list[Event]:
        """Process the next window and return the event that has ended with it, if one has."""
        if not self._count:
            self._window_s = window.end - window.start
        self._recent.append(window)
        self._count += 1
        self._find_maximum(self._count - 2)
        self._add_peaks(self._max_gap)
        is_danger = window.smoothed_score >= self.config.onset
        if self._open is None:
            if is_danger:
                self._begin(self._count - 1)
            return []
        self._extend(self._open, window, is_danger)
        if is_danger and window.smoothed_score >= SPLIT_RATIO * self._open.running_max[0]:
            return self._split(self._open)
        return self._end(self._open, False) if self._count - 1 - self._open.last_active > self._max_gap else []

    def finish(self) -> list[Event]:
        """Return the event that is open at the end of the recording, if one is."""
        self._find_maximum(self._count - 1)
        self._add_peaks(0)
        return self._end(self._open, True) if self._open else []

    def _begin(self, first_window: int) -> None:
        """Open an event with the window of that number and all after it; the newest of them is a danger."""
        recent, newest = list(self._recent), len(self._recent) - 1
        windows = recent[newest - (self._count - 1 - first_window) :]
        first_danger = next(w for w in windows if w.smoothed_score >= self.config.onset)
        scores = [window.smoothed_score for window in windows]
        best_window = max(windows, key=lambda w: w.smoothed_score)
        self._open = _OpenEvent(
            first_window,
            head=recent,
            first_danger=recent.index(first_danger),
            tail=recent,
            last_danger=newest,
            last_active=self._count - 1,
            best_window=best_window,
            running_max=deque(accumulate(scores, max), maxlen=self._max_gap + 1),
            embedding=best_window.embedding,
            is_long_enough=not self.config.min_duration_s,
        )
        self._check_duration(self._open)

    def _extend(self, event: _OpenEvent, window: ScoredWindow, is_danger: bool) -> None:
        """Add the newest window to the open event."""
        if window.start <= event.head[event.first_danger].start + self._window_s:
            event.head = [*event.head, window]
        event.running_max.append(max(event.running_max[-1], window.smoothed_score))
        if window.smoothed_score >= self.config.offset_ratio * self.config.onset:
            event.last_active = self._count - 1
        if is_danger:
            event.tail, event.last_danger = list(self._recent), len(self._recent) - 1
            if window.smoothed_score > event.best_window.smoothed_score:
                event.best_window = window
            self._check_duration(event)
        elif window.start <= event.tail[event.last_danger].start + self._window_s:
            event.tail = [*event.tail, window]

    def _split(self, before: _OpenEvent) -> list[Event]:
        """End the open event and open another one, if a sound with a far higher score began after it."""
        first_window = self._count - self._max_gap
        if len(before.running_max) <= self._max_gap or math.isinf(before.first_peak):
            return []  # it is the sound that opened the event
        onset = find_onset(list(self._recent), len(self._recent) - 1, self._window_s, self.hop_s)
        # All peaks of the new event will be later than this.
        limit = self._middle(self._recent_window(first_window)) - self.config.max_gap_s / 2
        end = min(onset, limit)
        if onset < before.head[before.first_danger].end or end < before.last_peak + MIN_EVENT_S:
            return []
        self._begin(first_window)
        return self._close(before, end)

    def _check_duration(self, event: _OpenEvent) -> None:
        if not event.is_long_enough:
            middle = event.tail[event.last_danger].end - self._window_s / 2
            event.is_long_enough = middle - self._onset(event) >= self.config.min_duration_s

    def _onset(self, event: _OpenEvent) -> float:
        return find_onset(event.head, event.first_danger, self._window_s, self.hop_s)

    def _end(self, event: _OpenEvent, is_recording_end: bool) -> list[Event]:
        """End the open event after its last danger."""
        self._open = None
        is_at_end = is_recording_end and event.tail[-1] is self._recent[-1]
        end = find_offset(event.tail, event.last_danger, self._window_s, self.hop_s, is_at_end)
        if not is_recording_end:  # every later event begins after this
            end = min(end, self._middle(self._recent_window(event.last_active)) + self.config.max_gap_s / 2)
        return self._close(event, min(max(end, event.last_peak + MIN_EVENT_S), self._recent[-1].end))

    def _close(self, event: _OpenEvent, end: float) -> list[Event]:
        """Return the event with its ``end`` in seconds; nothing if it was too short."""
        start = max(min(self._onset(event), event.first_peak), self._previous_end)
        if not event.is_long_enough and end - start < self.config.min_duration_s:
            return []
        self._previous_end = end
        return [Event(start, end, event.peak, event.score, event.embedding)]

    def _window(self, number: int) -> ScoredWindow | None:
        """Return the window of that number; None if it does not exist or is not held any more."""
        index = number - self._count + len(self._recent)
        return self._recent[index] if 0 <= index < len(self._recent) else None

    def _recent_window(self, number: int) -> ScoredWindow:
        """Return the window of that number, which must be among those that are held."""
        window = self._window(number)
        assert window is not None, number
        return window

    def _has_score(self, number: int, min_score: float) -> bool:
        window = self._window(number)
        return window is not None and window.raw_score >= min_score

    def _middle(self, window: ScoredWindow) -> float:
        """Return the middle in seconds of all windows over which the window's score is smoothed."""
        return window.start + self._window_s / 2 - (self._smoothing - 1) / 2 * self.hop_s

    def _find_maximum(self, number: int) -> None:
        """Add the window of that number to the local maxima if its smoothed score is one."""
        window, before, after = (self._window(n) for n in (number, number - 1, number + 1))
        if window is None:
            return
        rises = before is None or window.smoothed_score > before.smoothed_score
        if rises and (after is None or window.smoothed_score >= after.smoothed_score):
            self._maxima.append(number)

    def _add_peaks(self, windows_after: int) -> None:
        """Add the local maxima that have so many windows after them to the open event, in order."""
        while self._maxima and self._maxima[0] + windows_after < self._count:
            number = self._maxima.popleft()
            time, best_window = self._peak_time(number)
            time = self._previous_peak = max(time, self._previous_peak)
            event, score = self._open, self._recent_window(number).smoothed_score
            if event is None or number < event.first_window or score < self.config.onset:
                continue
            event.first_peak, event.last_peak = min(event.first_peak, time), max(event.last_peak, time)
            if score > event.score:
                event.score, event.peak, event.embedding = score, time, best_window.embedding

    def _peak_time(self, number: int) -> tuple[float, ScoredWindow]:
        """Return the time in seconds of the local maximum at a window, and the window with its highest raw score.

        All windows around that one whose raw score is nearly as high contain the same sound. The peak is in the middle
        of their overlap or, if they are too many to overlap, between the first and the last of them. It is limited to
        the surroundings of the windows that were averaged: at most a quarter of a gap before their middle, and not so
        far after it that it could pass the peak of a later event, which is at least a gap and one window away.
        """
        averaged = [n for n in range(number - self._smoothing + 1, number + 1) if self._window(n)]
        best = max(averaged, key=lambda n: self._recent_window(n).raw_score)
        min_score = PEAK_RATIO * self._recent_window(best).raw_score
        first = last = best
        while first > number - self._max_gap and self._has_score(first - 1, min_score):
            first -= 1
        while last < number + self._max_gap and self._has_score(last + 1, min_score):
            last += 1
        window, max_lead = self._recent_window(number), self.config.max_gap_s / 4
        last_start, first_end = self._recent_window(last).start, self._recent_window(first).end
        middle = self._middle(window)
        all_overlap = last_start <= first_end
        time = (last_start + first_end) / 2 if all_overlap else min(max(middle, first_end), last_start)
        max_lag = max(max_lead, (self._max_gap + 1) * self.hop_s - max_lead - MIN_EVENT_S)
        latest = min(middle + max_lag, max(window.end - MIN_EVENT_S, window.start))
        return min(max(time, middle - max_lead, window.start), latest), self._recent_window(best)
