"""What extraction leaves: the table, its .json, the list of failures, the journal; each whole or not at all."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from danger_safe.audio.decode import SAMPLE_RATE, WINDOW_S
from danger_safe.core.atomic import atomic_write_text, remove_leftovers, write_csv
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY, check_overwrite
from danger_safe.data.clips import Clip
from danger_safe.embeddings.journal import Journal, digest
from danger_safe.embeddings.table_writer import INFO_COLUMNS, side_file, write_table
from models.checkpoint_files import CheckpointInfo

SUFFIXES = (".csv", ".parquet")
FAILURE_COLUMNS = ("file", "reason")
PACKAGES = ("numpy", "scipy", "soundfile", "soxr")  # what an embedding depends on, beside the engine


class TableFiles:
    """The files of one ``--output``."""

    def __init__(self, path: Path, rows_per_part: int = 0, made_of: dict[str, str] | None = None):
        """``made_of``: the dataset and the checkpoint as they were given, for later steps that listen again."""
        self.path, self.rows_per_part, self.made_of = path, rows_per_part, made_of or {}
        self.journal = side_file(path, ".journal")
        self.info = side_file(path, ".json")
        self.failures = side_file(path, "_failures.csv")

    def check_overwrite(self) -> None:
        """Raises UserError where one of the files is there already and was not made by an extraction."""
        check_overwrite(self.path, INFO_COLUMNS)
        check_overwrite(self.failures, FAILURE_COLUMNS)
        for file in (self.info, self.journal):
            check_overwrite(file)

    def write(
        self, clips: list[Clip], seen: list[bool], journal: Journal, info: CheckpointInfo, engine: str
    ) -> dict[str, str]:
        """Write everything from the journal, in the clips' order; returns the failures: file, reason.

        ``seen``: which of the clips the checkpoint was trained on.

        The open journal says that nobody else is writing these files: what a killed run left of them is removed.
        Raises UserError when no clip at all could be read; the list of failures is written even so.
        """
        for file in (self.path, self.info, self.failures):
            remove_leftovers(file)
        journal.keep_only(clip.file for clip in clips)
        known = journal.results()
        failures = {clip.file: known[clip.file].reason for clip in clips if known[clip.file].reason}
        write_csv(self.failures, FAILURE_COLUMNS, failures.items())
        whole = [(clip, heard) for clip, heard in zip(clips, seen, strict=True) if clip.file not in failures]
        if not whole:
            raise UserError(f"none of the {len(clips)} clips could be read; the reasons are in {self.failures}")
        rows = [(c.file, c.label, c.category, c.fold, c.source, heard) for c, heard in whole]
        embeddings = journal.embeddings((clip.file for clip, _ in whole), info.dimensions)
        write_table(self.path, rows, embeddings, info.dimensions, self.rows_per_part)
        described = MADE_BY | {
            "checkpoint": {"name": info.name, "sha256": info.sha256, "licence": info.licence},
            "made_of": self.made_of,
            "sample_rate": SAMPLE_RATE,
            "settings": info.settings | {"dimensions": info.dimensions, "window_seconds": WINDOW_S},
            "engine": engine,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "counts": {
                "clips": len(rows),
                "failures": len(failures),
                "danger": sum(row[1] == 1 for row in rows),
                "safe": sum(row[1] == 0 for row in rows),
                "seen": sum(row[5] for row in rows),
            },
        }
        atomic_write_text(self.info, json.dumps(described, indent=2, sort_keys=True) + "\n")
        return failures

    def request(self, clips: list[Clip], sha256: str) -> str:
        """A short name for everything that decides the table, besides the sounds themselves."""
        rows = [(c.file, c.label, c.category, c.fold, c.source) for c in clips]
        return digest([sha256, self.rows_per_part, self.made_of, rows])

    def stamps(self) -> dict[str, list[int]]:
        """Size and time of the files as they are: a table that somebody changed is written again."""
        stamps = {}
        for file in (self.path, self.info, self.failures):
            if file.exists():
                status = file.stat()
                stamps[file.name] = [status.st_size, status.st_mtime_ns]
        return stamps
