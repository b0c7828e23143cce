"""Decoded clips for training, kept in a temporary file: passes read them again and again, memory holds none."""

import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import soxr
from tqdm import tqdm

from danger_safe.audio import SAMPLE_RATE, AudioError, read_clip
from danger_safe.clips import Clip
from models.logmel import LogMel

if TYPE_CHECKING:
    from models.network import SoundNetwork


class SoundStore:
    """``store[i]`` is clip i as int16 at ``rate`` Hz, scaled to a peak of 32,767; ``store.names[i]`` its file name.

    Clips that cannot be read are left out; ``failures`` lists them with the reason, ``clips`` those that were kept.
    """

    def __init__(self, clips: list[Clip], rate: int = SAMPLE_RATE):
        self.rate = rate
        self.clips: list[Clip] = []
        self.failures: list[tuple[str, str]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the store
        self._ends = [0]  # in samples
        for clip in tqdm(clips, desc="Reading sounds", unit="clip", file=sys.stderr):
            try:
                samples = soxr.resample(read_clip(clip.path), SAMPLE_RATE, rate)
            except AudioError as error:
                self.failures.append((clip.file, str(error)))
                continue
            peak = max(float(np.abs(samples).max()), 1e-4)
            self._file.write(np.round(samples * (32_767 / peak)).astype(np.int16).tobytes())
            self._ends.append(self._ends[-1] + len(samples))
            self.clips.append(clip)
        self._file.flush()
        self._samples = np.memmap(self._file, np.int16, "r") if self.clips else np.empty(0, np.int16)

    def front_end(self, model: "SoundNetwork") -> LogMel:
        """The network's front end, for sounds at the store's rate."""
        front_end = LogMel.of(model)
        return front_end if self.rate == SAMPLE_RATE else front_end.at_half_rate()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._samples[self._ends[index] : self._ends[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        return [clip.file for clip in self.clips]
