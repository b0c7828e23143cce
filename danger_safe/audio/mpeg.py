"""MPEG audio (MP3, MP2): frames that are counted, since libsndfile believes a length that was guessed from the first.

Only the tag Xing, Info or VBRI says how many frames there are; some writers leave it out, some get it wrong, and joined
or cut files keep what was true before. Stretches that the frames do not cover, and a frame that the file ends within,
are damage.
"""

from functools import lru_cache

from danger_safe.audio.sections import Section, Source, after_padding, begins_recording, skip_id3

MAX_JUNK = 2_880  # bytes, a frame's most: what a radio's recording begins and ends with
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
    """(bytes, samples, Hz, layer) of the frame with these first three bytes; zeros where they are none's."""
    version, layer, bitrate, rate = head >> 11 & 3, 4 - (head >> 9 & 3), head >> 4 & 15, head >> 2 & 3
    if head >> 13 != 0x7FF or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0, 0, 0, 0
    first = version == 3
    hertz = (44_100, 48_000, 32_000)[rate] >> (0 if first else 1 if version == 2 else 2)
    kilobits, padding = _BITRATES[first, layer][bitrate], head >> 1 & 1
    if layer == 1:
        return (12_000 * kilobits // hertz + padding) * 4, 384, hertz, 1
    samples = 1_152 if first or layer == 2 else 576
    return samples // 8 * 1_000 * kilobits // hertz + padding, samples, hertz, layer


def frame_size(head: bytes) -> int:
    """Bytes of the MPEG frame that begins so, 0 where none does."""
    return _frame(int.from_bytes(head[:3], "big"))[0]


def mpeg(source: Source, begin: int) -> tuple[list[Section], int]:
    """A section for every run of frames; there are several where something else lies between."""
    runs: list[tuple[int, int, int]] = []  # (start, end, frames)
    position, faults = begin, []
    while position < source.size:
        end, frames = _run(source, position)
        if frames:
            runs.append((position, end, frames))
        is_cut = end + frame_size(source.read(end, 4)) > source.size
        position = _behind_tags(source, end)
        if source.size - position < 4 or (begins_recording(source, position) and source.read(position, 3) != b"ID3"):
            break
        following = _next_run(source, position)
        if following is None:
            if is_cut or source.size - position > MAX_JUNK:
                faults.append("is cut short" if is_cut else "is damaged")
            position = source.size
            break
        if following > position:
            faults.append("is damaged")
        position = following
    return _sections(source, runs, faults), position


def _sections(source: Source, runs: list[tuple[int, int, int]], faults: list[str]) -> list[Section]:
    """The runs as sections, each behind a frame that says how long it is; as they are, where the file's own is
    right."""
    if not runs:
        return []
    start, end, frames = runs[0]
    size, samples, rate, layer = _frame(int.from_bytes(source.read(start, 3), "big"))
    tag = _length_tag(source.read(start, size))
    promised = (tag or 0) * samples / rate
    if tag is not None:
        if len(runs) == 1 and tag > frames and not faults:
            faults = ["is cut short"]
        if (len(runs) == 1 and abs(tag - frames + 1) <= 1) or faults == ["is cut short"]:
            return [Section(start, end, fault=" ".join(faults[:1]), promised=promised)]
        runs = [(start + size, end, frames - 1), *runs[1:]]
    elif layer < 3 and len(runs) == 1:
        return [Section(start, end, fault=" ".join(faults[:1]))]
    sections = [
        Section(start, end, _length_frame(source.read(start, 4), frames, end - start)) for start, end, frames in runs
    ]
    last = sections[-1]
    return [*sections[:-1], Section(last.start, last.end, last.header, " ".join(faults[:1]))]


def _run(source: Source, position: int) -> tuple[int, int]:
    """(end, number) of the whole frames of one kind that follow each other from here."""
    frames, kind = 0, None
    while True:
        head = source.read(position, 4)
        size, *rest = _frame(int.from_bytes(head[:3], "big"))
        this = (*rest, head[3:] >= b"\xc0")  # mono or not: a decoder keeps to what it began with
        if not size or position + size > source.size or (kind and this != kind):
            break
        kind = this
        position += size
        frames += 1
    return position, frames


def _next_run(source: Source, position: int) -> int | None:
    """Where the next two frames of one kind follow each other, or the file's last one begins."""
    while (position := source.find(b"\xff", position)) >= 0:
        size, *kind = _frame(int.from_bytes(source.read(position, 3), "big"))
        if size and position + size <= source.size:
            following, *kind_then = _frame(int.from_bytes(source.read(position + size, 3), "big"))
            if position + size == source.size or (following and kind == kind_then):
                return position
        position += 1
    return None


def _behind_tags(source: Source, position: int) -> int:
    """The next position that holds neither a tag nor a zero byte."""
    before = -1
    while before != position < source.size:
        before, head = position, source.read(position, 16)
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
            position = after_padding(source, position)
    return min(position, source.size)


def _side_size(head: bytes) -> int:
    """Bytes between a layer III frame's header and where a tag may be."""
    mono, first = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    return (17 if mono else 32) if first else (9 if mono else 17)


def _length_tag(frame: bytes) -> int | None:
    """How many frames follow, by the file's first one: 0 where it does not say, None where it is no such tag."""
    at = 4 + _side_size(frame)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(frame[at + 8 : at + 12], "big") if frame[at + 7] & 1 else 0
    return 0 if frame[36:40] == b"VBRI" else None


def _length_frame(head: bytes, frames: int, size: int) -> bytes:
    """A layer III frame with the tag Xing, for so many frames in ``size`` bytes. Empty for other layers."""
    if _frame(int.from_bytes(head[:3], "big"))[3] != 3:
        return b""
    head = bytes((head[0], head[1] | 1, 0xE0 | head[2] & 12, head[3]))
    length = frame_size(head)
    tag = (
        b"Xing" + (3).to_bytes(4, "big") + frames.to_bytes(4, "big") + min(size + length, 2**32 - 1).to_bytes(4, "big")
    )
    return (head + bytes(_side_size(head)) + tag).ljust(length, b"\0")
