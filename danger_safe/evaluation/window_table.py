"""A table's clips embedded again, window by window, as predict_danger.py hears them: for false alarms per hour.

    windows = embed_windows(table, folds, sounds, checkpoint, minutes=20, jobs=2)

The safe clips of each fold are joined into one long stretch, so that a model that has seen none of that fold can be
evaluated on it; every danger is a recording of its own. That takes as long as embedding the clips did, or a little
more: the result is kept beside the table (``audio_embeddings_windows.npz``), and used again while embeddings, folds and
network are the same.
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
from danger_safe.embeddings.table_sounds import check_same_network
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import local_checkpoint_path, verified_sha256
from models.engine import open_engine

MAX_DANGERS = 400  # that are heard again: enough to state a fraction
SHUFFLE_SEED = 0  # of the order in which safe clips are joined


@dataclass(frozen=True)
class WindowTable:
    """Windows, in the order in which they were heard. Arrays have one entry a window."""

    embeddings: np.ndarray  # float32, (windows, dimensions)
    start: np.ndarray  # seconds from the beginning of its stretch
    end: np.ndarray
    audible: np.ndarray  # whether anything was recorded
    soundscape: np.ndarray  # number of its soundscape
    clip: np.ndarray  # row in the table of the clip in its middle
    inside_clip: np.ndarray  # bool; whether it lies entirely inside that clip


def embed_windows(
    table: EmbeddingTable, folds: np.ndarray, sounds: list[PathOrUrl], checkpoint: str, minutes: float, jobs: int
) -> WindowTable:
    """Windows of at most ``minutes`` of safe sound, shared among the ``folds`` (one number a clip), and of the dangers.

    Raises UserError where a sound cannot be read any more, or the network is another than the table's.
    """
    check_same_network(table, checkpoint)
    rows = list(zip(table.clips["file"], table.labels.tolist(), folds.tolist(), strict=True))
    sounds_as_embedded = sha256(np.ascontiguousarray(table.features).data).hexdigest()
    sha256_of_network = verified_sha256(checkpoint, local_checkpoint_path(checkpoint))
    key = digest([sha256_of_network, WINDOW, HOP, minutes, SHUFFLE_SEED, MAX_DANGERS, rows, sounds_as_embedded])
    cache = side_file(table.path, "_windows.npz")
    content = load_cache(cache, key, [field.name for field in fields(WindowTable)])
    if content is not None and _fits(content, table):
        return _from_cache(content)
    clips = [
        Clip(str(row), sound, int(label), "", NO_FOLD, "")
        for row, (sound, label) in enumerate(zip(sounds, table.labels, strict=True))
    ]
    windows = _embed(checkpoint, list(_stretches(clips, folds, minutes)), jobs)
    content = {field.name: getattr(windows, field.name) for field in fields(WindowTable)}
    content["embeddings"] = windows.embeddings.astype(np.float16)
    save_cache(cache, key, content)
    return _from_cache(content)  # the next run reads these very bits


def _fits(content: dict[str, np.ndarray], table: EmbeddingTable) -> bool:
    """Whether the arrays are what ``_embed`` gives for this table: the file may be somebody else's."""
    windows, kinds = len(content["start"]), {"embeddings": "f"}
    kinds |= {"start": "f", "end": "f", "audible": "b", "soundscape": "i", "clip": "i", "inside_clip": "b"}
    clip, soundscape = content["clip"], content["soundscape"]
    return bool(
        all(
            content[name].dtype.kind == kind and content[name].ndim == (2 if name == "embeddings" else 1)
            and len(content[name]) == windows
            for name, kind in kinds.items()
        )
        and windows > 0
        and content["embeddings"].shape[1] == table.features.shape[1]
        and all(np.isfinite(content[name]).all() for name, kind in kinds.items() if kind == "f")
        and 0 <= clip.min() <= clip.max() < len(table.clips)
        and 0 <= soundscape.min() <= soundscape.max() < windows
        and (np.diff(soundscape) >= 0).all()
    )  # fmt: skip


def _from_cache(content: dict[str, np.ndarray]) -> WindowTable:
    """The cache keeps embeddings in half precision."""
    return WindowTable(**(content | {"embeddings": content["embeddings"].astype(np.float32)}))


def _stretches(clips: list[Clip], folds: np.ndarray, minutes: float) -> Iterator[Soundscape]:
    """``folds`` has one number a clip."""
    rng = np.random.default_rng(SHUFFLE_SEED)
    numbers = np.unique(folds)
    for fold in numbers:
        safe = [clips[i] for i in rng.permutation(np.flatnonzero(folds == fold)) if not clips[i].label]
        yield Soundscape(safe, minutes * 60 / len(numbers), as_recorded=True)
    dangers = [clip for clip in clips if clip.label]
    for i in sorted(rng.permutation(len(dangers))[:MAX_DANGERS]):
        yield Soundscape([dangers[i]], MAX_CLIP_S, as_recorded=True)


def _embed(checkpoint: str, stretches: list[Soundscape], jobs: int) -> WindowTable:
    columns: dict[str, list] = {field.name: [] for field in fields(WindowTable)}
    with (
        tqdm(stretches, "Listening to long stretches", unit="stretch", file=sys.stderr) as bar,
        open_engine(checkpoint, "auto", jobs) as engine,
        Listener(engine, NullDetector(), WINDOW, HOP) as listener,
    ):
        for stretch, recording in enumerate(bar):
            for name, values in _embed_stretch(listener, stretch, recording).items():
                columns[name] += values
    return WindowTable(**{name: np.array(values) for name, values in columns.items()})


def _embed_stretch(listener: Listener, stretch: int, recording: Soundscape) -> dict[str, list]:
    """The columns of a WindowTable for one stretch."""
    try:
        windows = list(listener.listen(recording.chunks()))
    except AudioError as error:
        raise UserError(f"{_culprit(recording)} {error}: it could be read when the table was made") from error
    rows = []
    for window in windows:
        middle = (window.start + window.end) / 2
        begin, end, clip = next(s for s in recording.background if middle < s[1] or s is recording.background[-1])
        whole = window.start >= begin and window.end <= end
        times, row = (window.start, window.end), int(clip.file)
        rows.append((window.embedding, *times, not window.is_silent, stretch, row, whole))
    return dict(zip((field.name for field in fields(WindowTable)), map(list, zip(*rows, strict=True)), strict=False))


def _culprit(recording: Soundscape) -> PathOrUrl:
    """The clip after the last one that could be heard."""
    for clip in recording.clips:
        try:
            next(read_blocks(clip.path, MAX_CLIP_S))
        except AudioError:
            return clip.path
    return recording.clips[0].path
