"""A live source that is read while nobody listens yet: by a thread, from the first moment on.

Loading a network takes seconds, in which sound goes on. What has come is held until it is asked for, MAX_BYTES of it at
most. When as much waits, reading waits too, and with it whoever sends: a pipe and a connection hold sound back. A
microphone does not. What it hears then is lost, which ``lost_s`` counts.
"""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core.cli import warn

MAX_BYTES = 32 << 20  # of decoded sound that may wait: four minutes of one channel
POLL_S = 0.5  # on Windows, Ctrl+C is noticed only between two waits
TIMES_S = 600.0  # of a recording for whose newest part it is known when it came
CLOSE_S = 0.5  # that a source is given to end


class ReadAhead:
    """Iterates over ``pieces``, (samples,) or (samples, channels) at 32 kHz, which a thread reads meanwhile."""

    def __init__(self, pieces: Iterator[np.ndarray], stopped: threading.Event | None = None, can_wait: bool = True):
        """``stopped`` is what ends ``pieces`` while they wait; ``can_wait`` whether their source loses nothing by
        waiting."""
        self.lost_s = 0.0  # seconds of sound that nobody will hear
        self._pieces, self._stopped, self._may_wait = pieces, stopped or threading.Event(), can_wait
        self._held: deque[np.ndarray] = deque()
        self._bytes = 0
        self._read_s = 0.0  # seconds of sound that have come
        self._times: list[tuple[float, float]] = []  # for each piece, where it ends and when it came
        self._ended: BaseException | None = None  # how ``pieces`` ended: StopIteration, or what is wrong with them
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def arrival_time(self, moment: float) -> float:
        """When, by time.monotonic, the sound at ``moment`` seconds of the recording came."""
        with self._changed:
            after = bisect_left(self._times, (moment, 0.0))
            if not self._times:
                return time.monotonic()
            end, came = self._times[min(after, len(self._times) - 1)]
            return came - (end - moment)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Raises what ``pieces`` raised, behind the last of them."""
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._held or self._ended, POLL_S):
                    pass
                if not self._held:
                    break
                piece = self._held.popleft()
                self._bytes -= piece.nbytes
                self._changed.notify_all()
            yield piece
        if self._ended is not None and not isinstance(self._ended, StopIteration):
            raise self._ended

    def close(self) -> None:
        """End the source, as far as it can be: a read of stdin waits until the program ends."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    def _read(self) -> None:
        """In the thread."""
        ended: BaseException = StopIteration()
        try:
            for piece in self._pieces:
                self._put(piece)
                if self._stopped.is_set():
                    break
        except BaseException as error:
            ended = error
        finally:
            close = getattr(self._pieces, "close", None)  # of a generator
            if close is not None:
                close()
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    def _put(self, piece: np.ndarray) -> None:
        with self._changed:
            if self._may_wait:
                self._changed.wait_for(lambda: self._bytes < MAX_BYTES or self._stopped.is_set())
            elif self._bytes >= MAX_BYTES:
                if not self.lost_s:
                    warn("this computer is too slow: some of the sound is not listened to")
                self.lost_s += len(piece) / SAMPLE_RATE
                return
            self._held.append(piece)
            self._bytes += piece.nbytes
            self._read_s += len(piece) / SAMPLE_RATE
            self._times.append((self._read_s, time.monotonic()))
            if self._times[0][0] < self._read_s - 2 * TIMES_S:
                del self._times[: bisect_left(self._times, (self._read_s - TIMES_S, 0.0))]
            self._changed.notify_all()
