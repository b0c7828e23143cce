"""The files of an extraction: the table, its .json, the list of failures, the journal. Each is written atomically."""

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
PACKAGES = ("numpy", "scipy", "soundfile", "soxr")  # that embeddings depend on, besides the engine


class TableFiles:
    """The paths and contents of the files that belong to one ``--output``."""

    def __init__(self, path: Path, rows_per_part: int = 0, made_of: dict[str, str] | None = None):
        """``made_of``: the dataset and the checkpoint as they were given, for later steps that read the sounds."""
        self.path, self.rows_per_part, self.made_of = path, rows_per_part, made_of or {}
        self.journal = side_file(path, ".journal")
        self.info = side_file(path, ".json")
        self.failures = side_file(path, "_failures.csv")

    def check_overwrite(self) -> None:
        """Raise UserError if one of the files exists and was not made by an extraction."""
        check_overwrite(self.path, INFO_COLUMNS)
        check_overwrite(self.failures, FAILURE_COLUMNS)
        for file in (self.info, self.journal):
            check_overwrite(file)

    def write(
        self, clips: list[Clip], seen: list[bool], journal: Journal, info: CheckpointInfo, engine: str
    ) -> dict[str, str]:
        """Write all files from the journal, in the clips' order; return the failures, {file: reason}.

        The open journal guarantees that nobody else is writing these files, so leftovers of killed runs are removed.
        Raises UserError if no clip could be read; the list of failures is written even then.

        Args:
            clips: the dataset.
            seen: whether the checkpoint was trained on each clip.
            journal: the results.
            info: the checkpoint.
            engine: name of the engine.
        """
        for file in (self.path, self.info, self.failures):
            remove_leftovers(file)
        journal.keep_only(clip.file for clip in clips)
        results = journal.results()
        failures = {clip.file: results[clip.file].reason for clip in clips if results[clip.file].reason}
        write_csv(self.failures, FAILURE_COLUMNS, failures.items())
        embedded = [(clip, is_seen) for clip, is_seen in zip(clips, seen, strict=True) if clip.file not in failures]
        if not embedded:
            raise UserError(f"none of the {len(clips)} clips could be read; the reasons are in {self.failures}")
        rows = [(c.file, c.label, c.category, c.fold, c.source, is_seen) for c, is_seen in embedded]
        embeddings = journal.embeddings((clip.file for clip, _ in embedded), info.dimensions)
        write_table(self.path, rows, embeddings, info.dimensions, self.rows_per_part)
        description = MADE_BY | {
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
        atomic_write_text(self.info, json.dumps(description, indent=2, sort_keys=True) + "\n")
        return failures

    def request(self, clips: list[Clip], sha256: str) -> str:
        """Return a hash of everything that decides the table, besides the sounds themselves."""
        rows = [(c.file, c.label, c.category, c.fold, c.source) for c in clips]
        return digest([sha256, self.rows_per_part, self.made_of, rows])

    def stamps(self) -> dict[str, list[int]]:
        """Return size and time of change of the files: a table that somebody has edited is written again."""
        stamps = {}
        for file in (self.path, self.info, self.failures):
            if file.exists():
                status = file.stat()
                stamps[file.name] = [status.st_size, status.st_mtime_ns]
        return stamps
