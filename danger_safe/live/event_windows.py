"""Store the embeddings of events' windows, so that the detector can learn from a verdict even if no sound was recorded.

An event's file contains 3 KB of embedding per half second, but no sound.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.atomic import make_folder
from danger_safe.core.errors import UserError
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.disk_limit import remove_oldest
from danger_safe.live.verdicts import EventWindows

CONTEXT_S = 8.0  # seconds before and after an event whose scores are stored, too
MARGIN_S = 1.0  # seconds; a window of 3 s whose middle is that near to the event has half a second of it
MAX_WINDOWS = 120  # per event: its first minute
RECENT_WINDOWS = 40  # kept per source without an event: an event is known seconds after its start
MAX_MEGABYTES = 100.0  # of events without a verdict; the oldest are removed beyond it
MAX_WAITING = 20  # events in the queue to the disk


class _Connection:
    """The windows of one source's connection that may be stored."""

    def __init__(self) -> None:
        self.recent: deque[ScoredWindow] = deque(maxlen=RECENT_WINDOWS)
        self.event_id = ""  # of the current event; empty if there is none
        self.windows: list[ScoredWindow] = []  # of the current event, from some seconds before it
        self.pending: list[tuple[LiveEvent, list[ScoredWindow]]] = []  # ended events, until the context is complete


class WindowStore:
    """Writes a file ID.npz for each event (verdicts.EventWindows), in a thread of its own."""

    def __init__(
        self, folder: Path, checkpoint_sha256: str, has_verdict: Callable[[str], bool], say: Callable[[str], None]
    ):
        """Create the folder and start the thread.

        Args:
            folder: Where the files are written.
            checkpoint_sha256: The network that makes the embeddings.
            has_verdict: Tells whether an event has a verdict; its file is never removed then.
            say: Reports problems.

        Raises:
            UserError: The folder cannot be made.
        """
        self.folder, self._checkpoint, self._has_verdict, self._say = folder, checkpoint_sha256, has_verdict, say
        make_folder(folder)
        self._connections: dict[str, _Connection] = {}
        self._waiting: queue.Queue[tuple[str, EventWindows] | None] = queue.Queue(MAX_WAITING)
        self._has_reported = False  # the problem that lasts
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def on_event_end(self, event: LiveEvent) -> None:
        """Store the event's windows as soon as those after it are complete."""
        connection = self._connections.get(event.source)
        if connection is not None:
            is_current = connection.event_id == event.id
            connection.pending.append((event, connection.windows if is_current else list(connection.recent)))

    def on_window(self, source: str, window: ScoredWindow, current: LiveEvent | None) -> None:
        """Process the next window of a source.

        Args:
            source: Name of the source.
            window: The window.
            current: The event that has not ended, if there is one. Events that ended with the window come before it.
        """
        connection = self._connections.setdefault(source, _Connection())
        connection.recent.append(window)
        if current is None:
            connection.event_id, connection.windows = "", []
        elif current.id != connection.event_id:
            connection.event_id, connection.windows = current.id, list(connection.recent)
        elif len(connection.windows) < RECENT_WINDOWS + MAX_WINDOWS:
            connection.windows.append(window)
        for _, windows in connection.pending:
            if (not windows or windows[-1].start < window.start) and len(windows) < 2 * RECENT_WINDOWS + MAX_WINDOWS:
                windows.append(window)
        complete = [entry for entry in connection.pending if _middle(window) >= entry[0].event.end + CONTEXT_S]
        connection.pending = [entry for entry in connection.pending if entry not in complete]
        for entry in complete:
            self._store(*entry)

    def on_disconnect(self, source: str) -> None:
        """Store what there is of the events whose context is not complete: no more windows will come."""
        connection = self._connections.pop(source, None)
        for entry in connection.pending if connection else ():
            self._store(*entry)

    def close(self) -> None:
        """Write all pending events and stop the thread."""
        for source in list(self._connections):
            self.on_disconnect(source)
        self._waiting.put(None)
        self._thread.join()

    def _store(self, live_event: LiveEvent, windows: list[ScoredWindow]) -> None:
        """Queue an event's windows for the disk."""
        event = live_event.event
        own = [w for w in windows if event.start - MARGIN_S <= _middle(w) <= event.end + MARGIN_S][:MAX_WINDOWS]
        context = [w for w in windows if event.start - CONTEXT_S <= _middle(w) <= event.end + CONTEXT_S]
        if not own:
            return
        event_windows = EventWindows(
            np.stack([w.embedding for w in own]),
            self._checkpoint,
            np.array([_middle(w) - event.start for w in context]),
            np.array([w.smoothed_score for w in context]),
        )
        try:
            self._waiting.put_nowait((live_event.id, event_windows))
        except queue.Full:
            self._report("the disk is too slow")

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                event_id, event_windows = item
                event_windows.save(self.folder / f"{event_id}.npz")
                self._remove_oldest()
            except (OSError, UserError) as error:
                self._report(getattr(error, "strerror", None) or str(error))
            else:
                self._has_reported = False

    def _remove_oldest(self) -> None:
        files = (file for file in self.folder.glob("*.npz") if not self._has_verdict(file.stem))
        remove_oldest(files, MAX_MEGABYTES)

    def _report(self, problem: str) -> None:
        """Report a problem, once until something could be written again."""
        if not self._has_reported:
            self._has_reported = True
            self._say(f"{self.folder}: the windows of an event could not be kept: {problem}")


def _middle(window: ScoredWindow) -> float:
    return (window.start + window.end) / 2
