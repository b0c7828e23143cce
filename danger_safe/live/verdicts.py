"""verdicts.jsonl, the listeners' verdicts on events, and the stored windows of events that the detector learns from.

Both lie beside events.jsonl: ``verdicts.jsonl`` with one line per verdict, and the folder ``windows`` with ID.npz for
each event:

    {"event": ID, "source": NAME, "time": ISO 8601, "verdict": "right" | "false_alarm" | "none", "category": NAME,
     "sound": PATH or null, "embeddings": PATH or null}

The last line about an event counts; ``none`` takes a verdict back. Paths are relative to the file's folder. The sound
may have been deleted since, as the recorder keeps to its limits; the windows of an event with a verdict are kept.
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
from danger_safe.live.lines import append_line, remove_partial_line

VERDICTS_FILE, WINDOWS_FOLDER = "verdicts.jsonl", "windows"  # beside events.jsonl
RIGHT, FALSE_ALARM, NONE = VERDICTS = ("right", "false_alarm", "none")


@dataclass(frozen=True)
class Verdict:
    """A line of verdicts.jsonl."""

    event: str  # the event's id in events.jsonl
    source: str
    time: str  # when it was given, ISO 8601 with the offset from UTC
    verdict: str  # one of VERDICTS
    category: str  # the event's category according to the detector
    sound: str | None
    embeddings: str | None


@dataclass(frozen=True)
class EventWindows:
    """The windows of an event, as embeddings, and the curve of scores around it."""

    embeddings: np.ndarray  # (windows, dimensions) float32, windows whose middle is in the event or near it
    checkpoint_sha256: str  # the network that made the embeddings
    times: np.ndarray  # (points,) float32, seconds from the event's start to the middle of each window; may be negative
    scores: np.ndarray  # (points,) float32, smoothed scores at ``times``

    def save(self, path: Path) -> None:
        """Write an .npz without pickle, atomically."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in ("embeddings", "times", "scores")}
        with atomic_path(path) as part, open(part, "wb") as file:
            np.savez(file, checkpoint_sha256=np.array(self.checkpoint_sha256), **arrays)


def load_windows(path: Path) -> EventWindows:
    """Read what ``EventWindows.save`` wrote. Raises UserError if it is missing or damaged."""
    with open_arrays(path) as archive:
        embeddings, times, scores = arrays = [read_array(archive, name) for name in ("embeddings", "times", "scores")]
        if embeddings.ndim != 2 or times.ndim != 1 or times.shape != scores.shape:
            raise ValueError("shapes")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
            raise ValueError("numbers")
        return EventWindows(embeddings, str(read_array(archive, "checkpoint_sha256")), times, scores)


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Append a verdict to the file. Raises OSError or UserError if that fails; then nothing is written."""
    make_folder(path.absolute().parent)
    remove_partial_line(path)
    append_line(path, json.dumps(asdict(verdict), ensure_ascii=False).encode() + b"\n")


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """Return each event's last verdict by the event's id, oldest first, without verdicts that were taken back.

    Empty if there is no file. An incomplete last line, as a power cut leaves it, is ignored. Raises UserError for any
    other line that is not a verdict.
    """
    if os.path.exists(path) and not is_regular_file(path):
        raise UserError(f"{path} is not a file")
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    verdicts: dict[str, Verdict] = {}
    for number, line in enumerate(lines, start=1):
        try:
            verdict = _parse_verdict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: this is not a verdict ({error}): remove the line") from error
        verdicts.pop(verdict.event, None)
        if verdict.verdict != NONE:
            verdicts[verdict.event] = verdict
    return verdicts


def _parse_verdict(data: object) -> Verdict:
    verdict = Verdict(**data) if isinstance(data, dict) else None
    if verdict is None:
        raise ValueError("no object")
    for name, value in asdict(verdict).items():
        if not isinstance(value, str) and not (value is None and name in ("sound", "embeddings")):
            raise ValueError(f"{name} must be a text")
    if verdict.verdict not in VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}")
    return verdict


def relative_path(path: Path, folder: Path) -> str:
    """Return a file's path relative to ``folder``; the absolute path if they are on different drives of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()
