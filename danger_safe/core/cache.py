"""What took long to hear, kept in a file of arrays beside the table for the next training."""

from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from danger_safe.core.atomic import whole_file
from danger_safe.core.cli import warn
from danger_safe.core.errors import UserError


def read_kept(path: Path, key: str, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """The arrays ``names`` that were kept under this ``key``; None where the file is absent, damaged or of another key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names} if str(file["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def keep(path: Path, key: str, arrays: dict[str, np.ndarray], otherwise: str) -> None:
    """Write the arrays, whole or not at all; where they cannot be, warn: the next training will have to ``otherwise``."""
    try:
        with whole_file(path) as part, open(part, "wb") as file:
            np.savez(file, key=np.array(key), **arrays)
    except (OSError, UserError) as error:
        warn(f"the next training will have to {otherwise}: {error}")
