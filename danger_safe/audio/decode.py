"""Decoding of sound files to mono float32 at 32 kHz. No other module decodes files.

    samples = read_clip("dog.wav")             # the whole clip, shape (samples,)
    for block in read_blocks("day.flac", 30):  # blocks of 30 s: memory does not grow with the recording

libsndfile decodes what it can (WAV, FLAC, OGG, MP3 and more), ffmpeg the rest if it is installed; soxr resamples at
high quality. If a file is shorter than its container declares (sections.py), or damaged, all readers yield what can be
decoded and then raise AudioError.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from danger_safe.audio import ffmpeg
from danger_safe.audio.containers import find_sections
from danger_safe.audio.pcm import (
    SAMPLE_RATE,
    SAMPLE_RATES,
    AudioError,
    check_sample_rate,
    check_samples,
    format_time,
    resample,
    to_mono,
    truncation_message,
)
from danger_safe.audio.sections import Section, SectionReader, Source
from danger_safe.core.paths import PathOrUrl, is_url, open_file

__all__ = [
    "AUDIO_SUFFIXES", "SAMPLE_RATE", "SAMPLE_RATES", "AudioError", "read_blocks", "read_channels", "read_clip",
    "read_header",
]  # fmt: skip
WINDOW_S = 30.0  # seconds; longer recordings are read and embedded in windows of this length, to bound memory
AUDIO_SUFFIXES = (  # of the files that are found in folders; a file given by name may have any
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".awb", ".caf",
    ".dts", ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4",
    ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".rf64", ".snd", ".spx", ".tak", ".tta", ".ts",
    ".vob", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wv",
)  # fmt: skip
MAX_FRAMES = 1 << 48  # libsndfile reports 2**63 - 1 frames for a file that was written to a pipe
CHUNK_FRAMES = 1 << 16  # frames per read, 1.5 s at 44.1 kHz; a decoding error loses the chunk that it occurs in
# Frames by which a file may be shorter than its header says: Ogg pages are checked instead, MP3 has a decoder delay.
_TOLERANCE_FRAMES = {"OGG": MAX_FRAMES, "MP3": 4_608}
_MISSING = "is missing"
_UNDECODABLE = "cannot be decoded"


def read_clip(path: PathOrUrl) -> np.ndarray:
    """Decode a clip that fits in memory: float32, (samples,), mono, 32 kHz, nominally in [-1, 1].

    Raises AudioError if the file cannot be decoded completely, has no samples, or has NaN or infinite ones.
    """
    return np.concatenate(list(read_blocks(path, seconds=60.0)))


def read_blocks(path: PathOrUrl, seconds: float) -> Generator[np.ndarray, None, None]:
    """Decode a recording of any length in blocks of ``seconds``, of which the last may be shorter.

    Each block is float32, (seconds * 32,000,), mono. Channels are averaged unless they cancel each other.
    Raises AudioError as ``read_clip``, after the last block that could be decoded.
    """
    block_size = int(seconds * SAMPLE_RATE)
    buffer, num_buffered = [], 0  # chunks that do not fill a block yet, and the number of their samples
    is_empty = True
    for chunk in read_chunks(path):
        is_empty = is_empty and not len(chunk)
        buffer.append(chunk)
        num_buffered += len(chunk)
        if num_buffered >= block_size:
            samples = np.concatenate(buffer)
            num_whole = num_buffered - num_buffered % block_size
            yield from samples[:num_whole].reshape(-1, block_size)
            buffer, num_buffered = [samples[num_whole:]], num_buffered - num_whole
    if is_empty:
        raise AudioError("has no samples")
    if num_buffered:
        yield np.concatenate(buffer)


def read_header(path: PathOrUrl) -> tuple[int, int]:
    """Return (frames, sample rate) according to a file's header: fast, but headers may be wrong.

    The number of frames is 0 if the header does not declare it. Raises AudioError as ``read_clip``.
    """
    try:
        with open_audio(path) as file:
            check_sample_rate(file.samplerate)
            return (file.frames if file.frames <= MAX_FRAMES else 0), file.samplerate
    except AudioError as error:
        if not str(error).startswith(_UNDECODABLE) or not ffmpeg.is_available():
            raise
    with _local_copy(path) as local:
        return round(ffmpeg.StreamInfo(local).duration_s * SAMPLE_RATE), SAMPLE_RATE


def read_chunks(path: PathOrUrl) -> Iterator[np.ndarray]:
    """Decode a file to mono chunks at 32 kHz, (samples,), of any lengths. Raises AudioError as ``read_clip``."""
    yield from _read(path, to_mono)


def read_channels(path: PathOrUrl) -> Iterator[np.ndarray]:
    """Decode a file to chunks with the channels of all its audio tracks, (samples, channels), as ``read_chunks``."""
    yield from _read(path, lambda samples: samples)


@contextlib.contextmanager
def open_audio(path: PathOrUrl) -> Iterator[soundfile.SoundFile]:
    """Open a file with libsndfile. Opening it, and reading it inside the block, raise AudioError as ``read_clip``."""
    _check_is_file(path)
    try:
        with _open_for_libsndfile(path) as source, soundfile.SoundFile(source) as file:
            yield file
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _open_for_libsndfile(path: PathOrUrl):
    """Return a context manager of what libsndfile can open: a path, or an open file for a URL."""
    if is_url(path):
        return open_file(path)
    # As bytes on POSIX, where a file name need not be valid text.
    return contextlib.nullcontext(os.fsencode(path) if os.name == "posix" else path)


@contextlib.contextmanager
def _local_copy(path: PathOrUrl) -> Iterator[Path]:
    """Yield a local path: the path itself, or a temporary download of a URL."""
    if not is_url(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder, open_file(path) as source:
        local = Path(folder, "sound")
        with open(local, "wb") as file:
            shutil.copyfileobj(source, file)
        yield local


def _read(path: PathOrUrl, mix: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Decode a file with libsndfile or, if that fails before the first sample, with ffmpeg; ``mix`` maps channels."""
    _check_is_file(path)
    num_samples = 0
    try:
        with _local_copy(path) as local:
            with open(local, "rb") as file:
                sections = find_sections(Source(file))
                try:
                    if any(section.tracks > 1 for section in sections):
                        raise AudioError(f"{_UNDECODABLE}: it holds several tracks of sound")
                    for chunk in _decode_with_libsndfile(local, file, sections, mix):
                        num_samples += len(chunk)
                        yield chunk
                    return
                except (soundfile.SoundFileError, ValueError) as error:
                    libsndfile_error = AudioError(_reason(local, error))
                except AudioError as error:
                    libsndfile_error = error
            if num_samples or not str(libsndfile_error).startswith(_UNDECODABLE):
                raise libsndfile_error
            for chunk in _decode_with_ffmpeg(local, sections, libsndfile_error):
                num_samples += len(chunk)
                yield mix(chunk)
            if fault := next((section.fault for section in sections if section.fault), ""):
                raise AudioError(_fault_message(fault, num_samples))
    except OSError as error:
        raise AudioError(_reason(path, error)) from error


