"""Decoded clips in a temporary file, for epochs that read them again and again without holding them in memory."""

import sys
import tempfile
from collections.abc import Iterator
from itertools import islice

import numpy as np
import soxr
from tqdm import tqdm

from danger_safe.audio.decode import SAMPLE_RATE, AudioError, read_blocks
from danger_safe.data.clips import Clip
from models.kaldimel import KaldiMel
from models.logmel import LogMel
from models.network import SoundNetwork

BLOCK_S = 60.0  # sound of one recording in memory at once


class WaveformStore:
    """Clips as int16 waveforms: ``store[i]`` is clip i at ``sample_rate`` Hz, normalised to a peak of 32,767.

    ``clips`` lists the clips in it, ``failures`` those that could not be read, as (file, reason).
    """

    def __init__(self, clips: list[Clip], sample_rate: int = SAMPLE_RATE, noun: str = "sounds"):
        """``noun``: what the progress bar calls the clips."""
        self.sample_rate = sample_rate
        self.clips: list[Clip] = []
        self.failures: list[tuple[str, str]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the store
        self._ends = [0]  # in samples
        for clip in tqdm(clips, desc=f"Reading {noun}", unit="clip", file=sys.stderr) if clips else ():
            try:
                size = self._write(clip)
            except AudioError as error:
                self.failures.append((clip.file, str(error)))
                self._file.seek(2 * self._ends[-1])  # the next clip overwrites its beginning
                continue
            self._ends.append(self._ends[-1] + size)
            self.clips.append(clip)
        self._file.flush()
        self._samples = np.memmap(self._file, np.int16, "r") if self.clips else np.empty(0, np.int16)

    def _write(self, clip: Clip) -> int:
        """Append a clip block by block; return its number of samples. Raises AudioError."""
        blocks = list(islice(read_blocks(clip.path, BLOCK_S), 2))
        if len(blocks) == 1:
            return self._append(soxr.resample(blocks[0], SAMPLE_RATE, self.sample_rate), float(np.abs(blocks[0]).max()))
        peak = max(float(np.abs(block).max()) for block in read_blocks(clip.path, BLOCK_S))
        stream = soxr.ResampleStream(SAMPLE_RATE, self.sample_rate, 1, dtype="float32")
        size = sum(self._append(stream.resample_chunk(block), peak) for block in read_blocks(clip.path, BLOCK_S))
        return size + self._append(stream.resample_chunk(np.empty(0, np.float32), last=True), peak)

    def _append(self, samples: np.ndarray, peak: float) -> int:
        scaled = np.round(samples * (32_767 / max(peak, 1e-4)))
        self._file.write(np.clip(scaled, -32_767, 32_767).astype(np.int16).tobytes())  # resampling can overshoot
        return len(samples)

    def front_end(self, model: SoundNetwork) -> LogMel | KaldiMel:
        """Return the network's front end for the store's sample rate."""
        front_end = model.front_end
        if self.sample_rate == SAMPLE_RATE:
            return front_end
        assert isinstance(front_end, LogMel)  # networks with Kaldi's log-mels are trained at the full rate
        return front_end.at_half_rate()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._samples[self._ends[index] : self._ends[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The file name of each clip."""
        return [clip.file for clip in self.clips]
