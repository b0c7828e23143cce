"""The user's cache folder: converted networks. Deleting it loses nothing but time.

What is in it is run, so it is used only where nobody else can have put anything into it.
"""

import importlib.util
import os
import stat
import tempfile
from pathlib import Path

import platformdirs


def cache_folders() -> list[Path]:
    """Where networks are looked for, and made in the first that can be written.

    The variable DANGER_SAFE_CACHE names the only one. Else it is where the system keeps such things and, for users
    who have no home or may not write there, a folder of their own among the temporary files.
    """
    if named := os.environ.get("DANGER_SAFE_CACHE"):
        return [Path(named).absolute()]  # steps of a conversion run in other folders
    try:
        usual = Path(platformdirs.user_cache_dir("danger-safe", appauthor=False))
    except RuntimeError:  # a user whom nobody knows, without a home
        usual = Path("~")
    number = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    own = Path(tempfile.gettempdir(), f"danger-safe-{number}")
    return [usual, own] if usual.is_absolute() else [own]  # ~/… where nothing is known of the user


def cache_folder() -> Path:
    """The first of ``cache_folders`` that can be written, made when absent; where none can, the first."""
    folders = cache_folders()
    return next(filter(_can_write, folders), folders[0])


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def is_private(folder: Path) -> bool:
    """Whether nobody but this user and the administrator can put anything into a folder. False where there is none."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):  # Windows, where a user's folders are private
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def prepare_numba() -> None:
    """Before librosa is loaded: find a place for the functions that numba compiles for it.

    numba keeps them beside librosa or in the user's home, and fails where it may write in neither.
    """
    found = importlib.util.find_spec("librosa")
    if "NUMBA_CACHE_DIR" in os.environ or found is None or found.origin is None:
        return
    if os.access(Path(found.origin).parent, os.W_OK):
        return
    folder = cache_folder() / "numba"
    if not _can_write(folder) or not is_private(folder):
        folder = Path(tempfile.mkdtemp(prefix="danger-safe-numba-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
