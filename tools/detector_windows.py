"""Embedded windows of sounds, on which the built-in detector is trained and evaluated."""

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

MIN_PEAK_RATIO = 0.1  # of the sound's peak: quieter windows do not contain what the label says
MAX_DANGER_PROBABILITY = 0.15  # of any dangerous tag, by the teacher, in an unlabelled sound that is taken as safe


@dataclass(frozen=True)
class Sound:
    """A sound file, or synthetic room tone by its number."""

    path: Path | int
    category: str  # empty if unlabelled
    collection: str  # sounds of one collection are left out together
    source: str  # the recording that it was cut from

    def read(self) -> np.ndarray:
        """Return float32 mono samples at 32 kHz, (samples,)."""
        return synthesize_room_tone(self.path) if isinstance(self.path, int) else read_clip(self.path)


@dataclass(frozen=True)
class WindowSet:
    """The windows of a list of sounds, sound by sound."""

    windows: list[ScoredWindow]
    sound: np.ndarray  # (windows,) index of each window's sound
    is_audible: np.ndarray  # (windows,) whether the window is loud enough to contain what its sound is labelled
    count: int  # number of sounds

    @property
    def embeddings(self) -> np.ndarray:
        """(windows, dimensions)"""
        return np.stack([window.embedding for window in self.windows])

    def followed_by(self, other: "WindowSet") -> "WindowSet":
        """Return these windows and those of further sounds, whose indices continue after the last of these."""
        sound = np.concatenate([self.sound, other.sound + self.count])
        is_audible = np.concatenate([self.is_audible, other.is_audible])
        return WindowSet(self.windows + other.windows, sound, is_audible, self.count + other.count)


def labelled_sounds(folder: Path, same: dict[str, str]) -> list[Sound]:
    """List the clips of a folder with their categories.

    Args:
        folder: The folder; its clips.csv may name collections, otherwise the folder is one.
        same: Other names of categories.
    """
    rows = _read_rows(folder)
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
    """List all sounds below a folder; collections are those of its clips.csv, otherwise its subfolders."""
    rows = _read_rows(folder)
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


def room_tones(count: int) -> list[Sound]:
    """List synthetic room tones: quiet rooms in which nothing happens."""
    return [Sound(number, CATEGORY, "synthetic rooms", f"room {number}") for number in range(count)]


def embed_windows(checkpoint: str, sounds: list[Sound], hop_s: float = HOP_S) -> WindowSet:
    """Embed every window of every sound with a network. Sounds that cannot be read are left out with a warning.

    Args:
        checkpoint: Name or file of the network.
        sounds: The sounds.
        hop_s: Seconds from one window to the next.
    """
    peak_ratios: list[float] = []
    owner: list[int] = []

    def all_windows() -> Iterator[Window]:
        for number, sound in enumerate(tqdm(sounds, f"Listening with {checkpoint}", unit="sound", file=sys.stderr)):
            try:
                samples = sound.read()
            except AudioError as error:
                cli.warn(f"{sound.path} {error}")
                continue
            peak = max(float(np.abs(samples).max()), 1e-9)
            for window in sliding_windows([samples], WINDOW_S, hop_s):
                peak_ratios.append(float(np.abs(window.samples).max()) / peak)
                owner.append(number)
                yield window

    with (
        open_engine(checkpoint, "cpu", os.cpu_count() or 1) as engine,
        WindowScorer(engine, NullDetector(), WINDOW_S, hop_s) as scorer,
    ):
        windows = list(scorer.score(all_windows()))
    is_audible = (np.array(peak_ratios) >= MIN_PEAK_RATIO) & ~np.array([window.is_silent for window in windows])
    return WindowSet(windows, np.array(owner), is_audible, len(sounds))


def are_safe(teacher: str, sounds: list[Sound], dangerous_tags: list[int]) -> np.ndarray:
    """Return for each sound whether the teacher finds nothing dangerous in any of its windows, (sounds,) bool.

    Args:
        teacher: Name or file of a network with AudioSet's classes.
        sounds: The sounds.
        dangerous_tags: Numbers of the classes that are dangers.
    """
    with open_engine(teacher, "cpu", 1) as engine:
        head = engine.head
    assert head is not None, "the teacher needs AudioSet's classes"
    windows = embed_windows(teacher, sounds, hop_s=WINDOW_S)
    logits = head(windows.embeddings)[:, dangerous_tags].max(axis=1)
    is_safe = np.ones(len(sounds), bool)
    is_safe[windows.sound[logits > np.log(MAX_DANGER_PROBABILITY / (1 - MAX_DANGER_PROBABILITY))]] = False
    return is_safe


def _read_rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a folder's clips.csv by file; empty if there is none."""
    if not (folder / "clips.csv").is_file():
        return {}
    with open(folder / "clips.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
