"""The user's cache folder, which holds converted networks. Deleting it costs only time.

Its files are executed by inference engines, so a folder that other users can write to is not trusted (``is_private``).
"""

import importlib.util
import os
import stat
import tempfile
from pathlib import Path

import platformdirs


def cache_folders() -> list[Path]:
    """Return the folders that may hold converted networks; new ones go to the first that is writable.

    If the environment variable DANGER_SAFE_CACHE is set, it names the only folder. Otherwise they are the user's cache
    folder and, for users without a home, a folder of their own in the temporary directory.
    """
    if configured := os.environ.get("DANGER_SAFE_CACHE"):
        return [Path(configured).absolute()]  # absolute, because conversion steps run in other working directories
    try:
        user_cache = Path(platformdirs.user_cache_dir("danger-safe", appauthor=False))
    except RuntimeError:  # the user ID has no entry in the password database, and HOME is not set
        user_cache = Path("~")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    fallback = Path(tempfile.gettempdir(), f"danger-safe-{user}")
    return [user_cache, fallback] if user_cache.is_absolute() else [fallback]  # relative: the home is unknown


def cache_folder() -> Path:
    """Return the first writable folder of ``cache_folders``, created if necessary; the first if none is writable."""
    folders = cache_folders()
    return next(filter(_can_write, folders), folders[0])


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def is_private(folder: Path) -> bool:
    """Return whether a folder exists that only this user and the administrator can write to."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):  # on Windows a user's folders are private
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def prepare_numba() -> None:
    """Set NUMBA_CACHE_DIR to a writable folder. Call this before librosa is imported.

    numba stores the functions that it compiles for librosa next to librosa or in the user's home, and fails if it can
    write to neither.
    """
    librosa = importlib.util.find_spec("librosa")
    if "NUMBA_CACHE_DIR" in os.environ or librosa is None or librosa.origin is None:
        return
    if os.access(Path(librosa.origin).parent, os.W_OK):
        return
    folder = cache_folder() / "numba"
    if not _can_write(folder) or not is_private(folder):
        folder = Path(tempfile.mkdtemp(prefix="danger-safe-numba-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
