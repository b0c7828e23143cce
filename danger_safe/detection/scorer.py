"""A recording through network and detector: scores of overlapping windows, in order, while it is read."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, distinct_channels
from danger_safe.audio.windows import FAST_MARGIN, FAST_SMOOTHING_S, SMOOTHING_S, ScoredWindow, Window, sliding_windows
from danger_safe.detection.detector import Detector, OperatingPoint
from danger_safe.detection.onset import frames_per_hop, loudness
from danger_safe.detection.personal import PersonalDetector
from danger_safe.embeddings.batches import Batch, BatchRunner, embed_by_length
from models.engine import Engine

WINDOW, HOP = 3.0, 0.5  # seconds, where nobody says otherwise: how they were chosen is in benchmarks/detector.md
# Of full scale, -60 dB or 33 steps of 16 bits: what never gets louder is silence (benchmarks/detector.md).
SILENCE_AMPLITUDE = 1e-3
BATCH_SECONDS = 60.0  # of sound in one batch of the network


class Smoother:
    """The running mean of a recording's window scores over SMOOTHING_S, or that over FAST_SMOOTHING_S less FAST_MARGIN
    where that is higher. It starts anew with each recording."""

    def __init__(self, hop: float):
        self._newest = max(1, round(FAST_SMOOTHING_S / hop))
        self._last: deque[float] = deque(maxlen=max(1, round(SMOOTHING_S / hop)))

    def smooth(self, window: ScoredWindow) -> ScoredWindow:
        """The window, the next one of its recording, with its smoothed score."""
        return replace(window, smoothed_score=self.add(window.start, window.raw_score))

    def add(self, start: float, score: float) -> float:
        """The smoothed score at the window that begins at ``start`` seconds, whose own score is ``score``."""
        if start == 0:
            self._last.clear()
        self._last.append(score)
        newest = list(self._last)[-self._newest :]
        return max(sum(self._last) / len(self._last), sum(newest) / len(newest) - FAST_MARGIN)


class NullDetector:
    """In a detector's place where only the embeddings are wanted: whatever is heard scores 1, silence 0."""

    name, threshold, measured_minutes = "no detector", 1.0, 0.0

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """None is measured."""
        return []

    @staticmethod
    def tags(embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Nothing is named."""
        return ()

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
        self._runner = BatchRunner(engine, engine.max_concurrency)

    def close(self) -> None:
        """Stop; a ``with`` block does so. The engine stays open."""
        self._runner.close()

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def listen(self, pieces: Iterable[np.ndarray], live: bool = False) -> Iterator[ScoredWindow]:
        """The scored windows of a recording. ``live``: each as soon as it is heard, else many at a time."""
        cut = sliding_windows(pieces, self.window, self.hop)
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
        broken: list[AudioError] = []
        batches = self._batches(cut, broken)
        for scored in self._runner.run(batches, max_ahead=2 * self.engine.max_concurrency):
            yield from self._smooth(scored)
        if broken:
            raise broken[0]

    def _batches(
        self, cut: Iterable[Window], broken: list[AudioError]
    ) -> Iterator[Batch[np.ndarray, list[ScoredWindow]]]:
        """About BATCH_SECONDS of windows at a time; ``broken`` gets the error where a recording breaks off."""
        size = max(1, round(BATCH_SECONDS / self.window))
        cut = iter(cut)
        while not broken:
            parts: list[Window] = []  # of the windows, each channel that has a sound of its own
            channels: list[int] = []  # of each window: how many of ``parts`` are its
            try:
                for window in cut:
                    parts += (apart := _channels_apart(window))
                    channels.append(len(apart))
                    if len(parts) >= size:
                        break
            except AudioError as error:
                broken.append(error)
            if not parts:
                return
            transforms = [partial(self.engine.front_end, part.samples) for part in parts]
            yield Batch(transforms, partial(self._score_channels, parts, channels), 1.0)

    def score_windows(self, cut: list[Window]) -> list[ScoredWindow]:
        """Windows of any recordings in one batch, in the same order; their scores are not smoothed."""
        apart = [_channels_apart(window) for window in cut]
        batch = [part for parts in apart for part in parts]
        scored = self._score(batch, [self.engine.front_end(part.samples) for part in batch])
        return _surest(scored, [len(parts) for parts in apart])

    def _smooth(self, scored: Iterable[ScoredWindow]) -> Iterator[ScoredWindow]:
        for window in scored:
            yield self._smoother.smooth(window)

    def _score_channels(
        self, parts: list[Window], channels: list[int], logmels: list[np.ndarray]
    ) -> list[ScoredWindow]:
        return _surest(self._score(parts, logmels), channels)

    def _score(self, batch: list[Window], logmels: list[np.ndarray]) -> list[ScoredWindow]:
        if not batch:
            return []
        embeddings = np.stack(embed_by_length(self.engine, logmels))
        scores, unknowns = self.detector.scores(embeddings), self.detector.unknown(embeddings)
        matches = np.zeros(len(batch), int)
        if isinstance(self.detector, PersonalDetector):
            matches = self.detector.count_matches(embeddings)
        scored = []
        for window, score, unknown, embedding, count in zip(batch, scores, unknowns, embeddings, matches, strict=True):
            silent = bool(np.ptp(window.samples) < 2 * SILENCE_AMPLITUDE)  # a constant offset is silence, too
            raw_score = 0.0 if silent else float(score)
            scored.append(
                ScoredWindow(
                    window.start,
                    window.end,
                    raw_score,
                    smoothed_score=raw_score,
                    embedding=embedding,
                    is_unknown=bool(unknown) and not silent,
                    is_silent=silent,
                    band_levels=self._new_levels(window),
                    similar_false_alarms=0 if silent else int(count),
                )
            )
        return scored

    def _new_levels(self, window: Window) -> np.ndarray:
        """Loudness, dB, (frames, bands), of what the window before did not have: all of the first one, the rest of the
        last."""
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
