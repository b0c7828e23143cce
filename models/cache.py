"""The user's cache folder: converted networks, measured speeds. Deleting it loses nothing but time."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where the system keeps such things; the variable DANGER_SAFE_CACHE names another place."""
    named = os.environ.get("DANGER_SAFE_CACHE") or platformdirs.user_cache_dir("danger-safe", appauthor=False)
    return Path(named).absolute()  # steps of a conversion run in other folders
