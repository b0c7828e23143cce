"""From scores of windows to events: one siren is one event, and not thirty windows.

A score holds for the hop in the middle of its window. An event is where the score reaches the threshold, with what is
around it above a lower one (hysteresis: a score that hovers does not flicker); it closes when the score has been below
for longer than a short gap. What is shorter than the least duration was no event.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LOWER = 0.6  # of the threshold: an event lasts while the score stays above
JOIN = 2.0  # seconds: a shorter gap does not end an event
RISE = 1.0  # seconds that the score may take to rise: an event begins at most so long before the threshold is reached


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
        self._last: Scored | None = None
        self._risen: float | None = None  # since when the score is above the lower threshold

    def add(self, window: Scored) -> Iterator[Event]:
        """Events that end before this window."""
        middle = (window.start + window.end) / 2
        begin = window.start if window.start == 0 else middle - self.hop / 2
        end = middle + self.hop / 2
        event = self._open
        if event is not None and begin - event.end > JOIN:
            yield from self._close()
            event = None
        if window.score < LOWER * self.threshold:
            self._risen = None
        elif self._risen is None:
            self._risen = begin
        if event is None and window.score >= self.threshold:
            begin = max(self._risen, begin - RISE)
            self._open = Event(begin, end, middle, window.score, window.embedding)
        elif event is not None and window.score >= LOWER * self.threshold:
            event.end = end
            if window.score > event.score:
                event.peak, event.score, event.embedding = middle, window.score, window.embedding
        self._last = window

    def finish(self) -> Iterator[Event]:
        """The event that is open when the recording ends."""
        if self._open is not None and self._last is not None:
            if self._open.end >= (self._last.start + self._last.end) / 2:  # it lasts to the end of the recording
                self._open.end = self._last.end
            yield from self._close()

    def _close(self) -> Iterator[Event]:
        event, self._open = self._open, None
        if event.end - event.start >= self.shortest:
            yield event
