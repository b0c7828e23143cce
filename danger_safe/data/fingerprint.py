"""Fingerprints of sounds: how a network's training clips are known again, whatever their files are called.

    known = seen_clips(clips, info.fingerprints, jobs=2)    # one bool a clip

A copy, a link, another name, other tags and a lossless copy in another format (WAV as FLAC) have the fingerprint of
their original. A clip that was cut, resampled or made an MP3 has another: it counts as new.
"""

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from danger_safe.audio.decode import AudioError, open_audio
from danger_safe.core.paths import PathOrUrl
from danger_safe.data.clips import Clip

LENGTH = 16  # hexadecimal digits: two of a million sounds share one with a probability of 3e-8
_READ_FRAMES = 1 << 16  # frames decoded at once


def fingerprint(path: PathOrUrl) -> str:
    """The SHA-256 of a file's decoded samples, all channels at the file's own rate, cut to LENGTH digits.

    Raises AudioError when the file cannot be read.
    """
    with open_audio(path) as file:
        digest = hashlib.sha256(f"{file.samplerate} {file.channels}".encode())
        frames = max(1, _READ_FRAMES // file.channels)
        while len(piece := file.read(frames, dtype="float32", always_2d=True)):
            digest.update(np.ascontiguousarray(piece, "<f4").data)
    return digest.hexdigest()[:LENGTH]


def seen_clips(clips: list[Clip], fingerprints: Collection[str], jobs: int) -> list[bool]:
    """Which clips are among a network's training sounds. They are read only where the network brings
    ``fingerprints``."""
    if not fingerprints:
        return [False] * len(clips)

    def is_seen(clip: Clip) -> bool:
        try:
            return fingerprint(clip.path) in fingerprints
        except AudioError:
            return False  # the extraction says why it cannot be read

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(is_seen, clips))
