"""Fingerprints of sounds, to recognise a network's training clips under any file name.

    seen = seen_clips(clips, info.fingerprints, jobs=2)    # one bool a clip

The fingerprint depends on the samples alone: copies, links, other names, other tags and lossless formats (FLAC for WAV)
keep it. A clip that was cut, resampled or compressed to MP3 has another one and counts as new.
"""

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from danger_safe.audio.decode import AudioError, open_audio
from danger_safe.core.paths import PathOrUrl
from danger_safe.data.clips import Clip

FINGERPRINT_DIGITS = 16  # hexadecimal; among a million sounds two are equal with a probability of 3e-8
_BLOCK_SAMPLES = 1 << 16  # decoded at once, all channels together


def fingerprint(path: PathOrUrl) -> str:
    """Return the SHA-256 of a file's decoded samples, all channels at the file's rate, cut to FINGERPRINT_DIGITS.

    Raises AudioError if the file cannot be read.
    """
    with open_audio(path) as file:
        digest = hashlib.sha256(f"{file.samplerate} {file.channels}".encode())
        frames = max(1, _BLOCK_SAMPLES // file.channels)
        while len(block := file.read(frames, dtype="float32", always_2d=True)):
            digest.update(np.ascontiguousarray(block, "<f4").data)
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def seen_clips(clips: list[Clip], fingerprints: Collection[str], jobs: int) -> list[bool]:
    """Return whether each clip is among a network's training sounds, given their ``fingerprints``."""
    if not fingerprints:
        return [False] * len(clips)

    def is_seen(clip: Clip) -> bool:
        try:
            return fingerprint(clip.path) in fingerprints
        except AudioError:
            return False  # extraction reports why it cannot be read

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(is_seen, clips))
