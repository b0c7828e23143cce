"""Batches of sounds through the engine: log-mels are made in threads ahead of the network, which never waits.

Clips (extractor.py) and windows (detection/scorer.py) go the same way; which of them share a batch is theirs to say.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from models.engine import Engine

Transformed = TypeVar("Transformed")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Batch(Generic[Transformed, Answer]):
    """Work for the threads and, after it, for the network."""

    transforms: Sequence[Callable[[], Transformed]]  # each makes a log-mel, or says why there is none
    finish: Callable[[list[Transformed]], Answer]  # gets what they made, and asks the network
    size: float  # how much of ``max_ahead`` it takes


class BatchRunner:
    """The threads of one engine."""

    def __init__(self, engine: Engine, jobs: int):
        """``jobs`` threads transform; the network gets as many batches at once as it can do."""
        self.engine = engine
        self.pool = ThreadPoolExecutor(jobs)
        self._network_pool = ThreadPoolExecutor(engine.max_concurrency)

    def close(self) -> None:
        """Stop. The engine stays open."""
        self._network_pool.shutdown(cancel_futures=True)
        self.pool.shutdown(cancel_futures=True)

    def run(self, batches: Iterable[Batch[Transformed, Answer]], max_ahead: float) -> Iterator[Answer]:
        """What each batch's ``finish`` returns, in order, while batches of at most ``max_ahead`` in all are on their
        way."""
        ahead: deque[tuple[Future[Answer], float]] = deque()
        waiting = 0.0
        for batch in batches:
            futures = [self.pool.submit(transform) for transform in batch.transforms]
            ahead.append((self._network_pool.submit(_finish, batch.finish, futures), batch.size))
            waiting += batch.size
            while waiting > max_ahead:
                done, size = ahead.popleft()
                yield done.result()
                waiting -= size
        for done, _ in ahead:
            yield done.result()


def _finish(finish: Callable[[list[Transformed]], Answer], futures: list[Future[Transformed]]) -> Answer:
    return finish([future.result() for future in futures])


def embed_by_length(
    engine: Engine, logmels: Sequence[np.ndarray], max_batch: Callable[[int], int] | None = None
) -> list[np.ndarray]:
    """The embedding, (dimensions,), of each log-mel, (frames, mel bins); those of one length go through together.

    ``max_batch``: of a number of frames, how many log-mels of that length the network may get at once; None: all.
    """
    by_length: dict[int, list[int]] = {}
    for number, logmel in enumerate(logmels):
        by_length.setdefault(len(logmel), []).append(number)
    embeddings: dict[int, np.ndarray] = {}
    for frames, numbers in by_length.items():
        size = max_batch(frames) if max_batch else len(numbers)
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            answer = engine.embed(np.stack([logmels[number] for number in part]))
            embeddings |= dict(zip(part, answer, strict=True))
    return [embeddings[number] for number in range(len(logmels))]
