"""Sound that comes as it is recorded: a stream on stdin, a microphone. Pieces at 32 kHz, as long as they come.

Nothing is held: memory does not grow with a recording. A stream ends when it ends, whatever its header said of its
length.
"""

import contextlib
import queue
import select
import struct
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from danger_safe.audio.chunked import CHUNKS, UNKNOWN_LENGTHS
from danger_safe.audio.pcm import (
    SAMPLE_RATE,
    AudioError,
    check_sample_rate,
    check_samples,
    resample,
    truncation_message,
)
from danger_safe.core.errors import UserError

MAX_CHANNELS = 256  # of a stream: one that claims more would claim the memory for them
PIECE_SECONDS = 0.1  # of a live source: how long a window may wait for its last samples
MAX_CHUNK = 1 << 24  # bytes of a chunk before or behind the samples that a stream may have


class Readable(Protocol):
    """What a stream of sound is read from."""

    def read(self, size: int, /) -> bytes | None:
        """At most so many bytes; none at the end, None where there are none yet and it does not wait."""
        ...


class _Stream:
    """A stream whose ``read`` waits for all that was asked for, also where nobody waits: less is the end."""

    def __init__(self, stream: Readable):
        self._stream, self._returned = stream, b""

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end."""
        parts, missing = [self._returned[:size]], size - len(self._returned[:size])
        self._returned = self._returned[size:]
        while missing:
            data = self._stream.read(missing)
            if data is None:  # there is none yet, and the stream does not wait
                self._wait()
            elif not data:
                break
            else:
                parts.append(data)
                missing -= len(data)
        return b"".join(parts)

    def give_back(self, data: bytes) -> None:
        """What the next ``read`` is to give first."""
        self._returned = data + self._returned

    def _wait(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream: Any = self._stream  # one that does not wait is a file
            select.select([stream], [], [], 1.0)
            return
        time.sleep(PIECE_SECONDS / 2)  # Windows cannot wait for a pipe


@dataclass(frozen=True)
class _Format:
    """Of a WAV stream's samples."""

    rate: int
    channels: int
    width: int  # bytes of a sample
    is_float: bool
    length: int | None  # bytes, None where the header does not know


def stream_wav(stream: Readable) -> Generator[np.ndarray, None, None]:
    """A WAV stream (PCM of 8 to 32 bit, or float) as ``ffmpeg -f wav -`` or ``arecord`` write it: (samples, channels).

    To its end; where another WAV follows, as ``cat`` makes it, that is heard too. Raises AudioError when it is none, or
    ends before its header says.
    """
    source, heard, fault, is_first = _Stream(stream), 0, "", True
    while (head := _read_format(source, is_first)) is not None:
        is_first = False
        missing = _Missing()
        for piece in resample(_samples(source, head, missing), head.rate):
            heard += len(piece)
            yield piece
        if missing.size > 0:
            fault = truncation_message(
                heard, heard / SAMPLE_RATE + missing.size / (head.rate * head.channels * head.width)
            )
    if fault:
        raise AudioError(fault)


class _Missing:
    size = 0  # bytes that a header promised and that did not come


