"""From scores of windows to events: one siren is one event, and not thirty windows.

An event opens with a window whose score reaches the threshold and lasts while scores stay above a lower one (hysteresis: a
score that hovers does not flicker); it closes when they have been below for longer than a short gap. What is shorter
than the least duration was no event.

A window of seconds cannot say by itself where in it a sound begins. The windows around can: as they slide onto the
sound, their scores climb from what they were before to what they stay at. The sound begins where they are half way up.
Where a danger follows a doubtful sound without a gap, the event is said to begin with the danger.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LOWER = 0.6  # of the threshold: an event lasts while the score stays above
JOIN = 2.0  # seconds: a shorter gap does not end an event
TWICE = 2.0  # times as sure as the event was so far: what went before was something else
AROUND = 4.0  # seconds before an event, and of its beginning, that tell where it begins; the same for its end
EDGE = 1 / 3  # of a window holds the sound when its score is half way up


@dataclass
class Event:
    """A danger heard from ``start`` to ``end`` (seconds), most clearly at ``peak``."""

    start: float
    end: float
    peak: float
    score: float  # the highest
    embedding: np.ndarray  # of the window at the peak
    heard: tuple[tuple[str, float], ...] = ()  # (category, similarity), nearest first


@dataclass(frozen=True)
class Scored:
    """A window with what the detector says of it."""

    start: float
    end: float
    score: float  # mean of this window and those just before it: what decides
    alone: float  # of this window by itself: what tells when
    embedding: np.ndarray


class EventFinder:
    """Fed window by window, in order; remembers one open event and the windows of a few seconds."""

    def __init__(self, threshold: float, hop: float, shortest: float = 0.0):
        """``shortest``: seconds that an event must last."""
        self.threshold, self.hop, self.shortest = threshold, hop, shortest
        self._around = max(1, round(AROUND / hop))  # windows
        self._recent: deque[Scored] = deque(maxlen=2 * self._around)
        self._open: Event | None = None
        self._beginning: list[Scored] = []  # windows before the open event and of its first seconds
        self._opened_at = 0  # number of the first window of the event among those
        self._surest = 0.0  # window by itself, of the event
        self._above: Scored | None = None  # the last window of the open event

    def add(self, window: Scored) -> Iterator[Event]:
        """Events that end before this window."""
        if self._open is not None and window.start - self._above.start > JOIN + self.hop:
            yield from self._close()
        self._recent.append(window)
        if self._open is not None and len(self._beginning) < self._opened_at + self._around:
            self._beginning.append(window)
        if window.score < self.threshold * (1.0 if self._open is None else LOWER):
            return
        middle = (window.start + window.end) / 2
        self._above = window
        if self._open is None:
            self._begin()
            self._surest = window.alone
            self._open = Event(window.start, window.end, middle, window.score, window.embedding)
            return
        if window.alone >= TWICE * self._surest:
            self._begin()
        self._surest = max(self._surest, window.alone)
        if window.score > self._open.score:
            self._open.peak, self._open.score, self._open.embedding = middle, window.score, window.embedding

    def _begin(self) -> None:
        """The last window is the first of the event."""
        self._beginning = list(self._recent)[-self._around - 1 :]
        self._opened_at = len(self._beginning) - 1

    def finish(self) -> Iterator[Event]:
        """The event that is open when the recording ends."""
        if self._open is not None:
            yield from self._close()

    def _close(self) -> Iterator[Event]:
        event, first, last = self._open, self._beginning[self._opened_at], self._above
        self._open = None
        recent = list(self._recent)
        ending = [window for window in recent if window.start >= last.start - AROUND]
        begins = self._beginning[turning_point(self._beginning, self._opened_at)]
        ends = ending[::-1][turning_point(ending[::-1], sum(window.start > last.start for window in ending))]
        event.start = begins.end - EDGE * (begins.end - begins.start)
        event.end = ends.start + EDGE * (ends.end - ends.start)
        if first.start == 0:  # there from the beginning
            event.start = 0.0
        if last is recent[-1]:  # and to the end
            event.end = last.end
        if event.end - event.start < self.hop:
            middle = (first.start + last.end) / 2
            event.start = max(middle - self.hop / 2, first.start)  # a recording may be shorter than that
            event.end = min(middle + self.hop / 2, last.end)
        if event.end - event.start >= self.shortest:
            yield event


def turning_point(windows: Sequence[Scored], inside: int) -> int:
    """The first of those windows, next to each other, that is half way up to the event; ``inside`` is one of it."""
    scores = [window.alone for window in windows]
    before = scores[: inside + 1]
    lowest = inside - int(np.argmin(before[::-1]))  # the last of them
    half = (scores[lowest] + max(scores[inside:])) / 2
    return next(number for number in range(lowest, len(scores)) if scores[number] >= half)
