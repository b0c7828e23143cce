"""What the built-in detector learns from and is tried on: windows of sounds, as the network hears them."""

import csv
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from danger_safe.audio.decode import AUDIO_SUFFIXES, AudioError, read_clip
from danger_safe.audio.room_tone import CATEGORY, synthesize_room_tone
from danger_safe.audio.windows import ScoredWindow, Window, sliding_windows
from danger_safe.core import cli
from danger_safe.data.clips import read_clips
from danger_safe.detection.scorer import HOP_S, WINDOW_S, NullDetector, WindowScorer
from models.engine import open_engine

AUDIBLE_FRACTION = 0.1  # of a clip's peak: quieter windows of a clip do not hold what its name says
MAX_TAG_PROBABILITY = 0.15  # of a dangerous tag, by the teacher: an unlabelled sound with more of it is not called safe


@dataclass(frozen=True)
class Sound:
    """Something to listen to: a file, or synthetic room tone by its number."""

    path: Path | int
    category: str  # empty where nobody said
    collection: str  # what is left out together
    source: str  # the recording it was cut from

    def read(self) -> np.ndarray:
        """float32, mono, 32 kHz."""
        return synthesize_room_tone(self.path) if isinstance(self.path, int) else read_clip(self.path)


@dataclass(frozen=True)
class WindowSet:
    """All windows of a list of sounds, one after another."""

    windows: list[ScoredWindow]
    sound: np.ndarray  # (windows,) the number of the sound that each is of
    audible: np.ndarray  # (windows,) whether it is loud enough to hold what its sound is named for
    count: int  # of the sounds

    @property
    def embeddings(self) -> np.ndarray:
        """(windows, dimensions)"""
        return np.stack([window.embedding for window in self.windows])

    def followed_by(self, other: "WindowSet") -> "WindowSet":
        """These windows and those of other sounds, whose numbers go on after the last of these."""
        sound = np.concatenate([self.sound, other.sound + self.count])
        audible = np.concatenate([self.audible, other.audible])
        return WindowSet(self.windows + other.windows, sound, audible, self.count + other.count)


def labelled_sounds(folder: Path, same: dict[str, str]) -> list[Sound]:
    """The clips of a folder with their categories; collections by its clips.csv, else the folder itself."""
    rows = _rows(folder)
    return [
        Sound(
            Path(clip.path),
            same.get(clip.category, clip.category),
            rows.get(clip.file, {}).get("repo", folder.name),
            clip.source,
        )
        for clip in read_clips(folder)
    ]


def unlabelled_sounds(folder: Path) -> list[Sound]:
    """All sounds under a folder; collections by its clips.csv, else the folders directly in it."""
    rows = _rows(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    names = [(path, path.relative_to(folder)) for path in files]
    return [
        Sound(
            path,
            "",
            rows.get(name.as_posix(), {}).get("repo", name.parts[0]),
            rows.get(name.as_posix(), {}).get("path", name.as_posix()),
        )
        for path, name in names
    ]


def rooms(count: int) -> list[Sound]:
    """Synthetic quiet rooms, in which nothing happens."""
    return [Sound(number, CATEGORY, "synthetic rooms", f"room {number}") for number in range(count)]


def listen(checkpoint: str, sounds: list[Sound], hop: float = HOP_S) -> WindowSet:
    """Every window of every sound through a network."""
    peaks: list[float] = []
    owner: list[int] = []

    def all_windows() -> Iterator[Window]:
        for number, sound in enumerate(tqdm(sounds, f"Listening with {checkpoint}", unit="sound", file=sys.stderr)):
            try:
                samples = sound.read()
            except AudioError as error:
                cli.warn(f"{sound.path} {error}")
                continue
            loudest = max(float(np.abs(samples).max()), 1e-9)
            for window in sliding_windows([samples], WINDOW_S, hop):
                peaks.append(float(np.abs(window.samples).max()) / loudest)
                owner.append(number)
                yield window

    with (
        open_engine(checkpoint, "cpu", os.cpu_count() or 1) as engine,
        WindowScorer(engine, NullDetector(), WINDOW_S, hop) as scorer,
    ):
        heard = list(scorer.score(all_windows()))
    audible = (np.array(peaks) >= AUDIBLE_FRACTION) & ~np.array([window.is_silent for window in heard])
    return WindowSet(heard, np.array(owner), audible, len(sounds))


def without_dangers(teacher: str, sounds: list[Sound], dangerous_tags: list[int]) -> np.ndarray:
    """Whether the teacher hears nothing dangerous in any window of each sound, (sounds,)."""
    with open_engine(teacher, "cpu", 1) as engine:
        head = engine.head
    assert head is not None  # of a network that names tags
    heard = listen(teacher, sounds, hop=WINDOW_S)
    logits = head(heard.embeddings)[:, dangerous_tags].max(axis=1)
    safe = np.ones(len(sounds), bool)
    safe[heard.sound[logits > np.log(MAX_TAG_PROBABILITY / (1 - MAX_TAG_PROBABILITY))]] = False
    return safe


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a folder's clips.csv by file; none where it has no such table."""
    if not (folder / "clips.csv").is_file():
        return {}
    with open(folder / "clips.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
