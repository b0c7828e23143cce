"""Limits of the disk space that a continuously running service uses."""

import math
import time
from collections.abc import Iterable
from pathlib import Path


def remove_oldest(files: Iterable[Path], max_megabytes: float, max_days: float = math.inf) -> None:
    """Remove the oldest files until the rest is within both limits; the newest file always stays."""
    oldest_first = sorted((file.stat().st_mtime, file.name, file.stat().st_size, file) for file in files)
    size = sum(entry[2] for entry in oldest_first)
    for modified, _, bytes_, file in oldest_first[:-1]:
        is_old = time.time() - modified > max_days * 86_400
        if not is_old and size <= max_megabytes * 1e6:
            break
        file.unlink(missing_ok=True)
        size -= bytes_
