"""The journal of an extraction: finished clips on disk, so that an interrupted run can be resumed.

``audio_embeddings.journal`` is an SQLite database with one row per clip: its embedding or the reason why it has none,
and its signature (size and time of change). A group of clips is added in one transaction, as a whole or not at all. A
clip whose signature has changed is embedded again. A journal that was made with another checkpoint, engine or setting
is emptied. Only one process at a time can open it. Deleting it loses nothing but time.
"""

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import make_folder
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import JOURNAL_ID, check_overwrite

FORMAT = 1
_TABLES = {
    "notes": "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT)",
    "clips": "CREATE TABLE clips (file TEXT PRIMARY KEY, signature TEXT, seconds REAL, embedding BLOB, reason TEXT)",
}
# Counts malformed clips, malformed notes, and embeddings of other lengths than the first; all 0 in a valid journal.
_COUNT_INVALID = """
SELECT
  (SELECT count(*) FROM clips WHERE typeof(file) != 'text' OR typeof(signature) != 'text' OR typeof(seconds) != 'real'
    OR typeof(reason) != 'text' OR typeof(embedding) != CASE reason WHEN '' THEN 'blob' ELSE 'null' END
    OR length(embedding) % 4),
  (SELECT count(*) FROM notes WHERE typeof(value) != 'text' OR NOT json_valid(value) OR json_type(value) != 'object'),
  (SELECT max(count(DISTINCT length(embedding)), 1) - 1 FROM clips)
"""


@dataclass(frozen=True)
class Result:
    """The result of a clip: an embedding, or the reason why there is none."""

    file: str
    signature: str
    seconds: float
    embedding: np.ndarray | None  # float32, (dimensions,)
    reason: str = ""


class Journal:
    """The results of one extraction, in a database on disk."""

    def __init__(self, path: Path):
        """Open or create a journal. A damaged one is replaced by an empty one, and ``damaged`` is set.

        Raises UserError if another process has it open, it cannot be written, or the file is not a journal.
        """
        self.path, self.damaged = path, False
        check_overwrite(path)
        make_folder(path.parent)
        with self._errors():
            try:
                self._open()
            except (sqlite3.DatabaseError, ValueError) as error:
                code = getattr(error, "sqlite_errorcode", None)
                if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                    raise  # locked, or the disk is full
                self._database.close()  # not a database, or not a journal
                for file in (path, path.with_name(path.name + "-wal")):
                    file.unlink(missing_ok=True)
                self._open()
                self.damaged = True

    def _open(self) -> None:
        self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        run = self._database.execute
        run("PRAGMA trusted_schema = OFF")
        found = set(run("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        if not found <= set(_TABLES.items()):
            raise ValueError("unknown tables; a view could be endless")
        if run("PRAGMA application_id").fetchone() != (JOURNAL_ID,):
            run(f"PRAGMA application_id = {JOURNAL_ID}")  # before WAL is on, so that it is written to the file itself
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with self._database:
            run("BEGIN IMMEDIATE")
            for name, sql in _TABLES.items():
                if (name, sql) not in found:
                    run(sql)
        if run(_COUNT_INVALID).fetchone() != (0, 0, 0):
            raise ValueError("rows that no extraction wrote")

    @property
    def made_with(self) -> dict:
        """The settings that decided the embeddings, besides the clips; empty for a new journal."""
        made_with = self.note("made with") or {}
        return made_with if made_with.get("format") == FORMAT else {}

    def begin(self, made_with: dict) -> bool:
        """Continue with these settings. A journal of other settings is emptied; return whether it was."""
        old = self.note("made with")
        new = made_with | {"format": FORMAT}
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if old != new:
                self._database.execute("DELETE FROM clips")
                self._database.execute("DELETE FROM notes")
                self._set_note("made with", new)
        return old not in (None, new)

    def results(self) -> dict[str, Result]:
        """Return the result of every clip, without embeddings."""
        with self._errors():
            rows = self._database.execute("SELECT file, signature, seconds, reason FROM clips")
            return {file: Result(file, signature, seconds, None, reason) for file, signature, seconds, reason in rows}

    def add(self, results: Iterable[Result]) -> None:
        """Add the results of a group of clips, all or none."""
        rows = [(r.file, r.signature, r.seconds, _bytes(r.embedding), r.reason) for r in results]
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?)", rows)

    def embeddings(self, files: Iterable[str], dimensions: int) -> Iterator[np.ndarray]:
        """Yield the embedding of each file, (dimensions,). Raises UserError if the journal is damaged."""
        for file in files:
            with self._errors():
                row = self._database.execute("SELECT embedding FROM clips WHERE file = ?", (file,)).fetchone()
                if row is None or row[0] is None:
                    raise sqlite3.DatabaseError(f"{file} has no embedding")
            try:
                yield np.frombuffer(row[0], np.float32).reshape(dimensions)
            except (TypeError, ValueError) as error:
                raise self._damaged(error) from error

    def keep_only(self, files: Iterable[str]) -> None:
        """Delete the results of all other clips."""
        removed = set(self.results()) - set(files)
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM clips WHERE file = ?", [(file,) for file in removed])

    def note(self, name: str) -> dict | None:
        """Return the note of that name."""
        with self._errors():
            row = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is damaged ({error}): delete it; nothing but time is lost")

    def set_note(self, name: str, value: dict) -> None:
        """Write a note about the extraction as a whole."""
        with self._errors():
            self._set_note(name, value)

    def _set_note(self, name: str, value: dict) -> None:
        self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def close(self) -> None:
        """Release the journal for other processes, as the end of a ``with`` block does."""
        self._database.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's errors into UserErrors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary part of an extended code
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                in_use = "another extraction is writing the same table; wait for it, or give another --output"
                no_locks = "the file system there has no locks: give an --output on another disk"
                raise UserError(f"{self.path}: {in_use if _has_locks(self.path.parent) else no_locks}") from error
            if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise UserError(f"{self.path}: cannot be written there: {error}") from error
            if code == sqlite3.SQLITE_ERROR:  # a table or a column is missing
                raise self._damaged(error) from error
            raise UserError(
                f"{self.path}: {error}; what was finished is kept: make room, and run the same command again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error


def _has_locks(folder: Path) -> bool:
    """Whether the file system of a folder can lock files; if not, SQLite reports its file as locked."""
    try:
        import fcntl  # absent on Windows, where all file systems have locks
    except ImportError:
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _bytes(embedding: np.ndarray | None) -> bytes | None:
    return None if embedding is None else np.ascontiguousarray(embedding, np.float32).tobytes()


def digest(content: object) -> str:
    """Return the SHA-256 of JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
