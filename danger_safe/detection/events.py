"""From scores of windows to events: one siren is one event, and not thirty windows.

First pass, window by window: hysteresis, as in pyannote's ``Binarize``. An event opens with a window whose smoothed
score reaches the onset, lasts while scores stay above a lower offset, and outlives short gaps. So the windows of an
event at a high threshold are among those of one at any lower threshold. A far surer sound that sets in during a
doubtful one begins an event of its own.

Second pass, over a finished event: when did its sound begin and end (refinement.py)? That can shorten the event, but
never past the places where its danger is surest (``_place``). They depend on the scores alone and not on the threshold.
Therefore an event always overlaps with one at any lower threshold, and its peak is always inside it.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from danger_safe.audio.windows import SMOOTHING_S, ScoredWindow
from danger_safe.detection.refinement import find_offset, find_onset

CONTEXT_S = 8.0  # seconds before an event's first danger in which its onset is looked for
AS_SURE = 0.7  # windows with this fraction of the surest window's raw score hear the same sound
SHORTEST_S = 0.1  # seconds that every event lasts at least: no hop is shorter
FAR_SURER = 1.5  # times the highest smoothed score so far: an event of its own


@dataclass(frozen=True)
class EventConfig:
    """When windows are an event."""

    onset: float  # smoothed score from which on a window is danger: the threshold
    offset_ratio: float = 0.6  # of ``onset``: an event lasts while the smoothed score stays at or above it
    max_gap_s: float = 2.0  # so many seconds below the offset do not end an event
    min_duration_s: float = 0.0  # shorter events are dropped


@dataclass
class Event:
    """A danger heard from ``start`` to ``end`` (seconds), most clearly at ``peak``."""

    start: float
    end: float
    peak: float
    score: float  # the highest smoothed score
    embedding: np.ndarray  # of the window that is surest
    heard: tuple[tuple[str, float], ...] = ()  # (category, similarity), nearest first


@dataclass
class _OpenEvent:
    """What is kept of an event that goes on, however long it lasts. Windows have numbers from the recording's first
    on."""

    opening: int  # number of its first window
    head: list[ScoredWindow]  # windows around its first danger
    first_danger: int  # place in ``head``
    tail: list[ScoredWindow]  # windows around its last danger
    last_danger: int  # place in ``tail``
    last: int  # number of the last window that was above the offset
    surest: ScoredWindow  # with the highest smoothed score
    highest: deque[float]  # of the smoothed scores up to each of the newest windows
    embedding: np.ndarray  # of the window at the highest place; of the surest one until there is a place
    earliest: float = math.inf  # of the places of all local maxima
    latest: float = -math.inf
    peak: float = 0.0  # the place of the highest
    score: float = -math.inf
    is_long_enough: bool = False  # however long it turns out to be


class EventFinder:
    """Is fed one recording's windows in order; holds at most one open event and some seconds of windows.

    An event is returned as soon as scores have been low for longer than ``max_gap_s``; ``open_event`` tells of it at
    once.
    """

    def __init__(self, config: EventConfig, hop_s: float):
        """``hop_s``: seconds from one window to the next."""
        self.config, self.hop_s = config, hop_s
        self._gap = int(config.max_gap_s / hop_s + 1e-6)  # in windows, as the two below
        self._smoothing = max(1, round(SMOOTHING_S / hop_s))
        self._context = max(round(CONTEXT_S / hop_s), 2 * self._gap + self._smoothing) + 2
        self._recent: deque[ScoredWindow] = deque(maxlen=self._context)
        self._count = 0  # windows so far
        self._window_s = 0.0  # length of whole windows
        self._maxima: deque[int] = deque()  # numbers of windows with a local maximum that are not placed yet
        self._place_before = 0.0  # of the local maximum before
        self._open: _OpenEvent | None = None
        self._previous_end = 0.0  # of the event before

    @property
    def open_event(self) -> Event | None:
        """What is known by now of the event that goes on, its end being where danger was heard last.

        None where no event goes on, or it has not lasted ``min_duration_s`` yet. What was shown here is returned
        when it has ended.
        """
        event = self._open
        if event is None or not event.is_long_enough:
            return None
        end = event.tail[event.last_danger].end
        start = min(max(self._onset(event), self._previous_end), end)
        peak = min(max((event.surest.start + event.surest.end) / 2, start), end)
        return Event(start, end, peak, event.surest.smoothed_score, event.surest.embedding)

    def add(self, window: ScoredWindow) -> list[Event]:
        """The event that has ended with this window, if one has."""
        if not self._count:
            self._window_s = window.end - window.start
        self._recent.append(window)
        self._count += 1
        self._find_maximum(self._count - 2)
        self._place_maxima(self._gap)
        is_danger = window.smoothed_score >= self.config.onset
        if self._open is None:
            if is_danger:
                self._begin(self._count - 1)
            return []
        self._continue(self._open, window, is_danger)
        if is_danger and window.smoothed_score >= FAR_SURER * self._open.highest[0]:
            return self._split(self._open)
        return self._end(self._open, False) if self._count - 1 - self._open.last > self._gap else []

    def finish(self) -> list[Event]:
        """The event that is open when the recording ends, if one is."""
        self._find_maximum(self._count - 1)
        self._place_maxima(0)
        return self._end(self._open, True) if self._open else []

    def _begin(self, opening: int) -> None:
        """Open an event with the windows from that number on, the newest of which is a danger."""
        recent, newest = list(self._recent), len(self._recent) - 1
        windows = recent[newest - (self._count - 1 - opening) :]
        first = next(w for w in windows if w.smoothed_score >= self.config.onset)
        scores = [window.smoothed_score for window in windows]
        surest = max(windows, key=lambda w: w.smoothed_score)
        self._open = _OpenEvent(
            opening, recent, recent.index(first), recent, newest, self._count - 1,
            surest=surest,
            highest=deque(accumulate(scores, max), maxlen=self._gap + 1),
            embedding=surest.embedding,
            is_long_enough=not self.config.min_duration_s,
        )  # fmt: skip
        self._check_duration(self._open)

    def _continue(self, event: _OpenEvent, window: ScoredWindow, is_danger: bool) -> None:
        if window.start <= event.head[event.first_danger].start + self._window_s:
            event.head = [*event.head, window]
        event.highest.append(max(event.highest[-1], window.smoothed_score))
        if window.smoothed_score >= self.config.offset_ratio * self.config.onset:
            event.last = self._count - 1
        if is_danger:
            event.tail, event.last_danger = list(self._recent), len(self._recent) - 1
            if window.smoothed_score > event.surest.smoothed_score:
                event.surest = window
            self._check_duration(event)
        elif window.start <= event.tail[event.last_danger].start + self._window_s:
            event.tail = [*event.tail, window]

    def _split(self, before: _OpenEvent) -> list[Event]:
        """Where a far surer sound began after the open event did: end that, and open another one."""
        opening = self._count - self._gap
        if len(before.highest) <= self._gap or math.isinf(before.earliest):
            return []  # it is the sound that the event opened with
        begun = find_onset(list(self._recent), len(self._recent) - 1, self._window_s, self.hop_s)
        # all places of the new event's maxima will be after that
        limit = self._middle(self._kept(opening)) - self.config.max_gap_s / 2
        end = min(begun, limit)
        if begun < before.head[before.first_danger].end or end < before.latest + SHORTEST_S:
            return []
        self._begin(opening)
        return self._finished(before, end)

    def _check_duration(self, event: _OpenEvent) -> None:
        if not event.is_long_enough:
            middle = event.tail[event.last_danger].end - self._window_s / 2
            event.is_long_enough = middle - self._onset(event) >= self.config.min_duration_s

    def _onset(self, event: _OpenEvent) -> float:
        return find_onset(event.head, event.first_danger, self._window_s, self.hop_s)

    def _end(self, event: _OpenEvent, is_recording_end: bool) -> list[Event]:
        """Close the open event."""
        self._open = None
        at_end = is_recording_end and event.tail[-1] is self._recent[-1]
        end = find_offset(event.tail, event.last_danger, self._window_s, self.hop_s, at_end)
        if not is_recording_end:  # any later event begins after this
            end = min(end, self._middle(self._kept(event.last)) + self.config.max_gap_s / 2)
        return self._finished(event, min(max(end, event.latest + SHORTEST_S), self._recent[-1].end))

    def _finished(self, event: _OpenEvent, end: float) -> list[Event]:
        """The event that ends at ``end`` (seconds), unless it was too short."""
        start = max(min(self._onset(event), event.earliest), self._previous_end)
        if not event.is_long_enough and end - start < self.config.min_duration_s:
            return []
        self._previous_end = end
        return [Event(start, end, event.peak, event.score, event.embedding)]

    def _at(self, number: int) -> ScoredWindow | None:
        """The window of that number; None where there is none, or it was forgotten."""
        place = number - self._count + len(self._recent)
        return self._recent[place] if 0 <= place < len(self._recent) else None

    def _kept(self, number: int) -> ScoredWindow:
        """The window of that number, which is there."""
        window = self._at(number)
        assert window is not None, number  # who asks counts back from the newest, and not as far as is forgotten
        return window

    def _is_as_sure(self, number: int, enough: float) -> bool:
        window = self._at(number)
        return window is not None and window.raw_score >= enough

    def _middle(self, window: ScoredWindow) -> float:
        """Of all the windows whose mean is the smoothed score of this one (seconds)."""
        return window.start + self._window_s / 2 - (self._smoothing - 1) / 2 * self.hop_s

    def _find_maximum(self, number: int) -> None:
        """Note whether the smoothed score has a local maximum at the window of that number."""
        window, before, after = (self._at(n) for n in (number, number - 1, number + 1))
        if window is None:
            return
        rises = before is None or window.smoothed_score > before.smoothed_score
        if rises and (after is None or window.smoothed_score >= after.smoothed_score):
            self._maxima.append(number)

    def _place_maxima(self, windows_after: int) -> None:
        """Place those local maxima that have so many windows after them, in their order, for the open event."""
        while self._maxima and self._maxima[0] + windows_after < self._count:
            number = self._maxima.popleft()
            time, surest = self._place(number)
            time = self._place_before = max(time, self._place_before)
            event, score = self._open, self._kept(number).smoothed_score
            if event is None or number < event.opening or score < self.config.onset:
                continue
            event.earliest, event.latest = min(event.earliest, time), max(event.latest, time)
            if score > event.score:
                event.score, event.peak, event.embedding = score, time, surest.embedding

    def _place(self, number: int) -> tuple[float, ScoredWindow]:
        """When the danger was that the window of that number, a local maximum, is sure of; and the window surest of it.

        All windows around that are about as sure hear the same sound: it is where they overlap or, where they are too
        many for that, between the first and the last of them. The result stays at most a quarter of a gap before the
        middle of the windows that were averaged. It stays as much after it as keeps it before the place of any later
        event, which a gap and one window separate from it at least.
        """
        averaged = [n for n in range(number - self._smoothing + 1, number + 1) if self._at(n)]
        surest = max(averaged, key=lambda n: self._kept(n).raw_score)
        enough = AS_SURE * self._kept(surest).raw_score
        first = last = surest
        while first > number - self._gap and self._is_as_sure(first - 1, enough):
            first -= 1
        while last < number + self._gap and self._is_as_sure(last + 1, enough):
            last += 1
        window, reach = self._kept(number), self.config.max_gap_s / 4
        # where all of them overlap, or what lies between them
        since, until = self._kept(last).start, self._kept(first).end
        middle = self._middle(window)
        time = (since + until) / 2 if since <= until else min(max(middle, until), since)
        reach_after = (self._gap + 1) * self.hop_s - reach - SHORTEST_S
        latest = min(middle + max(reach, reach_after), max(window.end - SHORTEST_S, window.start))
        return min(max(time, middle - reach, window.start), latest), self._kept(surest)
