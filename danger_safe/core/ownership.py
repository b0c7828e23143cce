"""Marks in the files that this project writes, so that it never overwrites a file of somebody else.

Most files are written under names that the user did not type: ``audio_embeddings.json`` next to
``audio_embeddings.csv``. If a file of such a name exists and has no mark, the script stops instead of replacing it.
"""

import csv
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from danger_safe.core.errors import UserError

# The mark is the entry MADE_BY in JSON, Software in PNG, the generator in HTML, the comment in zip files.
MARK = "danger-safe"
MADE_BY = {"made_by": MARK}
JOURNAL_ID = 0x44534A4C  # "DSJL", the application ID in the SQLite header of a journal
FOLDER_MARK = ".danger-safe"  # name of the file that marks a folder
_HEAD_BYTES = 4_096  # the mark lies within the first bytes of a file
_PARQUET_PART = re.compile(r"part-\d{5}\.parquet")


def check_overwrite(path: Path, columns: Sequence[str] = ()) -> None:
    """Raise UserError if overwriting ``path`` would destroy a file that this project did not make.

    Empty files may be overwritten. Formats that cannot carry a mark (sounds) are not checked here.

    Args:
        path: the file to be written.
        columns: for a CSV table, its columns, of which the first two identify it; without them it is not checked.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # there is no file, or writing it will raise a better error
        return
    if stat.S_ISDIR(status.st_mode):
        is_foreign = path.suffix == ".parquet" and not all(_PARQUET_PART.fullmatch(name) for name in os.listdir(path))
    elif not stat.S_ISREG(status.st_mode):
        is_foreign = True  # a pipe or a device, on which a read could block forever
    else:
        is_foreign = status.st_size > 0 and not _is_marked(path, columns)
    if is_foreign:
        raise UserError(
            f"{path} is there and was not made by this project, or by a version before 0.9, which left no mark in it: "
            "move it away, or have the results written elsewhere"
        )


def _is_marked(path: Path, columns: Sequence[str]) -> bool:
    """Return whether a file has the mark of its format, judged by its suffix; True for formats without a mark."""
    mark = MARK.encode()
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            if path.suffix == ".png":
                return b"Software\0" + mark in head
            if path.suffix == ".html":
                return b'<meta name="generator" content="' + mark in head
            if path.suffix == ".onnx":  # its producer
                return head[2:].startswith(b"\x12" + bytes([len(mark)]) + mark)
            if path.suffix == ".json":
                return b'"made_by": "' + mark + b'"' in head + file.read()
            if path.suffix == ".joblib":  # not unpickled, which could run code
                return mark in zlib.decompressobj().decompress(head, _HEAD_BYTES)
            if path.suffix == ".journal":
                return head[:16] == b"SQLite format 3\0" and head[68:72] == JOURNAL_ID.to_bytes(4, "big")
            if path.suffix == ".parquet":
                file.seek(max(0, os.path.getsize(path) - (1 << 20)))
                return b"feat_0000" in file.read()
            if path.suffix == ".csv" and columns:
                first = next(csv.reader([head.decode("utf-8-sig", "replace").partition("\n")[0]]), [])
                return first[:2] == list(columns[:2])
        if path.suffix in (".npz", ".skops"):
            return zipfile.ZipFile(path).comment == mark
        if path.suffix in (".pth", ".training"):
            archive = zipfile.ZipFile(path)
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(member) as content:
                return mark in content.read(_HEAD_BYTES)
    except (OSError, ValueError, KeyError, StopIteration, zlib.error, zipfile.BadZipFile, csv.Error):
        return False
    return True


def mark_zip(path: Path) -> None:
    """Add the mark to a zip file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = MARK.encode()


def marked_folder(folder: Path) -> Path:
    """Create a folder that only scripts write to, and return it. Raises UserError if it is somebody else's.

    The file that marks it is written first, so that a run that was stopped recognises its folder later.
    """
    mark = folder / FOLDER_MARK
    try:
        folder.mkdir(parents=True)
        mark.write_text(f"{MARK}: this folder is written and removed by a script\n", encoding="utf-8")
    except FileExistsError:
        if folder.is_symlink() or (not is_regular_file(mark) and (not folder.is_dir() or os.listdir(folder))):
            raise UserError(f"{folder} is there and was not made by this project: move it away") from None
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    return folder


def is_marked_folder(folder: Path) -> bool:
    """Return whether ``marked_folder`` made this folder."""
    return not folder.is_symlink() and is_regular_file(folder / FOLDER_MARK)


def is_regular_file(path: str | Path) -> bool:
    """Return whether ``path`` is a regular file, not a folder, pipe or device."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG(os.stat(path).st_mode)
    return False
