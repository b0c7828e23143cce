"""FLAC and Ogg: streams of frames and pages, which may be joined end to end (``cat``, an internet radio's recording).

libsndfile reads the first of joined recordings, believes FLAC's count of samples, and leaves out pages of an Ogg that
are damaged; it says none of it.
"""

import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

from danger_safe.audio.sections import Section, Source, begins_recording

FLAC = b"fLaC\x00\x00\x00\x22"  # a stream's beginning: marker, and the block that comes first
FLAC_TAIL = (
    1 << 18
)  # bytes before a stream's end in which its last frames are, where it does not say how large they are
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CRC8 = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte << 1 ^ (7 if _byte & 128 else 0)) & 255
    _CRC8.append(_byte)


def flac(source: Source, begin: int) -> tuple[list[Section], int]:
    """One FLAC stream, with the number of samples that it really has."""
    end = source.find(FLAC, begin + 4)
    end = source.size if end < 0 else end
    head = bytearray(source.read(begin, 42))
    if len(head) < 42:
        return [], begin
    settings = int.from_bytes(head[18:26], "big")  # rate, channels, bits, and 36 bits of how many samples there are
    rate, claimed = settings >> 44, settings & (1 << 36) - 1
    counted = _flac_samples(source, begin, end)
    promised = claimed / rate if rate else 0.0
    if counted is None or claimed == counted:
        return [Section(begin, end, promised=promised)], end
    if counted < claimed:
        return [Section(begin, end, fault="is cut short", promised=promised)], end
    head[18:26] = (settings - claimed + counted).to_bytes(8, "big")
    return [Section(begin + 42, end, bytes(head))], end


def _flac_samples(source: Source, begin: int, end: int) -> int | None:
    """How many samples a stream has, by the number that its last frame bears. None where none can be found."""
    nominal, longest = source.number(begin + 8, 2, "big"), source.number(begin + 15, 3, "big")
    start = max(begin + 42, end - (4 * longest or FLAC_TAIL))
    data = source.read(start, end - start)
    heads = [match.start() for match in re.finditer(rb"\xff[\xf8\xf9]", data)]
    frames = [frame for at in heads if (frame := _flac_frame(data[at : at + 16].ljust(16, b"\0"), nominal))]
    follows = [this for before, this in pairwise(frames) if sum(before) == this[0]]
    last = follows[-1] if follows else (frames[0] if len(frames) == 1 and frames[0][0] == 0 else None)
    return sum(last) if last else None


def _flac_frame(head: bytes, nominal: int) -> tuple[int, int] | None:
    """(first sample, samples) of the frame that begins here, None where none does."""
    size_code, rate_code, first = head[2] >> 4, head[2] & 15, head[4]
    if not size_code or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    more = 0 if first < 128 else 7 - (~first & 255).bit_length()  # as in UTF-8, up to seven bytes
    if first >= 128 and not 1 <= more <= 6:
        return None
    number = first if not more else first & (1 << max(6 - more, 0)) - 1
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 63
    position = 5 + more
    if size_code in (6, 7):
        samples = int.from_bytes(head[position : position + size_code - 5], "big") + 1
        position += size_code - 5
    else:
        samples = 192 if size_code == 1 else 144 << size_code if size_code < 6 else 1 << size_code
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in head[:position]:
        crc = _CRC8[crc ^ byte]
    if position >= len(head) or crc != head[position]:
        return None
    return (number if head[1] & 1 else number * nominal), samples


@dataclass
class _Link:
    """What was seen of one link of an Ogg's chain."""

    streams: dict[int, bytes] = field(default_factory=dict)  # by serial number: how its first packet begins
    pages: dict[int, int] = field(default_factory=dict)  # the number of each stream's last page
    begun: bool = False  # whether sound has begun, or everything is headers
    ended: set[int] = field(default_factory=set)
    fault: str = ""

    @property
    def sounds(self) -> int:
        """How many of its streams are sound."""
        return sum(
            head.startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex")) for head in self.streams.values()
        )


def ogg(source: Source, begin: int) -> tuple[list[Section], int]:
    """The links of an Ogg's chain, each with what is wrong with its pages."""
    links: list[tuple[int, _Link]] = [(begin, _Link())]
    position = begin
    while position + 27 <= source.size:
        head = source.read(position, 27)
        if head[:4] != b"OggS":
            if begins_recording(source, position) or source.is_padding(position):
                break
            found = source.find(b"OggS", position)
            links[-1][1].fault = links[-1][1].fault or "is damaged"
            if found < 0:
                break
            position = found
            continue
        size = 27 + head[26] + sum(source.read(position + 27, head[26]))
        page = source.read(position, size)
        if len(page) < size:
            links[-1][1].fault = links[-1][1].fault or "is cut short"
            position = source.size
            break
        link = links[-1][1]
        if head[5] & 2 and link.begun:
            link = _Link()
            links.append((position, link))
        if _ogg_crc(page) != int.from_bytes(page[22:26], "little"):
            link.fault = link.fault or "is damaged"
            next_page = source.find(b"OggS", position + 4)  # its length may be what is damaged
            position = next_page if next_page >= 0 else source.size
            continue
        _look_at_page(link, page)
        position += size
    last = links[-1][1]
    if not last.fault and last.streams.keys() - last.ended:
        last.fault = "is cut short"
    ends = [start for start, _ in links[1:]] + [position]
    tracks = max(link.sounds for _, link in links)
    if tracks > 1:
        fault = next((link.fault for _, link in links if link.fault), "")
        return [Section(begin, position, fault=fault, tracks=tracks)], position
    return [Section(start, end, fault=link.fault) for (start, link), end in zip(links, ends, strict=True)], position


def _look_at_page(link: _Link, page: bytes) -> None:
    serial, number = int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
    if page[5] & 2:
        link.streams[serial] = page[27 + page[26] :][:8]
    elif serial in link.pages and number != link.pages[serial] + 1 and link.begun:
        link.fault = link.fault or "is damaged"
    link.pages[serial] = number
    link.begun = link.begun or int.from_bytes(page[6:14], "little", signed=True) > 0
    if page[5] & 4:
        link.ended.add(serial)


def _ogg_crc(page: bytes) -> int:
    """Ogg's checksum of a page, by way of zlib's, whose bits run the other way."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(mirrored, 0xFFFF_FFFF) ^ 0xFFFF_FFFF:032b}"[::-1], 2)
