"""Optional Python packages: requirements/predict.txt leaves out most of requirements.txt."""

import importlib.util


def is_installed(name: str) -> bool:
    """Return whether ``import name`` would find a package, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # something else of that name is in the way
        return False
