"""Encode sounds and log-mel pictures for the page of mistakes, which embeds them all.

Only the first ten seconds of a recording are used. Sounds become Ogg at 16 kHz: Vorbis if they fit, since encoding is
ten times as fast, else Opus. 2,000 clips of five seconds take 12 MB at the lowest quality.
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
from danger_safe.core.cores import available_cores
from danger_safe.core.paths import PathOrUrl
from models.logmel import LogMel, cnn14_front_end

PLAYED_SECONDS = 10.0
PLAYED_RATE = 16_000  # Hz
PICTURE_WIDTH, PICTURE_COLOURS, PICTURE_RANGE_DB = 200, 16, 70  # pixels; 16 colours fit into half a byte


@dataclass(frozen=True)
class Quality:
    """An encoding, with its size as measured on ESC-50 (before base64)."""

    subtype: str
    level: float  # libsndfile's compression level
    bytes_per_second: int
    overhead: int  # bytes

    def size(self, seconds: float) -> float:
        """Return the mean number of characters that a sound takes in the page."""
        return (self.bytes_per_second * seconds + self.overhead) * 4 / 3


GOOD = Quality("VORBIS", 0.9, 3_200, 3_500)
FAIR, SMALL, SMALLEST = (
    Quality("OPUS", level, rate, 400) for level, rate in ((0.98, 1_350), (0.99, 1_020), (1.0, 780))
)
# (quality for mistakes, quality for other clips); the first pair that fits is used
PLANS = ((GOOD, GOOD), (GOOD, FAIR), (FAIR, FAIR), (FAIR, SMALL), (FAIR, SMALLEST), (SMALL, SMALLEST))


def read_start(sound: PathOrUrl) -> np.ndarray:
    """Return the first PLAYED_SECONDS of a sound: (samples,) float32, mono, 32 kHz. Raises AudioError."""
    with contextlib.closing(read_blocks(sound, PLAYED_SECONDS)) as blocks:
        return next(blocks)


def encode(sound: PathOrUrl, quality: Quality) -> str:
    """Encode the first PLAYED_SECONDS of a sound as Ogg, in base64. Raises AudioError."""
    samples = soxr.resample(read_start(sound), SAMPLE_RATE, PLAYED_RATE)
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
    sounds: dict[int, PathOrUrl], mistaken: set[int], max_chars: int
) -> tuple[dict[int, str], dict[int, str], list[int]]:
    """Encode sounds, most important first, into at most ``max_chars`` characters of the page.

    Returns {row: base64}, {row: why it cannot be played}, and the rows that did not fit.

    Args:
        sounds: the files, by row of the table.
        mistaken: rows of misclassified clips, which get the better quality.
        max_chars: the space left in the page.
    """
    with ThreadPoolExecutor(available_cores()) as threads:
        seconds = dict(zip(sounds, threads.map(_played_seconds, sounds.values()), strict=True))
        for_mistakes, for_others = _choose_qualities(seconds, mistaken, max_chars)
        jobs = {row: (sound, for_mistakes if row in mistaken else for_others) for row, sound in sounds.items()}
        results = threads.map(lambda job: _result_or_reason(encode, *job), jobs.values())
        encoded, failed, left_out = {}, {}, []
        for row, (text, reason) in zip(jobs, tqdm(results, "Sounds of the page", len(jobs), unit="clip"), strict=True):
            chars = len(f'"{row}": "{text}", ')
            if reason:
                failed[row] = reason
            elif chars > max_chars:
                left_out.append(row)
            else:
                encoded[row] = text
                max_chars -= chars
    return encoded, failed, left_out


def _choose_qualities(seconds: dict[int, float], mistaken: set[int], max_chars: int) -> tuple[Quality, Quality]:
    """Return the best qualities for mistakes and for other clips that fit into ``max_chars``."""
    for plan in PLANS:
        size = sum(plan[0 if row in mistaken else 1].size(length) for row, length in seconds.items())
        if size * 1.05 <= max_chars:  # noisy sounds take more than the mean
            return plan
    return SMALLEST, SMALLEST


def _played_seconds(sound: PathOrUrl) -> float:
    """Return how long a sound plays in the page, according to its header; 0 if that cannot be read."""
    try:
        frames, rate = read_header(sound)
    except AudioError:
        return 0.0
    return min(frames / rate, PLAYED_SECONDS)


def _result_or_reason(function: Callable, *arguments) -> tuple:
    """Return (result, ""), or (None, message) after an AudioError."""
    try:
        return function(*arguments), ""
    except AudioError as error:
        return None, str(error)


def draw_logmels(sounds: dict[int, PathOrUrl]) -> dict[int, tuple[str, float]]:
    """Return log-mel pictures, {row: (PNG in base64, seconds)}, without those of sounds that cannot be read."""
    mel = cnn14_front_end()
    with ThreadPoolExecutor(available_cores()) as threads:
        results = threads.map(lambda sound: _result_or_reason(_draw_logmel, sound, mel), sounds.values())
        bar = tqdm(results, "Log-mel pictures", len(sounds), unit="clip")
        return {row: result for row, (result, _) in zip(sounds, bar, strict=True) if result}


def _draw_logmel(sound: PathOrUrl, front_end: LogMel) -> tuple[str, float]:
    samples = read_start(sound)
    return base64.b64encode(logmel_png(front_end(samples))).decode("ascii"), len(samples) / SAMPLE_RATE


def logmel_png(logmel: np.ndarray) -> bytes:
    """Draw a log-mel, (frames, 64) in dB, as a PNG of 200 x 64 pixels: time to the right, frequency upwards."""
    from PIL import Image  # comes with matplotlib, which takes a second to load

    from danger_safe.reports.canvas import palette

    edges = np.linspace(0, len(logmel), PICTURE_WIDTH + 1)
    spans = zip(edges[:-1].astype(int), np.ceil(edges[1:]).astype(int), strict=True)
    columns = np.array([logmel[first:end].max(axis=0) for first, end in spans])
    top = max(columns.max(), -30.0)  # dB; keeps near silence dark
    fraction = np.clip((columns - top) / PICTURE_RANGE_DB + 1, 0, 1)
    image = Image.fromarray(np.rint(fraction.T[::-1] * (PICTURE_COLOURS - 1)).astype(np.uint8), "P")
    image.putpalette((palette("magma", PICTURE_COLOURS) * 255).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", bits=4, optimize=True)
    return file.getvalue()
