"""Files of JSON lines that grow: a line is on the disk whole or not at all."""

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Append one line, which ends with a line end. Raises OSError where the disk does not take all of it; then nothing
    is added.

    The file may have been moved away since the last time (logrotate): it is made anew.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):  # a full disk takes a part
                raise OSError(0, "there is no room for the whole line")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def cut_torn_line(path: Path) -> None:
    """Remove what a power cut left of a last line; make the file where it is absent. Raises OSError where it cannot be
    written."""
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
