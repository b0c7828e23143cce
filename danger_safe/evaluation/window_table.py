"""A table's clips heard again, window by window, as predict_danger.py would hear them: for false alarms an hour.

    heard = hear_again(table, folds, sounds, checkpoint, minutes=20, jobs=2)

The safe clips of each fold are joined into one long stretch, so that a model that has seen none of that fold can be
tried on it; every danger is a recording of its own. Listening takes as long as embedding them did, or a little more: the
result is kept beside the table (``audio_embeddings_windows.npz``), and used again while embeddings, folds and network are the same.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import sha256

import numpy as np
from tqdm import tqdm

from danger_safe.audio.decode import AudioError, read_blocks
from danger_safe.core.cache import load_cache, save_cache
from danger_safe.core.errors import UserError
from danger_safe.core.paths import PathOrUrl
from danger_safe.data.clips import NO_FOLD, Clip
from danger_safe.data.soundscape import MAX_CLIP_S, Soundscape
from danger_safe.detection.scorer import HOP, WINDOW, Listener, NullDetector
from danger_safe.embeddings.journal import digest
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.embeddings.table_sounds import check_network
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import checkpoint_here, verified_sha256
from models.engine import open_engine

MAX_DANGERS = 400  # that are heard again: enough to state a fraction
ORDER = 0  # seed of the order in which safe clips are joined


@dataclass(frozen=True)
class Heard:
    """Windows, in the order in which they were heard. Arrays have one entry a window."""

    embeddings: np.ndarray  # float32, (windows, dimensions)
    start: np.ndarray  # seconds from the beginning of its stretch
    end: np.ndarray
    audible: np.ndarray  # whether anything was recorded
    stretch: np.ndarray  # number of the stretch that it is of
    clip: np.ndarray  # row in the table of the clip in its middle
    whole: np.ndarray  # whether it lies inside that clip


def hear_again(
    table: EmbeddingTable, folds: np.ndarray, sounds: list[PathOrUrl], checkpoint: str, minutes: float, jobs: int
) -> Heard:
    """Windows of at most ``minutes`` of safe sound, shared among the ``folds`` (one number a clip), and of the dangers.

    Raises UserError where a sound cannot be read any more, or the network is another than the table's.
    """
    check_network(table, checkpoint)
    rows = list(zip(table.clips["file"], table.labels.tolist(), folds.tolist(), strict=True))
    sounds_as_embedded = sha256(np.ascontiguousarray(table.features)).hexdigest()
    sha256_of_network = verified_sha256(checkpoint, checkpoint_here(checkpoint))
    key = digest([sha256_of_network, WINDOW, HOP, minutes, ORDER, MAX_DANGERS, rows, sounds_as_embedded])
    kept = side_file(table.path, "_windows.npz")
    content = load_cache(kept, key, [field.name for field in fields(Heard)])
    if content is not None and _fits(content, table):
        return _heard(content)
    clips = [
        Clip(str(row), sound, int(label), "", NO_FOLD, "")
        for row, (sound, label) in enumerate(zip(sounds, table.labels, strict=True))
    ]
    heard = _listen(checkpoint, list(_stretches(clips, folds, minutes)), jobs)
    content = {field.name: getattr(heard, field.name) for field in fields(Heard)}
    content["embeddings"] = heard.embeddings.astype(np.float16)
    save_cache(kept, key, content)
    return _heard(content)  # as it will be read, to the last bit


def _fits(content: dict[str, np.ndarray], table: EmbeddingTable) -> bool:
    """Whether the arrays are what ``_listen`` gives for this table: the file may be somebody else's."""
    windows, kinds = len(content["start"]), {"embeddings": "f"}
    kinds |= {"start": "f", "end": "f", "audible": "b", "stretch": "i", "clip": "i", "whole": "b"}
    clip, stretch = content["clip"], content["stretch"]
    return (
        all(
            content[name].dtype.kind == kind and content[name].ndim == (2 if name == "embeddings" else 1)
            and len(content[name]) == windows
            for name, kind in kinds.items()
        )
        and windows > 0
        and content["embeddings"].shape[1] == table.features.shape[1]
        and all(np.isfinite(content[name]).all() for name, kind in kinds.items() if kind == "f")
        and 0 <= clip.min() <= clip.max() < len(table.clips)
        and 0 <= stretch.min() <= stretch.max() < windows
    )  # fmt: skip


def _heard(content: dict[str, np.ndarray]) -> Heard:
    """From what is kept: embeddings in half precision."""
    return Heard(**(content | {"embeddings": content["embeddings"].astype(np.float32)}))


def _stretches(clips: list[Clip], folds: np.ndarray, minutes: float) -> Iterator[Soundscape]:
    """``folds`` has one number a clip."""
    rng = np.random.default_rng(ORDER)
    numbers = np.unique(folds)
    for fold in numbers:
        safe = [clips[i] for i in rng.permutation(np.flatnonzero(folds == fold)) if not clips[i].label]
        yield Soundscape(safe, minutes * 60 / len(numbers), as_recorded=True)
    dangers = [clip for clip in clips if clip.label]
    for i in sorted(rng.permutation(len(dangers))[:MAX_DANGERS]):
        yield Soundscape([dangers[i]], MAX_CLIP_S, as_recorded=True)


def _listen(checkpoint: str, stretches: list[Soundscape], jobs: int) -> Heard:
    columns: dict[str, list] = {field.name: [] for field in fields(Heard)}
    with (
        tqdm(stretches, "Listening to long stretches", unit="stretch", file=sys.stderr) as bar,
        open_engine(checkpoint, "auto", jobs) as engine,
        Listener(engine, NullDetector, WINDOW, HOP) as listener,
    ):
        for stretch, recording in enumerate(bar):
            for name, values in _hear(listener, stretch, recording).items():
                columns[name] += values
    return Heard(**{name: np.array(values) for name, values in columns.items()})


def _hear(listener: Listener, stretch: int, recording: Soundscape) -> dict[str, list]:
    """The fields of Heard for one stretch."""
    try:
        windows = list(listener.listen(recording.pieces()))
    except AudioError as error:
        raise UserError(f"{_culprit(recording)} {error}: it could be read when the table was made") from error
    rows = []
    for window in windows:
        middle = (window.start + window.end) / 2
        begin, end, clip = next(s for s in recording.background if middle < s[1] or s is recording.background[-1])
        whole = window.start >= begin and window.end <= end
        times, row = (window.start, window.end), int(clip.file)
        rows.append((window.embedding, *times, not window.silent, stretch, row, whole))
    return dict(zip((field.name for field in fields(Heard)), map(list, zip(*rows, strict=True)), strict=False))


def _culprit(recording: Soundscape) -> PathOrUrl:
    """The clip after the last one that could be heard."""
    for clip in recording.clips:
        try:
            next(read_blocks(clip.path, MAX_CLIP_S))
        except AudioError:
            return clip.path
    return recording.clips[0].path
