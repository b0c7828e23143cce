"""Which container a sound file is, and what recordings lie in it one after another (sections.py says why that is
asked)."""

import struct

from danger_safe.audio import chained, chunked, indexed, mpeg
from danger_safe.audio.sections import Section, Source, after_padding, skip_id3

_ASF, _FLV = b"\x30\x26\xb2\x75", b"FLV\x01"  # how WMA and WMV, and Flash videos, begin
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def find_sections(source: Source) -> list[Section]:
    """The recordings of a file, one after another. Empty where the container is none that is known here."""
    sections: list[Section] = []
    position = 0
    while position < source.size:
        if source.read(position + 4, 4) != b"ftyp":  # an MP4 begins with zero bytes of its own
            position = skip_id3(source, after_padding(source, position))
        finder = _finder(source.read(position, 12))
        if finder is None:
            break
        try:
            found, after = finder(source, position)
        except (struct.error, IndexError, ValueError, OverflowError, ZeroDivisionError):
            break  # no such file, though it begins as one: the decoder says what it thinks of it
        if not found or after <= position:
            break
        sections += found
        position = after
    return sections


def _finder(head: bytes):
    """The function that knows a container by its first bytes: (source, position) -> (sections, where they end)."""
    known = {
        b"fLaC": chained.flac,
        b"OggS": chained.ogg,
        b".snd": chunked.au,
        b"caff": chunked.caf,
        b"FORM": chunked.aiff,
        b"Crea": chunked.voc,
        b"NIST": chunked.nist,
        b"TTA1": indexed.tta,
    }
    if head[:4] in chunked.RIFFS and head[8:12] == b"WAVE":
        return chunked.wav
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return indexed.avi
    if head[:4] == b"riff":
        return chunked.w64
    if head[4:8] == b"ftyp":
        return _mp4
    if head[:4] in (_ASF, _FLV):
        return _asf if head[:4] == _ASF else _flv
    if head[:4] in known:
        return known[head[:4]]
    return mpeg.mpeg if len(head) > 4 and mpeg.frame_size(head[:4]) else None


def _mp4(source: Source, begin: int) -> tuple[list[Section], int]:
    """MP4, M4A, MOV, 3GP: boxes, of which one named ftyp begins a recording."""
    position = begin
    while position + 8 <= source.size:
        name, length = source.read(position + 4, 4), source.number(position, 4, "big")
        if name == b"ftyp" and position > begin:
            return [Section(begin, position)], position
        length = source.number(position + 8, 8, "big") if length == 1 else length
        if length < 8:  # to the file's end, or no box
            break
        position += length
    return [Section(begin, source.size)], source.size


def _asf(source: Source, begin: int) -> tuple[list[Section], int]:
    """WMA, WMV: the header says how long the file is, where its writer knew."""
    properties = source.find(ASF_PROPERTIES, begin, begin + (1 << 16))
    end = begin + source.number(properties + 40, 8, "little") if properties >= 0 else 0
    end = end if end > begin and source.read(end, 4) == _ASF else source.size
    return [Section(begin, end)], end


def _flv(source: Source, begin: int) -> tuple[list[Section], int]:
    """Flash videos: tags, each with its length."""
    position = begin + source.number(begin + 5, 4, "big") + 4
    while position + 11 <= source.size and source.read(position, 4) != _FLV:
        position += 11 + source.number(position + 1, 3, "big") + 4
    end = position if source.read(position, 4) == _FLV else source.size
    return [Section(begin, end)], end
