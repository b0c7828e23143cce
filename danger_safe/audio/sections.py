"""What a sound file promises: its recordings, where each begins and ends, and what of them is not there.

    with open("night.wav", "rb") as file:
        for section in find_sections(Source(file)):
            ...  # SectionReader(file, section) is what a decoder should read

Decoders believe headers. A header may hold the length of a stream that nobody knew when it was written (0, 0xFFFFFFFF),
a length above 4 GiB of which 32 bits are left, or less than there is; other recordings may follow, joined with ``cat``;
and a file may have been cut. Each would be half heard without a word. So containers are read here first.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO, Literal

BLOCK = 1 << 16  # bytes that are read at once
PADDING = 1 << 20  # zero bytes that may follow a recording and are no sound


@dataclass(frozen=True)
class Section:
    """One recording, or a stretch of one, that a decoder reads by itself."""

    start: int  # in bytes
    end: int
    header: bytes = b""  # to be read before them: the file's own, with what is true in it
    fault: str = ""  # what is missing of it, in words for a person: "" where it is whole
    promised: float = 0.0  # seconds that it should last, 0 where only the decoder knows
    tracks: int = 1  # of sound, side by side


class Source:
    """Random access to a file's bytes, a block at a time."""

    def __init__(self, file: BinaryIO):
        self._file, self.size = file, file.seek(0, io.SEEK_END)
        self._begin, self._block = 0, b""

    def read(self, position: int, size: int) -> bytes:
        """``size`` bytes from ``position``; fewer at the end of the file."""
        self._load(position, size)
        offset = position - self._begin
        return self._block[offset : offset + size]

    def _load(self, position: int, size: int) -> None:
        """Have ``size`` bytes from ``position`` in the block, as far as there are any."""
        if position >= self.size:
            self._block, self._begin = b"", position
        elif not self._begin <= position <= position + size <= self._begin + len(self._block):
            self._file.seek(position)
            self._block, self._begin = self._file.read(max(size, BLOCK)), position

    def number(self, position: int, size: int, order: Literal["little", "big"]) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.read(position, size), order)

    def find(self, needle: bytes, start: int, end: int | None = None) -> int:
        """Where ``needle`` begins, -1 where it does not."""
        end = self.size if end is None else min(end, self.size)
        while start + len(needle) <= end:
            self._load(start, len(needle))
            if (found := self._block.find(needle, start - self._begin)) >= 0:
                return self._begin + found if self._begin + found + len(needle) <= end else -1
            start = max(self._begin + len(self._block) - len(needle) + 1, start + 1)
        return -1

    def is_padding(self, start: int) -> bool:
        """Whether only zero bytes follow, and no more than a recorder's disk blocks would explain."""
        if self.size - start > PADDING:
            return False
        return not any(any(self.read(at, BLOCK)) for at in range(start, self.size, BLOCK))


class SectionReader(io.RawIOBase):
    """A section as a file of its own: its header, then its bytes."""

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
    """Where the sound begins behind ID3v2 tags and zero bytes."""
    while source.read(position, 3) == b"ID3":
        size = source.read(position + 6, 4)
        position += 10 + sum((byte & 127) << 7 * (3 - place) for place, byte in enumerate(size))
    return position


def after_padding(source: Source, position: int) -> int:
    """The next position that holds no zero byte, up to a few thousand bytes on: joined files may be padded."""
    block = source.read(position, BLOCK)
    return position + len(block) - len(block.lstrip(b"\0"))


MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"fLaC", b"OggS", b".snd", b"caff", b"FORM")


def begins_recording(source: Source, position: int) -> bool:
    """Whether another recording begins here: a container that is known, or an ID3 tag before one."""
    return source.read(position, 4) in MAGICS or source.read(position, 3) == b"ID3"


def is_tag(source: Source, position: int) -> bool:
    """Whether what follows is another program's tag: ID3v1, APE, Lyrics3."""
    head = source.read(position, 11)
    return head.startswith((b"APETAGEX", b"LYRICSBEGIN")) or (head[:3] == b"TAG" and source.size - position <= 355)
