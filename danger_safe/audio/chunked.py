"""Containers of chunks: WAV (RF64, BW64), W64, AIFF, AU, CAF, VOC, NIST. Each parser returns one recording.

The chunk with the samples declares its size. The size is trusted if something plausible follows: the end of the file,
another chunk, another recording, or zero padding. Otherwise the samples are taken to continue to the end of the file.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from danger_safe.audio.sections import Section, Source, is_recording_start, is_tag

RIFF_IDS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
MAX_SECTION_BYTES = 1 << 30  # a recording longer than a 32-bit header can describe is read in sections of this size
MAX_HEADER_BYTES = 1 << 24  # bytes before the samples
# Sizes and, in sox's AIFF files, numbers of frames that programs write when they do not know the length (to a pipe).
UNKNOWN_LENGTHS = (range(0x7FFF_0000, 0x8000_2000), range(0xFFFF_E000, 0x1_0000_0000))
SOX_UNKNOWN_FRAMES = 0x7F00_0000
CHUNK_IDS = frozenset(  # that may follow the samples
    name.encode().ljust(4)
    for name in (  # noqa: SIM905 - the list would fill a screen
        "LIST list id3 ID3 cue bext iXML ixml smpl fact JUNK junk PAD DISP _PMX axml chna levl afsp acid strc inst "
        "plst note labl umid qlty PEAK minf elm1 regn SLNT CSET FLLR MARK INST MIDI AESD APPL NAME AUTH ANNO COMT (c) "
        "COMM FVER CHAN LGWV pakt free info uuid peak mark kuki chan strg midi ovvw"
    ).split()
)
AIFC_PCM = (b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32")  # uncompressed encodings
_W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the last 12 bytes of its chunk IDs


@dataclass(frozen=True)
class Samples:
    """The position of a recording's samples according to its header. Positions and sizes are in bytes."""

    begin: int  # start of the recording
    start: int  # start of its samples
    length: int | None  # size of the samples; None if the header does not know it
    frame_bytes: int  # size of a frame, which must not be split
    bytes_per_s: float  # 0 if the header does not say
    header: Callable[[int], bytes]  # makes the header for samples of a given size
    order: Literal["little", "big"] = "little"  # byte order of chunk sizes
    size_bytes: int = 4  # size of the size field of a chunk; 0 if no chunks follow the samples


Found = tuple[list[Section], int]  # the sections of a recording, and the position of its end


def wav(source: Source, begin: int) -> Found:
    """Parse RIFF, RIFX, RF64 and BW64."""
    riff_id = source.read(begin, 4)
    order, word = ("big", ">I") if riff_id == b"RIFX" else ("little", "<I")
    position, frame_bytes, bytes_per_s, long_length = begin + 12, 1, 0, None
    while source.read(position, 4) != b"data":
        length = source.number(position + 4, 4, order)
        if source.read(position, 4) == b"ds64":
            long_length = source.number(position + 16, 8, order)
        elif source.read(position, 4) == b"fmt ":
            bytes_per_s, frame_bytes = source.number(position + 16, 4, order), source.number(position + 20, 2, order)
        position += 8 + length + length % 2
        if position + 8 > source.size:
            return [], begin
    start, length = position + 8, source.number(position + 4, 4, order)
    if length == 0xFFFF_FFFF and long_length:
        length = long_length
    elif any(length in lengths for lengths in UNKNOWN_LENGTHS) and start + length >= source.size:
        length = None
    head = bytearray(_read_header(source, begin, start)).replace(b"ds64", b"JUNK", 1)
    head[:4] = riff_id if riff_id == b"RIFX" else b"RIFF"

    def header(size: int) -> bytes:
        head[4:8], head[-4:] = struct.pack(word, len(head) - 8 + size), struct.pack(word, size)
        return bytes(head)

    return _sections(source, Samples(begin, start, length, frame_bytes, bytes_per_s, header, order))


def w64(source: Source, begin: int) -> Found:
    """Parse Sony's Wave64: chunk IDs of 16 bytes, sizes of 8."""
    position, frame_bytes, bytes_per_s = begin + 40, 1, 0
    while (name := source.read(position, 16)) != b"data" + _W64_GUID_TAIL:
        length = source.number(position + 16, 8, "little")
        if name[:4] == b"fmt ":
            bytes_per_s = source.number(position + 32, 4, "little")
            frame_bytes = source.number(position + 36, 2, "little")
        position += max(24, length + -length % 8)
        if position + 24 > source.size:
            return [], begin
    start, length = position + 24, source.number(position + 16, 8, "little") - 24
    head = bytearray(_read_header(source, begin, start))

    def header(size: int) -> bytes:
        head[16:24], head[-8:] = struct.pack("<Q", len(head) + size), struct.pack("<Q", size + 24)
        return bytes(head)

    length = length if 0 < length < 1 << 62 else None
    return _sections(source, Samples(begin, start, length, frame_bytes, bytes_per_s, header, size_bytes=16))


