"""Reading a live source in a thread, so that nothing is lost while the networks are still loading.

Up to MAX_BYTES of sound are buffered. When the buffer is full, a source that can wait is no longer read, and a pipe or
a connection then makes its sender wait. A microphone cannot wait: its sound is lost, and counted in ``lost_s``.
"""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core.cli import warn

MAX_BYTES = 32 << 20  # of buffered samples; four minutes of mono
POLL_S = 0.5  # seconds per wait; Windows handles Ctrl+C only between waits
ARRIVAL_HISTORY_S = 600.0  # seconds of the most recent sound whose times of arrival are kept
CLOSE_TIMEOUT_S = 0.5  # seconds that a source is given to end


class ReadAhead:
    """Iterator over the chunks of a source, (samples,) or (samples, channels) at 32 kHz, which a thread reads ahead.

    Attributes:
        lost_s: seconds of sound that were dropped because the buffer was full.
    """

    def __init__(self, chunks: Iterator[np.ndarray], stopped: threading.Event | None = None, can_wait: bool = True):
        """
        Args:
            chunks: the source.
            stopped: an event that ends ``chunks`` even while they wait for sound.
            can_wait: whether the source loses nothing if it is not read for a while.
        """
        self.lost_s = 0.0
        self._chunks, self._stopped, self._can_wait = chunks, stopped or threading.Event(), can_wait
        self._buffer: deque[np.ndarray] = deque()
        self._num_bytes = 0
        self._read_s = 0.0  # seconds of sound that have been read
        self._arrivals: list[tuple[float, float]] = []  # (end of a chunk in the recording, its time.monotonic())
        self._end: BaseException | None = None  # how ``chunks`` ended: StopIteration, or the exception they raised
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def arrival_time(self, position_s: float) -> float:
        """Return when the sound at ``position_s`` seconds of the recording arrived, in time.monotonic() seconds."""
        with self._changed:
            index = bisect_left(self._arrivals, (position_s, 0.0))
            if not self._arrivals:
                return time.monotonic()
            chunk_end, arrival = self._arrivals[min(index, len(self._arrivals) - 1)]
            return arrival - (chunk_end - position_s)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the chunks. Raises what the source raised, after its last chunk."""
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._buffer or self._end, POLL_S):
                    pass
                if not self._buffer:
                    break
                chunk = self._buffer.popleft()
                self._num_bytes -= chunk.nbytes
                self._changed.notify_all()
            yield chunk
        if self._end is not None and not isinstance(self._end, StopIteration):
            raise self._end

    def close(self) -> None:
        """Stop the source. A blocked read of stdin cannot be interrupted; it ends with the program."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _read(self) -> None:
        """Read the source to its end. Runs in the thread."""
        end: BaseException = StopIteration()
        try:
            for chunk in self._chunks:
                self._put(chunk)
                if self._stopped.is_set():
                    break
        except BaseException as error:
            end = error
        finally:
            close = getattr(self._chunks, "close", None)  # generators have it
            if close is not None:
                close()
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _put(self, chunk: np.ndarray) -> None:
        """Append a chunk to the buffer. If that is full, wait or drop the chunk."""
        with self._changed:
            if self._can_wait:
                self._changed.wait_for(lambda: self._num_bytes < MAX_BYTES or self._stopped.is_set())
            elif self._num_bytes >= MAX_BYTES:
                if not self.lost_s:
                    warn("this computer is too slow: some of the sound is not listened to")
                self.lost_s += len(chunk) / SAMPLE_RATE
                return
            self._buffer.append(chunk)
            self._num_bytes += chunk.nbytes
            self._read_s += len(chunk) / SAMPLE_RATE
            self._arrivals.append((self._read_s, time.monotonic()))
            if self._arrivals[0][0] < self._read_s - 2 * ARRIVAL_HISTORY_S:
                del self._arrivals[: bisect_left(self._arrivals, (self._read_s - ARRIVAL_HISTORY_S, 0.0))]
            self._changed.notify_all()
