"""Soundscapes: hours of ordinary sound, joined from clips, in which false alarms are counted.

Single clips are not enough for this: in use, a detector listens to nothing for days, and every quiet minute is a
hundred windows that could each raise an alarm.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE, read_blocks
from danger_safe.data.clips import Clip

FADE_SAMPLES = SAMPLE_RATE // 4  # crossfade between clips: a quarter of a second
LOUDNESS_DB = (-45.0, -20.0)  # dBFS RMS, range of the clips' loudness: from a quiet room to a loud street
MAX_CLIP_S = 60.0  # longer clips are cut
MIC_NOISE_RMS = 1e-3  # -60 dBFS; noise of the microphone itself


@dataclass
class Soundscape:
    """A long recording made of clips; ``chunks()`` yields its sound. The same seed gives the same recording."""

    clips: list[Clip]  # ordinary sounds
    seconds: float  # maximum length
    seed: int = 0
    _: KW_ONLY
    as_recorded: bool = False  # True: every clip once, in order, unchanged; False: drawn at random, soft and loud
    events: list[tuple[float, np.ndarray]] = field(default_factory=list)  # (start in seconds, samples) to mix in
    background: list[tuple[float, float, Clip]] = field(default_factory=list)  # (start, end, clip) of what was yielded

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the recording, mono float32 at 32 kHz, one clip at a time: only one is in memory."""
        rng = np.random.default_rng(self.seed)
        ramp = np.linspace(0, 1, FADE_SAMPLES, dtype=np.float32)
        position, total = 0, round(self.seconds * SAMPLE_RATE)
        self.background.clear()
        tail = np.zeros(FADE_SAMPLES, np.float32)  # end of the previous clip, fading out
        for clip in self._order(rng):
            if position >= total:
                break
            sound = next(read_blocks(clip.path, MAX_CLIP_S))
            if len(sound) < 4 * FADE_SAMPLES:
                sound = np.tile(sound, -(-4 * FADE_SAMPLES // len(sound)))
            if not self.as_recorded:
                loudness = np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
                sound = np.clip(sound * (10 ** (rng.uniform(*LOUDNESS_DB) / 20) / max(loudness, 1e-5)), -1, 1)
                sound = sound.astype(np.float32)
            sound[:FADE_SAMPLES] = sound[:FADE_SAMPLES] * ramp + tail
            tail = sound[-FADE_SAMPLES:] * ramp[::-1]
            chunk = sound[:-FADE_SAMPLES]
            if not self.as_recorded:
                chunk = chunk + rng.standard_normal(len(chunk), np.float32) * np.float32(MIC_NOISE_RMS)
            chunk = chunk[: total - position]
            self._add_events(chunk, position)
            self.background.append((position / SAMPLE_RATE, (position + len(chunk)) / SAMPLE_RATE, clip))
            position += len(chunk)
            yield np.clip(chunk, -1, 1)

    def _order(self, rng: np.random.Generator) -> Iterator[Clip]:
        if self.as_recorded:
            yield from self.clips
        while not self.as_recorded:
            yield self.clips[rng.integers(len(self.clips))]

    def _add_events(self, chunk: np.ndarray, position: int) -> None:
        """Mix in the parts of events that fall into the chunk, in place; ``position`` is its first sample's."""
        for start, samples in self.events:
            offset = round(start * SAMPLE_RATE) - position
            first, last = max(offset, 0), min(offset + len(samples), len(chunk))
            if first < last:
                chunk[first:last] += samples[first - offset : last - offset]
