"""Recordings joined end to end (``cat a.mp3 b.mp3``, an internet radio's OGG), of which libsndfile reads the first only.

It says so of none of them, and half of a night would be called Safe unheard. The beginning of another stream is searched
for in the bytes. MP3: the frame with the tag Xing or Info says how many bytes belong to it.
"""

import mmap
import re
import struct
from pathlib import Path

_FLAC = b"fLaC\x00\x00\x00\x22"  # a stream's beginning: marker, and the block that comes first
_OGG_BEGINS = b"OggS\x00\x02" + bytes(8)  # a page that begins a stream, at time 0
_OGG_GOES_ON = re.compile(rb"OggS\x00[\x00\x01\x04\x05]")
_MP3_LENGTH = re.compile(rb"Xing|Info")
_MP3_FRAME = re.compile(rb"\xff[\xe2-\xff]|ID3")
_HEAD = 4_096  # bytes behind an MP3's tags in which its first frame is
_TAGS = 1_024  # bytes that may follow an MP3's last frame: other programs' tags begin there


FORMATS = ("FLAC", "OGG", "MP3")  # as libsndfile calls those that can be joined so


def is_joined(path: Path) -> bool:
    """Whether another recording follows the first one in a file of FORMATS."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] == b"fLaC":
            return content.find(_FLAC, 4) > 0
        if content[:4] == b"OggS":
            goes_on = _OGG_GOES_ON.search(content)  # streams that run side by side all begin before that
            return goes_on is not None and content.find(_OGG_BEGINS, goes_on.start()) > 0
        return _mp3_is_joined(content)


def _mp3_is_joined(content: mmap.mmap) -> bool:
    begin = 0
    while content[begin : begin + 3] == b"ID3":  # its size, seven bits a byte
        size = content[begin + 6 : begin + 10]
        begin += 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(size))
    tag = _MP3_LENGTH.search(content, begin, begin + _HEAD)
    if tag is None or not content[tag.end() + 3 : tag.end() + 4] or not content[tag.end() + 3] & 2:
        return False  # libsndfile has no length to stop at
    place = tag.end() + 4 + (4 if content[tag.end() + 3] & 1 else 0)
    if place + 4 > len(content):
        return False
    end = begin + struct.unpack(">I", content[place : place + 4])[0]
    return end + _TAGS < len(content) and _MP3_FRAME.match(content, end) is not None
