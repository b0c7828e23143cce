"""events.jsonl: a line of JSON for each event, on the disk whole or not at all."""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path

from danger_safe.core.atomic import make_folder
from danger_safe.core.errors import UserError
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.lines import append_line, cut_torn_line

MAX_WAITING = 10_000  # lines that are kept while the disk takes none


class EventLog:
    """Appends events to a file. The file may be moved away at any time (logrotate): the next event begins a new one."""

    def __init__(self, path: Path, say: Callable[[str], None]):
        """Raises UserError where the file cannot be written."""
        self._path, self._say = path, say
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._is_told = False
        make_folder(path.absolute().parent)
        try:
            cut_torn_line(path)
        except OSError as error:
            raise UserError(f"{path}: events cannot be written there: {error.strerror}") from error

    def begin(self, event: LiveEvent) -> None:
        """An event that goes on is no line yet."""

    def end(self, event: LiveEvent) -> None:
        """Write the event; where the disk takes nothing, keep it until it does."""
        self._waiting.append(json.dumps(event.record(), ensure_ascii=False).encode() + b"\n")
        self.flush()

    def flush(self) -> None:
        """Write what waits, oldest first."""
        try:
            while self._waiting:
                append_line(self._path, self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not self._is_told:
                self._say(f"{self._path}: {error.strerror}; events are kept until they can be written")
            self._is_told = True
            return
        if self._is_told:
            self._say(f"{self._path}: can be written again")
        self._is_told = False

    def close(self) -> None:
        """Write what waits, and say what is lost."""
        self.flush()
        if self._waiting:
            self._say(f"{self._path}: {len(self._waiting)} events could not be written and are lost")
