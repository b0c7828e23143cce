"""Hours of ordinary sound, joined from clips that a model has not heard, in which false alarms are counted.

Clips alone say too little of that: in use, a detector hears days of nothing, and every quiet minute is a hundred
windows that could each raise an alarm.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE, read_blocks
from danger_safe.data.clips import Clip

FADE = SAMPLE_RATE // 4  # samples: clips run into each other for a quarter of a second
LOUDNESS_DB = (-45.0, -20.0)  # dB of full scale, RMS: from a quiet room to a loud street
MAX_CLIP_S = 60.0  # seconds of a clip that are used
MIC_NOISE_RMS = 1e-3  # RMS of the microphone's own noise, -60 dB: there is always some


@dataclass
class Soundscape:
    """``chunks()`` is the sound, mono float32 at 32 kHz; the same seed gives the same. Memory holds one clip."""

    clips: list[Clip]  # ordinary sounds
    seconds: float  # at most
    seed: int = 0
    _: KW_ONLY
    as_recorded: bool = False  # each clip once, in this order, as it is; else drawn again and again, soft and loud
    events: list[tuple[float, np.ndarray]] = field(default_factory=list)  # (start in seconds, samples) to be added
    background: list[tuple[float, float, Clip]] = field(default_factory=list)  # (start, end, clip), once it was heard

    def chunks(self) -> Iterator[np.ndarray]:
        """The recording, a clip at a time."""
        rng = np.random.default_rng(self.seed)
        ramp = np.linspace(0, 1, FADE, dtype=np.float32)
        position, total = 0, round(self.seconds * SAMPLE_RATE)
        self.background.clear()
        tail = np.zeros(FADE, np.float32)  # of the clip before, fading out
        for clip in self._order(rng):
            if position >= total:
                break
            sound = next(read_blocks(clip.path, MAX_CLIP_S))
            if len(sound) < 4 * FADE:
                sound = np.tile(sound, -(-4 * FADE // len(sound)))
            if not self.as_recorded:
                loudness = np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
                sound = np.clip(sound * (10 ** (rng.uniform(*LOUDNESS_DB) / 20) / max(loudness, 1e-5)), -1, 1)
                sound = sound.astype(np.float32)
            sound[:FADE] = sound[:FADE] * ramp + tail
            tail = sound[-FADE:] * ramp[::-1]
            piece = sound[:-FADE]
            if not self.as_recorded:
                piece = piece + rng.standard_normal(len(piece), np.float32) * np.float32(MIC_NOISE_RMS)
            piece = piece[: total - position]
            self._add_events(piece, position)
            self.background.append((position / SAMPLE_RATE, (position + len(piece)) / SAMPLE_RATE, clip))
            position += len(piece)
            yield np.clip(piece, -1, 1)

    def _order(self, rng: np.random.Generator) -> Iterator[Clip]:
        if self.as_recorded:
            yield from self.clips
        while not self.as_recorded:
            yield self.clips[rng.integers(len(self.clips))]

    def _add_events(self, piece: np.ndarray, position: int) -> None:
        """Add what of the events falls into this piece, in place."""
        for start, samples in self.events:
            begin = round(start * SAMPLE_RATE) - position
            first, last = max(begin, 0), min(begin + len(samples), len(piece))
            if first < last:
                piece[first:last] += samples[first - begin : last - begin]
