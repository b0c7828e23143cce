"""Containers of chunks: WAV (RF64, BW64), W64, AIFF, AU, CAF. Each function gives the sections of one recording.

The chunk with the samples says how many bytes it has. That is believed where the file goes on behind it as such a file
does: it ends, another chunk or another recording begins, zero bytes fill it up. Else the sound goes on to the file's
    end.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from danger_safe.audio.sections import Section, Source, begins_recording, is_tag

RIFFS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
MAX_PART = 1 << 30  # bytes behind one header of 32 bits: longer recordings are read in parts
UNKNOWN_LENGTHS = (range(0x7FFF_0000, 0x8000_2000), range(0xFFFF_E000, 0x1_0000_0000))  # what writers to a pipe put
MAX_HEAD = 1 << 24  # bytes before the samples
SOX_FRAMES = 0x7F00_0000  # so do sox's AIFF files
CHUNKS = frozenset(
    name.encode().ljust(4)
    for name in (  # noqa: SIM905 - the list would fill a screen
        "LIST list id3 ID3 cue bext iXML ixml smpl fact JUNK junk PAD DISP _PMX axml chna levl afsp acid strc inst "
        "plst note "
        "labl umid qlty PEAK minf elm1 regn SLNT CSET FLLR MARK INST MIDI AESD APPL NAME AUTH ANNO COMT (c) COMM FVER "
        "CHAN "
        "LGWV pakt free info uuid peak mark kuki chan strg midi ovvw"
    ).split()
)
_W64_CHUNK = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # how the names of its chunks end


@dataclass(frozen=True)
class Samples:
    """Where a recording has its samples, by its header."""

    begin: int  # of the recording, in bytes
    start: int  # of the samples
    length: int | None  # None where the header does not know
    frame: int  # bytes of what must not be torn apart
    per_second: float  # bytes; 0 where the header does not say
    header: Callable[[int], bytes]  # what to read before so many bytes
    order: Literal["little", "big"] = "little"  # of the bytes in the sizes of chunks
    width: int = 4  # bytes of a chunk's size; 0 where no chunks follow the samples


Found = tuple[list[Section], int]


def wav(source: Source, begin: int) -> Found:
    """RIFF, RIFX, RF64 and BW64."""
    kind = source.read(begin, 4)
    order, word = ("big", ">I") if kind == b"RIFX" else ("little", "<I")
    position, frame, per_second, long_length = begin + 12, 1, 0, None
    while source.read(position, 4) != b"data":
        length = source.number(position + 4, 4, order)
        if source.read(position, 4) == b"ds64":
            long_length = source.number(position + 16, 8, order)
        elif source.read(position, 4) == b"fmt ":
            per_second, frame = source.number(position + 16, 4, order), source.number(position + 20, 2, order)
        position += 8 + length + length % 2
        if position + 8 > source.size:
            return [], begin
    start, length = position + 8, source.number(position + 4, 4, order)
    if length == 0xFFFF_FFFF and long_length:
        length = long_length
    elif any(length in lengths for lengths in UNKNOWN_LENGTHS) and start + length >= source.size:
        length = None
    head = bytearray(_head(source, begin, start)).replace(b"ds64", b"JUNK", 1)
    head[:4] = kind if kind == b"RIFX" else b"RIFF"

    def header(size: int) -> bytes:
        head[4:8], head[-4:] = struct.pack(word, len(head) - 8 + size), struct.pack(word, size)
        return bytes(head)

    return _sections(source, Samples(begin, start, length, frame, per_second, header, order))


def w64(source: Source, begin: int) -> Found:
    """Sony's Wave64: names of 16 bytes, sizes of 8."""
    position, frame, per_second = begin + 40, 1, 0
    while (name := source.read(position, 16)) != b"data" + _W64_CHUNK:
        length = source.number(position + 16, 8, "little")
        if name[:4] == b"fmt ":
            per_second, frame = source.number(position + 32, 4, "little"), source.number(position + 36, 2, "little")
        position += max(24, length + -length % 8)
        if position + 24 > source.size:
            return [], begin
    start, length = position + 24, source.number(position + 16, 8, "little") - 24
    head = bytearray(_head(source, begin, start))

    def header(size: int) -> bytes:
        head[16:24], head[-8:] = struct.pack("<Q", len(head) + size), struct.pack("<Q", size + 24)
        return bytes(head)

    known = length if 0 < length < 1 << 62 else None
    return _sections(source, Samples(begin, start, known, frame, per_second, header, width=16))


