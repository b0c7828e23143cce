"""Where a source's sound comes from, open: pieces as they come, and a way to break off a read that waits for ever."""

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

ANALYSE_US = "2000000"  # of a stream that ffmpeg may look at before it gives its sound; nothing of that is lost


class Feed:
    """Float32 pieces at 32 kHz, (samples,) or (samples, channels), until they end. Iterating raises AudioError where
    the sound cannot be read (on)."""

    is_live = False  # whether sound goes on while nobody listens

    def __init__(self, pieces: Iterator[np.ndarray]):
        self._pieces = pieces

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._pieces

    def close(self) -> None:
        """End it; from any thread, a read that waits included."""


class FfmpegFeed(Feed):
    """An address, by ffmpeg. Its sound comes as a WAV stream, so it is decoded as that of any other recording is."""

    is_live = True

    def __init__(self, url: str):
        _check_ffmpeg()
        command = [*input_command(url), "-v", "error", "-analyzeduration", ANALYSE_US]
        # Packets are flushed one by one, or a slow stream's sound would wait in ffmpeg until 32 KB have come.
        command += ["-i", url, "-map", "0:a:0", "-c:a", "pcm_s16le", "-flush_packets", "1", "-f", "wav", "-"]
        self._url = url
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._words: deque[str] = deque(maxlen=5)
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None  # both are pipes
        self._reader = threading.Thread(target=self._read_words, args=(stderr,), daemon=True)
        self._reader.start()
        super().__init__(self._read(stdout))

    def _read(self, stdout: IO[bytes]) -> Iterator[np.ndarray]:
        broken = None
        try:
            with contextlib.closing(stream_wav(stdout)) as pieces:
                for number, piece in enumerate(pieces):
                    if not number:
                        self._words.clear()  # a camera refused one of the ways to it, and was reached by another
                    yield piece
        except AudioError as error:  # ffmpeg's own words say more
            broken = error
        finally:
            self.close()
            self._process.wait()
            self._reader.join(1)
            stdout.close()
        if self._words or broken:
            raise AudioError(self._reason() if self._words else str(broken))

    def _read_words(self, stderr: IO[bytes]) -> None:
        with stderr as words:
            for line in words:
                self._words.append(line.decode(errors="replace"))

    def _reason(self) -> str:
        """The last of ffmpeg's messages, without the address and its password."""
        words = one_line(self._words[-1]).replace(self._url, without_secrets(self._url))
        return words.rsplit("] ", 1)[-1].removeprefix(f"{without_secrets(self._url)}: ")

    def close(self) -> None:
        """End ffmpeg."""
        self._process.kill()


class FileFeed(Feed):
    """A file, as fast as it is listened to."""

    def __init__(self, file: str):
        super().__init__(read_channels(Path(file)))


class _Stdin:
    """Reads stdin without Python's own buffer: a thread that waits in that one keeps Python from ending."""

    @staticmethod
    def read(size: int) -> bytes:
        """So many bytes; fewer at the end."""
        data = b""
        while len(data) < size and (more := os.read(0, size - len(data))):
            data += more
        return data


class StdinFeed(Feed):
    """The stream on stdin. It cannot be broken off: the program ends without it."""

    is_live = True

    def __init__(self, kind: str | int):
        super().__init__(stream_wav(_Stdin()) if kind == "wav" else stream_raw(_Stdin(), int(kind)))


class MicrophoneFeed(Feed):
    """A microphone."""

    is_live = True

    def __init__(self, device: str | bool):
        self._heard: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        super().__init__(self._read(device if isinstance(device, str) else None))

    def _read(self, device: str | None) -> Iterator[np.ndarray]:
        try:
            yield from stream_microphone(device, self._heard)
        except UserError as error:  # it may be plugged in again
            raise AudioError(str(error).removeprefix("--mic: ")) from error

    def close(self) -> None:
        """Let it go."""
        self._heard.put(None)


def open_feed(config: SourceConfig) -> Feed:
    """The source's sound from now on."""
    if config.url:
        return FfmpegFeed(config.url)
    if config.file:
        return FileFeed(config.file)
    return MicrophoneFeed(config.microphone) if config.microphone else StdinFeed(config.stdin)


def check_can_open(config: SourceConfig) -> None:
    """Raises UserError for what no new try would mend: a missing program, package or file."""
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
            raise UserError(f'"{config.name}": {config.file} is no file')


def _check_ffmpeg() -> None:
    if not is_available():
        raise UserError("ffmpeg is needed for addresses and is not installed (Debian: apt install ffmpeg)")
