"""Where sounds are: a path on this computer, or an address such as s3://bucket/dataset (through fsspec).

Addresses let a cluster's workers read what no disk of theirs holds. fsspec comes with PyTorch; for s3:// it needs
s3fs, for gs:// gcsfs, for https:// aiohttp.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from danger_safe.core.errors import UserError

_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # how a Mac's companion files begin

PathOrUrl = Path | str  # a path, or an address


def is_url(path: PathOrUrl) -> TypeGuard[str]:
    """Whether it is an address and not a path."""
    return isinstance(path, str) and "://" in path


def parse_path(text: str) -> PathOrUrl:
    """An argparse type: an address stays text, anything else is a path."""
    return text.rstrip("/") if "://" in text else Path(text)


def join(folder: PathOrUrl, name: str) -> PathOrUrl:
    """A file of a folder."""
    return f"{folder}/{name}" if is_url(folder) else Path(folder, *name.split("/"))


def filesystem(address: str) -> Any:
    """The fsspec file system of an address. Raises UserError where its package is missing."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{address}: {error}") from error


def open_file(file: PathOrUrl) -> BinaryIO:
    """Open for reading, in binary."""
    return filesystem(file).open(file, "rb") if is_url(file) else open(file, "rb")


def exists(file: PathOrUrl) -> bool:
    """Whether there is such a file; False for a name that the system cannot have."""
    return filesystem(file).isfile(file) if is_url(file) else os.path.isfile(file)


def list_files(folder: PathOrUrl) -> list[tuple[str, PathOrUrl]]:
    """All files under a folder, by name: (name relative to the folder with forward slashes, file).

    A folder that cannot be looked into is among them, its name ending with a slash: reading it says why.
    """
    if not is_url(folder):
        os.listdir(folder)  # raises where the folder itself is closed
        named: list[tuple[tuple[str, ...], Path]] = []
        waiting: list[tuple[str, ...]] = [()]  # not os.walk, which Python 3.11 cannot do for a thousand nested folders
        while waiting:
            parts = waiting.pop()
            try:
                with os.scandir(Path(folder, *parts)) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((*parts, entry.name))
                        elif not is_apple_double(entry):
                            named.append(((*parts, entry.name), Path(folder, *parts, entry.name)))
            except OSError:  # closed, or its path is longer than the system allows
                named.append(((*parts, ""), Path(folder, *parts)))
        # not by path, which Windows compares without regard to case: a table has the same order everywhere
        return [("/".join(parts), path) for parts, path in sorted(named)]
    system = filesystem(folder)
    root = system._strip_protocol(folder).rstrip("/")
    names = sorted(path[len(root) :].lstrip("/") for path in system.find(root))
    return [(name, join(folder, name)) for name in names]


def is_apple_double(entry: os.DirEntry) -> bool:
    """Whether a file is what a Mac leaves beside each file on other systems' disks: ``._dog.wav``, which is no
    sound."""
    if not entry.name.startswith("._"):
        return False
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            return file.read(4) == _APPLE_DOUBLE
    except OSError:
        return False


def signature(file: PathOrUrl) -> str:
    """Text that changes when the file does: its size and its time or tag. Raises OSError when it cannot be read."""
    if not is_url(file):
        if not os.access(file, os.R_OK):  # one that may be read from now on has changed, too
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        status = os.stat(file)
        return f"{status.st_size} {status.st_mtime_ns}"
    information = filesystem(file).info(file)
    stamps = []
    for key in ("ETag", "etag", "LastModified", "last_modified", "mtime", "created"):
        with contextlib.suppress(KeyError):
            stamps.append(str(information[key]))
    return " ".join([str(information.get("size")), *stamps])
