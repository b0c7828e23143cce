"""Sections: the recordings in a sound file, where each begins and ends, and what is missing of it.

    with open("night.wav", "rb") as file:
        for section in find_sections(Source(file)):
            ...  # a decoder should read SectionReader(file, section)

Decoders trust headers, which are often wrong. The length may have been unknown when the header was written (0 or
0xFFFFFFFF), may exceed the 32 bits that the format has for it, or may be too small; further recordings may follow,
joined with ``cat``; and the file may be cut short. In each case a decoder would silently skip part of the sound, so the
containers are parsed here first.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO, Literal

BLOCK_BYTES = 1 << 16  # bytes per read
MAX_PADDING_BYTES = 1 << 20  # zero bytes after a recording that are taken for padding, not for silence
# The first bytes of containers that may follow one another in a file.
MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"fLaC", b"OggS", b".snd", b"caff", b"FORM")


@dataclass(frozen=True)
class Section:
    """One recording in a file, or a part of one, which is decoded on its own."""

    start: int  # bytes from the start of the file
    end: int
    header: bytes = b""  # to be read before these bytes: the file's header, corrected; b"" if it was right
    fault: str = ""  # what is wrong, as a message for the user: "is cut short", "is damaged", "" if nothing is
    declared_s: float = 0.0  # duration in seconds that the header declares; 0 if only the decoder can tell
    tracks: int = 1  # parallel audio tracks


class Source:
    """Random access to the bytes of a file, buffered in blocks."""

    def __init__(self, file: BinaryIO):
        self._file, self.size = file, file.seek(0, io.SEEK_END)
        self._block_start, self._block = 0, b""

    def read(self, position: int, size: int) -> bytes:
        """Return ``size`` bytes from ``position``, fewer at the end of the file."""
        self._load(position, size)
        offset = position - self._block_start
        return self._block[offset : offset + size]

    def _load(self, position: int, size: int) -> None:
        """Make sure that the block contains ``size`` bytes from ``position``, or all up to the end of the file."""
        if position >= self.size:
            self._block, self._block_start = b"", position
        elif not self._block_start <= position <= position + size <= self._block_start + len(self._block):
            self._file.seek(position)
            self._block, self._block_start = self._file.read(max(size, BLOCK_BYTES)), position

    def number(self, position: int, size: int, order: Literal["little", "big"]) -> int:
        """Return the unsigned integer of ``size`` bytes at ``position``."""
        return int.from_bytes(self.read(position, size), order)

    def find(self, pattern: bytes, start: int, end: int | None = None) -> int:
        """Return the first position of ``pattern`` between ``start`` and ``end``, or -1."""
        end = self.size if end is None else min(end, self.size)
        while start + len(pattern) <= end:
            self._load(start, len(pattern))
            if (offset := self._block.find(pattern, start - self._block_start)) >= 0:
                position = self._block_start + offset
                return position if position + len(pattern) <= end else -1
            start = max(self._block_start + len(self._block) - len(pattern) + 1, start + 1)
        return -1

    def is_padding(self, start: int) -> bool:
        """Return whether only zero bytes follow ``start``, at most MAX_PADDING_BYTES."""
        if self.size - start > MAX_PADDING_BYTES:
            return False
        return not any(any(self.read(at, BLOCK_BYTES)) for at in range(start, self.size, BLOCK_BYTES))


class SectionReader(io.RawIOBase):
    """A file-like view of a section: its header, then its bytes."""

    def __init__(self, file: BinaryIO, section: Section):
        self._file, self._section, self._position = file, section, 0
        self._size = len(section.header) + section.end - section.start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer) -> int:
        header, size = self._section.header, min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        if self._position < len(header):
            data = header[self._position : self._position + size]
        else:
            self._file.seek(self._section.start + self._position - len(header))
            data = self._file.read(size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def skip_id3(source: Source, position: int) -> int:
    """Return the position after any ID3v2 tags."""
    while source.read(position, 3) == b"ID3":
        size = source.read(position + 6, 4)  # four bytes with seven bits each
        position += 10 + sum((byte & 127) << 7 * (3 - index) for index, byte in enumerate(size))
    return position


def skip_padding(source: Source, position: int) -> int:
    """Return the position after any zero bytes, at most BLOCK_BYTES of them: joined files may be padded."""
    block = source.read(position, BLOCK_BYTES)
    return position + len(block) - len(block.lstrip(b"\0"))


def is_recording_start(source: Source, position: int) -> bool:
    """Return whether another recording begins at ``position``: a known container, or the ID3 tag before one."""
    return source.read(position, 4) in MAGICS or source.read(position, 3) == b"ID3"


def is_tag(source: Source, position: int) -> bool:
    """Return whether an ID3v1, APE or Lyrics3 tag begins at ``position``."""
    head = source.read(position, 11)
    return head.startswith((b"APETAGEX", b"LYRICSBEGIN")) or (head[:3] == b"TAG" and source.size - position <= 355)
