"""Files appear whole or not at all: written beside under a name that nobody can guess, then renamed.

A process that was killed leaves its half-written ``.NAME.danger-safe-COMPUTER-PROCESS.RANDOM.part`` behind. The next
one that writes into the folder removes it, if it is this user's own and its process is no more. Process numbers mean
nothing on another computer or in another container that shares the folder: what is from there has to be a day old.
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

MAX_NAME_CHARS = 50  # characters of a file's own name in the temporary one; systems allow 255 bytes in all
DISK_FULL_ERRNOS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
DISK_FULL_MESSAGE = "the disk is full: make room, and run the same command again"
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_PROBE = 1 << 20  # bytes that tell whether there is room
_RANDOM = "[a-z0-9_]{8}"  # as tempfile makes it
_LEFTOVER = re.compile(rf"\..+\.danger-safe-([0-9a-f]{{8}})-(\d+)\.{_RANDOM}\.(part|old)")
_OLD_NS = 24 * 3600 * 10**9  # nanoseconds after which what came from elsewhere is no longer being written
_UMASK = os.umask(0o022)  # it can be read only by setting it
os.umask(_UMASK)
_writing: set[Path] = set()  # what this process is writing just now


def make_folder(path: Path) -> None:
    """Make a folder and those that it is in, where they are absent. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: a folder is needed, and a file is in its place") from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        raise UserError(f"{path}: the folder cannot be made: {error.strerror}") from error


@cache
def _computer() -> str:
    """Stands for this computer since it was started, and the container on it: eight hexadecimal digits."""
    here = [platform.node()]
    with suppress(OSError):
        here.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        here.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(repr(here).encode()).hexdigest()[:8]


def _prefix(name: str) -> str:
    """How the temporary names of a file begin; not too long where the file's own name is not."""
    return f".{name[:MAX_NAME_CHARS]}.danger-safe-{_computer()}-{os.getpid()}."


def _new_file(path: Path) -> Path:
    """An empty file beside ``path`` that nobody else can have put there. Raises UserError where none can be made."""
    try:
        descriptor, name = tempfile.mkstemp(".part", _prefix(path.name), path.parent)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(path)) from error
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(descriptor)
    os.chmod(name, 0o666 & ~_UMASK)  # as a file that is simply opened would be
    return Path(name)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder for this user alone, in ``parent``; removed at the end, or by the next process if this one is killed."""
    folder = Path(tempfile.mkdtemp(".part", _prefix(name), parent))
    _writing.add(folder)
    try:
        _tidy_once(parent, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _writing.discard(folder)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there becomes ``path`` when the block ends without error.

    with atomic_path("table.csv") as part:
        part.write_text("file,label\\n")

    Where the disk is full, OSError (ENOSPC) names ``path``, whatever the library that wrote made of it.
    """
    path = Path(path)
    make_folder(path.parent)
    part = _new_file(path)
    _writing.add(part)
    try:
        _tidy_once(path.parent, part)
        yield part
        fsync_file(part)
        os.replace(part, path)
    except (OSError, RuntimeError, AssertionError) as error:
        if _was_full(part, error):
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(path)) from error
        if not isinstance(error, OSError) or error.filename != str(part):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
        _writing.discard(part)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; it takes the place of ``path`` when the block ends without error."""
    path = Path(path)
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as part:
        old = part.with_suffix(".old")
        try:
            yield part
            for file in part.iterdir():
                fsync_file(file)
            os.chmod(part, 0o777 & ~_UMASK)
            if path.is_dir():  # a folder cannot be replaced in one step
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
    """Have a file on the disk before it gets its name: a power cut leaves no empty one."""
    with open(file, "rb+") as content:
        os.fsync(content.fileno())


def _was_full(part: Path, error: Exception) -> bool:
    """Whether an error came of a full disk; libraries that lose the system's reason are found out by writing on."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL_ERRNOS
    try:
        with open(part, "ab") as file:
            file.write(bytes(_PROBE))
    except OSError as reason:
        return reason.errno in DISK_FULL_ERRNOS
    return False


_tidied: set[Path] = set()


def _tidy_once(folder: Path, new: Path) -> None:
    """Once in a process: remove what killed processes left of what they were writing into ``folder``.

    What is still being written is not touched. ``new`` was made just now: the age of files from elsewhere is counted
    by the clock of whoever keeps the folder.
    """
    if folder in _tidied:
        return
    _tidied.add(folder)
    with suppress(OSError):
        now = new.stat().st_mtime_ns
        for file in folder.iterdir():
            name = _LEFTOVER.fullmatch(file.name)
            if name and _is_left(file, name[1], int(name[2]), now):
                _remove(file)


def _is_left(file: Path, computer: str, process: int, now: int) -> bool:
    """Whether nobody is writing the temporary file or folder any more, and it is this user's own."""
    status = file.lstat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return False
    if computer != _computer():
        inside = [entry.lstat().st_mtime_ns for entry in file.iterdir()] if file.is_dir() else []
        return now - max([status.st_mtime_ns, *inside]) > _OLD_NS
    return file.absolute() not in _writing if process == os.getpid() else not _is_running(process)


def _remove(file: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def _is_running(process: int) -> bool:
    """Whether there is a process of that number on this computer."""
    if os.name == "nt":  # where os.kill would end it
        query = 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION
        handle = ctypes.windll.kernel32.OpenProcess(query, False, process)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle) or ctypes.windll.kernel32.GetLastError() == 5  # it is another user's
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of ``path``. The caller must know that no other process is writing it."""
    for file in path.parent.iterdir():
        if _LEFTOVER.fullmatch(file.name) and file.name.startswith(f".{path.name[:MAX_NAME_CHARS]}.danger-safe-"):
            _remove(file)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8 with Unix line ends, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: str | Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV table, whole or not at all."""
    columns = tuple(columns)
    check_overwrite(Path(path), columns)
    atomic_write_text(path, "".join(csv_line(row) + "\n" for row in [columns, *rows]))


def csv_line(values: Iterable) -> str:
    """A row of a CSV table, without its line end; its text is never a formula (``without_formula``)."""
    text = io.StringIO()
    # the writer quotes values that hold a character of the line end
    csv.writer(text, lineterminator="\r\n").writerow(map(without_formula, values))
    return text.getvalue().removesuffix("\r\n")


def without_formula(value: object) -> object:
    """The value of a cell; text that a spreadsheet would run as a formula with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def with_formula(text: str) -> str:
    """The text of a cell that ``without_formula`` wrote, as it was."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    """Also of text with apostrophes before it, so that nothing is lost by writing and reading; a number is none."""
    if not _FORMULA.match(text) or text == "-":  # the name of a stream on stdin, which no spreadsheet computes
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
