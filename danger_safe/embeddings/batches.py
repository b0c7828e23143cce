"""Run batches of sounds through the engine: threads compute log-mels ahead, so that the network never waits.

Both clips (extractor.py) and windows (detection/scorer.py) are embedded this way; they decide what shares a batch.
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
    """Work for the threads and, afterwards, for the network."""

    transforms: Sequence[Callable[[], Transformed]]  # each computes a log-mel, or returns why there is none
    finish: Callable[[list[Transformed]], Answer]  # runs the network on the transforms' results
    size: float  # counts towards ``max_ahead``


class BatchRunner:
    """The thread pools of one engine."""

    def __init__(self, engine: Engine, jobs: int):
        """``jobs`` threads compute log-mels; the network gets as many batches at once as it can process."""
        self.engine = engine
        self.pool = ThreadPoolExecutor(jobs)
        self._network_pool = ThreadPoolExecutor(engine.max_concurrency)

    def close(self) -> None:
        """Stop the threads. The engine stays open."""
        self._network_pool.shutdown(cancel_futures=True)
        self.pool.shutdown(cancel_futures=True)

    def run(self, batches: Iterable[Batch[Transformed, Answer]], max_ahead: float) -> Iterator[Answer]:
        """Yield what each batch's ``finish`` returns, in order; at most ``max_ahead`` in total size is in progress."""
        pending: deque[tuple[Future[Answer], float]] = deque()
        pending_size = 0.0
        for batch in batches:
            futures = [self.pool.submit(transform) for transform in batch.transforms]
            pending.append((self._network_pool.submit(_finish, batch.finish, futures), batch.size))
            pending_size += batch.size
            while pending_size > max_ahead:
                done, size = pending.popleft()
                yield done.result()
                pending_size -= size
        for done, _ in pending:
            yield done.result()


def _finish(finish: Callable[[list[Transformed]], Answer], futures: list[Future[Transformed]]) -> Answer:
    return finish([future.result() for future in futures])


def embed_by_length(
    engine: Engine, logmels: Sequence[np.ndarray], max_batch: Callable[[int], int] | None = None
) -> list[np.ndarray]:
    """Return the embedding, (dimensions,), of each log-mel, (frames, mel bins). Those of equal length share batches.

    ``max_batch``: returns the largest batch for a number of frames; None: no limit.
    """
    by_length: dict[int, list[int]] = {}
    for number, logmel in enumerate(logmels):
        by_length.setdefault(len(logmel), []).append(number)
    embeddings: dict[int, np.ndarray] = {}
    for frames, numbers in by_length.items():
        size = max_batch(frames) if max_batch else len(numbers)
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            embedded = engine.embed(np.stack([logmels[number] for number in batch]))
            embeddings |= dict(zip(batch, embedded, strict=True))
    return [embeddings[number] for number in range(len(logmels))]