def _decode_with_libsndfile(
    path: Path, file: BinaryIO, sections: list[Section], mix: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Decode the sections of a file, one after another.

    Args:
        path: the file.
        file: the same file, open.
        sections: its sections; empty if its container is not known.
        mix: maps (samples, channels) to the channels that are wanted.

    Raises:
        AudioError: a section is incomplete; after everything that could be decoded.
        soundfile.SoundFileError: nothing could be decoded.
    """
    by_path = len(sections) < 2 and not (sections and sections[0].header)  # faster than reading through Python
    num_samples, fault = 0, ""
    for section in sections or [Section(0, 0)]:
        counter = _FrameCounter()
        try:
            with (
                _open_for_libsndfile(path) as name,
                soundfile.SoundFile(name if by_path else SectionReader(file, section)) as sound,
            ):
                check_sample_rate(sound.samplerate)
                for chunk in resample(map(mix, counter.read(sound)), sound.samplerate):
                    num_samples += len(chunk)
                    yield chunk
                # MP3 audio inside a WAV has the decoder delay, too.
                audio_format = "MP3" if sound.subtype.startswith("MPEG") else sound.format
                is_short = sound.frames - counter.frames > _TOLERANCE_FRAMES.get(audio_format, 0)
        except soundfile.SoundFileError as error:
            if not num_samples:
                raise
            fault = fault or truncation_message(num_samples, section.declared_s, _reason(path, error))
            continue
        if section.fault or is_short:
            fault = fault or _fault_message(section.fault, num_samples, section.declared_s)
    if fault:
        raise AudioError(fault)


class _FrameCounter:
    """Counts the frames that libsndfile delivers."""

    frames = 0

    def read(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        """Read a file to its end in chunks, (frames, channels)."""
        # Not file.blocks(), which returns uninitialised memory if the file is shorter than its header says.
        chunk_frames = CHUNK_FRAMES * 8 // max(8, file.channels)
        while len(chunk := file.read(chunk_frames, dtype="float32", always_2d=True)):
            self.frames += len(chunk)
            yield check_samples(chunk)


def _decode_with_ffmpeg(path: Path, sections: list[Section], libsndfile_error: AudioError) -> Iterator[np.ndarray]:
    """Decode the sections of a file with ffmpeg, one after another: chunks of (samples, channels).

    Args:
        path: the file.
        sections: its sections; empty if its container is not known.
        libsndfile_error: why libsndfile cannot decode it; raised if ffmpeg is not installed.

    Raises:
        AudioError: a section is incomplete; after everything that could be decoded.
    """
    if len(sections) < 2:
        yield from ffmpeg.decode_file(path, libsndfile_error)
        return
    fault = ""
    for section in sections:  # ffmpeg decodes only the first recording of a file, so each gets a file of its own
        with tempfile.TemporaryDirectory() as folder, open(path, "rb") as file:
            copy = Path(folder, "part" + path.suffix)
            with open(copy, "wb") as target:
                shutil.copyfileobj(SectionReader(file, section), target)
            try:
                yield from ffmpeg.decode_file(copy, libsndfile_error)
            except AudioError as error:
                fault = fault or str(error)
    if fault:
        raise AudioError(fault)


def _fault_message(fault: str, num_samples: int, declared_s: float = 0.0) -> str:
    """Describe a section's fault to the user; the arguments after the fault are as in ``truncation_message``."""
    if fault == "is damaged":
        return f"is damaged: not all of its sound up to {format_time(num_samples / SAMPLE_RATE)} could be decoded"
    return truncation_message(num_samples, declared_s)


def _check_is_file(path: PathOrUrl) -> None:
    """Raise AudioError for a folder, a pipe or a device: opening or reading one could block forever."""
    if is_url(path):
        return
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # raises if the folder cannot be read
        elif stat.S_ISREG(mode):
            open(path, "rb").close()  # raises without read permission, which libsndfile reports as "system error"
    except (OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error
    if not stat.S_ISREG(mode):
        raise AudioError("is a folder, no file" if stat.S_ISDIR(mode) else "is a pipe or a device, no file")


def _reason(path: PathOrUrl, error: Exception) -> str:
    """Turn an exception of libsndfile or the operating system into a message that the user can act on."""
    if isinstance(error, FileNotFoundError):
        is_dangling = not is_url(path) and os.path.islink(path)
        return "is a link to a file that is not there" if is_dangling else _MISSING
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if not is_url(path) and os.path.getsize(path) == 0:
        return "is an empty file"
    message = str(error).rsplit(": ", 1)[-1].rstrip(".")
    if "regular file" in message:  # what libsndfile says of anything that is named .mp3 but is not an MP3
        message = "Format not recognised"
    return f"{_UNDECODABLE}: {message}"
