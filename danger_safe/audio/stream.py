"""Sound from anywhere, as mono float32 pieces at 32 kHz: a file of any kind, a stream on stdin, a microphone.

Pieces are as long as they come; windows.py cuts them. Nothing is held: memory does not grow with a recording.
"""

import queue
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from danger_safe.audio.decode import (
    SAMPLE_RATE,
    AudioError,
    check_rate,
    finite,
    mono,
    read_header,
    read_pieces,
    resampled,
)
from danger_safe.core.errors import UserError

MOST_CHANNELS = 256  # of a stream: one that claims more would claim the memory for them
PIECE_SECONDS = 0.1  # of a live source: how long a window may wait for its last samples


def file_pieces(path: Path) -> Iterator[np.ndarray]:
    """A sound file through libsndfile, anything else (video, M4A, …) through ffmpeg where it is installed.

    Raises AudioError when neither can read it.
    """
    refused = None
    try:
        read_header(path)
    except AudioError as error:
        refused = error
    if refused is None:
        yield from read_pieces(path)
    elif str(refused).startswith("cannot be decoded"):
        yield from _ffmpeg_pieces(path, refused)
    else:
        raise refused


def _ffmpeg_pieces(path: Path, refused: AudioError) -> Iterator[np.ndarray]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(f"{refused}; with ffmpeg installed, videos and more formats can be read")
    command = [program, "-nostdin", "-v", "error", "-i", f"file:{path}", "-vn", "-ac", "1", "-ar", str(SAMPLE_RATE)]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen([*command, "-f", "f32le", "-"], stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        try:
            while data := process.stdout.read(4 * SAMPLE_RATE * 5):
                yield finite(np.frombuffer(data[: len(data) // 4 * 4], "<f4"))
            failed = process.wait() != 0
        finally:
            process.kill()  # where nobody wants the rest
        if failed:
            messages.seek(0)
            words = messages.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise AudioError(f"cannot be decoded, by ffmpeg neither: {words[-1].rsplit(': ', 1)[-1]}")


class _Plain:
    """A WAV stream whose PCM is called so: more than two channels or 16 bits are written as WAVE_FORMAT_EXTENSIBLE, which
    Python knows from 3.12 on."""

    def __init__(self, stream: BinaryIO):
        self._stream, head = stream, stream.read(60)
        if head[12:16] == b"fmt " and head[20:22] == b"\xfe\xff" and head[44:46] == b"\x01\x00":
            head = head[:20] + b"\x01\x00" + head[22:]
        self._head = head

    def read(self, size: int) -> bytes:
        """As the stream's."""
        known, self._head = self._head[:size], self._head[size:]
        return known + self._stream.read(size - len(known)) if len(known) < size else known


def wav_pieces(stream: BinaryIO) -> Iterator[np.ndarray]:
    """A WAV stream (PCM, 8 to 32 bit) as ``ffmpeg -f wav -`` or ``arecord`` write it, to its end.

    Raises AudioError when it is none.
    """
    try:
        file = wave.open(_Plain(stream))  # noqa: SIM115 - the stream is not ours to close
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk that ends before it begins
        words = str(error) or "it ended before a sound began"
        raise AudioError(
            f"is no WAV stream of PCM samples ({words}): send it through ffmpeg -i … -ac 1 -c:a pcm_s16le -f wav -, or give --raw RATE"
        ) from error
    channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
    if width > 4 or channels > MOST_CHANNELS:
        raise AudioError(f"is no WAV stream of sound: {channels} channels of {8 * width} bits")
    check_rate(rate)
    frame, size = channels * width, max(1, int(rate * PIECE_SECONDS))

    def blocks() -> Iterator[np.ndarray]:
        while data := file.readframes(size):
            samples = _integers(data[: len(data) // frame * frame], width)
            yield mono(samples.reshape(-1, channels))

    yield from resampled(blocks(), rate)


def raw_pieces(stream: BinaryIO, rate: int) -> Iterator[np.ndarray]:
    """Headerless mono 16-bit little-endian PCM of ``rate`` Hz."""
    size = 2 * max(1, int(rate * PIECE_SECONDS))

    def blocks() -> Iterator[np.ndarray]:
        while data := stream.read(size):
            yield _integers(data[: len(data) // 2 * 2], 2)

    yield from resampled(blocks(), rate)


def microphone_pieces(
    device: str | None = None, heard: "queue.SimpleQueue[np.ndarray | None] | None" = None
) -> Iterator[np.ndarray]:
    """A microphone, the system's default or one whose name contains ``device``, until the program is stopped.

    ``heard`` is the queue that its sound comes through: None in it ends the pieces. Raises UserError where there is no microphone.
    """
    try:
        import sounddevice
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
            yield from resampled(iter(heard.get, None), rate)
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
