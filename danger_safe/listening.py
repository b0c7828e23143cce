"""A recording through network and detector: scores of overlapping windows, in order, while it is read."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

import numpy as np

from danger_safe.detector import Detector
from danger_safe.events import Scored
from danger_safe.windows import Window, windows
from models.engine import Engine

WINDOW, HOP = 3.0, 0.5  # seconds, where nobody says otherwise: how they were chosen is in benchmarks/detector.md
BATCH_SECONDS = 60.0  # of sound in one batch of the network


class Listener:
    """Scores recordings with one engine and one detector."""

    def __init__(self, engine: Engine, detector: Detector, window: float, hop: float):
        """``window`` and ``hop`` are in seconds."""
        self.engine, self.detector, self.window, self.hop = engine, detector, window, hop
        self._pool = ThreadPoolExecutor(engine.lanes)
        self._lanes = ThreadPoolExecutor(engine.lanes)

    def close(self) -> None:
        """Stop; a ``with`` block does so. The engine stays open."""
        self._lanes.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def listen(self, pieces: Iterable[np.ndarray], live: bool = False) -> Iterator[Scored]:
        """The scored windows of a recording. ``live``: each as soon as it is heard, else many at a time."""
        cut = windows(pieces, self.window, self.hop)
        if not live:
            yield from self.score(cut)
            return
        for window in cut:
            yield from self._score([window], [self.engine.front_end(window.samples)])

    def score(self, cut: Iterable[Window]) -> Iterator[Scored]:
        """Windows of any recordings with their scores, in the same order, many at a time."""
        size = max(1, round(BATCH_SECONDS / self.window))
        ahead: deque[Future] = deque()
        cut = iter(cut)
        while batch := list(islice(cut, size)):
            logmels = [self._pool.submit(self.engine.front_end, window.samples) for window in batch]
            ahead.append(self._lanes.submit(self._score_later, batch, logmels))
            if len(ahead) > 2 * self.engine.lanes:
                yield from ahead.popleft().result()
        for done in ahead:
            yield from done.result()

    def _score_later(self, batch: list[Window], logmels: list[Future]) -> list[Scored]:
        return self._score(batch, [logmel.result() for logmel in logmels])

    def _score(self, batch: list[Window], logmels: list[np.ndarray]) -> list[Scored]:
        scored: list[Scored | None] = [None] * len(batch)
        by_length = sorted(range(len(batch)), key=lambda i: len(logmels[i]))
        for _, same in groupby(by_length, key=lambda i: len(logmels[i])):
            same = list(same)
            embeddings = self.engine.embed(np.stack([logmels[i] for i in same]))
            for i, score, embedding in zip(same, self.detector.scores(embeddings), embeddings, strict=True):
                scored[i] = Scored(batch[i].start, batch[i].end, float(score), embedding)
        return scored
