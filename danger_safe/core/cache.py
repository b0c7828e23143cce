"""A cache of arrays that take long to compute, in one .npz file next to the embedding table."""

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from danger_safe.core.atomic import atomic_path
from danger_safe.core.cli import warn
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite, is_regular_file, mark_zip


def load_cache(path: Path, key: str, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Load the cached arrays called ``names``.

    Never allocates more memory than the file has bytes, whatever its headers claim.

    Args:
        path: the cache file.
        key: identifies the inputs of the computation; a cache with another key is out of date.
        names: the arrays to load.

    Returns:
        The arrays by name, or None if the file does not exist, is damaged or has another key.
    """
    if not is_regular_file(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if str(read_array(archive, "key")) != key:
                return None
            return {name: read_array(archive, name) for name in names}
    except Exception:  # a damaged zip can raise anything
        return None


@contextmanager
def open_arrays(path: Path, if_absent: str = "", if_damaged: str = "") -> Iterator[zipfile.ZipFile]:
    """An .npz file, for ``read_array``. Raises UserError where it is absent, or whatever fails while it is open;
    ``if_absent`` and ``if_damaged`` end the message."""
    try:
        if os.path.exists(path) and not is_regular_file(path):
            raise ValueError("a folder, a pipe or a device")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there{if_absent}") from error
    except Exception as error:  # a damaged zip can raise anything
        raise UserError(f"{path} is damaged{if_damaged}") from error


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an .npz file that ``np.savez`` wrote. Raises ValueError if its header claims another size."""
    member = archive.getinfo(name + ".npy")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > os.path.getsize(str(archive.filename)):
        raise ValueError("compressed")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
        if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError("the header claims another size")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def save_cache(path: Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to the cache atomically. If that fails, warn: the next run will compute them again."""
    try:
        check_overwrite(path)
        with atomic_path(path) as part:
            content: dict[str, Any] = arrays | {"key": np.array(key)}
            with open(part, "wb") as file:
                np.savez(file, **content)
            mark_zip(part)
    except (OSError, UserError) as error:
        warn(f"{path} cannot be kept, so the next run computes it again: {error}")