def aiff(source: Source, begin: int) -> Found:
    """AIFF and AIFC."""
    kind, position, common, sound = source.read(begin + 8, 4), begin + 12, None, None
    if kind not in (b"AIFF", b"AIFC"):
        return [], begin
    while position + 8 <= source.size and (common is None or sound is None):
        name, length = source.read(position, 4), source.number(position + 4, 4, "big")
        common = position if name == b"COMM" else common
        sound = position if name == b"SSND" else sound
        position += 8 + length + length % 2
    if common is None or sound is None:
        return [], begin
    format_chunk = bytearray(_head(source, common, common + 8 + source.number(common + 4, 4, "big")))
    channels, frames, bits = struct.unpack(">hIh", format_chunk[8:16])
    exponent, mantissa = struct.unpack(">HQ", format_chunk[16:26])
    rate = mantissa * 2.0 ** (min(exponent, 16_446) - 16_446)
    plain = kind == b"AIFF" or format_chunk[26:30] in (
        b"NONE",
        b"sowt",
        b"twos",
        b"fl32",
        b"FL32",
        b"fl64",
        b"FL64",
        b"in24",
        b"in32",
    )
    frame = max(1, channels * -(-bits // 8)) if plain else 1
    offset = source.number(sound + 8, 4, "big")
    start, length = sound + 16 + offset, source.number(sound + 4, 4, "big") - 8 - offset
    unknown = (length <= 0 and frames == 0) or frames == SOX_FRAMES
    if any(length in lengths for lengths in UNKNOWN_LENGTHS) and start + length >= source.size:
        unknown = True

    def header(size: int) -> bytes:
        if plain:
            format_chunk[10:14] = struct.pack(">I", size // frame)
        body = (
            kind + bytes(format_chunk) + b"\0" * (len(format_chunk) % 2) + b"SSND" + struct.pack(">III", size + 8, 0, 0)
        )
        return b"FORM" + struct.pack(">I", len(body) + size) + body

    per_second = rate * frame if plain else 0.0
    return _sections(
        source, Samples(begin, start, None if unknown else max(length, 0), frame, per_second, header, "big")
    )


def au(source: Source, begin: int) -> Found:
    """Sun's and NeXT's."""
    offset, length, encoding, rate, channels = struct.unpack(">5I", source.read(begin + 4, 20).ljust(20, b"\0"))
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0)
    head = bytearray(_head(source, begin, begin + max(offset, 24)))

    def header(size: int) -> bytes:
        head[8:12] = struct.pack(">I", size)
        return bytes(head)

    known = None if length == 0xFFFF_FFFF else length
    frame = max(1, width * channels)
    return _sections(source, Samples(begin, begin + len(head), known, frame, rate * channels * width, header, "big", 0))


def caf(source: Source, begin: int) -> Found:
    """Apple's Core Audio."""
    position, per_second, frame = begin + 8, 0.0, 1
    while source.read(position, 4) != b"data":
        if source.read(position, 4) == b"desc":
            rate = struct.unpack(">d", source.read(position + 12, 8).ljust(8, b"\0"))[0]
            packet, frames = (source.number(position + at, 4, "big") for at in (28, 32))
            per_second, frame = (rate * packet / frames, packet) if packet and frames else (0.0, 1)
        position += 12 + source.number(position + 4, 8, "big")
        if position + 12 > source.size:
            return [], begin
    start, length = position + 16, source.number(position + 4, 8, "big") - 4  # four bytes count the edits
    head = bytearray(_head(source, begin, start))

    def header(size: int) -> bytes:
        head[-12:-4] = struct.pack(">q", size + 4)
        return bytes(head)

    known = length if length < 1 << 62 else None
    return _sections(source, Samples(begin, start, known, frame, per_second, header, "big", 8))


def voc(source: Source, begin: int) -> Found:
    """Creative Voice: blocks up to one of kind 0, which some writers leave out; sox's lengths are off by a few
    bytes."""
    position = begin + source.number(begin + 20, 2, "little")
    while source.read(position, 1) and 0 < source.number(position, 1, "little") < 10:
        position += 4 + source.number(position + 1, 3, "little")
    return [Section(begin, source.size, fault="is cut short" if position > source.size else "")], source.size


def nist(source: Source, begin: int) -> Found:
    """NIST Sphere: a header of text that says how many samples follow it."""
    text = source.read(begin, 1_024).decode("ascii", "replace")
    counts = {name: int(value) for name, value in re.findall(r"^(\w+) -i (\d+)", text, re.M)}
    names = ("sample_count", "channel_count", "sample_n_bytes")
    size = math.prod(counts.get(name, 1) for name in names) if "sample_count" in counts else 0
    size *= "shorten" not in text
    end = begin + int((text.split() or ["", "1024"])[1]) + size
    return [Section(begin, source.size, fault="is cut short" if end > source.size else "")], source.size


def _head(source: Source, begin: int, end: int) -> bytes:
    """The bytes before the samples. Raises ValueError where they are more than a header has."""
    if end - begin > MAX_HEAD:
        raise ValueError(f"a header of {end - begin} bytes")
    return source.read(begin, end - begin)


def _sections(source: Source, samples: Samples) -> Found:
    """The recording as it is where its header is right, else with a header that is."""
    if samples.start > source.size:
        return [], samples.begin
    end = _end_of_samples(source, samples)
    stop = min(end, source.size)
    after = _end_of_chunks(source, stop, samples)
    promised = (end - samples.start) / samples.per_second if samples.per_second else 0.0
    fault = "is cut short" if end - source.size >= max(samples.frame, 2) else ""
    if stop <= samples.start or stop - samples.start == samples.length:
        return [Section(samples.begin, after, fault=fault, promised=promised)], after
    size = MAX_PART // max(samples.frame, 1) * max(samples.frame, 1)
    parts = [(start, min(start + size, stop)) for start in range(samples.start, stop, size)]
    sections = [Section(first, last, samples.header(last - first)) for first, last in parts[:-1]]
    first, last = parts[-1]
    return [*sections, Section(first, last, samples.header(last - first), fault, promised)], after


def _end_of_samples(source: Source, samples: Samples) -> int:
    """The byte behind the last sample: as the header says, where that can be; beyond the file where it was cut."""
    if samples.length is None:
        return source.size
    end = samples.start + samples.length
    if not samples.length and not source.is_padding(end) and _goes_on(source, end, samples):
        return end
    if samples.length and end >= source.size:
        return end
    while samples.length and end < source.size:
        if any(_goes_on(source, end + odd, samples) for odd in (samples.length % 2, 0)):
            return end
        if samples.width != 4:
            break
        end += 1 << 32  # what 32 bits could not hold
    return source.size


def _goes_on(source: Source, position: int, samples: Samples) -> bool:
    """Whether a file goes on here as its kind does: with nothing, chunks, a tag, another recording."""
    while position <= source.size:
        if source.size - position < 8 or begins_recording(source, position) or is_tag(source, position):
            return True
        size = _chunk_size(source, position, samples)
        if size is None:
            return source.is_padding(position)
        if source.read(position, 4) in CHUNKS:
            return True
        position += size
    return False


def _end_of_chunks(source: Source, position: int, samples: Samples) -> int:
    """Where the recording ends: behind its last chunk, which the file may end within."""
    if samples.length is not None and samples.width == 4 and samples.length % 2:
        odd = _chunk_size(source, position, samples) is None and not begins_recording(source, position)
        position += odd
    while not begins_recording(source, position) and (size := _chunk_size(source, position, samples)):
        position += size
    return min(position, source.size)


def _chunk_size(source: Source, position: int, samples: Samples) -> int | None:
    """Bytes of the chunk that begins here, None where none does."""
    if not samples.width or position + 8 > source.size:
        return None
    name = source.read(position, 4)
    if samples.width == 16:
        length = max(24, source.number(position + 16, 8, "little"))
        return length + -length % 8 if source.read(position + 4, 12) == _W64_CHUNK else None
    if name not in CHUNKS and not name.isalnum():
        return None
    length = source.number(position + 4, samples.width, samples.order)
    return 4 + samples.width + length + (length % 2 if samples.width == 4 else 0)
