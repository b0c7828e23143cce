"""Embed a table's sounds again, in windows like those of predict_danger.py, to count false alarms per hour.

    windows = embed_windows(table, folds, sounds, checkpoint, minutes=20, jobs=2)

The safe clips of each fold are joined into one soundscape, which a model trained on the other folds can be evaluated
on; every dangerous clip is a soundscape of its own. Embedding them takes as long as extraction did: the result is
cached beside the table (``audio_embeddings_windows.npz``), for as long as embeddings, folds and network are the same.
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
from danger_safe.detection.scorer import HOP_S, WINDOW_S, NullDetector, WindowScorer
from danger_safe.embeddings.journal import digest
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.embeddings.table_sounds import check_same_network
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import local_checkpoint_path, verified_sha256
from models.engine import open_engine

MAX_DANGERS = 400  # dangerous clips; enough to estimate recall
SHUFFLE_SEED = 0  # seed of the order in which safe clips are joined


@dataclass(frozen=True)
class WindowTable:
    """Windows in order of soundscape and time. Arrays have one entry a window."""

    embeddings: np.ndarray  # float32, (windows, dimensions)
    start: np.ndarray  # seconds from the start of the soundscape
    end: np.ndarray  # seconds
    audible: np.ndarray  # bool; False for digital silence
    soundscape: np.ndarray  # number of the soundscape
    clip: np.ndarray  # the table's row of the clip at the window's middle
    inside_clip: np.ndarray  # bool; whether the window lies entirely inside that clip


def embed_windows(
    table: EmbeddingTable, folds: np.ndarray, sounds: list[PathOrUrl], checkpoint: str, minutes: float, jobs: int
) -> WindowTable:
    """Return the windows of safe soundscapes and of dangerous clips, from the cache if it has them.

    Raises UserError if a sound can no longer be read, or the network is not the one that the table was made with.

    Args:
        table: the clips.
        folds: (clips,), the fold that each clip is held out in.
        sounds: the file of each clip.
        checkpoint: name or path of the network.
        minutes: length of the safe soundscapes at most, all folds together.
        jobs: number of processor cores.
    """
    check_same_network(table, checkpoint)
    rows = list(zip(table.clips["file"], table.labels.tolist(), folds.tolist(), strict=True))
    features_sha256 = sha256(np.ascontiguousarray(table.features).data).hexdigest()
    network_sha256 = verified_sha256(checkpoint, local_checkpoint_path(checkpoint))
    key = digest([network_sha256, WINDOW_S, HOP_S, minutes, SHUFFLE_SEED, MAX_DANGERS, rows, features_sha256])
    cache = side_file(table.path, "_windows.npz")
    arrays = load_cache(cache, key, [field.name for field in fields(WindowTable)])
    if arrays is not None and _is_valid(arrays, table):
        return _from_cache(arrays)
    clips = [
        Clip(str(row), sound, int(label), "", NO_FOLD, "")
        for row, (sound, label) in enumerate(zip(sounds, table.labels, strict=True))
    ]
    windows = _embed(checkpoint, list(_soundscapes(clips, folds, minutes)), jobs)
    arrays = {field.name: getattr(windows, field.name) for field in fields(WindowTable)}
    arrays["embeddings"] = windows.embeddings.astype(np.float16)
    save_cache(cache, key, arrays)
    return _from_cache(arrays)  # rounded, as the next run will read them


def _is_valid(arrays: dict[str, np.ndarray], table: EmbeddingTable) -> bool:
    """Whether cached arrays could be those of this table: anybody may have written the file."""
    windows, kinds = len(arrays["start"]), {"embeddings": "f"}
    kinds |= {"start": "f", "end": "f", "audible": "b", "soundscape": "i", "clip": "i", "inside_clip": "b"}
    clip, soundscape = arrays["clip"], arrays["soundscape"]
    return bool(
        all(
            arrays[name].dtype.kind == kind and arrays[name].ndim == (2 if name == "embeddings" else 1)
            and len(arrays[name]) == windows
            for name, kind in kinds.items()
        )
        and windows > 0
        and arrays["embeddings"].shape[1] == table.features.shape[1]
        and all(np.isfinite(arrays[name]).all() for name, kind in kinds.items() if kind == "f")
        and 0 <= clip.min() <= clip.max() < len(table.clips)
        and 0 <= soundscape.min() <= soundscape.max() < windows
        and (np.diff(soundscape) >= 0).all()
    )  # fmt: skip


def _from_cache(arrays: dict[str, np.ndarray]) -> WindowTable:
    """Return a WindowTable of cached arrays, whose embeddings are in half precision."""
    return WindowTable(**(arrays | {"embeddings": arrays["embeddings"].astype(np.float32)}))


def _soundscapes(clips: list[Clip], folds: np.ndarray, minutes: float) -> Iterator[Soundscape]:
    """Yield one soundscape of safe clips per fold, then dangerous clips one by one; ``folds``: (clips,)."""
    rng = np.random.default_rng(SHUFFLE_SEED)
    numbers = np.unique(folds)
    for fold in numbers:
        safe = [clips[i] for i in rng.permutation(np.flatnonzero(folds == fold)) if not clips[i].label]
        yield Soundscape(safe, minutes * 60 / len(numbers), as_recorded=True)
    dangers = [clip for clip in clips if clip.label]
    for i in sorted(rng.permutation(len(dangers))[:MAX_DANGERS]):
        yield Soundscape([dangers[i]], MAX_CLIP_S, as_recorded=True)


def _embed(checkpoint: str, soundscapes: list[Soundscape], jobs: int) -> WindowTable:
    columns: dict[str, list] = {field.name: [] for field in fields(WindowTable)}
    with (
        tqdm(soundscapes, "Listening to long stretches", unit="stretch", file=sys.stderr) as bar,
        open_engine(checkpoint, "auto", jobs) as engine,
        WindowScorer(engine, NullDetector(), WINDOW_S, HOP_S) as scorer,
    ):
        for number, soundscape in enumerate(bar):
            for name, values in _embed_soundscape(scorer, number, soundscape).items():
                columns[name] += values
    return WindowTable(**{name: np.array(values) for name, values in columns.items()})


def _embed_soundscape(scorer: WindowScorer, number: int, soundscape: Soundscape) -> dict[str, list]:
    """Return the columns of a WindowTable for one soundscape."""
    try:
        windows = list(scorer.score_recording(soundscape.chunks()))
    except AudioError as error:
        raise UserError(f"{_unreadable(soundscape)} {error}: it could be read when the table was made") from error
    rows = []
    for window in windows:
        middle = (window.start + window.end) / 2
        start, end, clip = next(b for b in soundscape.background if middle < b[1] or b is soundscape.background[-1])
        inside_clip = window.start >= start and window.end <= end
        times, row = (window.start, window.end), int(clip.file)
        rows.append((window.embedding, *times, not window.is_silent, number, row, inside_clip))
    return dict(zip((field.name for field in fields(WindowTable)), map(list, zip(*rows, strict=True)), strict=False))


def _unreadable(soundscape: Soundscape) -> PathOrUrl:
    """Return the first clip that cannot be read."""
    for clip in soundscape.clips:
        try:
            next(read_blocks(clip.path, MAX_CLIP_S))
        except AudioError:
            return clip.path
    return soundscape.clips[0].path
