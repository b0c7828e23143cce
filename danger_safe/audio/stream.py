"""Live sound: WAV or raw PCM on stdin, and a microphone. Each reader yields chunks at 32 kHz as they arrive.

Nothing is accumulated, so memory does not grow with the recording. A stream ends at its end, whatever length its header
declares.
"""

import contextlib
import queue
import select
import struct
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from danger_safe.audio.chunked import CHUNK_IDS, UNKNOWN_LENGTHS
from danger_safe.audio.pcm import (
    SAMPLE_RATE,
    AudioError,
    check_sample_rate,
    check_samples,
    resample,
    truncation_message,
)
from danger_safe.core.errors import UserError

CHUNK_S = 0.1  # seconds of sound read at once, by which a window may be delayed
MAX_CHANNELS = 256  # a header that claims more is refused, because it would claim the memory for them
MAX_RIFF_CHUNK_BYTES = 1 << 24  # of the chunks before and after the samples
WAVE_FORMAT_PCM, WAVE_FORMAT_FLOAT, WAVE_FORMAT_EXTENSIBLE = 1, 3, 0xFFFE


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int, /) -> bytes | None:
        """Read at most ``size`` bytes: b"" at the end, None if the stream is non-blocking and has none yet."""
        ...


class _Stream:
    """Reads exactly as many bytes as requested, also from non-blocking streams, and allows bytes to be put back."""

    def __init__(self, stream: Readable):
        self._stream, self._unread = stream, b""

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, fewer only at the end."""
        parts, missing = [self._unread[:size]], size - len(self._unread[:size])
        self._unread = self._unread[size:]
        while missing:
            data = self._stream.read(missing)
            if data is None:
                self._wait()
            elif not data:
                break
            else:
                parts.append(data)
                missing -= len(data)
        return b"".join(parts)

    def unread(self, data: bytes) -> None:
        """Put bytes back, so that the next ``read`` returns them first."""
        self._unread = data + self._unread

    def _wait(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream: Any = self._stream  # a non-blocking stream is a file
            select.select([stream], [], [], 1.0)
            return
        time.sleep(CHUNK_S / 2)  # on Windows, select does not work on pipes


@dataclass(frozen=True)
class _Format:
    """The sample format of a WAV stream."""

    sample_rate: int
    channels: int
    sample_bytes: int
    is_float: bool
    length: int | None  # bytes of samples that the header declares; None if it does not know

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.sample_bytes


def stream_wav(stream: Readable) -> Generator[np.ndarray, None, None]:
    """Decode a WAV stream as written by ``ffmpeg -f wav -`` or ``arecord``: 8 to 32-bit PCM or float.

    Further WAV streams that follow (``cat``) are decoded, too.

    Yields:
        Chunks of float32 at 32 kHz, (samples, channels).

    Raises:
        AudioError: it is not a WAV stream or, after the last chunk, it is shorter than its header declares.
    """
    source, num_samples, fault, is_first = _Stream(stream), 0, "", True
    while (wav_format := _read_format(source, is_first)) is not None:
        is_first = False
        missing = _Missing()
        for chunk in resample(_read_samples(source, wav_format, missing), wav_format.sample_rate):
            num_samples += len(chunk)
            yield chunk
        if missing.size > 0:
            missing_s = missing.size / (wav_format.sample_rate * wav_format.frame_bytes)
            fault = truncation_message(num_samples, num_samples / SAMPLE_RATE + missing_s)
    if fault:
        raise AudioError(fault)


class _Missing:
    size = 0  # bytes of samples that the header declares but the stream did not contain


def _read_format(source: _Stream, is_first: bool) -> _Format | None:
    """Read a header up to the first sample. Returns None at the end of the stream, which must not be ``is_first``."""
    riff_header = source.read(12)
    if not is_first and len(riff_header) < 12:
        return None
    if riff_header[:4] not in (b"RIFF", b"RF64") or riff_header[8:12] != b"WAVE":
        _refuse("it ended before a sound began" if len(riff_header) < 12 else "it does not begin as one")
    fmt, long_length = None, None
    while (chunk_header := source.read(8))[:4] != b"data" or fmt is None:
        length = int.from_bytes(chunk_header[4:8], "little")
        if len(chunk_header) < 8 or length > MAX_RIFF_CHUNK_BYTES:
            _refuse("it ended before a sound began" if len(chunk_header) < 8 else "its header is damaged")
        content = source.read(length + length % 2)
        if chunk_header[:4] == b"fmt " and length >= 16:
            fmt = content
        elif chunk_header[:4] == b"ds64":
            long_length = int.from_bytes(content[8:16], "little")
    encoding, channels, sample_rate, _, _, bits = struct.unpack("<HHIIHH", fmt[:16])
    if encoding == WAVE_FORMAT_EXTENSIBLE and len(fmt) >= 26:  # for more than two channels or 16 bits
        encoding = int.from_bytes(fmt[24:26], "little")
    if encoding not in (WAVE_FORMAT_PCM, WAVE_FORMAT_FLOAT) or bits not in (
        (8, 16, 24, 32) if encoding == WAVE_FORMAT_PCM else (32, 64)
    ):
        _refuse(f"format {encoding}, {bits} bits")
    if not 0 < channels <= MAX_CHANNELS:
        _refuse(f"{channels} channels")
    check_sample_rate(sample_rate)
    length = int.from_bytes(chunk_header[4:8], "little")
    if length == 0xFFFF_FFFF and long_length:
        length = long_length
    is_unknown = length == 0 or any(length in lengths for lengths in UNKNOWN_LENGTHS)
    is_float = encoding == WAVE_FORMAT_FLOAT
    return _Format(sample_rate, channels, bits // 8, is_float, None if is_unknown else length)


def _refuse(reason: str) -> NoReturn:
    raise AudioError(
        f"is not a WAV stream of PCM samples ({reason}): send it through ffmpeg -i … -ac 1 -c:a pcm_s16le -f wav -, or "
        "give --raw RATE"
    )


def _read_samples(source: _Stream, wav_format: _Format, missing: _Missing) -> Iterator[np.ndarray]:
    """Yield the samples of one WAV, (samples, channels), at its own sample rate. Keeps ``missing.size`` up to date."""
    frame_bytes = wav_format.frame_bytes
    chunk_bytes = max(1, int(wav_format.sample_rate * CHUNK_S)) * frame_bytes
    remaining = wav_format.length
    while remaining is None or remaining > 0:
        data = source.read(chunk_bytes if remaining is None else min(chunk_bytes, remaining))
        if remaining is not None:
            remaining -= len(data)
            missing.size = remaining if remaining >= frame_bytes else 0
        if whole := len(data) // frame_bytes * frame_bytes:
            yield _decode_pcm(data[:whole], wav_format).reshape(-1, wav_format.channels)
        if not data:
            return
        if remaining == 0 and wav_format.length is not None:
            if wav_format.length % 2 and (byte := source.read(1)) != b"\0":
                source.unread(byte)
            if not _is_at_end(source):
                remaining = None  # the declared length has overflowed, or is wrong: the samples continue


def _is_at_end(source: _Stream) -> bool:
    """Return whether a WAV ends here: at the end of the stream, or before another WAV. Skips any other RIFF chunks."""
    while True:
        head = source.read(12)
        if len(head) < 8 or (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
            source.unread(head)
            return True
        length = int.from_bytes(head[4:8], "little")
        if head[:4] not in CHUNK_IDS or length > MAX_RIFF_CHUNK_BYTES:
            source.unread(head)
            return False  # also for zero bytes, which may be silence
        source.unread(head[8:])
        source.read(length + length % 2)


def stream_raw(stream: Readable, sample_rate: int) -> Iterator[np.ndarray]:
    """Decode headerless mono 16-bit little-endian PCM to chunks of float32 at 32 kHz, (samples,)."""
    source = _Stream(stream)
    chunk_bytes = 2 * max(1, int(sample_rate * CHUNK_S))

    def chunks() -> Iterator[np.ndarray]:
        while data := source.read(chunk_bytes):
            yield _decode_integers(data[: len(data) // 2 * 2], 2)

    yield from resample(chunks(), sample_rate)


def stream_microphone(
    device: str | None = None, recorded: "queue.SimpleQueue[np.ndarray | None] | None" = None
) -> Iterator[np.ndarray]:
    """Record from a microphone until the program is stopped: chunks of float32 at 32 kHz, (samples,).

    Args:
        device: part of the microphone's name; None for the system's default.
        recorded: the queue between the recording thread and this generator; putting None into it ends the stream.

    Raises:
        UserError: the microphone cannot be opened, or sounddevice is not installed.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]  # an optional package
    except ImportError as error:
        raise UserError("--mic needs the optional package sounddevice: pip install sounddevice") from error
    except OSError as error:  # the PortAudio library is not installed
        raise UserError(f"--mic: {error}") from error
    recorded = queue.SimpleQueue() if recorded is None else recorded
    try:
        sample_rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        size = int(sample_rate * CHUNK_S)
        microphone = sounddevice.InputStream(
            sample_rate, size, device, channels=1, callback=lambda data, *_: recorded.put(data[:, 0].copy())
        )
        with microphone:
            yield from resample(iter(recorded.get, None), sample_rate)
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no device has that name, or several have
        raise UserError(f"--mic: no microphone can be opened: {error}") from error


def _decode_pcm(data: bytes, wav_format: _Format) -> np.ndarray:
    if not wav_format.is_float:
        return _decode_integers(data, wav_format.sample_bytes)
    return check_samples(np.frombuffer(data, f"<f{wav_format.sample_bytes}").astype(np.float32))


def _decode_integers(data: bytes, sample_bytes: int) -> np.ndarray:
    """Convert little-endian PCM to float32 in [-1, 1). 8-bit samples are unsigned, all others signed."""
    if sample_bytes == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if sample_bytes == 3:  # widen to 32 bits: the three bytes become the upper ones
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, sample_bytes = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{sample_bytes}").astype(np.float32) / 2 ** (8 * sample_bytes - 1)
