"""AVI and TTA: containers that have the size of each chunk or frame and, in TTA, its checksum.

ffmpeg silently skips chunks that are missing, and decodes only the first of several joined TTA files.
"""

import zlib

from danger_safe.audio.chunked import UNKNOWN_LENGTHS
from danger_safe.audio.sections import Section, Source

_LIST_IDS = (b"RIFF", b"LIST")  # chunks that consist of a name and further chunks


def avi(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse an AVI: chunks inside lists, each of which must begin where the previous one ends."""
    fault, position, end = "", begin, begin
    while not fault and position + 8 <= source.size:
        if position >= end:  # the end of a RIFF chunk; long films have several, and anything may follow the last
            if source.read(position, 4) != b"RIFF":
                break
            length = source.number(position + 4, 4, "little")
            is_unknown = length == 0 or any(length in lengths for lengths in UNKNOWN_LENGTHS)
            end = source.size if is_unknown else position + 8 + length
            fault = "is cut short" if end > source.size + 1 else ""
        position, is_chunk = _next_chunk(source, position)
        if not is_chunk:
            fault = fault or "is damaged"
    fault = fault or ("is cut short" if position > source.size + 1 else "")
    return [Section(begin, source.size, fault=fault)], source.size


def _next_chunk(source: Source, position: int) -> tuple[int, bool]:
    """Return (position of the next chunk, or of the first one in a list; whether there is a chunk at ``position``)."""
    name, length = source.read(position, 4), source.number(position + 4, 4, "little")
    if name in _LIST_IDS:
        return position + 12, True
    after = position + 8 + length
    if length % 2 and not source.read(after, 1).isalnum():  # some writers omit the padding byte
        after += 1
    return after, name.isascii() and name.decode("ascii", "replace").isprintable()


def tta(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse True Audio: a header, a table of the frame sizes, and frames, each of which ends with a checksum."""
    sample_rate, samples = source.number(begin + 10, 4, "little"), source.number(begin + 14, 4, "little")
    count = -(-samples // (256 * sample_rate // 245))
    table = source.read(begin + 22, 4 * count)
    fault = "" if len(table) == 4 * count else "is cut short"
    position = begin + 22 + 4 * count + 4
    for at in range(0, len(table), 4):
        size = int.from_bytes(table[at : at + 4], "little")
        if size < 4 or position + size > source.size:
            fault = fault or "is cut short"
            position = source.size
            break
        frame = source.read(position, size)
        if zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "little"):
            fault = fault or "is damaged"
        position += size
    if source.read(position, 8) == b"APETAGEX":
        position = min(position + 32 + source.number(position + 12, 4, "little"), source.size)
    return [Section(begin, position, fault=fault, declared_s=samples / sample_rate)], position
