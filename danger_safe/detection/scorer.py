"""A recording through network and detector: scores of overlapping windows, in order, while it is read."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, distinct_channels
from danger_safe.audio.windows import SMOOTHING_S, ScoredWindow, Window, windows
from danger_safe.detection.detector import Detector
from danger_safe.detection.onset import frames_per_hop, loudness
from danger_safe.detection.personal import PersonalDetector
from models.engine import Engine

WINDOW, HOP = 3.0, 0.5  # seconds, where nobody says otherwise: how they were chosen is in benchmarks/detector.md
SILENCE_AMPLITUDE = (
    1e-3  # of full scale, -60 dB: what never gets louder, 33 steps of 16 bits, is silence (benchmarks/detector.md)
)
BATCH_SECONDS = 60.0  # of sound in one batch of the network


class Smoother:
    """The running mean of a recording's window scores over SMOOTHING_S; it starts anew with each recording."""

    def __init__(self, hop: float):
        self._last: deque[float] = deque(maxlen=max(1, round(SMOOTHING_S / hop)))

    def smooth(self, window: ScoredWindow) -> ScoredWindow:
        """The window, the next one of its recording, with its smoothed score."""
        return replace(window, smoothed_score=self.add(window.start, window.raw_score))

    def add(self, start: float, score: float) -> float:
        """The mean at the window that begins at ``start`` seconds, whose own score is ``score``."""
        if start == 0:
            self._last.clear()
        self._last.append(score)
        return sum(self._last) / len(self._last)


class NullDetector:
    """In a detector's place where only the embeddings are wanted: whatever is heard scores 1, silence 0."""

    @staticmethod
    def scores(embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> 1, (windows,)."""
        return np.ones(len(embeddings))

    @staticmethod
    def unknown(embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> False, (windows,)."""
        return np.zeros(len(embeddings), bool)


class Listener:
    """Scores recordings with one engine and one detector."""

    def __init__(self, engine: Engine, detector: Detector, window: float, hop: float):
        """``window`` and ``hop`` are in seconds."""
        self.engine, self.detector, self.window, self.hop = engine, detector, window, hop
        self._smoother = Smoother(hop)
        self._pool = ThreadPoolExecutor(engine.max_concurrency)
        self._embedding_pool = ThreadPoolExecutor(engine.max_concurrency)

    def close(self) -> None:
        """Stop; a ``with`` block does so. The engine stays open."""
        self._embedding_pool.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def listen(self, pieces: Iterable[np.ndarray], live: bool = False) -> Iterator[ScoredWindow]:
        """The scored windows of a recording. ``live``: each as soon as it is heard, else many at a time."""
        cut = windows(pieces, self.window, self.hop)
        if not live:
            yield from self.score(cut)
            return
        for window in cut:
            parts = _channels_apart(window)
            scored = self._score(parts, [self.engine.front_end(part.samples) for part in parts])
            yield from self._smooth(_surest(scored, [len(parts)]))

    def score(self, cut: Iterable[Window]) -> Iterator[ScoredWindow]:
        """Windows of any recordings, one after another, with their scores, in the same order, many at a time.

        Raises AudioError where a recording breaks off, after the windows before it.
        """
        size = max(1, round(BATCH_SECONDS / self.window))
        ahead: deque[Future] = deque()
        cut, broken = iter(cut), None
        while not broken:
            batch: list[Window] = []
            channels: list[int] = []  # of each window: as many neighbours in the batch
            try:
                for window in cut:
                    parts = _channels_apart(window)
                    batch += parts
                    channels.append(len(parts))
                    if len(batch) >= size:
                        break
            except AudioError as error:
                broken = error
            if not batch:
                break
            logmels = [self._pool.submit(self.engine.front_end, window.samples) for window in batch]
            ahead.append(self._embedding_pool.submit(self._score_later, batch, logmels, channels))
            if len(ahead) > 2 * self.engine.max_concurrency:
                yield from self._smooth(ahead.popleft().result())
        for done in ahead:
            yield from self._smooth(done.result())
        if broken:
            raise broken

    def score_windows(self, cut: list[Window]) -> list[ScoredWindow]:
        """Windows of any recordings in one batch, in the same order; their scores are not smoothed."""
        apart = [_channels_apart(window) for window in cut]
        batch = [part for parts in apart for part in parts]
        scored = self._score(batch, [self.engine.front_end(part.samples) for part in batch])
        return _surest(scored, [len(parts) for parts in apart])

    def _smooth(self, scored: Iterable[ScoredWindow]) -> Iterator[ScoredWindow]:
        for window in scored:
            yield self._smoother.smooth(window)

    def _score_later(self, batch: list[Window], logmels: list[Future], channels: list[int]) -> list[ScoredWindow]:
        return _surest(self._score(batch, [logmel.result() for logmel in logmels]), channels)

    def _score(self, batch: list[Window], logmels: list[np.ndarray]) -> list[ScoredWindow]:
        scored: list[ScoredWindow | None] = [None] * len(batch)
        by_length = sorted(range(len(batch)), key=lambda i: len(logmels[i]))
        for _, same in groupby(by_length, key=lambda i: len(logmels[i])):
            same = list(same)
            embeddings = self.engine.embed(np.stack([logmels[i] for i in same]))
            scores, strange = self.detector.scores(embeddings), self.detector.unknown(embeddings)
            is_personal = isinstance(self.detector, PersonalDetector)
            resembled = self.detector.resembled(embeddings) if is_personal else np.zeros(len(same), int)
            for i, score, new, embedding, quiet in zip(same, scores, strange, embeddings, resembled, strict=True):
                silent = bool(np.ptp(batch[i].samples) < 2 * SILENCE_AMPLITUDE)  # or one value all along
                raw = 0.0 if silent else float(score)
                unknown, levels = bool(new) and not silent, self._new_levels(batch[i])
                quiet_for = 0 if silent else int(quiet)
                scored[i] = ScoredWindow(
                    batch[i].start, batch[i].end, raw, raw, embedding, unknown, silent, levels, quiet_for
                )  # fmt: skip
        return scored

    def _new_levels(self, window: Window) -> np.ndarray:
        """Loudness, dB, (frames, bands), of what the window before did not have: all of the first one, the rest of the last."""
        whole, hop = (max(1, round(seconds * SAMPLE_RATE)) for seconds in (self.window, self.hop))
        new = window.samples if window.start == 0 else window.samples[max(0, whole - hop) :]
        return loudness(new, round(len(new) / hop * frames_per_hop(self.hop)))


def _channels_apart(window: Window) -> list[Window]:
    """The window once for every channel with a sound of its own: a danger may be on any of them."""
    return [replace(window, samples=samples) for samples in distinct_channels(window.samples)]


def _surest(scored: list[ScoredWindow], channels: list[int]) -> list[ScoredWindow]:
    """Of each window's channels, which follow each other, the one that danger is heard on most surely."""
    following = iter(scored)
    return [max(islice(following, count), key=lambda channel: channel.raw_score) for count in channels]
