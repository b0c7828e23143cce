"""The sounds of a distillation: every file decoded once into one flat file, cut into pieces of at most ten seconds.

    corpus = collect([Path("sounds"), Path("unlabelled")], Path("work"), without={"100032"})
    samples = corpus.samples(corpus.collections["marc-moreaux/kitchen20"][0])     # int16 at 32 kHz

Labels are not read. A collection is the ``repo`` column of a folder's clips.csv, else the folder directly under the one
that was named: collections are what is held out, for clips of one collection sound alike.
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

PIECE_S = 10
MAX_PIECES = 9  # of one recording, spread evenly over it: an hour of rain teaches no more than a minute and a half
MIN_S = 0.1
FREESOUND_NUMBER = re.compile(r"(?<!\d)\d{4,6}(?!\d)")  # in names: by it, cuts of one recording know each other


@dataclass(frozen=True)
class Piece:
    """Consecutive samples of one recording in the flat file."""

    collection: str
    start: int
    size: int


class Corpus:
    """Pieces by collection; ``samples`` reads one."""

    def __init__(self, folder: Path):
        """``folder`` holds what ``collect`` wrote."""
        self._samples = np.memmap(folder / "samples.i16", np.int16, "r")
        self.collections: dict[str, list[Piece]] = {}
        with open(folder / "pieces.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                piece = Piece(row["collection"], int(row["start"]), int(row["size"]))
                self.collections.setdefault(piece.collection, []).append(piece)

    def samples(self, piece: Piece) -> np.ndarray:
        """int16 at 32 kHz, (size,)."""
        return self._samples[piece.start : piece.start + piece.size]

    def split(self, held_out: list[str]) -> tuple[list[list[Piece]], list[list[Piece]]]:
        """The pieces of each collection to learn from, and of those held out. Raises UserError for unknown ones."""
        unknown = sorted(set(held_out) - set(self.collections))
        if unknown:
            raise UserError(
                f"no such collection: {', '.join(unknown)}; there are {', '.join(sorted(self.collections))}"
            )
        sides: tuple[list, list] = ([], [])
        for name, pieces in sorted(self.collections.items()):
            sides[name in held_out].append(pieces)
        return sides


def collect(folders: list[Path], work: Path, without: set[str]) -> Corpus:
    """Decode all sounds under ``folders`` into ``work``, once, but recordings with a Freesound number in
    ``without``."""
    if not (work / "pieces.csv").is_file():
        files = list(_files(folders, without))
        if not files:
            raise UserError(f"{', '.join(map(str, folders))}: no sounds in it")
        work.mkdir(parents=True, exist_ok=True)
        _decode(files, work)
    return Corpus(work)


def freesound_numbers(esc50: Path) -> set[str]:
    """The Freesound recordings that ESC-50's clips were cut from, of a copy laid out as the download is."""
    with open(esc50 / "meta" / "esc50.csv", newline="", encoding="utf-8") as file:
        return {row["src_file"] for row in csv.DictReader(file)}


def _files(folders: list[Path], without: set[str]) -> Iterator[tuple[Path, str]]:
    """(file, collection) of every sound that may be heard."""
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
            described = " ".join((name.as_posix(), row.get("path", ""), row.get("source", "")))
            if not without.intersection(FREESOUND_NUMBER.findall(described)):
                yield path, row.get("repo") or f"{folder.name}/{name.parts[0]}"


def _decode(files: list[tuple[Path, str]], work: Path) -> None:
    end, failures = 0, 0
    with (
        atomic_path(work / "pieces.csv") as part,
        open(part, "w", newline="", encoding="utf-8") as table,
        open(work / "samples.i16", "wb") as samples,
    ):
        rows = csv.writer(table)
        rows.writerow(("collection", "start", "size"))
        for path, collection in tqdm(files, "Reading sounds", unit="file", file=sys.stderr):
            try:
                blocks = list(read_blocks(path, PIECE_S))
            except AudioError:
                failures += 1
                continue
            chosen = np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), MAX_PIECES)).round().astype(int))
            for block in (blocks[number] for number in chosen):
                if len(block) >= MIN_S * SAMPLE_RATE and block.any():
                    samples.write((np.clip(block, -1, 1) * 32_767).round().astype(np.int16).tobytes())
                    rows.writerow((collection, end, len(block)))
                    end += len(block)
    print(f"{end / SAMPLE_RATE / 3600:.1f} hours of sound, {failures} files that could not be read", file=sys.stderr)
