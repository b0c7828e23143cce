"""Embed clips in groups, each of which goes into the journal as a whole.

The clips of a group have equal length. Groups depend on the list of clips alone, so that a resumed run forms the same
ones: the last digits of an embedding depend on what it is batched with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from danger_safe.audio.decode import SAMPLE_RATE, WINDOW_S, AudioError, read_blocks
from danger_safe.core.cli import one_line
from danger_safe.core.errors import UserError
from danger_safe.embeddings.batches import Batch, BatchRunner, embed_by_length
from danger_safe.embeddings.journal import Journal, Result
from danger_safe.embeddings.plan import Task
from models.engine import Engine
from models.logmel import HOP_LENGTH

CLIP_S = 5.0  # length of the clips that --batch-size counts
MAX_GROUP_CLIPS = 128
MAX_AHEAD_S = 1_600.0  # sound decoded ahead of the network; 40 MB as log-mels


def group(tasks: Iterable[Task], batch_size: int) -> Iterator[list[Task]]:
    """Yield groups of clips whose headers state equal lengths, each as long as ``batch_size`` clips of five seconds.

    A recording longer than a window is a group of its own. Leaving out complete groups does not change the others.
    """
    waiting: dict[tuple[int, int], list[Task]] = {}
    for task in tasks:
        if task.seconds > WINDOW_S:
            yield [task]
            continue
        key = (task.frames, task.rate)
        members = waiting.setdefault(key, [])
        members.append(task)
        if len(members) >= clips_at_once(task.seconds or CLIP_S, batch_size):
            yield waiting.pop(key)
    yield from waiting.values()


def clips_at_once(seconds: float, batch_size: int) -> int:
    """Return how many clips of a length need as much memory as ``batch_size`` clips of five seconds."""
    return min(max(1, round(batch_size * CLIP_S / max(seconds, 0.1))), MAX_GROUP_CLIPS)


class Extractor:
    """Embeds groups of clips with one engine."""

    def __init__(self, engine: Engine, jobs: int, batch_size: int):
        """``jobs`` clips are decoded at once; a batch is as long as ``batch_size`` clips of five seconds."""
        self.engine, self.batch_size = engine, batch_size
        self._runner = BatchRunner(engine, jobs)
        self._limits = threadpool_limits(1, "blas")  # the network needs the cores that BLAS would take

    def close(self) -> None:
        """Stop decoding, as the end of a ``with`` block does. The engine stays open."""
        self._runner.close()
        self._limits.restore_original_limits()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def results(self, groups: Iterable[list[Task]]) -> Iterator[list[Result]]:
        """Yield the results of each group, in order; a clip that cannot be read has a reason but no embedding."""

        def as_batch(members: list[Task]) -> Batch[np.ndarray | AudioError | None, list[Result]]:
            seconds = sum(min(task.seconds, WINDOW_S) or CLIP_S for task in members)
            return Batch([partial(self._transform, task) for task in members], partial(self._embed, members), seconds)

        return self._runner.run(map(as_batch, groups), MAX_AHEAD_S)

    def _transform(self, task: Task) -> np.ndarray | AudioError | None:
        """Return the clip's log-mel, (frames, mel bins), or why it has none; None for a recording of many windows."""
        if task.seconds > WINDOW_S:
            return None
        try:
            blocks = read_blocks(task.clip.path, WINDOW_S)
            first = next(blocks)
            if next(blocks, None) is not None:  # longer than its header states
                return None
            return self.engine.front_end(first)
        except AudioError as error:
            return error

    def _embed(self, members: list[Task], transformed: list[np.ndarray | AudioError | None]) -> list[Result]:
        results: dict[Task, Result] = {}
        tasks: list[Task] = []
        logmels: list[np.ndarray] = []
        for task, logmel in zip(members, transformed, strict=True):
            if isinstance(logmel, AudioError):
                results[task] = Result(task.clip.file, task.signature, task.seconds, None, str(logmel))
            elif logmel is None:
                results[task] = self._embed_recording(task)
            else:
                tasks.append(task)
                logmels.append(logmel)
        embeddings = embed_by_length(self.engine, logmels, self._max_batch)
        for task, embedding in zip(tasks, embeddings, strict=True):
            if not np.isfinite(embedding).all():
                raise UserError(
                    f"{self.engine.info.name} gives embeddings that are no numbers (NaN or infinite), as for "
                    f"{task.clip.file}: its weights are damaged, or its training went wrong"
                )
            results[task] = Result(task.clip.file, task.signature, task.seconds, embedding)
        return [results[task] for task in members]

    def _max_batch(self, frames: int) -> int:
        """Return the largest batch for an actual number of frames, which may differ from the header's."""
        return clips_at_once(frames * HOP_LENGTH / SAMPLE_RATE, self.batch_size)

    def _embed_recording(self, task: Task) -> Result:
        """Average the embeddings of a recording's windows, weighted by length; the next window is decoded meanwhile."""
        windows = read_blocks(task.clip.path, WINDOW_S)

        def next_window() -> tuple[int, np.ndarray] | None:
            samples = next(windows, None)
            return None if samples is None else (len(samples), self.engine.front_end(samples))

        total, n_samples = np.zeros(self.engine.info.dimensions), 0
        try:
            waiting = self._runner.pool.submit(next_window)
            with tqdm(
                total=round(task.seconds), desc=one_line(task.clip.file), unit="s", file=sys.stderr, leave=False
            ) as bar:
                while (window := waiting.result()) is not None:
                    waiting = self._runner.pool.submit(next_window)
                    samples, logmel = window
                    total += self.engine.embed(logmel[None])[0].astype(np.float64) * samples
                    n_samples += samples
                    bar.update(samples // SAMPLE_RATE)
        except AudioError as error:  # the file breaks off
            return Result(task.clip.file, task.signature, task.seconds, None, str(error))
        mean = (total / n_samples).astype(np.float32)
        return Result(task.clip.file, task.signature, n_samples / SAMPLE_RATE, mean)


def embed_here(engine: Engine, tasks: list[Task], journal: Journal, jobs: int, batch_size: int) -> None:
    """Embed clips on this computer; every group of clips is in the journal as soon as it is done."""
    if not tasks:
        return
    print(f"Embedding with {engine.name}", flush=True)
    with Extractor(engine, jobs, batch_size) as extractor:
        record(extractor.results(group(tasks, batch_size)), len(tasks), journal)


def record(results: Iterable[list[Result]], clips: int, journal: Journal) -> None:
    """Add results to the journal as they come, with a progress bar."""
    with tqdm(total=clips, desc="Extracting", unit="clip", file=sys.stderr) as bar:
        for done in results:
            journal.add(done)
            bar.update(len(done))
