"""Local paths and URLs such as s3://bucket/dataset, which are read through fsspec.

With URLs, the workers of a cluster need no copy of the dataset. fsspec is installed with PyTorch; s3:// also needs
s3fs, gs:// gcsfs, and https:// aiohttp.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from danger_safe.core.errors import UserError

_APPLE_DOUBLE_MAGIC = b"\x00\x05\x16\x07"

PathOrUrl = Path | str  # a local path is a Path, a URL is a str


def is_url(path: PathOrUrl) -> TypeGuard[str]:
    """Return whether ``path`` is a URL."""
    return isinstance(path, str) and "://" in path


def parse_path(text: str) -> PathOrUrl:
    """An argparse type: a URL stays text, anything else becomes a Path."""
    return text.rstrip("/") if "://" in text else Path(text)


def join(folder: PathOrUrl, name: str) -> PathOrUrl:
    """Return the file ``name`` in ``folder``; ``name`` has forward slashes."""
    return f"{folder}/{name}" if is_url(folder) else Path(folder, *name.split("/"))


def filesystem(url: str) -> Any:
    """Return the fsspec file system of a URL. Raises UserError if its package is not installed."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from error


def open_file(file: PathOrUrl) -> BinaryIO:
    """Open a file for reading in binary mode."""
    return filesystem(file).open(file, "rb") if is_url(file) else open(file, "rb")


def exists(file: PathOrUrl) -> bool:
    """Return whether a file exists; False for a name that the system does not allow."""
    return filesystem(file).isfile(file) if is_url(file) else os.path.isfile(file)


def list_files(folder: PathOrUrl) -> list[tuple[str, PathOrUrl]]:
    """List all files under a folder, sorted by name.

    A subfolder that cannot be read is listed too, with a name that ends with a slash; opening it raises the reason.

    Returns:
        (name, file) pairs; the name is relative to the folder and has forward slashes.
    """
    if is_url(folder):
        system = filesystem(folder)
        root = system._strip_protocol(folder).rstrip("/")
        names = sorted(path[len(root) :].lstrip("/") for path in system.find(root))
        return [(name, join(folder, name)) for name in names]
    os.listdir(folder)  # raises if the folder itself cannot be read
    found: list[tuple[tuple[str, ...], Path]] = []
    pending: list[tuple[str, ...]] = [()]  # a stack: os.walk of Python 3.11 fails at a thousand nested folders
    while pending:
        parts = pending.pop()
        try:
            with os.scandir(Path(folder, *parts)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((*parts, entry.name))
                    elif not is_apple_double(entry):
                        found.append(((*parts, entry.name), Path(folder, *parts, entry.name)))
        except OSError:  # no permission, or its path is longer than the system allows
            found.append(((*parts, ""), Path(folder, *parts)))
    # Sorted by name parts, because Windows compares paths without regard to case and tables have one order everywhere.
    return [("/".join(parts), path) for parts, path in sorted(found)]


def is_apple_double(entry: os.DirEntry) -> bool:
    """Return whether a file is macOS metadata (AppleDouble): ``._dog.wav`` next to ``dog.wav`` on a foreign disk."""
    if not entry.name.startswith("._"):
        return False
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            return file.read(4) == _APPLE_DOUBLE_MAGIC
    except OSError:
        return False


def signature(file: PathOrUrl) -> str:
    """Return a text that changes when the file does: size and modification time, or a server's tag.

    Raises OSError if the file cannot be read.
    """
    if not is_url(file):
        if not os.access(file, os.R_OK):  # a file that becomes readable counts as changed
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        status = os.stat(file)
        return f"{status.st_size} {status.st_mtime_ns}"
    information = filesystem(file).info(file)
    stamps = []
    for key in ("ETag", "etag", "LastModified", "last_modified", "mtime", "created"):
        with contextlib.suppress(KeyError):
            stamps.append(str(information[key]))
    return " ".join([str(information.get("size")), *stamps])
