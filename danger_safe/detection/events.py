"""From scores of windows to events: one siren is one event, and not thirty windows.

An event opens with a window whose score reaches the threshold and lasts while scores stay above a lower one (hysteresis: a
score that hovers does not flicker); it closes when they have been below for longer than a short gap. What is shorter
than the least duration was no event.

A window of seconds cannot say by itself where in it a sound begins. The windows around can: as they slide onto the
sound, their embeddings turn towards that of the newest window. The sound begins about where they are half way there, and
where its loudness rises (onset.py). Where another sound, and a surer one, follows a danger without a gap, the two are
two events; so are two that are about as sure, where the second is heard to set in.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from danger_safe.detection.onset import onset

LOWER = 0.6  # of the threshold: an event lasts while the score stays above
JOIN = 2.0  # seconds: a shorter gap does not end an event
BEFORE = 8.0  # seconds before a window in which the beginning of what it hears is looked for
SURER = 0.02  # a window that much surer than the event so far tells anew where the sound begins
STILL = 0.5  # of the surest window's score: so do a new event's first windows, while they hear it
NEW = 2.0  # seconds before a window: a sound that began earlier is not new any more
OTHER = 0.5  # similarity of embeddings (cosine) at and below which a window holds another sound
TURNED = 0.45  # of the way from the least alike window to the newest: from there on, windows hold its sound
EDGE = 0.47  # of a window holds the sound when its embedding has turned
MUCH_SURER = 0.75  # of log-odds: another sound so much surer than those before is an event of its own
RISE = 8.0  # dB: one that sets in so audibly is one where it is not so much less sure, either
AROUND = 4.0  # seconds before the end of an event that tell where it ends
END_EDGE = 1 / 3  # of a window holds the sound when its score is half way down


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
    unknown: bool = False  # it sounds like nothing that the detector was taught
    silent: bool = False  # nothing in it is loud enough to be judged: listening.AUDIBLE
    levels: np.ndarray | None = None  # dB, (frames, bands), of what the window before had not heard: onsets.loudness


@dataclass(frozen=True)
class Beginning:
    """Of the sound that a window hears: another one than windows before it heard."""

    start: float
    rise: float  # dB: how audibly it sets in
    before: float  # start of the first window that hears it: until then, at least, the sound before it lasted
    score_before: float  # the highest of the windows before


class EventFinder:
    """Fed window by window, in order; remembers one open event and the windows of a few seconds."""

    def __init__(
        self,
        threshold: float,
        hop: float,
        shortest: float = 0.0,
        beginnings: dict[float, Beginning | None] | None = None,
    ):
        """``shortest``: seconds that an event must last. ``beginnings``: by the start of their window; finders of one
        recording, with other thresholds, may share one."""
        self.threshold, self.hop, self.shortest = threshold, hop, shortest
        # an event is closed when so many windows have passed: its last one must not be forgotten by then
        gap = math.ceil(JOIN / hop) + 1
        self._recent: deque[Scored] = deque(maxlen=max(round(BEFORE / hop), gap) + 1)
        self._open: Event | None = None
        self._surest = 0.0  # window by itself, of the event
        self._opening: Scored | None = None  # first and last window of the open event that was above
        self._last: Scored | None = None
        self._ended = 0.0  # when the event before did
        self._beginnings = beginnings

    def add(self, window: Scored) -> Iterator[Event]:
        """Events that end before this window."""
        if self._open is not None and window.start - self._last.start > JOIN + self.hop:
            yield from self._close()
        self._recent.append(window)
        if window.score < self.threshold * (1.0 if self._open is None else LOWER):
            return
        self._last = window
        if self._open is None:
            self._open, self._surest, self._opening = self._event(window, window.start), 0.0, window
        yield from self._begin(window)
        self._surest = max(self._surest, window.alone)
        if window.score > self._open.score:
            self._open.peak, self._open.score = (window.start + window.end) / 2, window.score
            self._open.embedding = window.embedding

    def finish(self) -> Iterator[Event]:
        """The event that is open when the recording ends."""
        if self._open is not None:
            yield from self._close()

    def _event(self, window: Scored, start: float) -> Event:
        return Event(start, window.end, (window.start + window.end) / 2, window.score, window.embedding)

    def _begin(self, window: Scored) -> Iterator[Event]:
        """Say when the sound of this window began, and what the event was before it, where that was another sound."""
        begun = self._beginning(window)
        if begun is None:
            return
        if self._opening.end <= begun.start:  # the event was open before this sound
            surer = log_odds(window.alone) - log_odds(begun.score_before)
            enough = -MUCH_SURER if begun.rise >= RISE else MUCH_SURER
            if begun.start < window.start - NEW or surer <= enough:  # and goes on
                return
            self._open.end = self._ended = begun.before
            if self._open.end - self._open.start >= max(self.hop, self.shortest):
                yield self._open
            self._open, self._opening, self._surest = self._event(window, begun.start), window, 0.0
        young = window.start <= self._opening.end  # still sliding onto its sound
        if window.alone >= (STILL * self._surest if young else self._surest + SURER):
            self._open.start = max(begun.start, self._ended)

    def _beginning(self, window: Scored) -> Beginning | None:
        """Of the sound of the newest window; None where it was there all the time."""
        if self._beginnings is None:
            return beginning_of(list(self._recent), self.hop)
        if window.start not in self._beginnings:
            self._beginnings[window.start] = beginning_of(list(self._recent), self.hop)
        return self._beginnings[window.start]

    def _close(self) -> Iterator[Event]:
        event, last = self._open, self._last
        self._open = None
        recent = list(self._recent)
        ending = [window for window in recent if window.start >= last.start - AROUND][::-1]
        ends = ending[turning_point(ending, sum(window.start > last.start for window in ending))]
        event.end = ends.start + END_EDGE * (ends.end - ends.start)
        if last is recent[-1]:  # it lasts to the end
            event.end = last.end
        event.end = self._ended = min(max(event.end, event.start + self.hop), last.end)
        if event.end - event.start >= self.shortest:
            yield event


def beginning_of(windows: Sequence[Scored], hop: float) -> Beginning | None:
    """Of the sound that the last of those windows, next to each other, hears; None where all of them do."""
    number = first_alike(windows)
    if not number:
        return None
    first = windows[number]
    start, rise = first.end - EDGE * (first.end - first.start), 0.0  # where the windows put it
    whole = windows[0].end - windows[0].start - hop / 100  # the last window of a recording may be shorter
    heard = [window for window in windows if window.levels is not None and window.end - window.start > whole]
    if heard:
        begin, step = heard[0].end - hop, hop / len(heard[0].levels)
        start, rise = onset(np.concatenate([w.levels for w in heard]), step, start - begin)
        start += begin
    return Beginning(start, rise, first.start, max(window.alone for window in windows[:number]))


def first_alike(windows: Sequence[Scored]) -> int:
    """The first of those windows, next to each other, that hears what the last one does: whose embedding has TURNED to
    it from the least alike of them. 0 where none of them hears another sound."""
    alike = similarity(np.stack([window.embedding for window in windows]), windows[-1].embedding)
    least = alike.min()
    if least > OTHER or alike[-1] < OTHER:  # or an embedding of nothing, which is not even like itself
        return 0
    return int(np.flatnonzero(alike < least + (1 - least) * TURNED)[-1]) + 1


def log_odds(score: float) -> float:
    """Of a score in [0, 1]."""
    score = min(max(score, 1e-4), 1 - 1e-4)
    return math.log(score / (1 - score))


def similarity(embeddings: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine similarity of embeddings, (…, dimensions), with another, (dimensions,): (…,)."""
    lengths = np.linalg.norm(embeddings, axis=-1) * np.linalg.norm(other)
    return embeddings @ other / np.maximum(lengths, 1e-9)


def turning_point(windows: Sequence[Scored], inside: int) -> int:
    """The first of those windows, next to each other, that is half way up to the event; ``inside`` is one of it."""
    scores = [window.alone for window in windows]
    before = scores[: inside + 1]
    lowest = inside - int(np.argmin(before[::-1]))  # the last of them
    half = (scores[lowest] + max(scores[inside:])) / 2
    return next(number for number in range(lowest, len(scores)) if scores[number] >= half)
