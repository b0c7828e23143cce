"""Learn from verdicts.jsonl: write ``learnt.npz`` beside it, anew whenever a verdict is added.

The detector learns from the windows that were stored with each event, if the present network made their embeddings.
After an update of the network it embeds the event's sound again, if that was kept. ``forget`` goes back to the shipped
detector.
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
    LearntState,
    LearntVerdict,
    PersonalDetector,
    load_learnt,
    personal_detector,
    top_windows,
)
from danger_safe.detection.scorer import WindowScorer
from danger_safe.live.verdicts import RIGHT, VERDICTS_FILE, WINDOWS_FOLDER, Verdict, load_windows, read_verdicts

LEARNT_FILE = "learnt.npz"  # beside verdicts.jsonl
MAX_VERDICTS = 300  # the newest ones; older verdicts are not learnt from


class Learner:
    """Learns from the verdicts in a folder, and notices when there are new ones."""

    def __init__(self, folder: Path, builtin: BuiltinDetector, scorer: WindowScorer):
        """``scorer`` embeds stored sounds again, with the network of ``builtin``."""
        self._folder, self._builtin, self._scorer = folder, builtin, scorer
        self._verdicts_file, self._learnt_file = folder / VERDICTS_FILE, folder / LEARNT_FILE
        self._detector: PersonalDetector | None = None  # the result of the last ``learn``
        self._learnt_state: tuple[int, int] | None = None  # _file_state of the verdicts that were learnt last
        self._awaited: list[Path] = []  # missing files of verdicts; an event's files are written seconds after it

    @property
    def has_news(self) -> bool:
        """Whether verdicts.jsonl has changed since the last ``learn``, or a file that was missing then is there."""
        return _file_state(self._verdicts_file) != self._learnt_state or any(path.exists() for path in self._awaited)

    def learn(self, say: Callable[[str], None]) -> BuiltinDetector:
        """Return the detector adapted to all verdicts; ``save`` stores what it has learnt.

        ``say`` is given the report, and a line about verdicts that cannot be used. Raises UserError if the verdicts
        cannot be read.
        """
        self._learnt_state = _file_state(self._verdicts_file)
        verdicts = list(read_verdicts(self._verdicts_file).values())[-MAX_VERDICTS:]
        known = self._learnt_embeddings()
        used: list[Verdict] = []
        rows: list[np.ndarray] = []
        self._awaited = []
        for verdict in verdicts:
            embeddings = known.get(verdict.event)
            if embeddings is None:
                embeddings = self._embeddings(verdict)
            if embeddings is not None and len(embeddings):
                used.append(verdict)
                rows.append(embeddings)
            else:
                self._awaited += [path for path in self._files(verdict) if path is not None and not path.exists()]
        if lost := len(verdicts) - len(used):
            say(
                f"{_count(lost, 'verdict')} cannot be learnt from by now: the event's windows are of another network "
                "or not there, and its sound was not kept or is gone"
            )
        self._detector = None
        if not used:
            return self._builtin
        owner = np.repeat(np.arange(len(rows), dtype=np.int32), [len(embeddings) for embeddings in rows])
        learnt_verdicts = tuple(map(_learnt_verdict, used))
        learnt = LearntState(self._builtin.checkpoint_sha256, learnt_verdicts, np.concatenate(rows), owner)
        self._detector = personal_detector(self._builtin, learnt).limit_recall_loss()
        say(report(self._detector))
        return self._detector

    def save(self) -> None:
        """Write ``learnt.npz``; remove it if nothing was learnt. Raises UserError or OSError."""
        if self._detector:
            self._detector.learnt.save(self._learnt_file)
        elif self._learnt_file.exists():
            check_overwrite(self._learnt_file)
            self._learnt_file.unlink()

    def _learnt_embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings in ``learnt.npz`` by event; empty if there are none of the present network."""
        try:
            learnt = load_learnt(self._learnt_file)
            personal_detector(self._builtin, learnt)  # raises UserError for another network
        except UserError:
            return {}
        return {v.event: learnt.embeddings[learnt.owner == n] for n, v in enumerate(learnt.verdicts)}

    def _files(self, verdict: Verdict) -> tuple[Path | None, Path | None]:
        """Return the paths of the event's windows and sound; a verdict may be given before these are written."""
        windows = verdict.embeddings
        if windows is None and Path(verdict.event).name == verdict.event:
            windows = f"{WINDOWS_FOLDER}/{verdict.event}.npz"
        files = [None if name is None else self._folder / name for name in (windows, verdict.sound)]
        return files[0], files[1]

    def _embeddings(self, verdict: Verdict) -> np.ndarray | None:
        """Return the event's highest-scoring windows, (windows, dimensions) float16; None if nothing of it is left."""
        embeddings, (windows_file, sound) = None, self._files(verdict)
        if windows_file is not None:
            try:
                windows = load_windows(windows_file)
                if windows.checkpoint_sha256 == self._builtin.checkpoint_sha256:
                    embeddings = windows.embeddings
            except UserError:  # the event's sound may still be there
                pass
        if embeddings is None and sound is not None:
            try:
                scored = self._scorer.score_recording(read_channels(sound), is_live=True)  # one by one: less memory
                embeddings = np.array([window.embedding for window in scored if not window.is_silent])
            except (AudioError, OSError):
                pass
        if embeddings is None or not len(embeddings) or embeddings.shape[1:] != self._builtin.centres.shape[1:]:
            return None
        return top_windows(self._builtin, embeddings)


def report(detector: PersonalDetector) -> str:
    """Say in one line how many verdicts were learnt and what they change on the shipped evaluation."""
    learnt = detector.learnt
    right = sum(verdict.is_right for verdict in learnt.verdicts)
    counts = f"{_count(len(learnt.verdicts) - right, 'false alarm')}, {right} right"
    line = f"{learnt.summary} ({counts}): {detector.change.summary}"
    if learnt.strength < 1:
        line += f"; held back to {learnt.strength:.0%}, for more would lose dangers: were all of these false alarms?"
    return line


def forget(folder: Path) -> str:
    """Go back to the shipped detector, rename the verdicts out of the way, and return a line that says so."""
    learnt, verdicts = folder / LEARNT_FILE, folder / VERDICTS_FILE
    check_overwrite(learnt)
    learnt.unlink(missing_ok=True)
    if not verdicts.exists():
        return "there is nothing to forget: no verdicts"
    aside = folder / f"verdicts-forgotten-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    os.replace(verdicts, aside)
    return f"forgotten; the verdicts are in {aside}: renamed to {VERDICTS_FILE}, they are learnt from again"


def _learnt_verdict(verdict: Verdict) -> LearntVerdict:
    return LearntVerdict(verdict.event, verdict.source, verdict.time, verdict.verdict == RIGHT, verdict.category)


def _file_state(path: Path) -> tuple[int, int] | None:
    """Return size in bytes and modification time in ns; None if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
