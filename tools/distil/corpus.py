"""The sounds of a distillation: all files decoded once into one flat file, in segments of at most ten seconds.

    corpus = collect([Path("sounds"), Path("unlabelled")], Path("work"), without={"100032"})
    samples = corpus.samples(corpus.collections["marc-moreaux/kitchen20"][0])     # int16 at 32 kHz

Labels are not read. A sound's collection is the ``repo`` column of its folder's clips.csv, otherwise the subfolder that
it is in. Whole collections are held out, as clips of one collection resemble each other.
"""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from danger_safe.audio.decode import AUDIO_SUFFIXES, SAMPLE_RATE, AudioError, read_blocks
from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError

SEGMENT_S = 10  # seconds; maximum length
MAX_SEGMENTS = 9  # per recording, spread evenly over it: an hour of rain counts no more than a minute and a half
MIN_S = 0.1  # seconds; shorter segments are left out
FREESOUND_NUMBER = re.compile(r"(?<!\d)\d{4,6}(?!\d)")  # in names; clips of one recording share it


@dataclass(frozen=True)
class Segment:
    """A stretch of one recording in the flat file, in samples."""

    collection: str
    start: int
    size: int


class Corpus:
    """Segments by collection; ``samples`` reads one."""

    def __init__(self, folder: Path):
        """Open what ``collect`` wrote into ``folder``."""
        self._samples = np.memmap(folder / "samples.i16", np.int16, "r")
        self.collections: dict[str, list[Segment]] = {}
        with open(folder / "segments.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                segment = Segment(row["collection"], int(row["start"]), int(row["size"]))
                self.collections.setdefault(segment.collection, []).append(segment)

    def samples(self, segment: Segment) -> np.ndarray:
        """Return a segment's int16 samples at 32 kHz, (size,)."""
        return self._samples[segment.start : segment.start + segment.size]

    def split(self, held_out: list[str]) -> tuple[list[list[Segment]], list[list[Segment]]]:
        """Return the segments of training and held-out collections. Raises UserError for an unknown name."""
        unknown = sorted(set(held_out) - set(self.collections))
        if unknown:
            raise UserError(
                f"no such collection: {', '.join(unknown)}; there are {', '.join(sorted(self.collections))}"
            )
        train_val: tuple[list, list] = ([], [])
        for name, segments in sorted(self.collections.items()):
            train_val[name in held_out].append(segments)
        return train_val


def collect(folders: list[Path], work: Path, without: set[str]) -> Corpus:
    """Decode all sounds below some folders, unless that was done before.

    Args:
        folders: Folders of sounds.
        work: The folder to write into.
        without: Freesound numbers of recordings to leave out.
    """
    if not (work / "segments.csv").is_file():
        files = list(_files(folders, without))
        if not files:
            raise UserError(f"{', '.join(map(str, folders))}: no sounds in it")
        work.mkdir(parents=True, exist_ok=True)
        _decode(files, work)
    return Corpus(work)


def freesound_numbers(esc50: Path) -> set[str]:
    """Return the Freesound numbers of the recordings that ESC-50's clips were cut from."""
    with open(esc50 / "meta" / "esc50.csv", newline="", encoding="utf-8") as file:
        return {row["src_file"] for row in csv.DictReader(file)}


def _files(folders: list[Path], without: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield (file, collection) of every sound that is not left out."""
    for folder in folders:
        rows = {}
        if (folder / "clips.csv").is_file():
            with open(folder / "clips.csv", newline="", encoding="utf-8") as file:
                rows = {row["file"]: row for row in csv.DictReader(file)}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            name = path.relative_to(folder)
            row = rows.get(name.as_posix(), {})
            description = " ".join((name.as_posix(), row.get("path", ""), row.get("source", "")))
            if not without.intersection(FREESOUND_NUMBER.findall(description)):
                yield path, row.get("repo") or f"{folder.name}/{name.parts[0]}"


def _decode(files: list[tuple[Path, str]], work: Path) -> None:
    end, failures = 0, 0
    with (
        atomic_path(work / "segments.csv") as part,
        open(part, "w", newline="", encoding="utf-8") as table,
        open(work / "samples.i16", "wb") as samples,
    ):
        rows = csv.writer(table)
        rows.writerow(("collection", "start", "size"))
        for path, collection in tqdm(files, "Reading sounds", unit="file", file=sys.stderr):
            try:
                blocks = list(read_blocks(path, SEGMENT_S))
            except AudioError:
                failures += 1
                continue
            chosen = np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), MAX_SEGMENTS)).round().astype(int))
            for block in (blocks[number] for number in chosen):
                if len(block) >= MIN_S * SAMPLE_RATE and block.any():
                    samples.write((np.clip(block, -1, 1) * 32_767).round().astype(np.int16).tobytes())
                    rows.writerow((collection, end, len(block)))
                    end += len(block)
    print(f"{end / SAMPLE_RATE / 3600:.1f} hours of sound, {failures} files that could not be read", file=sys.stderr)
