"""Sounds and log-mel pictures small enough for a page that carries them all.

Of a long recording, the first ten seconds. Sounds become Ogg at 16 kHz: Vorbis where there is room, since it is made
ten times as fast; Opus where there is not. 2,000 clips of five seconds take 12 MB at the smallest.
"""

import base64
import contextlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from danger_safe.audio.decode import SAMPLE_RATE, AudioError, read_blocks, read_header
from danger_safe.core.cache_folder import prepare_numba
from danger_safe.core.cores import available_cores
from danger_safe.core.paths import PathOrUrl
from models.logmel import LogMel

PLAYED_SECONDS = 10.0
PLAYED_RATE = 16_000  # Hz
PICTURE_WIDTH, PICTURE_COLOURS, PICTURE_DECIBELS = 200, 16, 70  # pixels; 16 colours are half a byte each


@dataclass(frozen=True)
class Quality:
    """How a sound is encoded, and how many bytes that takes (measured on ESC-50, before base64)."""

    subtype: str
    level: float  # libsndfile's compression level
    bytes_per_second: int
    overhead: int

    def size(self, seconds: float) -> float:
        """Characters that such a sound takes in the page, in the mean."""
        return (self.bytes_per_second * seconds + self.overhead) * 4 / 3


GOOD = Quality("VORBIS", 0.9, 3_200, 3_500)
FAIR, SMALL, SMALLEST = (
    Quality("OPUS", level, rate, 400) for level, rate in ((0.98, 1_350), (0.99, 1_020), (1.0, 780))
)
# for mistakes, for the others: the first that fits is taken
PLANS = ((GOOD, GOOD), (GOOD, FAIR), (FAIR, FAIR), (FAIR, SMALL), (FAIR, SMALLEST), (SMALL, SMALLEST))


def beginning(sound: PathOrUrl) -> np.ndarray:
    """The first seconds of a sound: (samples,) float32, mono, 32 kHz. Raises AudioError."""
    with contextlib.closing(read_blocks(sound, PLAYED_SECONDS)) as blocks:
        return next(blocks)


def encode(sound: PathOrUrl, quality: Quality) -> str:
    """The beginning of a sound as Ogg, in base64. Raises AudioError."""
    samples = soxr.resample(beginning(sound), SAMPLE_RATE, PLAYED_RATE)
    file = io.BytesIO()
    try:
        soundfile.write(
            file, np.clip(samples, -1, 1), PLAYED_RATE,
            format="OGG", subtype=quality.subtype, compression_level=quality.level,
        )  # fmt: skip
    except soundfile.SoundFileError as error:
        raise AudioError(f"cannot be encoded: {error}") from error
    return base64.b64encode(file.getvalue()).decode("ascii")


def encode_sounds(
    sounds: dict[int, PathOrUrl], mistaken: set[int], room: int
) -> tuple[dict[int, str], dict[int, str], list[int]]:
    """Encode sounds, most important first, into ``room`` characters of the page.

    Returns (row: base64), (row: why it cannot be played), and the rows that there was no room for.
    """
    with ThreadPoolExecutor(available_cores()) as threads:
        seconds = dict(zip(sounds, threads.map(_seconds, sounds.values()), strict=True))
        for_mistakes, for_others = _plan(seconds, mistaken, room)
        jobs = {row: (sound, for_mistakes if row in mistaken else for_others) for row, sound in sounds.items()}
        results = threads.map(lambda job: _or_reason(encode, *job), jobs.values())
        encoded, failed, left_out = {}, {}, []
        for row, (text, reason) in zip(jobs, tqdm(results, "Sounds of the page", len(jobs), unit="clip"), strict=True):
            taken = len(f'"{row}": "{text}", ')
            if reason:
                failed[row] = reason
            elif taken > room:
                left_out.append(row)
            else:
                encoded[row] = text
                room -= taken
    return encoded, failed, left_out


def _plan(seconds: dict[int, float], mistaken: set[int], room: int) -> tuple[Quality, Quality]:
    for plan in PLANS:
        size = sum(plan[0 if row in mistaken else 1].size(length) for row, length in seconds.items())
        if size * 1.05 <= room:  # noise takes more than the mean
            return plan
    return SMALLEST, SMALLEST


def _seconds(sound: PathOrUrl) -> float:
    try:
        frames, rate = read_header(sound)
    except AudioError:
        return 0.0
    return min(frames / rate, PLAYED_SECONDS)


def _or_reason(work: Callable, *arguments) -> tuple:
    """(result, "") or (None, the reason of an AudioError)."""
    try:
        return work(*arguments), ""
    except AudioError as error:
        return None, str(error)


def draw_logmels(sounds: dict[int, PathOrUrl]) -> dict[int, tuple[str, float]]:
    """Log-mel pictures: row: (PNG in base64, seconds). Sounds that cannot be read have none."""
    prepare_numba()
    from models.mfcc import front_end  # librosa takes a second to load

    mel = front_end()
    with ThreadPoolExecutor(available_cores()) as threads:
        results = threads.map(lambda sound: _or_reason(_draw, sound, mel), sounds.values())
        bar = tqdm(results, "Log-mel pictures", len(sounds), unit="clip")
        return {row: result for row, (result, _) in zip(sounds, bar, strict=True) if result}


def _draw(sound: PathOrUrl, front_end: LogMel) -> tuple[str, float]:
    samples = beginning(sound)
    return base64.b64encode(picture(front_end(samples))).decode("ascii"), len(samples) / SAMPLE_RATE


def picture(logmel: np.ndarray) -> bytes:
    """(frames, 64) in dB -> a palette PNG of 200 x 64 pixels, time to the right, frequency upwards."""
    from PIL import Image  # comes with matplotlib, which takes a second to load

    from danger_safe.reports.canvas import palette

    edges = np.linspace(0, len(logmel), PICTURE_WIDTH + 1)
    spans = zip(edges[:-1].astype(int), np.ceil(edges[1:]).astype(int), strict=True)
    columns = np.array([logmel[first:end].max(axis=0) for first, end in spans])
    top = max(columns.max(), -30.0)  # dB: near silence stays dark
    fraction = np.clip((columns - top) / PICTURE_DECIBELS + 1, 0, 1)
    image = Image.fromarray(np.rint(fraction.T[::-1] * (PICTURE_COLOURS - 1)).astype(np.uint8), "P")
    image.putpalette((palette("magma", PICTURE_COLOURS) * 255).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", bits=4, optimize=True)
    return file.getvalue()
