"""The windows of events as the network heard them, kept so that a verdict can be learnt from where no sound is kept.

An event's file has numbers of the network, 3 KB for each half second, and no sound.
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

CONTEXT_S = 8.0  # before and after an event, of which scores are kept
MARGIN_S = 1.0  # a window whose middle is so near to the event hears half a second of it, where windows have three
MAX_WINDOWS = 120  # of one event: its first minute
RECENT_WINDOWS = 40  # that are held of each source while there is no event: an end is known seconds late
MAX_MEGABYTES = 100.0  # of events without a verdict; the oldest are removed
MAX_WAITING = 20  # events that wait for the disk


class _Ear:
    """What is held of one source's connection."""

    def __init__(self) -> None:
        self.recent: deque[ScoredWindow] = deque(maxlen=RECENT_WINDOWS)
        self.event = ""  # id of the one that goes on
        self.windows: list[ScoredWindow] = []  # of that event, from some seconds before it
        self.ended: list[tuple[LiveEvent, list[ScoredWindow]]] = []  # whose seconds afterwards are not all there yet


class WindowKeeper:
    """Writes ID.npz into a folder for each event, in a thread of its own. See verdicts.EventWindows."""

    def __init__(
        self, folder: Path, checkpoint_sha256: str, is_judged: Callable[[str], bool], say: Callable[[str], None]
    ):
        """``is_judged``: whether an event has a verdict, and so has to stay. Raises UserError where there can be no
        folder."""
        self.folder, self._checkpoint, self._is_judged, self._say = folder, checkpoint_sha256, is_judged, say
        make_folder(folder)
        self._ears: dict[str, _Ear] = {}
        self._waiting: queue.Queue[tuple[str, EventWindows] | None] = queue.Queue(MAX_WAITING)
        self._is_told = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, event: LiveEvent) -> None:
        """Its windows are complete later."""

    def end(self, event: LiveEvent) -> None:
        """An event has ended: its windows are written when the seconds afterwards are there."""
        ear = self._ears.get(event.source)
        if ear is not None:
            ear.ended.append((event, ear.windows if ear.event == event.id else list(ear.recent)))

    def follow(self, source: str, window: ScoredWindow, going_on: LiveEvent | None) -> None:
        """The next window of a source, after the events that ended with it, and the event that goes on there by now."""
        ear = self._ears.setdefault(source, _Ear())
        ear.recent.append(window)
        if going_on is None:
            ear.event, ear.windows = "", []
        elif going_on.id != ear.event:
            ear.event, ear.windows = going_on.id, list(ear.recent)
        elif len(ear.windows) < RECENT_WINDOWS + MAX_WINDOWS:
            ear.windows.append(window)
        for _, windows in ear.ended:
            if (not windows or windows[-1].start < window.start) and len(windows) < 2 * RECENT_WINDOWS + MAX_WINDOWS:
                windows.append(window)
        ready = [entry for entry in ear.ended if _middle(window) >= entry[0].event.end + CONTEXT_S]
        ear.ended = [entry for entry in ear.ended if entry not in ready]
        for entry in ready:
            self._keep(*entry)

    def flush(self, source: str) -> None:
        """A connection has ended: what is there of its events' windows is all that will be."""
        ear = self._ears.pop(source, None)
        for entry in ear.ended if ear else ():
            self._keep(*entry)

    def close(self) -> None:
        """Write what waits."""
        for source in list(self._ears):
            self.flush(source)
        self._waiting.put(None)
        self._thread.join()

    def _keep(self, live: LiveEvent, windows: list[ScoredWindow]) -> None:
        event = live.event
        near = [w for w in windows if event.start - MARGIN_S <= _middle(w) <= event.end + MARGIN_S][:MAX_WINDOWS]
        around = [w for w in windows if event.start - CONTEXT_S <= _middle(w) <= event.end + CONTEXT_S]
        if not near:
            return
        kept = EventWindows(
            np.stack([w.embedding for w in near]),
            self._checkpoint,
            np.array([_middle(w) - event.start for w in around]),
            np.array([w.smoothed_score for w in around]),
        )
        try:
            self._waiting.put_nowait((live.id, kept))
        except queue.Full:
            self._tell("the disk is too slow")

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                item[1].save(self.folder / f"{item[0]}.npz")
                self._remove_oldest()
            except (OSError, UserError) as error:
                self._tell(getattr(error, "strerror", None) or str(error))
            else:
                self._is_told = False

    def _remove_oldest(self) -> None:
        files = (file for file in self.folder.glob("*.npz") if not self._is_judged(file.stem))
        remove_oldest(files, MAX_MEGABYTES)

    def _tell(self, problem: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._say(f"{self.folder}: the windows of an event could not be kept: {problem}")


def _middle(window: ScoredWindow) -> float:
    return (window.start + window.end) / 2
