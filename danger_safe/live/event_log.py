"""The log of events, events.jsonl: a line of JSON for each, written completely or not at all."""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path

from danger_safe.core.atomic import make_folder
from danger_safe.core.errors import UserError
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.lines import append_line, remove_partial_line

MAX_WAITING = 10_000  # lines that are kept while they cannot be written


class EventLog:
    """Appends events to a file, which may be moved away at any time (logrotate): the next event creates a new one."""

    def __init__(self, path: Path, say: Callable[[str], None]):
        """Raises UserError if the file cannot be written."""
        self._path, self._say = path, say
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._has_reported = False  # that the file cannot be written
        make_folder(path.absolute().parent)
        try:
            remove_partial_line(path)
        except OSError as error:
            raise UserError(f"{path}: events cannot be written there: {error.strerror}") from error

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Do nothing: an event is logged when it has ended."""

    def on_event_end(self, event: LiveEvent) -> None:
        """Write the event, or keep it until it can be written."""
        self._waiting.append(json.dumps(event.to_dict(), ensure_ascii=False).encode() + b"\n")
        self.flush()

    def flush(self) -> None:
        """Write the events that are kept, oldest first."""
        try:
            while self._waiting:
                append_line(self._path, self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not self._has_reported:
                self._say(f"{self._path}: {error.strerror}; events are kept until they can be written")
            self._has_reported = True
            return
        if self._has_reported:
            self._say(f"{self._path}: can be written again")
        self._has_reported = False

    def close(self) -> None:
        """Write the events that are kept, and report those that are lost."""
        self.flush()
        if self._waiting:
            self._say(f"{self._path}: {len(self._waiting)} events could not be written and are lost")
