"""Recognition of a file's containers, and the search for the recordings in it.

Decoders trust a header's length and stop there; what a file holds beyond it is found by parsing the container.
"""

import struct
from pathlib import Path

from danger_safe.audio import chained, chunked, indexed, mpeg
from danger_safe.audio.sections import Section, Source, skip_id3, skip_padding

_ASF_MAGIC, _FLV_MAGIC = b"\x30\x26\xb2\x75", b"FLV\x01"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the object with the file's size


def find_sections(source: Source) -> list[Section]:
    """Return the recordings of a file in order. Empty if the container is not known."""
    sections: list[Section] = []
    position = 0
    while position < source.size:
        if source.read(position + 4, 4) != b"ftyp":  # an MP4 may begin with zero bytes that belong to it
            position = skip_id3(source, skip_padding(source, position))
        parse = _parser(source.read(position, 12))
        if parse is None:
            break
        try:
            found, end = parse(source, position)
        except (struct.error, IndexError, ValueError, OverflowError, ZeroDivisionError):
            break  # only the magic number is right: the decoder will report what is wrong
        if not found or end <= position:
            break
        sections += found
        position = end
    return sections


def _parser(head: bytes):
    """Return the parser for a container with these first bytes, or None: (source, position) -> (sections, end)."""
    by_magic = {
        b"fLaC": chained.flac,
        b"OggS": chained.ogg,
        b".snd": chunked.au,
        b"caff": chunked.caf,
        b"FORM": chunked.aiff,
        b"Crea": chunked.voc,
        b"NIST": chunked.nist,
        b"TTA1": indexed.tta,
    }
    if head[:4] in chunked.RIFF_IDS and head[8:12] == b"WAVE":
        return chunked.wav
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return indexed.avi
    if head[:4] == b"riff":
        return chunked.w64
    if head[4:8] == b"ftyp":
        return _mp4
    if head[:4] in (_ASF_MAGIC, _FLV_MAGIC):
        return _asf if head[:4] == _ASF_MAGIC else _flv
    if head[:4] in by_magic:
        return by_magic[head[:4]]
    return mpeg.mpeg if len(head) > 4 and mpeg.frame_size(head[:4]) else None


def _mp4(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse MP4, M4A, MOV or 3GP: a sequence of boxes, in which each ``ftyp`` begins a recording."""
    position = begin
    while position + 8 <= source.size:
        name, length = source.read(position + 4, 4), source.number(position, 4, "big")
        if name == b"ftyp" and position > begin:
            return [Section(begin, position)], position
        length = source.number(position + 8, 8, "big") if length == 1 else length
        if length < 8:  # 0: up to the end of the file; otherwise not a box
            break
        position += length
    return [Section(begin, source.size)], source.size


def _asf(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse WMA or WMV, whose header has the file size if the writer knew it."""
    properties = source.find(_ASF_FILE_PROPERTIES, begin, begin + (1 << 16))
    end = begin + source.number(properties + 40, 8, "little") if properties >= 0 else 0
    end = end if end > begin and source.read(end, 4) == _ASF_MAGIC else source.size
    return [Section(begin, end)], end


def _flv(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse a Flash video: a sequence of tags, each with its length."""
    position = begin + source.number(begin + 5, 4, "big") + 4
    while position + 11 <= source.size and source.read(position, 4) != _FLV_MAGIC:
        position += 11 + source.number(position + 1, 3, "big") + 4
    end = position if source.read(position, 4) == _FLV_MAGIC else source.size
    return [Section(begin, end)], end


def is_truncated_asf(path: Path) -> bool:
    """Return whether a WMA or WMV file is shorter than its header says, which ffmpeg does not report."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        size = file.seek(0, 2)
    start = head.find(_ASF_FILE_PROPERTIES)
    # Bit 0 of the flags: a broadcast, whose size was not known when the header was written.
    is_broadcast = start >= 0 and head[start + 88 : start + 89] and head[start + 88] & 1
    return start >= 0 and not is_broadcast and int.from_bytes(head[start + 40 : start + 48], "little") > size
