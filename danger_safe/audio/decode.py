"""Sound files in, mono float32 at 32 kHz out: the only place where files are decoded.

    samples = read_clip("dog.wav")             # the whole clip, shape (samples,)
    for block in read_blocks("day.flac", 30):  # at most 30 s at a time: memory does not grow with the recording

libsndfile decodes what it can (WAV, FLAC, OGG, MP3 and more), ffmpeg the rest where it is installed; soxr resamples at
high quality. What a file should have held and does not (sections.py) is an AudioError, after all that could be heard.
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
    "AUDIO_SUFFIXES",
    "SAMPLE_RATE",
    "SAMPLE_RATES",
    "AudioError",
    "read_blocks",
    "read_channels",
    "read_clip",
    "read_header",
]
WINDOW_S = 30.0  # longer recordings are read and embedded in windows of this length: memory stays bounded
AUDIO_SUFFIXES = (  # of sounds: what is read when it is named is found in a folder too
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".awb", ".caf",
    ".dts", ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4",
    ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".rf64", ".snd", ".spx", ".tak", ".tta", ".ts",
    ".vob", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wv",
)  # fmt: skip
_MISSING = "is missing"
MAX_FRAMES = 1 << 48  # libsndfile says 2**63 - 1 of what was written to a pipe
_READ_FRAMES = 1 << 16  # frames decoded at once: 1.5 s at 44.1 kHz; what breaks off in one of them is lost with it
_SLACK = {"OGG": MAX_FRAMES, "MP3": 4_608}  # frames: Ogg's pages are counted instead, MP3 has a decoder's delay
_UNDECODABLE = "cannot be decoded"


def read_clip(path: PathOrUrl) -> np.ndarray:
    """Decode a clip that fits in memory: float32 of shape (samples,), mono, 32 kHz, nominally in [-1, 1].

    Raises AudioError when the file cannot be read, has no samples, or holds NaN or infinite ones.
    """
    return np.concatenate(list(read_blocks(path, seconds=60.0)))


def read_blocks(path: PathOrUrl, seconds: float) -> Generator[np.ndarray, None, None]:
    """Decode a recording of any length in blocks of ``seconds`` (the last one shorter), as ``read_clip`` would.

    Each block is float32 of shape (seconds * 32,000,). Channels are averaged, unless they cancel each other.
    Raises AudioError as ``read_clip``, and where something is missing, after what there is.
    """
    size = int(seconds * SAMPLE_RATE)
    ready, held = [], 0  # resampled pieces that do not fill a block yet, and how many samples they hold
    empty = True
    for piece in read_chunks(path):
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


def read_header(path: PathOrUrl) -> tuple[int, int]:
    """(frames, Hz) as a file's header has them: fast, and not to be trusted; 0 frames where it does not say.

    Raises AudioError as ``read_clip``.
    """
    try:
        with open_audio(path) as file:
            check_sample_rate(file.samplerate)
            return (file.frames if file.frames <= MAX_FRAMES else 0), file.samplerate
    except AudioError as refused:
        if not str(refused).startswith(_UNDECODABLE) or not ffmpeg.is_available():
            raise
    with _local(path) as local:
        return round(ffmpeg.StreamInfo(local).seconds * SAMPLE_RATE), SAMPLE_RATE


@contextlib.contextmanager
def open_audio(path: PathOrUrl) -> Iterator[soundfile.SoundFile]:
    """A sound file, open as libsndfile reads it. Raises AudioError as ``read_clip``, also while it is read."""
    _check_is_file(path)
    try:
        with _opened(path) as source, soundfile.SoundFile(source) as file:
            yield file
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(_reason(path, error)) from error


def _opened(path: PathOrUrl):
    """What libsndfile can open: the path itself, or an open file for an address."""
    if is_url(path):
        return open_file(path)
    # as bytes, where the system knows names as bytes: not every one is text
    return contextlib.nullcontext(os.fsencode(path) if os.name == "posix" else path)


@contextlib.contextmanager
def _local(path: PathOrUrl) -> Iterator[Path]:
    """The file on this computer: what an address names is fetched for as long as it is needed."""
    if not is_url(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder, open_file(path) as source:
        local = Path(folder, "sound")
        with open(local, "wb") as file:
            shutil.copyfileobj(source, file)
        yield local


def read_chunks(path: PathOrUrl) -> Iterator[np.ndarray]:
    """Decoded, mono, 32 kHz pieces of a file, as they come: (samples,). Raises AudioError as ``read_clip``."""
    yield from _pieces(path, to_mono)


def read_channels(path: PathOrUrl) -> Iterator[np.ndarray]:
    """As ``read_chunks`` with the channels of all tracks: (samples, channels)."""
    yield from _pieces(path, lambda samples: samples)


def _pieces(path: PathOrUrl, mix: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    _check_is_file(path)
    heard = 0
    try:
        with _local(path) as local:
            with open(local, "rb") as file:
                sections = find_sections(Source(file))
                try:
                    if any(section.tracks > 1 for section in sections):
                        raise AudioError(f"{_UNDECODABLE}: it holds several tracks of sound")
                    for piece in _decoded(local, file, sections, mix):
                        heard += len(piece)
                        yield piece
                    return
                except (soundfile.SoundFileError, ValueError) as error:
                    refused = AudioError(_reason(local, error))
                except AudioError as error:
                    refused = error
            if heard or not str(refused).startswith(_UNDECODABLE):
                raise refused
            for piece in _by_ffmpeg(local, sections, refused):
                heard += len(piece)
                yield mix(piece)
            if fault := next((section.fault for section in sections if section.fault), ""):
                raise AudioError(_in_words(fault, heard))
    except OSError as error:
        raise AudioError(_reason(path, error)) from error


def _by_ffmpeg(path: Path, sections: list[Section], refused: AudioError) -> Iterator[np.ndarray]:
    """What ffmpeg decodes of a file that libsndfile ``refused``, (samples, channels); each of the recordings in it.

    Raises AudioError where some of it was missing, after all that there is.
    """
    if len(sections) < 2:
        yield from ffmpeg.decode_file(path, refused)
        return
    fault = ""
    for section in sections:  # of the whole file, ffmpeg hears the first one
        with tempfile.TemporaryDirectory() as folder, open(path, "rb") as file:
            part = Path(folder, "part" + path.suffix)
            with open(part, "wb") as copy:
                shutil.copyfileobj(SectionReader(file, section), copy)
            try:
                yield from ffmpeg.decode_file(part, refused)
            except AudioError as error:
                fault = fault or str(error)
    if fault:
        raise AudioError(fault)


def _decoded(path: Path, file: BinaryIO, sections: list[Section], mix) -> Iterator[np.ndarray]:
    """What libsndfile decodes of a file. Raises AudioError where some of it was missing, after all that there is."""
    is_whole = len(sections) < 2 and not (sections and sections[0].header)  # by its name, it is read fastest
    heard, fault = 0, ""
    for section in sections or [Section(0, 0)]:
        count = _Count()
        try:
            with (
                _opened(path) as name,
                soundfile.SoundFile(name if is_whole else SectionReader(file, section)) as sound,
            ):
                check_sample_rate(sound.samplerate)
                for piece in resample(map(mix, count.watch(sound)), sound.samplerate):
                    heard += len(piece)
                    yield piece
                # In a WAV, MP3 has its delay, too.
                kind = "MP3" if sound.subtype.startswith("MPEG") else sound.format
                missing = sound.frames - count.frames > _SLACK.get(kind, 0)
        except soundfile.SoundFileError as error:
            if not heard:
                raise
            fault = fault or truncation_message(heard, section.promised, _reason(path, error))
            continue
        if section.fault or missing:
            fault = fault or _in_words(section.fault, heard, section.promised)
    if fault:
        raise AudioError(fault)


def _in_words(fault: str, heard: int, promised: float = 0.0) -> str:
    """What a person is told of a section's fault."""
    if fault == "is damaged":
        return f"is damaged: not all of its sound up to {format_time(heard / SAMPLE_RATE)} could be heard"
    return truncation_message(heard, promised)


class _Count:
    """Counts the frames that a decoder delivers."""

    frames = 0

    def watch(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        """(frames, channels) pieces, to the end."""
        # not file.blocks(): where a file ends before its header says, that gives whatever was in the memory
        frames = _READ_FRAMES * 8 // max(8, file.channels)
        while len(piece := file.read(frames, dtype="float32", always_2d=True)):
            self.frames += len(piece)
            yield check_samples(piece)


def _check_is_file(path: PathOrUrl) -> None:
    """Raises AudioError for a folder, a pipe, a device: to open one could wait for ever, or read for ever."""
    if is_url(path):
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


def _reason(path: PathOrUrl, error: Exception) -> str:
    """What a person can act on, from libsndfile's or the system's words."""
    if isinstance(error, FileNotFoundError):
        dangling = not is_url(path) and os.path.islink(path)
        return "is a link to a file that is not there" if dangling else _MISSING
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if not is_url(path) and os.path.getsize(path) == 0:
        return "is an empty file"
    words = str(error).rsplit(": ", 1)[-1].rstrip(".")
    if "regular file" in words:  # what libsndfile says of anything that is named .mp3 and is none
        words = "Format not recognised"
    return f"{_UNDECODABLE}: {words}"