def aiff(source: Source, begin: int) -> Found:
    """Parse AIFF and AIFC."""
    form_type, position, common, sound = source.read(begin + 8, 4), begin + 12, None, None
    if form_type not in (b"AIFF", b"AIFC"):
        return [], begin
    while position + 8 <= source.size and (common is None or sound is None):
        name, length = source.read(position, 4), source.number(position + 4, 4, "big")
        common = position if name == b"COMM" else common
        sound = position if name == b"SSND" else sound
        position += 8 + length + length % 2
    if common is None or sound is None:
        return [], begin
    format_chunk = bytearray(_read_header(source, common, common + 8 + source.number(common + 4, 4, "big")))
    channels, num_frames, bits = struct.unpack(">hIh", format_chunk[8:16])
    exponent, mantissa = struct.unpack(">HQ", format_chunk[16:26])  # an 80-bit floating-point number
    sample_rate = mantissa * 2.0 ** (min(exponent, 16_446) - 16_446)
    is_pcm = form_type == b"AIFF" or format_chunk[26:30] in AIFC_PCM
    frame_bytes = max(1, channels * -(-bits // 8)) if is_pcm else 1
    offset = source.number(sound + 8, 4, "big")
    start, length = sound + 16 + offset, source.number(sound + 4, 4, "big") - 8 - offset
    is_unknown = (length <= 0 and num_frames == 0) or num_frames == SOX_UNKNOWN_FRAMES
    if any(length in lengths for lengths in UNKNOWN_LENGTHS) and start + length >= source.size:
        is_unknown = True

    def header(size: int) -> bytes:
        if is_pcm:
            format_chunk[10:14] = struct.pack(">I", size // frame_bytes)
        padded_format_chunk = bytes(format_chunk) + b"\0" * (len(format_chunk) % 2)
        body = form_type + padded_format_chunk + b"SSND" + struct.pack(">III", size + 8, 0, 0)
        return b"FORM" + struct.pack(">I", len(body) + size) + body

    length = None if is_unknown else max(length, 0)
    bytes_per_s = sample_rate * frame_bytes if is_pcm else 0.0
    return _sections(source, Samples(begin, start, length, frame_bytes, bytes_per_s, header, "big"))


def au(source: Source, begin: int) -> Found:
    """Parse AU of Sun and NeXT."""
    offset, length, encoding, sample_rate, channels = struct.unpack(">5I", source.read(begin + 4, 20).ljust(20, b"\0"))
    sample_bytes = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0)
    head = bytearray(_read_header(source, begin, begin + max(offset, 24)))

    def header(size: int) -> bytes:
        head[8:12] = struct.pack(">I", size)
        return bytes(head)

    length = None if length == 0xFFFF_FFFF else length
    frame_bytes = max(1, sample_bytes * channels)
    bytes_per_s = sample_rate * channels * sample_bytes
    return _sections(source, Samples(begin, begin + len(head), length, frame_bytes, bytes_per_s, header, "big", 0))


def caf(source: Source, begin: int) -> Found:
    """Parse Apple's Core Audio Format."""
    position, bytes_per_s, frame_bytes = begin + 8, 0.0, 1
    while source.read(position, 4) != b"data":
        if source.read(position, 4) == b"desc":
            sample_rate = struct.unpack(">d", source.read(position + 12, 8).ljust(8, b"\0"))[0]
            packet_bytes, packet_frames = (source.number(position + at, 4, "big") for at in (28, 32))
            if packet_bytes and packet_frames:
                bytes_per_s, frame_bytes = sample_rate * packet_bytes / packet_frames, packet_bytes
            else:  # a variable bit rate
                bytes_per_s, frame_bytes = 0.0, 1
        position += 12 + source.number(position + 4, 8, "big")
        if position + 12 > source.size:
            return [], begin
    start, length = position + 16, source.number(position + 4, 8, "big") - 4  # the first 4 bytes are an edit count
    head = bytearray(_read_header(source, begin, start))

    def header(size: int) -> bytes:
        head[-12:-4] = struct.pack(">q", size + 4)
        return bytes(head)

    length = length if length < 1 << 62 else None
    return _sections(source, Samples(begin, start, length, frame_bytes, bytes_per_s, header, "big", 8))


def voc(source: Source, begin: int) -> Found:
    """Parse Creative Voice: blocks up to one of type 0, which some writers omit.

    The block lengths that sox writes are a few bytes off, so the section always extends to the end of the file.
    """
    position = begin + source.number(begin + 20, 2, "little")
    while source.read(position, 1) and 0 < source.number(position, 1, "little") < 10:
        position += 4 + source.number(position + 1, 3, "little")
    return [Section(begin, source.size, fault="is cut short" if position > source.size else "")], source.size


def nist(source: Source, begin: int) -> Found:
    """Parse NIST Sphere: a text header that says how many samples follow."""
    text = source.read(begin, 1_024).decode("ascii", "replace")
    counts = {name: int(value) for name, value in re.findall(r"^(\w+) -i (\d+)", text, re.M)}
    names = ("sample_count", "channel_count", "sample_n_bytes")
    size = math.prod(counts.get(name, 1) for name in names) if "sample_count" in counts else 0
    size *= "shorten" not in text
    end = begin + int((text.split() or ["", "1024"])[1]) + size
    return [Section(begin, source.size, fault="is cut short" if end > source.size else "")], source.size


def _read_header(source: Source, begin: int, end: int) -> bytes:
    """Read the bytes from ``begin`` to ``end``. Raises ValueError if they are too many for a header."""
    if end - begin > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {end - begin} bytes")
    return source.read(begin, end - begin)


def _sections(source: Source, samples: Samples) -> Found:
    """Return the recording unchanged if its header is right, otherwise as sections with corrected headers."""
    if samples.start > source.size:
        return [], samples.begin
    declared_end = _end_of_samples(source, samples)
    end = min(declared_end, source.size)
    recording_end = _end_of_chunks(source, end, samples)
    declared_s = (declared_end - samples.start) / samples.bytes_per_s if samples.bytes_per_s else 0.0
    fault = "is cut short" if declared_end - source.size >= max(samples.frame_bytes, 2) else ""
    if end <= samples.start or end - samples.start == samples.length:
        return [Section(samples.begin, recording_end, fault=fault, declared_s=declared_s)], recording_end
    frame_bytes = max(samples.frame_bytes, 1)
    size = MAX_SECTION_BYTES // frame_bytes * frame_bytes
    bounds = [(start, min(start + size, end)) for start in range(samples.start, end, size)]
    sections = [Section(first, last, samples.header(last - first)) for first, last in bounds[:-1]]
    first, last = bounds[-1]
    return [*sections, Section(first, last, samples.header(last - first), fault, declared_s)], recording_end


def _end_of_samples(source: Source, samples: Samples) -> int:
    """Return the position after the last sample: the declared one if plausible, even if the file is cut before it."""
    if samples.length is None:
        return source.size
    end = samples.start + samples.length
    if not samples.length and not source.is_padding(end) and _is_plausible_end(source, end, samples):
        return end
    if samples.length and end >= source.size:
        return end
    while samples.length and end < source.size:
        if any(_is_plausible_end(source, end + odd, samples) for odd in (samples.length % 2, 0)):
            return end
        if samples.size_bytes != 4:
            break
        end += 1 << 32  # the size may have overflowed its 32 bits
    return source.size


def _is_plausible_end(source: Source, position: int, samples: Samples) -> bool:
    """Return whether samples can end here: at the end of the file, or before a chunk, a tag or another recording."""
    while position <= source.size:
        if source.size - position < 8 or is_recording_start(source, position) or is_tag(source, position):
            return True
        size = _chunk_size(source, position, samples)
        if size is None:
            return source.is_padding(position)
        if source.read(position, 4) in CHUNK_IDS:
            return True
        position += size
    return False


def _end_of_chunks(source: Source, position: int, samples: Samples) -> int:
    """Return the end of the recording: the end of its last chunk, or of the file."""
    if samples.length is not None and samples.size_bytes == 4 and samples.length % 2:
        has_pad_byte = _chunk_size(source, position, samples) is None and not is_recording_start(source, position)
        position += has_pad_byte
    while not is_recording_start(source, position) and (size := _chunk_size(source, position, samples)):
        position += size
    return min(position, source.size)


def _chunk_size(source: Source, position: int, samples: Samples) -> int | None:
    """Return the size of the chunk at ``position`` with its header, or None if there is no chunk."""
    if not samples.size_bytes or position + 8 > source.size:
        return None
    name = source.read(position, 4)
    if samples.size_bytes == 16:
        length = max(24, source.number(position + 16, 8, "little"))
        return length + -length % 8 if source.read(position + 4, 12) == _W64_GUID_TAIL else None
    if name not in CHUNK_IDS and not name.isalnum():
        return None
    length = source.number(position + 4, samples.size_bytes, samples.order)
    return 4 + samples.size_bytes + length + (length % 2 if samples.size_bytes == 4 else 0)
