"""A buffer with the last seconds of a source's sound, from which the sound of an event is cut."""

import threading
from collections import deque

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE, to_mono


class SoundBuffer:
    """The last seconds of one connection's sound, as int16. The source's thread adds, the engine's thread cuts."""

    def __init__(self, seconds: float):
        self._capacity = int(seconds * SAMPLE_RATE)
        self._chunks: deque[np.ndarray] = deque()
        self._begin = self._end = 0  # in samples since the connection began
        self._lock = threading.Lock()

    def add(self, chunk: np.ndarray) -> None:
        """Add the next float32 samples, (samples,) or (samples, channels)."""
        samples = np.round(np.clip(to_mono(chunk), -1, 1) * 32767).astype(np.int16)
        with self._lock:
            self._chunks.append(samples)
            self._end += len(samples)
            while self._end - self._begin - len(self._chunks[0]) > self._capacity:
                self._begin += len(self._chunks.popleft())

    def cut(self, start_s: float, end_s: float) -> np.ndarray:
        """Return the int16 samples from ``start_s`` to ``end_s`` of the connection that are still in the buffer."""
        with self._lock:
            samples = np.concatenate([*self._chunks, np.empty(0, np.int16)])
            begin = self._begin
        first, last = (max(0, round(seconds * SAMPLE_RATE) - begin) for seconds in (start_s, end_s))
        return samples[first:last]
