"""Files that this project made, told from others by a mark inside: only those are written over.

A script writes several files, most of them under names that its user did not type: ``audio_embeddings.json`` beside
``audio_embeddings.csv``. Where such a file is there already and does not carry the mark, it is somebody else's.
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

MARK = (
    "danger-safe"  # in JSON as MADE_BY, in PNG as its Software, in HTML as its generator, in zip files as the comment
)
MADE_BY = {"made_by": MARK}
JOURNAL_ID = 0x44534A4C  # of a journal, in SQLite's header: "DSJL"
FOLDER_MARK = ".danger-safe"  # a file in folders that only scripts write into
_HEAD = 4_096  # bytes at a file's beginning that its mark is in
_PART = re.compile(r"part-\d{5}\.parquet")


def check_overwrite(path: Path, columns: Sequence[str] = ()) -> None:
    """Raises UserError where there is a file at ``path`` that this project did not make.

    A CSV table is told by the first two of its ``columns``; without them it is not checked, nor are files of kinds that
    carry no mark (sounds), for which their writers have other means. What is empty is nobody's loss.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # nothing is there, or writing says what is wrong
        return
    if stat.S_ISDIR(status.st_mode):
        wrong = path.suffix == ".parquet" and not all(_PART.fullmatch(name) for name in os.listdir(path))
    elif not stat.S_ISREG(status.st_mode):
        wrong = True  # a pipe or a device: to look into it could wait for ever
    else:
        wrong = status.st_size > 0 and not _is_marked(path, columns)
    if wrong:
        raise UserError(
            f"{path} is there and was not made by this project, or by a version before 0.9, which left no mark in it: "
            "move it away, or have the results written elsewhere"
        )


def _is_marked(path: Path, columns: Sequence[str]) -> bool:
    mark = MARK.encode()
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if path.suffix == ".png":
                return b"Software\0" + mark in head
            if path.suffix == ".html":
                return b'<meta name="generator" content="' + mark in head
            if path.suffix == ".onnx":  # as its producer
                return head[2:].startswith(b"\x12" + bytes([len(mark)]) + mark)
            if path.suffix == ".json":
                return b'"made_by": "' + mark + b'"' in head + file.read()
            if path.suffix == ".joblib":  # without opening it, which could run code
                return mark in zlib.decompressobj().decompress(head, _HEAD)
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
            inside = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(inside) as content:
                return mark in content.read(_HEAD)
    except (OSError, ValueError, KeyError, StopIteration, zlib.error, zipfile.BadZipFile, csv.Error):
        return False
    return True


def mark_zip(path: Path) -> None:
    """Put the mark into a zip file that was just written."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = MARK.encode()


def marked_folder(folder: Path) -> Path:
    """A folder that only scripts write into, made when absent. Raises UserError where it is somebody else's.

    It carries a file with the mark, which is made first: a run that was stopped knows its folder again.
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
    """Whether it is a file, and no pipe or device that one could wait for without end."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG(os.stat(path).st_mode)
    return False
