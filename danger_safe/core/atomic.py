"""Atomic writes: a file is written under an unpredictable temporary name in the same folder, then renamed.

A process that is killed leaves ``.NAME.danger-safe-HOST-PID.RANDOM.part`` behind. The next process that writes into the
folder removes such a file if it belongs to this user and its process no longer runs. Process IDs of another computer or
container that shares the folder mean nothing here, so files from there are removed only after a day.
"""

import csv
import ctypes
import errno
import hashlib
import io
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite

MAX_NAME_CHARS = 50  # characters of the target's name in the temporary name; systems allow 255 bytes in all
DISK_FULL_ERRNOS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
DISK_FULL_MESSAGE = "the disk is full: make room, and run the same command again"
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_PROBE_BYTES = 1 << 20  # written to find out whether the disk is full
_RANDOM = "[a-z0-9_]{8}"  # the random part of tempfile's names
_LEFTOVER = re.compile(rf"\..+\.danger-safe-([0-9a-f]{{8}})-(\d+)\.{_RANDOM}\.(part|old)")
_MAX_FOREIGN_AGE_NS = 24 * 3600 * 10**9  # nanoseconds; older leftovers of other computers are removed
_UMASK = os.umask(0o022)  # can be read only by setting it
os.umask(_UMASK)
_in_progress: set[Path] = set()  # temporary files and folders that this process is writing
_cleaned: set[Path] = set()  # folders whose leftovers this process has already looked for


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they do not exist. Raises UserError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: a folder is needed, and a file is in its place") from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        raise UserError(f"{path}: the folder cannot be made: {error.strerror}") from error


@cache
def _host_id() -> str:
    """Return eight hexadecimal digits that identify this computer since its last boot, and the container on it."""
    identity = [platform.node()]
    with suppress(OSError):
        identity.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        identity.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:8]


def _prefix(name: str) -> str:
    """Return the start of the temporary names for a file called ``name``."""
    return f".{name[:MAX_NAME_CHARS]}.danger-safe-{_host_id()}-{os.getpid()}."


def _new_file(path: Path) -> Path:
    """Create an empty temporary file next to ``path``. Raises UserError if that fails."""
    try:
        descriptor, name = tempfile.mkstemp(".part", _prefix(path.name), path.parent)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(path)) from error
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(descriptor)
    os.chmod(name, 0o666 & ~_UMASK)  # the mode that open() would give it
    return Path(name)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Create a folder in ``parent`` that only this user can open, and remove it at the end of the block.

    If this process is killed, the next one that writes into ``parent`` removes it.
    """
    folder = Path(tempfile.mkdtemp(".part", _prefix(name), parent))
    _in_progress.add(folder)
    try:
        _clean_once(parent, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _in_progress.discard(folder)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, which is renamed to ``path`` if the block ends without an error.

        with atomic_path("table.csv") as part:
            part.write_text("file,label\\n")

    Raises OSError (ENOSPC) that names ``path`` if the disk is full, whatever exception the writing library raised.
    """
    path = Path(path)
    make_folder(path.parent)
    part = _new_file(path)
    _in_progress.add(part)
    try:
        _clean_once(path.parent, part)
        yield part
        fsync_file(part)
        os.replace(part, path)
    except (OSError, RuntimeError, AssertionError) as error:
        if _is_disk_full(part, error):
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(path)) from error
        if not isinstance(error, OSError) or error.filename != str(part):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
        _in_progress.discard(part)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``, which replaces ``path`` if the block ends without an error."""
    path = Path(path)
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as part:
        old = part.with_suffix(".old")
        try:
            yield part
            for file in part.iterdir():
                fsync_file(file)
            os.chmod(part, 0o777 & ~_UMASK)
            if path.is_dir():  # os.replace does not replace a folder that has files
                os.replace(path, old)
            elif path.exists():
                path.unlink()
            os.replace(part, path)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(path)) from error
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def fsync_file(file: Path) -> None:
    """Flush a file to the disk. Called before it is renamed, so that a power cut cannot leave an empty file."""
    with open(file, "rb+") as content:
        os.fsync(content.fileno())


def _is_disk_full(part: Path, error: Exception) -> bool:
    """Return whether a full disk caused an error. If a library has lost the errno, try to write more to find out."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL_ERRNOS
    try:
        with open(part, "ab") as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as reason:
        return reason.errno in DISK_FULL_ERRNOS
    return False


def _clean_once(folder: Path, new: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``, once per process.

    Files that are still being written are not touched. ``new`` has just been created: its modification time is "now" by
    the clock of the file server, which may differ from this computer's.
    """
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError):
        now = new.stat().st_mtime_ns
        for file in folder.iterdir():
            name = _LEFTOVER.fullmatch(file.name)
            if name and _is_abandoned(file, name[1], int(name[2]), now):
                _remove(file)


def _is_abandoned(file: Path, host: str, process: int, now: int) -> bool:
    """Return whether a temporary file or folder belongs to this user and nobody is writing it any more.

    Args:
        file: the temporary file or folder.
        host: the ``_host_id`` in its name.
        process: the process ID in its name.
        now: the current time in nanoseconds, by the clock that dates the files of the folder.
    """
    status = file.lstat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return False
    if host != _host_id():
        inside = [entry.lstat().st_mtime_ns for entry in file.iterdir()] if file.is_dir() else []
        return now - max([status.st_mtime_ns, *inside]) > _MAX_FOREIGN_AGE_NS
    return file.absolute() not in _in_progress if process == os.getpid() else not _is_running(process)


def _remove(file: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def _is_running(process: int) -> bool:
    """Return whether a process with this ID runs on this computer."""
    if os.name == "nt":  # on Windows os.kill would terminate it
        query = 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION
        handle = ctypes.windll.kernel32.OpenProcess(query, False, process)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle) or ctypes.windll.kernel32.GetLastError() == 5  # access denied: another user's process
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's process
        return True
    return True


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path``. Only for callers that know that no other process is writing it."""
    for file in path.parent.iterdir():
        if _LEFTOVER.fullmatch(file.name) and file.name.startswith(f".{path.name[:MAX_NAME_CHARS]}.danger-safe-"):
            _remove(file)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with Unix line ends."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: str | Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV table atomically. Raises UserError if ``path`` is a table that this project did not make."""
    columns = tuple(columns)
    check_overwrite(Path(path), columns)
    atomic_write_text(path, "".join(csv_line(row) + "\n" for row in [columns, *rows]))


def csv_line(values: Iterable) -> str:
    """Return a row of a CSV table without its line end; formulas are escaped (``escape_formula``)."""
    text = io.StringIO()
    # With "\\r\\n" as the line end, the writer quotes values that contain either character.
    csv.writer(text, lineterminator="\r\n").writerow(map(escape_formula, values))
    return text.getvalue().removesuffix("\r\n")


def escape_formula(value: object) -> object:
    """Return a cell's value, with an apostrophe before text that a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def unescape_formula(text: str) -> str:
    """Return the original text of a cell that ``escape_formula`` wrote."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet would run a text as a formula; numbers are not formulas.

    Text that already begins with apostrophes counts too, so that escaping can be undone exactly.
    """
    if not _FORMULA.match(text) or text == "-":  # "-" is the name of a stream on stdin and harmless
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
