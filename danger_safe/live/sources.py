"""Sources: each in a thread of its own, connected again when it ends, stalls or falls silent; and their windows' way
out.

Windows of all sources meet in an ``Inbox``, from which one engine takes them, a fair share of each.
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

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0  # before a source is tried again; each pause is twice the one before
CONNECT_S = 30.0  # that a connection may take until its first sound, on a busy computer
STEADY_S = 60.0  # a connection that held so long is no failed try: pauses begin anew
MAX_SILENCE_S = 3600.0  # a silent source is connected anew after twice the silence each time, up to this
MAX_WAITING = 8  # windows of one source that may wait for the engine
AHEAD_S = 1.0  # an address whose sound comes so much faster than it sounds can wait; any other is going on meanwhile
SHUTDOWN_S = 0.3  # within which whoever ends ffmpeg would also have ended this program
BATCH_WINDOWS = 4  # that the engine takes at once: more would be no faster and take more memory


@dataclass(frozen=True)
class Heard:
    """A window of a source on its way to the engine; without one, the end of a connection."""

    source: "Source"
    connection: int  # its number: events do not reach from one into the next
    window: Window | None = None
    ended_at: float = 0.0  # wall-clock time of the window's last sample, seconds since 1970
    sound: SoundBuffer | None = None  # of the connection, where it is to be kept


class Inbox:
    """Windows that wait for the engine: in order and few of each source."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Source, deque[Heard]] = {}

    def put(self, heard: Heard, can_wait: bool) -> bool:
        """Add one. Where too many wait already, wait, too; or else the oldest goes (False)."""
        source = heard.source
        with self._changed:
            waiting = self._waiting.setdefault(source, deque())
            if can_wait:
                self._changed.wait_for(lambda: len(waiting) < MAX_WAITING or source.is_stopped)
            is_full = not can_wait and len(waiting) >= MAX_WAITING and waiting[0].window is not None
            if is_full:
                waiting.popleft()
            waiting.append(heard)
            self._changed.notify_all()
        return not is_full

    def take(self, timeout_s: float) -> list[Heard]:
        """What there is, at most BATCH_WINDOWS, by turns of the sources, and on from there the next time; empty when
        nothing
        has come in time."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._waiting.values()), timeout_s)
            taken: list[Heard] = []
            while len(taken) < BATCH_WINDOWS and any(self._waiting.values()):
                for source, waiting in list(self._waiting.items()):
                    if waiting and len(taken) < BATCH_WINDOWS:
                        taken.append(waiting.popleft())
                        self._waiting[source] = self._waiting.pop(source)  # behind all others
            self._changed.notify_all()
            return taken

    def wake(self) -> None:
        """Let those that wait see that they were stopped."""
        with self._changed:
            self._changed.notify_all()


class Source:
    """One source: reads its sound for as long as it is not stopped, and says once what goes wrong and when it is over.

    ``status`` is one of connecting, listening, silent, stalled, offline (tried again soon), done (read to its end).
    """

    new_buffer: Callable[[], SoundBuffer] | None = None  # where sound is to be kept

    def __init__(self, config: SourceConfig, inbox: Inbox, say: Callable[[str], None], window_s: float, hop_s: float):
        self.config, self.name, self.slug = config, config.name, config.slug
        self.is_live = not config.file
        self.is_endless = not config.file and config.stdin == ""  # it comes back, and goes on while nobody listens
        self.status, self.problem = "connecting", ""
        self._inbox, self._say, self._window_s, self._hop_s = inbox, say, window_s, hop_s
        self._stop = threading.Event()
        self._feed: Feed | None = None
        self._connection = 0
        self._last_sound = self._connected = time.monotonic()
        self._first_sound = 0.0  # when it came; where sound had to wait, as much later
        self._is_waiting = False  # for the engine
        self._is_told = False  # of the trouble that lasts
        self._silence_s = config.silence_seconds  # of silence before it is connected anew
        self._silent_since: float | None = None
        self._is_renewed = False  # the connection was broken off because of silence
        self._overload_told = False
        self._sound: SoundBuffer | None = None
        self._thread = threading.Thread(target=self._run, name=self.slug, daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether anything may still come."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it; what was read is delivered."""
        self._stop.set()
        self._inbox.wake()
        self._close()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def check(self) -> None:
        """Break off a connection that has given no sound for too long. Is to be called every second or so."""
        if self.is_live and not self._is_waiting and self.status not in ("offline", "done", "stalled"):
            quiet_s = time.monotonic() - self._last_sound
            limit_s = self.config.stall_seconds if self._first_sound else max(CONNECT_S, self.config.stall_seconds)
            if quiet_s > limit_s:
                self._break_off(f"no sound for {quiet_s:.0f} s", "stalled")

    def note_silence(self, silent: bool, seconds: float) -> None:
        """Take into account whether the window that ends ``seconds`` into the connection was silent."""
        if not self.is_endless:
            return
        if not silent:
            self._silent_since, self._silence_s = None, self.config.silence_seconds
            if self.status == "silent":
                self.status, self._is_told = "listening", False
                self._say(f"{self.name}: there is sound again")
            return
        if self._silent_since is None or seconds < self._silent_since:
            self._silent_since = max(0.0, seconds - self._window_s)
        if seconds - self._silent_since >= self._silence_s and self.status in ("listening", "silent"):
            self._is_renewed = True
            self._break_off(f"nothing but silence for {self._silence_s:.0f} s (is it muted?)", "silent")
            self._silence_s = min(2 * self._silence_s, MAX_SILENCE_S)

    def _break_off(self, problem: str, status: str) -> None:
        self.status = status
        self._tell(problem)
        self._close()

    def _tell(self, problem: str) -> None:
        self.problem = problem
        if not self._is_told:
            self._is_told = True
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
            problem = self._listen()
            self._inbox.put(Heard(self, self._connection), False)
            if self._stop.is_set():
                break
            if not self.is_endless:
                self.status = "done"
                if problem:
                    self._tell(problem)
                break
            if self._is_renewed:  # at once: while it waits, it hears nothing
                self._is_renewed = False
                continue
            if self._stop.wait(SHUTDOWN_S):
                break
            self._tell(self.problem if self.status == "stalled" else problem or "the sound ended")
            self.status = "offline"
            if time.monotonic() - self._connected > STEADY_S:
                pause_s = FIRST_PAUSE_S
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _listen(self) -> str:
        """Deliver one connection's windows; why it broke off, or nothing where it ended."""
        try:
            self._sound = self.new_buffer() if self.new_buffer else None
            self._feed = open_feed(self.config)
            if self._stop.is_set():  # since
                self._close()
            begun = time.time()
            with closing(sliding_windows(self._pieces(self._feed), self._window_s, self._hop_s)) as cut:
                for window in cut:
                    # A file is heard faster than it sounds: its windows are where they would be if it had not been.
                    ended_at = time.time() if self.is_live else begun + window.end
                    self._put(Heard(self, self._connection, window, ended_at, self._sound), window.end)
        except AudioError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        except Exception as error:  # whatever it is, the other sources go on and this one is tried again
            return f"{type(error).__name__}: {error}"
        return ""

    def _put(self, heard: Heard, end_s: float) -> None:
        """Hand a window over that ends at ``end_s``; where too many wait, wait, or drop the oldest of an address that
        does not wait for us."""
        ready = time.monotonic()
        is_ahead = end_s > ready - self._first_sound + AHEAD_S
        self._is_waiting = True
        is_complete = self._inbox.put(heard, not self.is_endless or is_ahead)
        self._last_sound = time.monotonic()
        self._is_waiting = False
        self._first_sound += self._last_sound - ready  # what waits for us is not late
        if not is_complete and not self._overload_told:
            self._overload_told = True
            self._say(f"{self.name}: this computer is too slow for all sources: some of its sound is not listened to")

    def _pieces(self, feed: Feed) -> Iterator[np.ndarray]:
        for piece in feed:
            if self._stop.is_set():
                return
            if len(piece):
                self._last_sound = time.monotonic()
                self._first_sound = self._first_sound or self._last_sound
                if self.status != "listening" and self.status != "silent":
                    self._now_listening()
            if self._sound is not None:
                self._sound.add(piece)
            yield piece

    def _now_listening(self) -> None:
        if self._is_told:
            self._say(f"{self.name}: there is sound again")
        self.status, self.problem, self._is_told = "listening", "", False
