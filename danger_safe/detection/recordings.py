"""The recordings that predict_danger.py is given: files, folders, addresses, a stream on stdin, a microphone."""

import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from danger_safe.audio.decode import AUDIO_SUFFIXES, AudioError, read_channels, read_header
from danger_safe.audio.ffmpeg import SCHEMES, decode_url, is_stream_url
from danger_safe.audio.read_ahead import ReadAhead
from danger_safe.audio.stream import stream_microphone, stream_raw, stream_wav
from danger_safe.core.errors import UserError
from danger_safe.core.paths import is_url
from danger_safe.data.clips import list_sounds

STREAM = "-"  # the stream on stdin
SHORT_S = 30.0  # seconds of sound that NumPy embeds before MNN has loaded its network


def find_recordings(inputs: list[str]) -> list[Path | str]:
    """Return files as paths, the recordings in each folder as well, and live inputs as the text that was given.

    Raises UserError for a folder without recordings, for an address that cannot be opened, and if no file exists.
    """
    recordings = list(_expand(inputs))
    if all(isinstance(recording, Path) and _is_missing(recording) for recording in recordings):
        others = ", nor is any of the others there" if len(recordings) > 1 else ""
        raise UserError(f"{recordings[0]}: no such file{others}")
    return recordings


def _expand(inputs: list[str]) -> Iterator[Path | str]:
    for name in inputs:
        path = Path(name)
        if is_live(name):
            yield name
        elif is_url(name) and not path.exists():
            schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UserError(
                f"{name}: no address that can be listened to ({schemes}): give a file, or send it to stdin (-)"
            )
        elif not os.path.isdir(path):  # unlike path.is_dir(), it does not raise if permission is missing
            yield path
        elif found := list_sounds(path):  # lists unreadable folders, too: they are reported as failures later
            yield from (file for _, file in found)
        else:
            raise UserError(f"{path}: no recordings in it ({', '.join(AUDIO_SUFFIXES)})")


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # reading it will say why
        return False
    return False


def is_live(recording: str) -> bool:
    """Return whether an input arrives while it is being recorded: stdin or the address of a stream."""
    return recording == STREAM or is_stream_url(recording)


def is_short(inputs: list[str]) -> bool:
    """Return whether the only input is a file so short that a faster engine would take longer to load."""
    if len(inputs) != 1 or inputs[0] == STREAM or not Path(inputs[0]).is_file():
        return False
    try:
        frames, rate = read_header(Path(inputs[0]))
    except AudioError:
        return False
    return frames / rate <= SHORT_S


def open_live(recording: str, is_microphone: bool = False, raw_rate: int | None = None) -> ReadAhead:
    """Open a live input; its sound is read from now on, by a thread.

    Args:
        recording: An address, or STREAM.
        is_microphone: Open the default microphone instead.
        raw_rate: Sample rate in Hz if stdin is mono 16-bit PCM without a header; otherwise it is a WAV stream.
    """
    if is_microphone:
        return ReadAhead(stream_microphone(), can_wait=False)
    if recording != STREAM:
        stopped = threading.Event()
        return ReadAhead(decode_url(recording, stopped), stopped)
    # A thread that waits in Python's own buffer would keep Python from ending.
    stdin = cast(io.BufferedReader, sys.stdin.buffer).raw
    return ReadAhead(stream_raw(stdin, raw_rate) if raw_rate else stream_wav(stdin))


def open_file(path: Path) -> tuple[Iterator[np.ndarray], int | None]:
    """Return a file's sound in chunks, (samples,) or (samples, channels), and its length in s if the header has it."""
    try:
        frames, rate = read_header(path)
        seconds = round(frames / rate) or None
    except AudioError:  # reading the samples raises it again, with the reason
        seconds = None
    return read_channels(path), seconds
