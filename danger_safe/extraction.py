"""Clips through the engine: decoded in threads ahead of the network; one unreadable clip never stops the rest."""

import platform
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from danger_safe.audio import SAMPLE_RATE, AudioError, read_blocks
from danger_safe.clips import Clip
from danger_safe.table import INFO_COLUMNS
from models.checkpoints import CheckpointInfo
from models.engine import WINDOW_SECONDS, Engine

PACKAGES = ("torch", "torchlibrosa", "numpy", "soundfile", "soxr")
Failure = tuple[str, str]  # file, reason


def extract(
    clips: list[Clip], engine: Engine, seen: frozenset[str], batch_size: int, jobs: int
) -> tuple[pd.DataFrame, np.ndarray, list[Failure]]:
    """Embed ``clips``: the table's first columns, float32 features (clips, dimensions), and the failures.

    Rows keep the order of ``clips``. ``seen`` holds the names of clips that the network was trained on.
    """
    rows, features, failures = [], [], []
    batch: list[tuple[Clip, np.ndarray]] = []

    def finish_batch() -> None:
        if batch:
            features.append(engine.embed([samples for _, samples in batch]))
            rows.extend(clip for clip, _ in batch)
            batch.clear()

    with tqdm(total=len(clips), desc="Extracting", unit="clip", file=sys.stderr) as bar:
        for clip, samples in decode_ahead(clips, jobs, ahead=2 * batch_size):
            bar.update()
            if isinstance(samples, AudioError):
                failures.append((clip.file, str(samples)))
            elif isinstance(samples, Recording):
                finish_batch()
                try:
                    features.append(samples.embed(engine))
                    rows.append(clip)
                except AudioError as error:  # a long file that breaks off in the middle
                    failures.append((clip.file, str(error)))
            else:
                batch.append((clip, samples))
                if len(batch) == batch_size:
                    finish_batch()
        finish_batch()
    table = pd.DataFrame(
        [(c.file, c.label, c.category, c.fold, c.source, Path(c.file).name in seen) for c in rows],
        columns=list(INFO_COLUMNS),
    )
    values = np.concatenate(features) if features else np.empty((0, engine.dimensions), np.float32)
    return table, values, failures


class Recording:
    """A file longer than one window: it is read and embedded window by window, so that memory stays bounded."""

    def __init__(self, path: Path):
        self.path = path

    def embed(self, engine: Engine) -> np.ndarray:
        """(1, dimensions): the mean of its windows of 30 s, weighted by length; the last one may be short."""
        total, samples = np.zeros((1, engine.dimensions)), 0
        for block in read_blocks(self.path, WINDOW_SECONDS):
            total += engine.embed([block]) * len(block)
            samples += len(block)
        return (total / samples).astype(np.float32)


def decode_ahead(
    clips: list[Clip], jobs: int, ahead: int
) -> Iterator[tuple[Clip, np.ndarray | Recording | AudioError]]:
    """Each clip with its samples, in order, decoded by ``jobs`` threads at most ``ahead`` clips before it is needed."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = deque()
        for clip in clips:
            waiting.append((clip, pool.submit(_decode, clip.path)))
            if len(waiting) > ahead:
                first, samples = waiting.popleft()
                yield first, samples.result()
        for first, samples in waiting:
            yield first, samples.result()


def _decode(path: Path) -> np.ndarray | Recording | AudioError:
    try:
        blocks = read_blocks(path, WINDOW_SECONDS)
        first = next(blocks)
        return first if next(blocks, None) is None else Recording(path)
    except AudioError as error:
        return error


def describe(checkpoint: CheckpointInfo, engine: Engine, table: pd.DataFrame, failures: list[Failure]) -> dict:
    """audio_embeddings.json: how the table came to be. Nothing in it changes between equal runs."""
    return {
        "checkpoint": {"name": checkpoint.name, "sha256": checkpoint.sha256, "licence": checkpoint.licence},
        "sample_rate": SAMPLE_RATE,
        "settings": engine.model.settings | {"dimensions": engine.dimensions, "window_seconds": WINDOW_SECONDS},
        "engine": engine.name,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "counts": {
            "clips": len(table),
            "failures": len(failures),
            "danger": int((table["label"] == 1).sum()),
            "safe": int((table["label"] == 0).sum()),
            "seen": int(table["seen"].sum()),
        },
    }
