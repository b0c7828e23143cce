"""Open a source: its sound in chunks as they arrive, and a way to interrupt a read that waits forever."""

import contextlib
import importlib.util
import os
import queue
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from danger_safe.audio.decode import read_channels
from danger_safe.audio.ffmpeg import input_command, is_available
from danger_safe.audio.pcm import AudioError
from danger_safe.audio.stream import stream_microphone, stream_raw, stream_wav
from danger_safe.core.cli import one_line
from danger_safe.core.errors import UserError
from danger_safe.live.config import SourceConfig, without_secrets

ANALYSE_US = "2000000"  # microseconds of a stream that ffmpeg analyses before its first output; none of it is lost


class Feed:
    """An iterator over float32 chunks at 32 kHz, (samples,) or (samples, channels).

    Iterating raises AudioError if the sound cannot be read, or not any further.
    """

    is_live = False  # whether the sound continues while it is not read

    def __init__(self, chunks: Iterator[np.ndarray]):
        self._chunks = chunks

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._chunks

    def close(self) -> None:
        """End the iteration, from any thread, even if a read is waiting."""


class FfmpegFeed(Feed):
    """An address, read by ffmpeg, which outputs a WAV stream."""

    is_live = True

    def __init__(self, url: str):
        _check_ffmpeg()
        command = [*input_command(url), "-v", "error", "-analyzeduration", ANALYSE_US]
        # Flush every packet: otherwise the sound of a slow stream waits in ffmpeg until there are 32 KB.
        command += ["-i", url, "-map", "0:a:0", "-c:a", "pcm_s16le", "-flush_packets", "1", "-f", "wav", "-"]
        self._url = url
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._messages: deque[str] = deque(maxlen=5)  # the newest lines of ffmpeg's stderr
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None
        self._reader = threading.Thread(target=self._read_messages, args=(stderr,), daemon=True)
        self._reader.start()
        super().__init__(self._read(stdout))

    def _read(self, stdout: IO[bytes]) -> Iterator[np.ndarray]:
        failure = None
        try:
            with contextlib.closing(stream_wav(stdout)) as chunks:
                for number, chunk in enumerate(chunks):
                    if not number:
                        self._messages.clear()  # from attempts that failed before a camera was reached
                    yield chunk
        except AudioError as error:  # ffmpeg's own message says more, if there is one
            failure = error
        finally:
            self.close()
            self._process.wait()
            self._reader.join(1)
            stdout.close()
        if self._messages or failure:
            raise AudioError(self._reason() if self._messages else str(failure))

    def _read_messages(self, stderr: IO[bytes]) -> None:
        with stderr as lines:
            for line in lines:
                self._messages.append(line.decode(errors="replace"))

    def _reason(self) -> str:
        """Return the last of ffmpeg's messages without the address and its password."""
        message = one_line(self._messages[-1]).replace(self._url, without_secrets(self._url))
        return message.rsplit("] ", 1)[-1].removeprefix(f"{without_secrets(self._url)}: ")

    def close(self) -> None:
        """End ffmpeg."""
        self._process.kill()


class FileFeed(Feed):
    """A file, read as fast as it is processed."""

    def __init__(self, file: str):
        super().__init__(read_channels(Path(file)))


class _Stdin:
    """Reads stdin unbuffered: a thread that waits in Python's own buffer would keep Python from ending."""

    @staticmethod
    def read(size: int) -> bytes:
        """Return ``size`` bytes; fewer at the end of the stream."""
        data = b""
        while len(data) < size and (more := os.read(0, size - len(data))):
            data += more
        return data


class StdinFeed(Feed):
    """The stream on stdin. A read cannot be interrupted; the program ends without waiting for it."""

    is_live = True

    def __init__(self, kind: str | int):
        super().__init__(stream_wav(_Stdin()) if kind == "wav" else stream_raw(_Stdin(), int(kind)))


class MicrophoneFeed(Feed):
    """A microphone."""

    is_live = True

    def __init__(self, device: str | bool):
        self._chunk_queue: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        super().__init__(self._read(device if isinstance(device, str) else None))

    def _read(self, device: str | None) -> Iterator[np.ndarray]:
        try:
            yield from stream_microphone(device, self._chunk_queue)
        except UserError as error:  # it may be plugged in again
            raise AudioError(str(error).removeprefix("--mic: ")) from error

    def close(self) -> None:
        """Release the device."""
        self._chunk_queue.put(None)


def open_feed(config: SourceConfig) -> Feed:
    """Open a source's sound from now on."""
    if config.url:
        return FfmpegFeed(config.url)
    if config.file:
        return FileFeed(config.file)
    return MicrophoneFeed(config.microphone) if config.microphone else StdinFeed(config.stdin)


def check_can_open(config: SourceConfig) -> None:
    """Raise UserError for a problem that a retry cannot solve: a missing program, package or file."""
    if config.url:
        _check_ffmpeg()
    if config.microphone and importlib.util.find_spec("sounddevice") is None:
        raise UserError(f'"{config.name}" is a microphone: pip install -r requirements/mic.txt')
    if config.file:
        try:
            mode = Path(config.file).stat().st_mode
        except OSError as error:
            raise UserError(f'"{config.name}": {config.file}: {error.strerror}') from error
        if not stat.S_ISREG(mode):
            raise UserError(f'"{config.name}": {config.file} is not a file')


def _check_ffmpeg() -> None:
    if not is_available():
        raise UserError("ffmpeg is needed for addresses and is not installed (Debian: apt install ffmpeg)")
