"""FLAC and Ogg: streams of frames or pages, several of which may be chained (``cat``, a recorded internet radio).

libsndfile reads only the first of chained recordings, trusts FLAC's sample count, and skips damaged Ogg pages; it
reports none of this.
"""

import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

from danger_safe.audio.sections import Section, Source, is_recording_start

FLAC_MAGIC = b"fLaC\x00\x00\x00\x22"  # the marker, and the header of the STREAMINFO block that must follow it
# Bytes before the end in which the last frames are searched, if STREAMINFO does not have their maximum size.
FLAC_TAIL_BYTES = 1 << 18
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CRC8 = []  # table of the CRC-8 of FLAC's frame headers
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte << 1 ^ (7 if _byte & 128 else 0)) & 255
    _CRC8.append(_byte)


def flac(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse one FLAC stream, and correct its sample count from its last frame."""
    end = source.find(FLAC_MAGIC, begin + 4)
    end = source.size if end < 0 else end
    head = bytearray(source.read(begin, 42))
    if len(head) < 42:
        return [], begin
    fields = int.from_bytes(head[18:26], "big")  # sample rate (20 bits), channels (3), bits (5), sample count (36)
    sample_rate, declared = fields >> 44, fields & (1 << 36) - 1
    counted = _flac_sample_count(source, begin, end)
    declared_s = declared / sample_rate if sample_rate else 0.0
    if counted is None or declared == counted:
        return [Section(begin, end, declared_s=declared_s)], end
    if counted < declared:
        return [Section(begin, end, fault="is cut short", declared_s=declared_s)], end
    head[18:26] = (fields - declared + counted).to_bytes(8, "big")
    return [Section(begin + 42, end, bytes(head))], end


def _flac_sample_count(source: Source, begin: int, end: int) -> int | None:
    """Return the sample count of a stream according to its last frame, or None if no frame can be found."""
    nominal_size, max_frame_bytes = source.number(begin + 8, 2, "big"), source.number(begin + 15, 3, "big")
    start = max(begin + 42, end - (4 * max_frame_bytes or FLAC_TAIL_BYTES))
    data = source.read(start, end - start)
    sync_codes = [match.start() for match in re.finditer(rb"\xff[\xf8\xf9]", data)]
    frames = [frame for at in sync_codes if (frame := _flac_frame(data[at : at + 16].ljust(16, b"\0"), nominal_size))]
    # Sync codes also occur in audio data. A frame is trusted if the one before it ends where it begins.
    consecutive = [frame for previous, frame in pairwise(frames) if sum(previous) == frame[0]]
    last = consecutive[-1] if consecutive else (frames[0] if len(frames) == 1 and frames[0][0] == 0 else None)
    return sum(last) if last else None


def _flac_frame(head: bytes, nominal_size: int) -> tuple[int, int] | None:
    """Parse a frame header.

    Args:
        head: 16 bytes from the sync code on.
        nominal_size: samples per frame of a stream whose frames are all of one size.

    Returns:
        (first sample, number of samples), or None if this is not a frame header.
    """
    size_code, rate_code, first = head[2] >> 4, head[2] & 15, head[4]
    if not size_code or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    # The frame or sample number is coded like a character in UTF-8, in up to seven bytes.
    num_more = 0 if first < 128 else 7 - (~first & 255).bit_length()
    if first >= 128 and not 1 <= num_more <= 6:
        return None
    number = first if not num_more else first & (1 << max(6 - num_more, 0)) - 1
    for byte in head[5 : 5 + num_more]:
        number = number << 6 | byte & 63
    position = 5 + num_more
    if size_code in (6, 7):
        samples = int.from_bytes(head[position : position + size_code - 5], "big") + 1
        position += size_code - 5
    else:
        samples = 192 if size_code == 1 else 144 << size_code if size_code < 6 else 1 << size_code
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)  # bytes of an explicit sample rate
    crc = 0
    for byte in head[:position]:
        crc = _CRC8[crc ^ byte]
    if position >= len(head) or crc != head[position]:
        return None
    return (number if head[1] & 1 else number * nominal_size), samples


@dataclass
class _Link:
    """State of one link of a chained Ogg file."""

    streams: dict[int, bytes] = field(default_factory=dict)  # serial number -> start of the first packet
    last_pages: dict[int, int] = field(default_factory=dict)  # serial number -> sequence number of the last page
    has_audio: bool = False  # whether audio has begun, after the header pages
    ended: set[int] = field(default_factory=set)  # serial numbers whose last page has come
    fault: str = ""

    def add_fault(self, fault: str) -> None:
        """Record a fault; only the first one is kept."""
        self.fault = self.fault or fault

    @property
    def num_audio_streams(self) -> int:
        """Number of streams with audio, as opposed to video or text."""
        return sum(
            head.startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex")) for head in self.streams.values()
        )


def ogg(source: Source, begin: int) -> tuple[list[Section], int]:
    """Parse the links of a chained Ogg file, and check the pages of each."""
    links: list[tuple[int, _Link]] = [(begin, _Link())]
    position = begin
    while position + 27 <= source.size:
        head = source.read(position, 27)
        if head[:4] != b"OggS":
            if is_recording_start(source, position) or source.is_padding(position):
                break
            links[-1][1].add_fault("is damaged")
            next_page = source.find(b"OggS", position)
            if next_page < 0:
                break
            position = next_page
            continue
        size = 27 + head[26] + sum(source.read(position + 27, head[26]))
        page = source.read(position, size)
        if len(page) < size:
            links[-1][1].add_fault("is cut short")
            position = source.size
            break
        link = links[-1][1]
        if head[5] & 2 and link.has_audio:  # a stream begins after audio: the next link
            link = _Link()
            links.append((position, link))
        if _ogg_crc(page) != int.from_bytes(page[22:26], "little"):
            link.add_fault("is damaged")
            next_page = source.find(b"OggS", position + 4)  # not position + size: the size may be what is damaged
            position = next_page if next_page >= 0 else source.size
            continue
        _add_page(link, page)
        position += size
    last = links[-1][1]
    if last.streams.keys() - last.ended:
        last.add_fault("is cut short")
    ends = [start for start, _ in links[1:]] + [position]
    tracks = max(link.num_audio_streams for _, link in links)
    if tracks > 1:
        fault = next((link.fault for _, link in links if link.fault), "")
        return [Section(begin, position, fault=fault, tracks=tracks)], position
    return [Section(start, end, fault=link.fault) for (start, link), end in zip(links, ends, strict=True)], position


def _add_page(link: _Link, page: bytes) -> None:
    """Update a link by its next page."""
    serial, number = int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
    if page[5] & 2:
        link.streams[serial] = page[27 + page[26] :][:8]
    elif serial in link.last_pages and number != link.last_pages[serial] + 1 and link.has_audio:
        link.add_fault("is damaged")
    link.last_pages[serial] = number
    granule_position = int.from_bytes(page[6:14], "little", signed=True)  # 0 in header pages
    link.has_audio = link.has_audio or granule_position > 0
    if page[5] & 4:
        link.ended.add(serial)


def _ogg_crc(page: bytes) -> int:
    """Return the checksum of an Ogg page, computed by zlib's CRC-32, which has the opposite bit order."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_BIT_REVERSED)
    return int(f"{zlib.crc32(mirrored, 0xFFFF_FFFF) ^ 0xFFFF_FFFF:032b}"[::-1], 2)
