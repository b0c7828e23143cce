"""From scores of windows to events: one siren is one event, and not thirty windows.

An event opens with a window whose score reaches the threshold and lasts while scores stay above a lower one (hysteresis: a
score that hovers does not flicker); it closes when they have been below for longer than a short gap. A loud sound raises
the score as soon as the window's last part holds it, and until its first part has lost it: an event is said to begin in
the last third of its first window, and to end in the first third of its last. What is shorter than the least duration
was no event.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LOWER = 0.6  # of the threshold: an event lasts while the score stays above
JOIN = 2.0  # seconds: a shorter gap does not end an event
EDGE = 1 / 3  # of a window


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
    score: float
    embedding: np.ndarray


class EventFinder:
    """Fed window by window, in order; remembers one open event."""

    def __init__(self, threshold: float, hop: float, shortest: float = 0.0):
        """``shortest``: seconds that an event must last."""
        self.threshold, self.hop, self.shortest = threshold, hop, shortest
        self._open: Event | None = None
        self._first: Scored | None = None  # window of the open event
        self._above: Scored | None = None  # the last window of the open event
        self._last: Scored | None = None

    def add(self, window: Scored) -> Iterator[Event]:
        """Events that end before this window."""
        if self._open is not None and window.start - self._above.start > JOIN + self.hop:
            yield from self._close()
        self._last = window
        if window.score < self.threshold * (1.0 if self._open is None else LOWER):
            return
        middle = (window.start + window.end) / 2
        self._above = window
        if self._open is None:
            self._first = window
            self._open = Event(window.start, window.end, middle, window.score, window.embedding)
        elif window.score > self._open.score:
            self._open.peak, self._open.score, self._open.embedding = middle, window.score, window.embedding

    def finish(self) -> Iterator[Event]:
        """The event that is open when the recording ends."""
        if self._open is not None:
            yield from self._close()

    def _close(self) -> Iterator[Event]:
        event, first, last = self._open, self._first, self._above
        self._open = None
        event.start = first.end - EDGE * (first.end - first.start)
        event.end = last.start + EDGE * (last.end - last.start)
        if event.end - event.start < self.hop:
            middle = (first.start + last.end) / 2
            event.start, event.end = middle - self.hop / 2, middle + self.hop / 2
        if first.start == 0:  # there from the beginning
            event.start = 0.0
        if last is self._last:  # and to the end
            event.end = last.end
        if event.end - event.start >= self.shortest:
            yield event
