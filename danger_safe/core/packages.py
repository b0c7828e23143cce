"""Python packages that need not be installed: requirements/predict.txt leaves out most of what requirements.txt has."""

import importlib.util


def is_installed(name: str) -> bool:
    """Whether ``import name`` would find a package, without loading it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # something in its place keeps it from being loaded
        return False
