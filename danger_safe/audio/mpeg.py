"""MPEG audio (MP3, MP2): the frames are counted, because libsndfile trusts a length that is often wrong.

Only a Xing, Info or VBRI tag in the first frame says how many frames there are. Some writers omit it, some get it
wrong, and after joining or cutting files it is out of date. Bytes between frames, and an incomplete last frame, are
faults.
"""

import struct
from functools import lru_cache

from danger_safe.audio.sections import Section, Source, is_recording_start, skip_id3, skip_padding

MAX_JUNK_BYTES = 2_880  # the largest frame; recordings of a radio stream end with part of one
_BITRATES = {  # kbit/s, by (MPEG-1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@lru_cache(maxsize=4_096)
def _frame(head: int) -> tuple[int, int, int, int]:
    """Parse a frame header, given its first three bytes as a number.

    Returns (bytes, samples, sample rate, layer) of the frame; zeros if this is not a frame header.
    """
    version, layer, bitrate_index, rate_index = head >> 11 & 3, 4 - (head >> 9 & 3), head >> 4 & 15, head >> 2 & 3
    if head >> 13 != 0x7FF or version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return 0, 0, 0, 0
    is_mpeg1 = version == 3
    sample_rate = (44_100, 48_000, 32_000)[rate_index] >> (0 if is_mpeg1 else 1 if version == 2 else 2)
    bitrate, padding = _BITRATES[is_mpeg1, layer][bitrate_index], head >> 1 & 1
    if layer == 1:
        return (12_000 * bitrate // sample_rate + padding) * 4, 384, sample_rate, 1
    samples = 1_152 if is_mpeg1 or layer == 2 else 576
    return samples // 8 * 1_000 * bitrate // sample_rate + padding, samples, sample_rate, layer


def frame_size(head: bytes) -> int:
    """Return the size in bytes of the MPEG frame with this header, or 0 if it is not a frame header."""
    return _frame(int.from_bytes(head[:3], "big"))[0]


def mpeg(source: Source, begin: int) -> tuple[list[Section], int]:
    """Return a section for each run of consecutive frames; there are several if something else lies between them."""
    runs: list[tuple[int, int, int]] = []  # (start, end, frames)
    position, faults = begin, []
    while position < source.size:
        end, frames = _scan_run(source, position)
        if frames:
            runs.append((position, end, frames))
        is_cut = end + frame_size(source.read(end, 4)) > source.size
        position = _skip_tags(source, end)
        if source.size - position < 4 or (is_recording_start(source, position) and source.read(position, 3) != b"ID3"):
            break
        next_run = _find_run(source, position)
        if next_run is None:
            if is_cut or source.size - position > MAX_JUNK_BYTES:
                faults.append("is cut short" if is_cut else "is damaged")
            position = source.size
            break
        if next_run > position:
            faults.append("is damaged")
        position = next_run
    return _sections(source, runs, faults), position


def _sections(source: Source, runs: list[tuple[int, int, int]], faults: list[str]) -> list[Section]:
    """Return the runs as sections, each with a corrected length tag unless the file's own tag is right.

    Args:
        source: the file.
        runs: (start, end, number of frames) of each run.
        faults: what is wrong, in the order in which it was found.
    """
    if not runs:
        return []
    start, end, frames = runs[0]
    size, samples, sample_rate, layer = _frame(int.from_bytes(source.read(start, 3), "big"))
    tag = _read_length_tag(source.read(start, size))
    declared_s = (tag or 0) * samples / sample_rate
    if tag is not None:
        if len(runs) == 1 and tag > frames and not faults:
            faults = ["is cut short"]
        if (len(runs) == 1 and abs(tag - frames + 1) <= 1) or faults == ["is cut short"]:
            return [Section(start, end, fault=" ".join(faults[:1]), declared_s=declared_s)]
        runs = [(start + size, end, frames - 1), *runs[1:]]
    elif layer < 3 and len(runs) == 1:
        return [Section(start, end, fault=" ".join(faults[:1]))]
    sections = [
        Section(start, end, _make_length_tag(source.read(start, 4), frames, end - start)) for start, end, frames in runs
    ]
    last = sections[-1]
    return [*sections[:-1], Section(last.start, last.end, last.header, " ".join(faults[:1]))]


def _scan_run(source: Source, position: int) -> tuple[int, int]:
    """Return (end, number) of the complete frames of one format that follow one another from ``position``."""
    frames, run_format = 0, None
    while True:
        head = source.read(position, 4)
        size, *rest = _frame(int.from_bytes(head[:3], "big"))
        frame_format = (*rest, head[3:] >= b"\xc0")  # with mono or stereo: decoders do not follow a change of format
        if not size or position + size > source.size or (run_format and frame_format != run_format):
            break
        run_format = frame_format
        position += size
        frames += 1
    return position, frames


def _find_run(source: Source, position: int) -> int | None:
    """Return the next position at which two frames of one format follow each other, or the last frame of the file."""
    while (position := source.find(b"\xff", position)) >= 0:
        size, *frame_format = _frame(int.from_bytes(source.read(position, 3), "big"))
        if size and position + size <= source.size:
            next_size, *next_format = _frame(int.from_bytes(source.read(position + size, 3), "big"))
            if position + size == source.size or (next_size and frame_format == next_format):
                return position
        position += 1
    return None


def _skip_tags(source: Source, position: int) -> int:
    """Return the position after any tags and zero bytes."""
    previous = -1
    while previous != position < source.size:
        previous, head = position, source.read(position, 16)
        if head[:3] == b"TAG":
            position += 128
        elif head[:8] == b"APETAGEX":
            position += 32 + int.from_bytes(head[12:16], "little")
        elif head[:11] == b"LYRICSBEGIN":
            end = source.find(b"LYRICS200", position)
            position = end + 9 if end >= 0 else source.size
        elif head[:3] == b"ID3":
            position = skip_id3(source, position)
        else:
            position = skip_padding(source, position)
    return min(position, source.size)


def _side_info_size(head: bytes) -> int:
    """Return the size of a layer III frame's side information, after which the length tag lies."""
    is_mono, is_mpeg1 = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    return (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)


def _read_length_tag(frame: bytes) -> int | None:
    """Return the number of frames in the Xing, Info or VBRI tag of a frame: 0 if not given, None without a tag."""
    at = 4 + _side_info_size(frame)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(frame[at + 8 : at + 12], "big") if frame[at + 7] & 1 else 0
    return 0 if frame[36:40] == b"VBRI" else None


def _make_length_tag(head: bytes, frames: int, size: int) -> bytes:
    """Return a layer III frame with a Xing tag for ``frames`` frames of ``size`` bytes in all; b"" for other layers."""
    if _frame(int.from_bytes(head[:3], "big"))[3] != 3:
        return b""
    head = bytes((head[0], head[1] | 1, 0xE0 | head[2] & 12, head[3]))
    length = frame_size(head)
    flags = 3  # the fields that follow: frames and bytes
    tag = b"Xing" + struct.pack(">III", flags, frames, min(size + length, 2**32 - 1))
    return (head + bytes(_side_info_size(head)) + tag).ljust(length, b"\0")