def _read_format(source: _Stream, is_first: bool) -> _Format | None:
    """The header up to the first sample. None at the end of a stream, behind its first."""
    head = source.read(12)
    if not is_first and len(head) < 12:
        return None
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        _refuse("it ended before a sound began" if len(head) < 12 else "it does not begin as one")
    found, long_length = None, None
    while (chunk := source.read(8))[:4] != b"data" or found is None:
        length = int.from_bytes(chunk[4:8], "little")
        if len(chunk) < 8 or length > MAX_CHUNK:
            _refuse("it ended before a sound began" if len(chunk) < 8 else "its header is damaged")
        content = source.read(length + length % 2)
        if chunk[:4] == b"fmt " and length >= 16:
            found = content
        elif chunk[:4] == b"ds64":
            long_length = int.from_bytes(content[8:16], "little")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", found[:16])
    if kind == 0xFFFE and len(found) >= 26:  # how more than two channels or 16 bits are written
        kind = int.from_bytes(found[24:26], "little")
    if kind not in (1, 3) or bits not in ((8, 16, 24, 32) if kind == 1 else (32, 64)):
        _refuse(f"format {kind}, {bits} bits")
    if not 0 < channels <= MAX_CHANNELS:
        _refuse(f"{channels} channels")
    check_sample_rate(rate)
    length = int.from_bytes(chunk[4:8], "little")
    if length == 0xFFFF_FFFF and long_length:
        length = long_length
    is_unknown = length == 0 or any(length in lengths for lengths in UNKNOWN_LENGTHS)
    return _Format(rate, channels, bits // 8, kind == 3, None if is_unknown else length)


def _refuse(words: str) -> None:
    raise AudioError(
        f"is no WAV stream of PCM samples ({words}): send it through ffmpeg -i … -ac 1 -c:a pcm_s16le -f wav -, or "
        f"give --raw RATE"
    )


def _samples(source: _Stream, head: _Format, missing: _Missing) -> Iterator[np.ndarray]:
    """(samples, channels) of one WAV, at its own rate; ``missing`` learns what did not come."""
    frame = head.channels * head.width
    size, left = max(1, int(head.rate * PIECE_SECONDS)) * frame, head.length
    while left is None or left > 0:
        data = source.read(size if left is None else min(size, left))
        if left is not None:
            left -= len(data)
            missing.size = left if left >= frame else 0
        if samples := len(data) // frame * frame:
            yield _numbers(data[:samples], head).reshape(-1, head.channels)
        if not data:
            return
        if left == 0 and head.length is not None:
            if head.length % 2 and (byte := source.read(1)) != b"\0":
                source.give_back(byte)
            if not _is_over(source):
                left = None  # the length had wrapped, or was wrong: sound goes on


def _is_over(source: _Stream) -> bool:
    """Whether a WAV ends here: the stream does, or other chunks or another WAV follow. Chunks are passed over."""
    while True:
        head = source.read(12)
        if len(head) < 8 or (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
            source.give_back(head)
            return True
        length = int.from_bytes(head[4:8], "little")
        if head[:4] not in CHUNKS or length > MAX_CHUNK:
            source.give_back(head)
            return False  # zero bytes too: they may be a quiet moment of sound that goes on
        source.give_back(head[8:])
        source.read(length + length % 2)


def _numbers(data: bytes, head: _Format) -> np.ndarray:
    return (
        check_samples(np.frombuffer(data, f"<f{head.width}").astype(np.float32))
        if head.is_float
        else _integers(data, head.width)
    )


def stream_raw(stream: Readable, rate: int) -> Iterator[np.ndarray]:
    """Headerless mono 16-bit little-endian PCM of ``rate`` Hz."""
    size = 2 * max(1, int(rate * PIECE_SECONDS))

    source = _Stream(stream)

    def blocks() -> Iterator[np.ndarray]:
        while data := source.read(size):
            yield _integers(data[: len(data) // 2 * 2], 2)

    yield from resample(blocks(), rate)


def stream_microphone(
    device: str | None = None, heard: "queue.SimpleQueue[np.ndarray | None] | None" = None
) -> Iterator[np.ndarray]:
    """A microphone, the system's default or one whose name contains ``device``, until the program is stopped.

    ``heard`` is the queue that its sound comes through: None in it ends the pieces. Raises UserError where there is no
    microphone.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]  # an optional package
    except ImportError as error:
        raise UserError("--mic needs the optional package sounddevice: pip install sounddevice") from error
    except OSError as error:  # its PortAudio library is missing on this system
        raise UserError(f"--mic: {error}") from error
    heard = queue.SimpleQueue() if heard is None else heard
    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        size = int(rate * PIECE_SECONDS)
        microphone = sounddevice.InputStream(
            rate, size, device, channels=1, callback=lambda data, *_: heard.put(data[:, 0].copy())
        )
        with microphone:
            yield from resample(iter(heard.get, None), rate)
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: several, or none, of that name
        raise UserError(f"--mic: no microphone can be opened: {error}") from error


def _integers(data: bytes, width: int) -> np.ndarray:
    """PCM bytes to float32 in [-1, 1): 8 bit is unsigned, the others are signed."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:  # into the upper three bytes of a 32-bit number
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
