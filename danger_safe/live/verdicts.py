"""verdicts.jsonl: what somebody said of an event, *right* or *false alarm*; and the events' windows, to learn from
them.

Beside events.jsonl are ``verdicts.jsonl``, a line each, and the folder ``windows`` with ID.npz for each event:

    {"event": ID, "source": NAME, "time": ISO 8601, "verdict": "right" | "false_alarm" | "none", "category": NAME,
     "sound": PATH or null, "embeddings": PATH or null}

The last line about an event counts; ``none`` takes a verdict back. Paths are relative to the file's folder. The sound
may be gone by now, as the recorder keeps to its limits; the windows of an event with a verdict are kept.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import atomic_path, make_folder
from danger_safe.core.cache import open_arrays, read_array
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import is_regular_file
from danger_safe.live.lines import append_line, cut_torn_line

FILE, WINDOWS_FOLDER = "verdicts.jsonl", "windows"  # beside events.jsonl
RIGHT, FALSE_ALARM, NONE = VERDICTS = ("right", "false_alarm", "none")


@dataclass(frozen=True)
class Verdict:
    """A line of the file."""

    event: str  # its id in events.jsonl
    source: str
    time: str  # when it was said, ISO 8601 with the offset from UTC
    verdict: str  # of VERDICTS
    category: str  # what the detector heard
    sound: str | None
    embeddings: str | None


@dataclass(frozen=True)
class EventWindows:
    """An event's windows as the network and the detector heard them."""

    embeddings: np.ndarray  # (windows, dimensions) float32, of the windows whose middle is in the event or near it
    checkpoint_sha256: str  # of the network that they are of
    times: (
        np.ndarray
    )  # (points,) float32, middles of windows, from before the event to after it, seconds from its start
    scores: np.ndarray  # (points,) float32, the smoothed scores there

    def save(self, path: Path) -> None:
        """Write it as .npz without pickle, whole or not at all."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in ("embeddings", "times", "scores")}
        with atomic_path(path) as part, open(part, "wb") as file:
            np.savez(file, checkpoint_sha256=np.array(self.checkpoint_sha256), **arrays)


def load_windows(path: Path) -> EventWindows:
    """What ``EventWindows.save`` wrote. Raises UserError where it is absent or damaged."""
    with open_arrays(path) as archive:
        embeddings, times, scores = arrays = [read_array(archive, name) for name in ("embeddings", "times", "scores")]
        if embeddings.ndim != 2 or times.ndim != 1 or times.shape != scores.shape:
            raise ValueError("shapes")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
            raise ValueError("numbers")
        return EventWindows(embeddings, str(read_array(archive, "checkpoint_sha256")), times, scores)


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Write a verdict at the file's end. Raises OSError or UserError where that cannot be; then nothing is written."""
    make_folder(path.absolute().parent)
    cut_torn_line(path)
    append_line(path, json.dumps(asdict(verdict), ensure_ascii=False).encode() + b"\n")


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """By event, in the order in which they were said: each event's last verdict, without those that were taken back.

    Empty where there is no file. Raises UserError for a line that is no verdict; what a power cut left of a last line
    is none.
    """
    if os.path.exists(path) and not is_regular_file(path):
        raise UserError(f"{path} is no file")
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    found: dict[str, Verdict] = {}
    for number, line in enumerate(lines, start=1):
        try:
            verdict = _verdict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: this is no verdict ({error}): remove the line") from error
        found.pop(verdict.event, None)
        if verdict.verdict != NONE:
            found[verdict.event] = verdict
    return found


def _verdict(data: object) -> Verdict:
    verdict = Verdict(**data) if isinstance(data, dict) else None
    if verdict is None:
        raise ValueError("no object")
    for name, value in asdict(verdict).items():
        if not isinstance(value, str) and not (value is None and name in ("sound", "embeddings")):
            raise ValueError(f"{name} must be a text")
    if verdict.verdict not in VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}")
    return verdict


def relative(path: Path, folder: Path) -> str:
    """A file's path from ``folder``; absolute where it is on another drive of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()
