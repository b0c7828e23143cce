"""From verdicts.jsonl to what the detector has learnt: ``learnt.npz`` beside it, made anew whenever a verdict is added.

The windows that were kept with an event are learnt from where they are of the present network. After an update of the
network they are not: then the event's sound is heard again, where it was kept. ``forget`` goes back.
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from danger_safe.audio.decode import AudioError, read_channels
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite
from danger_safe.detection.detector import BuiltinDetector
from danger_safe.detection.personal import (
    Learnt,
    LearntVerdict,
    PersonalDetector,
    load_learnt,
    personal_detector,
    surest_windows,
)
from danger_safe.detection.scorer import Listener
from danger_safe.live.verdicts import FILE, RIGHT, WINDOWS_FOLDER, Verdict, load_windows, read_verdicts

LEARNT_FILE = "learnt.npz"  # beside verdicts.jsonl
MAX_VERDICTS = 300  # the newest


class Learner:
    """Learns from a folder's verdicts, and knows when there are new ones."""

    def __init__(self, folder: Path, builtin: BuiltinDetector, listener: Listener):
        """``listener`` hears kept sounds again, with the network of ``builtin``."""
        self._folder, self._builtin, self._listener = folder, builtin, listener
        self._verdicts, self._learnt = folder / FILE, folder / LEARNT_FILE
        self._detector: PersonalDetector | None = None  # as it has learnt last
        self._seen: tuple[int, int] | None = None  # size and time of the verdicts that were learnt from
        self._awaited: list[
            Path
        ] = []  # files of verdicts that could not be learnt from: an event's are written seconds later

    @property
    def has_news(self) -> bool:
        """Whether the verdicts are others than those that were learnt from last, or more is there of their events."""
        return _state(self._verdicts) != self._seen or any(path.exists() for path in self._awaited)

    def learn(self, say: Callable[[str], None]) -> BuiltinDetector:
        """The detector as all verdicts have changed it. ``save`` keeps that.

        Raises UserError where the verdicts cannot be read.
        """
        self._seen = _state(self._verdicts)
        verdicts = list(read_verdicts(self._verdicts).values())[-MAX_VERDICTS:]
        known = self._known()
        kept, rows, self._awaited = [], [], []
        for verdict in verdicts:
            embeddings = known.get(verdict.event)
            if embeddings is None:
                embeddings = self._embeddings(verdict)
            if embeddings is not None and len(embeddings):
                kept.append(verdict)
                rows.append(embeddings)
            else:
                self._awaited += [path for path in self._files(verdict) if path is not None and not path.exists()]
        if lost := len(verdicts) - len(kept):
            say(
                f"{_count(lost, 'verdict')} cannot be learnt from by now: the event's windows are of another network "
                f"or not "
                "there, and its sound was not kept or is gone"
            )
        self._detector = None
        if not kept:
            return self._builtin
        owner = np.repeat(np.arange(len(rows), dtype=np.int32), [len(embeddings) for embeddings in rows])
        learnt = Learnt(
            self._builtin.checkpoint_sha256, tuple(map(_learnt_verdict, kept)), np.concatenate(rows), owner
        )  # fmt: skip
        self._detector = personal_detector(self._builtin, learnt).within_bounds()
        say(report(self._detector))
        return self._detector

    def save(self) -> None:
        """Write what was learnt as ``learnt.npz``, or remove it where that is nothing. Raises UserError or OSError."""
        if self._detector:
            self._detector.learnt.save(self._learnt)
        elif self._learnt.exists():
            check_overwrite(self._learnt)
            self._learnt.unlink()

    def _known(self) -> dict[str, np.ndarray]:
        """What was learnt from before, by event."""
        try:
            learnt = load_learnt(self._learnt)
            personal_detector(self._builtin, learnt)  # of this network
        except UserError:
            return {}
        return {v.event: learnt.embeddings[learnt.owner == n] for n, v in enumerate(learnt.verdicts)}

    def _files(self, verdict: Verdict) -> tuple[Path | None, Path | None]:
        """Where the event's windows and its sound are, or will be: a verdict may be given before they are written."""
        windows = verdict.embeddings
        if windows is None and Path(verdict.event).name == verdict.event:
            windows = f"{WINDOWS_FOLDER}/{verdict.event}.npz"
        files = [None if name is None else self._folder / name for name in (windows, verdict.sound)]
        return files[0], files[1]

    def _embeddings(self, verdict: Verdict) -> np.ndarray | None:
        """(windows, dimensions) float16, of the event's surest windows; None where nothing of it is left."""
        embeddings, (windows_file, sound) = None, self._files(verdict)
        if windows_file is not None:
            try:
                windows = load_windows(windows_file)
                if windows.checkpoint_sha256 == self._builtin.checkpoint_sha256:
                    embeddings = windows.embeddings
            except UserError:  # its sound may still be there
                pass
        if embeddings is None and sound is not None:
            try:
                heard = self._listener.listen(read_channels(sound))
                embeddings = np.array([window.embedding for window in heard if not window.is_silent])
            except (AudioError, OSError):
                pass
        if embeddings is None or not len(embeddings) or embeddings.shape[1:] != self._builtin.centres.shape[1:]:
            return None
        return surest_windows(self._builtin, embeddings)


def report(detector: PersonalDetector) -> str:
    """How many verdicts a detector has learnt from and what they change on the shipped evaluation, in a line."""
    learnt = detector.learnt
    right = sum(verdict.is_right for verdict in learnt.verdicts)
    counts = f"{_count(len(learnt.verdicts) - right, 'false alarm')}, {right} right"
    words = f"{learnt.words} ({counts}): {detector.change.words}"
    if learnt.strength < 1:
        words += f"; held back to {learnt.strength:.0%}, for more would lose dangers: were all of these false alarms?"
    return words


def forget(folder: Path) -> str:
    """Go back to the shipped detector. The verdicts are put aside, not lost; returns what was done, in a line."""
    learnt, verdicts = folder / LEARNT_FILE, folder / FILE
    check_overwrite(learnt)
    learnt.unlink(missing_ok=True)
    if not verdicts.exists():
        return "there is nothing to forget: no verdicts"
    aside = folder / f"verdicts-forgotten-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    os.replace(verdicts, aside)
    return f"forgotten; the verdicts are in {aside}: renamed to {FILE}, they are learnt from again"


def _learnt_verdict(verdict: Verdict) -> LearntVerdict:
    return LearntVerdict(verdict.event, verdict.source, verdict.time, verdict.verdict == RIGHT, verdict.category)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
