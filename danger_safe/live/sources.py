"""Read the sources, each in a thread of its own that reconnects when a source ends, stalls or falls silent.

The windows of all sources meet in a ``WindowQueue``, from which one engine takes them in turn.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from danger_safe.audio.pcm import AudioError
from danger_safe.audio.windows import Window, sliding_windows
from danger_safe.live.config import SourceConfig
from danger_safe.live.feeds import Feed, open_feed
from danger_safe.live.sound_buffer import SoundBuffer

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0  # seconds before a reconnection; each pause is twice the one before
CONNECT_S = 30.0  # seconds until the first sound of a connection, on a busy computer
STEADY_S = 60.0  # seconds; a connection that lasted longer resets the pauses
MAX_SILENCE_S = 3600.0  # seconds; the limit on silence before a reconnection is doubled each time, up to this
MAX_WAITING = 8  # windows of one source in the queue
AHEAD_S = 1.0  # seconds; an address that is that far ahead of real time can wait, any other is live
SHUTDOWN_S = 0.3  # seconds in which a system that ends ffmpeg at shutdown would also end this program
BATCH_WINDOWS = 4  # windows that the engine takes at once; more would need more memory and not be faster


@dataclass(frozen=True)
class QueuedWindow:
    """A window of a source on its way to the engine; without a window, the end of a connection."""

    source: "Source"
    connection: int  # number of the source's connection; events do not continue in the next one
    window: Window | None = None
    ended_at: float = 0.0  # wall-clock time of the window's last sample, seconds since 1970
    sound: SoundBuffer | None = None  # of the connection, if events are recorded


class WindowQueue:
    """Windows that wait for the engine, in order and only a few of each source."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Source, deque[QueuedWindow]] = {}

    def put(self, item: QueuedWindow, can_wait: bool) -> bool:
        """Add a window. If its source's part is full, wait if the source can; otherwise drop the oldest (False)."""
        source = item.source
        with self._changed:
            waiting = self._waiting.setdefault(source, deque())
            if can_wait:
                self._changed.wait_for(lambda: len(waiting) < MAX_WAITING or source.is_stopped)
            is_full = not can_wait and len(waiting) >= MAX_WAITING and waiting[0].window is not None
            if is_full:
                waiting.popleft()
            waiting.append(item)
            self._changed.notify_all()
        return not is_full

    def take(self, timeout_s: float) -> list[QueuedWindow]:
        """Return up to BATCH_WINDOWS windows, from the sources in turn; empty if none has come in time."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._waiting.values()), timeout_s)
            taken: list[QueuedWindow] = []
            while len(taken) < BATCH_WINDOWS and any(self._waiting.values()):
                for source, waiting in list(self._waiting.items()):
                    if waiting and len(taken) < BATCH_WINDOWS:
                        taken.append(waiting.popleft())
                        self._waiting[source] = self._waiting.pop(source)  # the last in turn from now on
            self._changed.notify_all()
            return taken

    def wake(self) -> None:
        """Wake the sources that wait, so that they see that they were stopped."""
        with self._changed:
            self._changed.notify_all()


class Source:
    """Reads one source until it is stopped, and reports each problem once, and once that it is over.

    ``status`` is one of connecting, listening, silent, stalled, offline (until the next attempt), done (read to its
    end).
    """

    new_buffer: Callable[[], SoundBuffer] | None = None  # makes the buffer of a connection, if events are recorded

    def __init__(
        self, config: SourceConfig, queue: WindowQueue, say: Callable[[str], None], window_s: float, hop_s: float
    ):
        """Set up the thread; ``start`` starts it.

        Args:
            config: The source's settings.
            queue: Where its windows go.
            say: Reports problems.
            window_s: Length of windows in seconds.
            hop_s: Seconds from one window to the next.
        """
        self.config, self.name, self.slug = config, config.name, config.slug
        self.is_live = not config.file
        self.is_endless = not config.file and config.stdin == ""  # it can be reconnected
        self.status, self.problem = "connecting", ""
        self._queue, self._say, self._window_s, self._hop_s = queue, say, window_s, hop_s
        self._stop = threading.Event()
        self._feed: Feed | None = None
        self._connection = 0
        self._last_sound = self._connected = time.monotonic()
        self._first_sound = 0.0  # when it arrived, plus the time that later sound had to wait for the engine
        self._is_waiting = False  # for the engine
        self._has_reported = False  # the problem that lasts
        self._max_silence_s = config.silence_seconds  # seconds of silence before a reconnection
        self._silent_since: float | None = None  # in seconds of the connection
        self._is_reconnecting = False  # because of silence
        self._has_reported_overload = False
        self._sound: SoundBuffer | None = None
        self._thread = threading.Thread(target=self._run, name=self.slug, daemon=True)

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether more windows may come."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop reading; what was read is still delivered."""
        self._stop.set()
        self._queue.wake()
        self._close()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, for at most ``timeout_s`` seconds."""
        self._thread.join(timeout_s)

    def check(self) -> None:
        """Break off a connection that has had no sound for too long; to be called about every second."""
        if self.is_live and not self._is_waiting and self.status not in ("offline", "done", "stalled"):
            quiet_s = time.monotonic() - self._last_sound
            limit_s = self.config.stall_seconds if self._first_sound else max(CONNECT_S, self.config.stall_seconds)
            if quiet_s > limit_s:
                self._break_off(f"no sound for {quiet_s:.0f} s", "stalled")

    def note_silence(self, is_silent: bool, end_s: float) -> None:
        """Reconnect a source that has been silent for too long.

        Args:
            is_silent: Whether its newest window was silent.
            end_s: End of that window in seconds of the connection.
        """
        if not self.is_endless:
            return
        if not is_silent:
            self._silent_since, self._max_silence_s = None, self.config.silence_seconds
            if self.status == "silent":
                self.status, self._has_reported = "listening", False
                self._say(f"{self.name}: there is sound again")
            return
        if self._silent_since is None or end_s < self._silent_since:
            self._silent_since = max(0.0, end_s - self._window_s)
        if end_s - self._silent_since >= self._max_silence_s and self.status in ("listening", "silent"):
            self._is_reconnecting = True
            self._break_off(f"nothing but silence for {self._max_silence_s:.0f} s (is it muted?)", "silent")
            self._max_silence_s = min(2 * self._max_silence_s, MAX_SILENCE_S)

    def _break_off(self, problem: str, status: str) -> None:
        self.status = status
        self._report(problem)
        self._close()

    def _report(self, problem: str) -> None:
        """Report a problem, once until there is sound again."""
        self.problem = problem
        if not self._has_reported:
            self._has_reported = True
            self._say(f"{self.name}: {problem}" + ("; it is tried again" if self.is_endless else ""))

    def _close(self) -> None:
        feed = self._feed
        if feed is not None:
            feed.close()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            self._connection += 1
            if self.status != "silent":
                self.status = "connecting"
            self._connected = self._last_sound = time.monotonic()
            self._first_sound = 0.0
            problem = self._read_connection()
            self._queue.put(QueuedWindow(self, self._connection), False)
            if self._stop.is_set():
                break
            if not self.is_endless:
                self.status = "done"
                if problem:
                    self._report(problem)
                break
            if self._is_reconnecting:  # without a pause, in which sound would be missed
                self._is_reconnecting = False
                continue
            if self._stop.wait(SHUTDOWN_S):
                break
            self._report(self.problem if self.status == "stalled" else problem or "the sound ended")
            self.status = "offline"
            if time.monotonic() - self._connected > STEADY_S:
                pause_s = FIRST_PAUSE_S
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _read_connection(self) -> str:
        """Deliver one connection's windows; return why it broke off, empty if it just ended."""
        try:
            self._sound = self.new_buffer() if self.new_buffer else None
            self._feed = open_feed(self.config)
            if self._stop.is_set():  # it was stopped while it was connecting
                self._close()
            started_at = time.time()
            with closing(sliding_windows(self._read_chunks(self._feed), self._window_s, self._hop_s)) as windows:
                for window in windows:
                    # A file is read faster than real time: its windows get the times that they would have had.
                    ended_at = time.time() if self.is_live else started_at + window.end
                    self._put(QueuedWindow(self, self._connection, window, ended_at, self._sound), window.end)
        except AudioError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        except Exception as error:  # any failure is confined to this source, which reconnects
            return f"{type(error).__name__}: {error}"
        return ""

    def _put(self, item: QueuedWindow, end_s: float) -> None:
        """Queue a window that ends at ``end_s``; if the queue is full, wait, or drop a window of a live address."""
        ready_at = time.monotonic()
        is_ahead = end_s > ready_at - self._first_sound + AHEAD_S
        self._is_waiting = True
        is_complete = self._queue.put(item, not self.is_endless or is_ahead)
        self._last_sound = time.monotonic()
        self._is_waiting = False
        self._first_sound += self._last_sound - ready_at  # time spent waiting does not make the source late
        if not is_complete and not self._has_reported_overload:
            self._has_reported_overload = True
            self._say(f"{self.name}: this computer is too slow for all sources: some of its sound is not listened to")

    def _read_chunks(self, feed: Feed) -> Iterator[np.ndarray]:
        for chunk in feed:
            if self._stop.is_set():
                return
            if len(chunk):
                self._last_sound = time.monotonic()
                self._first_sound = self._first_sound or self._last_sound
                if self.status not in ("listening", "silent", "stalled"):  # stalled: the rest of a broken connection
                    self._on_sound()
            if self._sound is not None:
                self._sound.add(chunk)
            yield chunk

    def _on_sound(self) -> None:
        """Handle the first sound after a connection or a problem."""
        if self._has_reported:
            self._say(f"{self.name}: there is sound again")
        self.status, self.problem, self._has_reported = "listening", "", False
