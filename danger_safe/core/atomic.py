"""Files appear whole or not at all: written beside, then renamed.

A process that was killed leaves its half-written ``.NAME.PROCESS.part`` behind. The next one that writes into the folder
removes it, where the process of that number is no more.
"""

import csv
import ctypes
import errno
import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from danger_safe.core.errors import UserError

LONGEST_NAME = 50  # characters of a file's own name in the temporary one; systems allow 255 bytes in all
FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
FULL_WORDS = "the disk is full: make room, and run the same command again"
_PROBE = 1 << 20  # bytes that tell whether there is room
_LEFTOVER = re.compile(r"\..+\.(\d+)\.(part|old)")


def make_folder(path: Path) -> None:
    """Make a folder and those that it is in, where they are absent. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: a folder is needed, and a file is in its place") from error
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{path}: the folder cannot be made: {error.strerror}") from error


def _beside(path: Path, ending: str) -> Path:
    """A temporary path beside ``path``, of a name that is not too long where its name is not."""
    return path.with_name(f".{_shortened(path)}.{os.getpid()}.{ending}")


def _shortened(path: Path) -> str:
    return path.name[:LONGEST_NAME]


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there becomes ``path`` when the block ends without error.

    with whole_file("table.csv") as part:
        part.write_text("file,label\\n")

    Where the disk is full, OSError (ENOSPC) names ``path``, whatever the library that wrote made of it.
    """
    path = Path(path)
    make_folder(path.parent)
    tidy(path.parent)
    part = _beside(path, "part")
    try:
        yield part
        to_disk(part)
        os.replace(part, path)
    except (OSError, RuntimeError, AssertionError) as error:
        if _was_full(part, error):
            raise OSError(errno.ENOSPC, FULL_WORDS, str(path)) from error
        if not isinstance(error, OSError) or error.filename != str(part):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; it takes the place of ``path`` when the block ends without error."""
    path = Path(path)
    make_folder(path.parent)
    tidy(path.parent)
    part, old = _beside(path, "part"), _beside(path, "old")
    shutil.rmtree(part, ignore_errors=True)  # of an earlier process of the same number
    part.mkdir()
    try:
        yield part
        for file in part.iterdir():
            to_disk(file)
        if path.is_dir():  # a folder cannot be replaced in one step
            os.replace(path, old)
        elif path.exists():
            path.unlink()
        os.replace(part, path)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(errno.ENOSPC, FULL_WORDS, str(path)) from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def to_disk(file: Path) -> None:
    """Have a file on the disk before it gets its name: a power cut leaves no empty one."""
    with open(file, "rb+") as content:
        os.fsync(content.fileno())


def _was_full(part: Path, error: Exception) -> bool:
    """Whether an error came of a full disk; libraries that lose the system's reason are found out by writing on."""
    if isinstance(error, OSError):
        return error.errno in FULL
    try:
        with open(part, "ab") as file:
            file.write(bytes(_PROBE))
    except OSError as reason:
        return reason.errno in FULL
    return False


@cache  # once in a process
def tidy(folder: Path) -> None:
    """Remove what killed processes left of files and folders that they were writing into ``folder``.

    What a process that still runs has begun is not touched.
    """
    with suppress(OSError):
        for file in folder.iterdir():
            name = _LEFTOVER.fullmatch(file.name)
            if name and int(name[1]) != os.getpid() and not _is_running(int(name[1])):
                with suppress(OSError):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()


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
    ours = re.compile(re.escape(f".{_shortened(path)}.") + r"\d+\.(part|old)")
    for file in path.parent.iterdir():
        if ours.fullmatch(file.name):
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8 with Unix line ends, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: str | Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV table, whole or not at all."""
    write_whole(path, "".join(csv_line(row) + "\n" for row in [columns, *rows]))


def csv_line(values: Iterable) -> str:
    """A row of a CSV table, without its line end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # quotes values that hold a character of the line end
    return text.getvalue().removesuffix("\r\n")
