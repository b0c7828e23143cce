"""categories.toml: which categories are Danger and which Safe; and which are another's under a second name."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path

from danger_safe.clips import LABEL_NAMES
from danger_safe.errors import UserError


def read_categories(path: Path, valid: set[str] | None) -> dict[str, int]:
    """Label (0 Safe, 1 Danger) by category, from a file with the lists ``Danger`` and ``Safe``.

    ``valid`` holds the categories that the sounds have; None allows any. Raises UserError for a file that is not such a mapping, an
    unknown category (with the nearest valid ones), or one that is listed twice.
    """
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f'{path}: not TOML: {error}. Expected lines like Danger = ["dog", "siren"]') from error
    unknown_keys = sorted(set(mapping) - set(LABEL_NAMES))
    if unknown_keys:
        raise UserError(f"{path}: unknown name {', '.join(unknown_keys)}; only the lists Danger and Safe are allowed")
    labels: dict[str, int] = {}
    for label, name in enumerate(LABEL_NAMES):
        categories = mapping.get(name)
        if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
            raise UserError(f'{path}: {name} must be a list of categories, like {name} = ["dog", "siren"]')
        for category in categories:
            if valid is not None and category not in valid:
                raise UserError(f"{path}: unknown category {category!r}. {_nearest(category, valid)}")
            if category in labels:
                where = "in both lists" if labels[category] != label else f"twice in {name}"
                raise UserError(f"{path}: {category!r} is listed {where}; keep one")
            labels[category] = label
    return labels


def read_mappings(paths: Iterable[Path]) -> dict[str, int]:
    """Label by category from several mappings of any categories; a later one wins. Raises UserError as above."""
    labels: dict[str, int] = {}
    for path in paths:
        labels |= read_categories(path, valid=None)
    return labels


def read_dangers(paths: list[Path], categories: list[str]) -> set[str]:
    """Those of ``categories`` that the mappings call Danger; empty without mappings.

    Raises UserError where a category is in none of them, or all are on one side.
    """
    labels = read_mappings(paths)
    missing = [name for name in categories if name not in labels]
    if paths and missing:
        raise UserError(f"{', '.join(missing)}: neither Danger nor Safe in {', '.join(map(str, paths))}")
    dangers = {name for name in categories if labels.get(name)}
    if paths and len(dangers) in (0, len(categories)):
        raise UserError(f"{', '.join(map(str, paths))}: the sounds are all on one side")
    return dangers


def read_same(path: Path | None) -> dict[str, str]:
    """Names of one folder's categories that mean another's: ``dog_bark = "dog"``, from a TOML file."""
    if path is None:
        return {}
    try:
        same = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f'{path}: expected lines like dog_bark = "dog": {error}') from error
    if not all(isinstance(value, str) for value in same.values()):
        raise UserError(f'{path}: expected lines like dog_bark = "dog"')
    return same


def _nearest(category: str, valid: set[str]) -> str:
    near = difflib.get_close_matches(category.lower().replace(" ", "_"), sorted(valid), n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Valid ones: {', '.join(sorted(valid))}"
