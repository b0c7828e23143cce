"""Append to files of JSON lines so that each line is written completely or not at all."""

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Append one line, which includes its newline, and sync it to the disk.

    If the file was moved away (logrotate), a new one is created. Raises OSError if the line cannot be written
    completely; then nothing is added.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):  # a full disk accepts a part of it
                raise OSError(0, "there is no room for the whole line")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def remove_partial_line(path: Path) -> None:
    """Remove an incomplete last line, as a power cut leaves it; create the file if it is missing.

    Raises OSError if the file cannot be written.
    """
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        end, found = size, -1
        while end and found < 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                found += start
            end = start
        if found + 1 < size:
            file.truncate(found + 1)
