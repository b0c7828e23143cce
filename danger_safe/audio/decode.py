"""Sound files in, mono float32 at 32 kHz out: the only place where audio is decoded.

    samples = read_clip("dog.wav")             # the whole clip, shape (samples,)
    for block in read_blocks("day.flac", 30):  # at most 30 s at a time: memory does not grow with the recording

Decoding is libsndfile's (WAV, FLAC, OGG, MP3 and more), resampling is soxr's at high quality.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from danger_safe.audio import chained
from danger_safe.core.paths import Place, is_address, open_file

SAMPLE_RATE = 32_000  # Hz, what Cnn14 was trained on
WINDOW_SECONDS = 30.0  # longer recordings are read and embedded in windows of this length: memory stays bounded
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf")
FFMPEG_SUFFIXES = (".aac", ".avi", ".m4a", ".mkv", ".mov", ".mp4", ".webm", ".wma")  # what ffmpeg can make a sound of
MISSING = "is missing"
RATES = range(1_000, 1_000_001)  # Hz
CANCELLED = 1e-3  # energy of the channels' mean, as a share of the loudest one's, under which they cancel each other
MOST_FRAMES = 1 << 48  # libsndfile says 2**63 - 1 of a FLAC that was written to a pipe, and then fails to seek in it
LOUDEST = 1e10  # full scale is 1; some write integers as floats. Beyond, a spectrum would overflow
_READ_FRAMES = 1 << 16  # frames decoded at once: 1.5 s at 44.1 kHz; what breaks off in one of them is lost with it


class AudioError(Exception):
    """A sound file that cannot be used; the message is the reason, without the file's name."""


def read_clip(path: Place) -> np.ndarray:
    """Decode a clip that fits in memory: float32 of shape (samples,), mono, 32 kHz, nominally in [-1, 1].

    Raises AudioError when the file cannot be read, has no samples, or holds NaN or infinite ones.
    """
    return np.concatenate(list(read_blocks(path, seconds=60.0)))


def read_blocks(path: Place, seconds: float) -> Iterator[np.ndarray]:
    """Decode a recording of any length in blocks of ``seconds`` (the last one shorter), as ``read_clip`` would.

    Each block is float32 of shape (seconds * 32,000,). Channels are averaged, unless they cancel each other. Raises AudioError as ``read_clip``.
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
    with open_sound(path) as file:
        check_rate(file.samplerate)
        if file.frames > MOST_FRAMES:
            raise AudioError("cannot be decoded: its header does not say how long it is")
        return file.frames, file.samplerate


@contextlib.contextmanager
def open_sound(path: Place) -> Iterator[soundfile.SoundFile]:
    """A sound file, open as libsndfile reads it. Raises AudioError as ``read_clip``, also while it is read."""
    _check_is_file(path)
    try:
        with _opened(path) as source, soundfile.SoundFile(source) as file:
            yield file
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _opened(path: Place):
    """What libsndfile can open: the path itself, or an open file for an address."""
    if is_address(path):
        return open_file(path)
    # as bytes, where the system knows names as bytes: not every one is text
    return contextlib.nullcontext(os.fsencode(path) if os.name == "posix" else path)


def read_pieces(path: Place) -> Iterator[np.ndarray]:
    """Decoded, mono, 32 kHz pieces of a file, as they come. Raises AudioError as ``read_clip``."""
    with open_sound(path) as file:
        yield from resampled(_mono_pieces(file), file.samplerate)
        may_be_joined = file.format in chained.FORMATS and not is_address(path)
    try:
        if may_be_joined and chained.is_joined(path):
            raise AudioError("holds another recording, joined to its end: only the first was heard. Take them apart")
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _mono_pieces(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    # not file.blocks(): where a file ends before its header says, that gives whatever was in the memory
    frames = _READ_FRAMES * 8 // max(8, file.channels)
    while len(piece := file.read(frames, dtype="float32", always_2d=True)):
        yield mono(finite(piece))


def mono(samples: np.ndarray) -> np.ndarray:
    """(samples, channels) -> the mean of the channels; where they cancel each other out, the loudest: (samples,)."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean = samples.mean(axis=1, dtype=np.float32)
    energy = np.einsum("ij,ij->j", samples, samples)
    loudest = int(np.argmax(energy))
    if np.dot(mean, mean) < CANCELLED * energy[loudest]:  # a cable with its wires crossed: silence would be called safe
        return np.ascontiguousarray(samples[:, loudest], np.float32)
    return mean


def resampled(pieces: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Mono pieces of ``rate`` Hz at 32 kHz, as they come."""
    check_rate(rate)
    if rate == SAMPLE_RATE:
        yield from pieces
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def check_rate(rate: int) -> None:
    """Raises AudioError for a rate that no sound has: a second of it might last for hours."""
    if rate not in RATES:
        raise AudioError(f"has a sample rate of {rate:,} Hz, where {RATES[0]:,} to {RATES[-1]:,} are possible")


def finite(samples: np.ndarray) -> np.ndarray:
    """The samples. Raises AudioError when one is NaN, infinite, or too large for any sound."""
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    if len(samples) and max(samples.max(), -samples.min()) > LOUDEST:
        raise AudioError(f"holds samples beyond {LOUDEST:g}, where 1 is full scale: no sound")
    return samples


def _check_is_file(path: Place) -> None:
    """Raises AudioError for a folder, a pipe, a device: to open one could wait for ever, or read for ever."""
    if is_address(path):
        return
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # raises where it cannot be looked into
        elif stat.S_ISREG(mode):
            open(path, "rb").close()  # raises where it may not be read, which libsndfile calls a system error
    except (OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error
    if not stat.S_ISREG(mode):
        raise AudioError("is a folder, no file" if stat.S_ISDIR(mode) else "is a pipe or a device, no file")


def _reason(path: Place, error: Exception) -> str:
    """What a person can act on, from libsndfile's or the system's words."""
    if isinstance(error, FileNotFoundError):
        dangling = not is_address(path) and os.path.islink(path)
        return "is a link to a file that is not there" if dangling else MISSING
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if not is_address(path) and os.path.getsize(path) == 0:
        return "is an empty file"
    words = str(error).rsplit(": ", 1)[-1].rstrip(".")
    if "regular file" in words:  # what libsndfile says of anything that is named .mp3 and is none
        words = "Format not recognised"
    return f"cannot be decoded: {words}"
