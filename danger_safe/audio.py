"""Sound files in, mono float32 at 32 kHz out: the only place where audio is decoded.

    samples = read_clip("dog.wav")             # the whole clip, shape (samples,)
    for block in read_blocks("day.flac", 30):  # at most 30 s at a time: memory does not grow with the recording

Decoding is libsndfile's (WAV, FLAC, OGG, MP3 and more), resampling is soxr's at high quality.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from danger_safe.addresses import Place, is_address, open_file

SAMPLE_RATE = 32_000  # Hz, what Cnn14 was trained on
WINDOW_SECONDS = 30.0  # longer recordings are read and embedded in windows of this length: memory stays bounded
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf")
MISSING = "is missing"
LOWEST_RATE, HIGHEST_RATE = 1_000, 10_000_000  # Hz; a damaged header's rate makes days of sound, or none, of a second
_READ_FRAMES = 1 << 18  # frames decoded at once: 6 s at 44.1 kHz


class AudioError(Exception):
    """A sound file that cannot be used; the message is the reason, without the file's name."""


def read_clip(path: Place) -> np.ndarray:
    """Decode a clip that fits in memory: float32 of shape (samples,), mono, 32 kHz, nominally in [-1, 1].

    Raises AudioError when the file cannot be read, has no samples, or holds NaN or infinite ones.
    """
    return np.concatenate(list(read_blocks(path, seconds=60.0)))


def read_blocks(path: Place, seconds: float) -> Iterator[np.ndarray]:
    """Decode a recording of any length in blocks of ``seconds`` (the last one shorter), as ``read_clip`` would.

    Each block is float32 of shape (seconds * 32,000,). Channels are averaged. Raises AudioError as ``read_clip``.
    """
    size = int(seconds * SAMPLE_RATE)
    ready, held = [], 0  # resampled pieces that do not fill a block yet, and how many samples they hold
    empty = True
    for piece in read_pieces(path):
        empty = empty and not len(piece)
        ready.append(piece)
        held += len(piece)
        if held >= size:
            joined = np.concatenate(ready)
            whole = held - held % size
            yield from joined[:whole].reshape(-1, size)
            ready, held = [joined[whole:]], held - whole
    if empty:
        raise AudioError("has no samples")
    if held:
        yield np.concatenate(ready)


def read_header(path: Place) -> tuple[int, int]:
    """(frames, Hz) as a file's header has them: fast, and not to be trusted. Raises AudioError as ``read_clip``."""
    try:
        with _opened(path) as source, soundfile.SoundFile(source) as file:
            return file.frames, file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _opened(path: Place):
    """What libsndfile can open: the path itself, or an open file for an address."""
    return open_file(path) if is_address(path) else contextlib.nullcontext(path)


def read_pieces(path: Place) -> Iterator[np.ndarray]:
    """Decoded, mono, 32 kHz pieces of a file, as they come."""
    try:
        with _opened(path) as source, soundfile.SoundFile(source) as file:
            yield from resampled(_mono_pieces(file), file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _mono_pieces(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    for piece in file.blocks(_READ_FRAMES, dtype="float32", always_2d=True):
        yield finite(piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1, dtype=np.float32))


def resampled(pieces: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Mono pieces of ``rate`` Hz at 32 kHz, as they come. Raises AudioError for a rate that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"has a sample rate of {rate} Hz, which cannot be right")
    if rate == SAMPLE_RATE:
        yield from pieces
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def finite(samples: np.ndarray) -> np.ndarray:
    """The samples. Raises AudioError when one is NaN or infinite."""
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    return samples


def _reason(path: Place, error: Exception) -> str:
    """What a person can act on, from libsndfile's or the system's words."""
    if is_address(path):
        if isinstance(error, FileNotFoundError):
            return MISSING
    elif not os.path.exists(path):  # not Path.exists, which raises for a name that the system would not take
        return MISSING if not os.path.islink(path) else "is a link to a file that is not there"
    elif os.path.isfile(path) and os.path.getsize(path) == 0:
        return "is an empty file"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    words = str(error).rsplit(": ", 1)[-1].rstrip(".")
    return f"cannot be decoded: {words}"
