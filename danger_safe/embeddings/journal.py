"""What extraction has finished, kept beside the table while it works: killed at any moment, the next run goes on.

File and rules. ``audio_embeddings.journal`` is an SQLite database: a row a clip with its embedding, or the reason why
it has none, and its signature (size and time of change). A group of clips is added in one transaction: it is there
whole or not at all, whatever happens to the computer. A clip whose signature has changed counts as unknown. A journal
that was made with another checkpoint, engine or setting is emptied. One process at a time can have it open. Deleting
it loses nothing but time.
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
# Clips that are not as they should be, notes that are not, and lengths of embeddings beside the first.
_WRONG_ROWS = """
SELECT
  (SELECT count(*) FROM clips WHERE typeof(file) != 'text' OR typeof(signature) != 'text' OR typeof(seconds) != 'real'
    OR typeof(reason) != 'text' OR typeof(embedding) != CASE reason WHEN '' THEN 'blob' ELSE 'null' END
    OR length(embedding) % 4),
  (SELECT count(*) FROM notes WHERE typeof(value) != 'text' OR NOT json_valid(value) OR json_type(value) != 'object'),
  (SELECT max(count(DISTINCT length(embedding)), 1) - 1 FROM clips)
"""


@dataclass(frozen=True)
class Result:
    """What became of a clip: an embedding, or the reason why there is none."""

    file: str
    signature: str
    seconds: float
    embedding: np.ndarray | None  # float32, (dimensions,)
    reason: str = ""


class Journal:
    """The results of one table, on the disk."""

    def __init__(self, path: Path):
        """Open a journal or begin one; ``damaged`` tells that the file was a journal, is damaged and begins anew.

        Raises UserError when another process has it open, it cannot be written, or the file is somebody else's.
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
                    raise  # locked, or no room
                self._database.close()  # no database, or one of something else
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
            raise ValueError("tables of something else: a view, which may have no end")
        if run("PRAGMA application_id").fetchone() != (JOURNAL_ID,):
            run(f"PRAGMA application_id = {JOURNAL_ID}")  # before there is a write-ahead log: in the file itself
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with self._database:
            run("BEGIN IMMEDIATE")
            for name, sql in _TABLES.items():
                if (name, sql) not in found:
                    run(sql)
        if run(_WRONG_ROWS).fetchone() != (0, 0, 0):
            raise ValueError("rows that no extraction wrote")

    @property
    def made_with(self) -> dict:
        """Everything that decided the embeddings in it, besides the clips; empty for a new journal."""
        made_with = self.note("made with") or {}
        return made_with if made_with.get("format") == FORMAT else {}

    def begin(self, made_with: dict) -> bool:
        """Go on with embeddings that are made with this; returns whether others were there, and are gone now."""
        before = self.note("made with")
        now = made_with | {"format": FORMAT}
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if before != now:
                self._database.execute("DELETE FROM clips")
                self._database.execute("DELETE FROM notes")
                self._set_note("made with", now)
        return before not in (None, now)

    def results(self) -> dict[str, Result]:
        """What became of every clip, without the embeddings."""
        with self._errors():
            rows = self._database.execute("SELECT file, signature, seconds, reason FROM clips")
            return {file: Result(file, signature, seconds, None, reason) for file, signature, seconds, reason in rows}

    def add(self, results: Iterable[Result]) -> None:
        """Keep the results of a group of clips: all of them or, where that fails, none."""
        rows = [(r.file, r.signature, r.seconds, _bytes(r.embedding), r.reason) for r in results]
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?)", rows)

    def embeddings(self, files: Iterable[str], dimensions: int) -> Iterator[np.ndarray]:
        """The embeddings of some clips, each (dimensions,), in their order, one at a time. Raises UserError when
        damaged."""
        for file in files:
            with self._errors():
                row = self._database.execute("SELECT embedding FROM clips WHERE file = ?", (file,)).fetchone()
                if row is None or row[0] is None:
                    raise sqlite3.DatabaseError(f"{file} is listed and not there")
            try:
                yield np.frombuffer(row[0], np.float32).reshape(dimensions)
            except (TypeError, ValueError) as error:
                raise self._damaged(error) from error

    def keep_only(self, files: Iterable[str]) -> None:
        """Forget clips that are no longer in the dataset."""
        gone = set(self.results()) - set(files)
        with self._errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM clips WHERE file = ?", [(file,) for file in gone])

    def note(self, name: str) -> dict | None:
        """What was noted under a name."""
        with self._errors():
            row = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is damaged ({error}): delete it; nothing but time is lost")

    def set_note(self, name: str, value: dict) -> None:
        """Keep something about the table as a whole."""
        with self._errors():
            self._set_note(name, value)

    def _set_note(self, name: str, value: dict) -> None:
        self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def close(self) -> None:
        """Let another process have it; a ``with`` block does so."""
        self._database.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what extends it
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                other = "another extraction is writing the same table; wait for it, or give another --output"
                none = "the file system there has no locks: give an --output on another disk"
                raise UserError(f"{self.path}: {other if _has_locks(self.path.parent) else none}") from error
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
    """Whether the file system of a folder can lock files: where it cannot, SQLite says that its file is locked."""
    try:
        import fcntl  # not on Windows, where every file system can
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
    """A short name for any JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
