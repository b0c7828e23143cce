"""Scores recordings: overlapping windows through the network and the detector, in order, while they are being read."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, distinct_channels
from danger_safe.audio.windows import FAST_MARGIN, FAST_SMOOTHING_S, SMOOTHING_S, ScoredWindow, Window, sliding_windows
from danger_safe.detection.detector import Detector, OperatingPoint
from danger_safe.detection.onset import band_levels, frames_per_hop
from danger_safe.detection.personal import PersonalDetector
from danger_safe.embeddings.batches import Batch, BatchRunner, embed_by_length
from models.engine import Engine

WINDOW_S, HOP_S = 3.0, 0.5  # seconds, the defaults; benchmarks/detector.md says how they were chosen
SILENCE_AMPLITUDE = 1e-3  # of full scale: -60 dB; a window that is never louder is silence (benchmarks/detector.md)
BATCH_S = 60.0  # seconds of sound in one batch of the network


class Smoother:
    """Smooths the scores of a recording's windows; starts anew with each recording.

    The smoothed score is the running mean over SMOOTHING_S, or the one over FAST_SMOOTHING_S minus FAST_MARGIN if that
    is higher.
    """

    def __init__(self, hop_s: float):
        self._fast_count = max(1, round(FAST_SMOOTHING_S / hop_s))
        self._scores: deque[float] = deque(maxlen=max(1, round(SMOOTHING_S / hop_s)))

    def smooth(self, window: ScoredWindow) -> ScoredWindow:
        """Return the next window of a recording with its smoothed score."""
        return replace(window, smoothed_score=self.add(window.start, window.raw_score))

    def add(self, start: float, raw_score: float) -> float:
        """Return the smoothed score of the next window, which begins at ``start`` seconds; 0 begins a recording."""
        if start == 0:
            self._scores.clear()
        self._scores.append(raw_score)
        newest = list(self._scores)[-self._fast_count :]
        return max(sum(self._scores) / len(self._scores), sum(newest) / len(newest) - FAST_MARGIN)


class NullDetector:
    """Takes a detector's place when only the embeddings are wanted: everything scores 1, silence 0."""

    name, threshold, measured_minutes = "no detector", 1.0, 0.0

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """Empty: none was measured."""
        return []

    @staticmethod
    def tags(embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return no tags."""
        return ()

    @staticmethod
    def scores(embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> 1, (windows,)."""
        return np.ones(len(embeddings))

    @staticmethod
    def unknown(embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> False, (windows,)."""
        return np.zeros(len(embeddings), bool)


class WindowScorer:
    """Scores the windows of recordings with one engine and one detector."""

    def __init__(self, engine: Engine, detector: Detector, window_s: float, hop_s: float):
        """Start the threads.

        Args:
            engine: Makes the embeddings.
            detector: Scores them.
            window_s: Length of windows in seconds.
            hop_s: Seconds from one window to the next.
        """
        self.engine, self.detector, self.window_s, self.hop_s = engine, detector, window_s, hop_s
        self._smoother = Smoother(hop_s)
        self._runner = BatchRunner(engine, engine.max_concurrency)

    def close(self) -> None:
        """Stop the threads, as a ``with`` block does. The engine stays open."""
        self._runner.close()

    def __enter__(self) -> "WindowScorer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def score_recording(self, chunks: Iterable[np.ndarray], is_live: bool = False) -> Iterator[ScoredWindow]:
        """Yield the scored windows of a recording: of a live one each as soon as it is complete, else in batches."""
        windows = sliding_windows(chunks, self.window_s, self.hop_s)
        if not is_live:
            yield from self.score(windows)
            return
        for window in windows:
            yield from self._smooth(self.score_batch([window]))

    def score(self, windows: Iterable[Window]) -> Iterator[ScoredWindow]:
        """Yield the windows of any recordings, one after another, with their scores, computed in batches.

        Raises AudioError if a recording breaks off, after the windows before that.
        """
        errors: list[AudioError] = []
        batches = self._batches(windows, errors)
        for scored in self._runner.run(batches, max_ahead=2 * self.engine.max_concurrency):
            yield from self._smooth(scored)
        if errors:
            raise errors[0]

    def score_batch(self, windows: list[Window]) -> list[ScoredWindow]:
        """Score windows of any recordings in one batch. Their scores are not smoothed."""
        by_window = [_split_channels(window) for window in windows]
        channels = [channel for split in by_window for channel in split]
        scored = self._score(channels, [self.engine.front_end(channel.samples) for channel in channels])
        return _max_over_channels(scored, [len(split) for split in by_window])

    def _batches(
        self, windows: Iterable[Window], errors: list[AudioError]
    ) -> Iterator[Batch[np.ndarray, list[ScoredWindow]]]:
        """Yield batches of about BATCH_S of sound; the error of a recording that breaks off is added to ``errors``."""
        size = max(1, round(BATCH_S / self.window_s))
        windows = iter(windows)
        while not errors:
            channels: list[Window] = []
            counts: list[int] = []  # how many of ``channels`` belong to each window
            try:
                for window in windows:
                    channels += (split := _split_channels(window))
                    counts.append(len(split))
                    if len(channels) >= size:
                        break
            except AudioError as error:
                errors.append(error)
            if not channels:
                return
            transforms = [partial(self.engine.front_end, channel.samples) for channel in channels]
            yield Batch(transforms, partial(self._score_channels, channels, counts), 1.0)

    def _smooth(self, windows: Iterable[ScoredWindow]) -> Iterator[ScoredWindow]:
        for window in windows:
            yield self._smoother.smooth(window)

    def _score_channels(
        self, channels: list[Window], counts: list[int], logmels: list[np.ndarray]
    ) -> list[ScoredWindow]:
        return _max_over_channels(self._score(channels, logmels), counts)

    def _score(self, windows: list[Window], logmels: list[np.ndarray]) -> list[ScoredWindow]:
        """Score windows of one channel each from their log-mels."""
        if not windows:
            return []
        embeddings = np.stack(embed_by_length(self.engine, logmels))
        scores, unknowns = self.detector.scores(embeddings), self.detector.unknown(embeddings)
        matches = np.zeros(len(windows), int)
        if isinstance(self.detector, PersonalDetector):
            matches = self.detector.count_matches(embeddings)
        scored = []
        for window, score, unknown, embedding, count in zip(
            windows, scores, unknowns, embeddings, matches, strict=True
        ):
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
        """Return the band levels, (frames, bands) in dB, of the sound that the window before did not have."""
        window_size, hop_size = (max(1, round(seconds * SAMPLE_RATE)) for seconds in (self.window_s, self.hop_s))
        new = window.samples if window.start == 0 else window.samples[max(0, window_size - hop_size) :]
        return band_levels(new, round(len(new) / hop_size * frames_per_hop(self.hop_s)))


def _split_channels(window: Window) -> list[Window]:
    """Return a window for each channel that differs from the others: a danger may be on any of them."""
    return [replace(window, samples=samples) for samples in distinct_channels(window.samples)]


def _max_over_channels(scored: list[ScoredWindow], counts: list[int]) -> list[ScoredWindow]:
    """Return the highest-scoring channel of each window; ``counts`` are the numbers of channels, in order."""
    channels = iter(scored)
    return [max(islice(channels, count), key=lambda channel: channel.raw_score) for count in counts]
