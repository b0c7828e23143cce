"""The last seconds of a source's sound, held so that the sound of an event can be kept."""

import threading
from collections import deque

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE, to_mono


class SoundBuffer:
    """The last seconds of one connection's sound, in 16 bits. Filled by its thread, read by the engine's."""

    def __init__(self, seconds: float):
        self._capacity = int(seconds * SAMPLE_RATE)
        self._pieces: deque[np.ndarray] = deque()
        self._begin = self._end = 0  # in samples of the connection
        self._lock = threading.Lock()

    def add(self, piece: np.ndarray) -> None:
        """The next float32 samples, (samples,) or (samples, channels)."""
        samples = np.round(np.clip(to_mono(piece), -1, 1) * 32767).astype(np.int16)
        with self._lock:
            self._pieces.append(samples)
            self._end += len(samples)
            while self._end - self._begin - len(self._pieces[0]) > self._capacity:
                self._begin += len(self._pieces.popleft())

    def cut(self, start_s: float, end_s: float) -> np.ndarray:
        """int16 samples from ``start_s`` to ``end_s`` seconds of the connection, of what is held of them."""
        with self._lock:
            held = np.concatenate([*self._pieces, np.empty(0, np.int16)])
            begin = self._begin
        first, last = (max(0, round(seconds * SAMPLE_RATE) - begin) for seconds in (start_s, end_s))
        return held[first:last]
