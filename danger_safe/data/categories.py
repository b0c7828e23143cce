"""Read categories.toml, the mapping of categories to Danger and Safe, and tables of synonymous categories."""

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from danger_safe.core.errors import UserError
from danger_safe.data.clips import LABEL_NAMES

MAX_MAPPING_BYTES = 50_000  # a larger file is something else, which can keep tomllib busy for ever


def read_categories(path: Path, valid: set[str] | None) -> dict[str, int]:
    """Return the label (0 Safe, 1 Danger) of each category in a TOML file with the lists ``Danger`` and ``Safe``.

    ``valid`` holds the categories that the sounds have; None allows any. Raises UserError if the file is not such a
    mapping, lists a category twice, or has an unknown one (naming the nearest valid ones).
    """
    mapping = _read_toml(path, 'Danger = ["dog", "siren"]')
    unknown_keys = sorted(set(mapping) - set(LABEL_NAMES))
    if unknown_keys:
        raise UserError(f"{path}: unknown name {', '.join(unknown_keys)}; only the lists Danger and Safe are allowed")
    spelling = {normalize("NFC", category): category for category in valid or ()}  # macOS writes ò as o and an accent
    labels: dict[str, int] = {}
    for label, name in enumerate(LABEL_NAMES):
        categories = mapping.get(name)
        if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
            raise UserError(f'{path}: {name} must be a list of categories, like {name} = ["dog", "siren"]')
        for category in (spelling.get(normalize("NFC", category), str(category)) for category in categories):
            if valid is not None and category not in valid:
                raise UserError(f"{path}: unknown category {category!r}. {_nearest(category, valid)}")
            if category in labels:
                where = "in both lists" if labels[category] != label else f"twice in {name}"
                raise UserError(f"{path}: {category!r} is listed {where}; keep one")
            labels[category] = label
    return labels


def read_mappings(paths: Iterable[Path]) -> dict[str, int]:
    """Return the label of each category in several mappings; later files win. Raises UserError as above."""
    labels: dict[str, int] = {}
    for path in paths:
        labels |= read_categories(path, valid=None)
    return labels


def read_dangers(paths: list[Path], categories: list[str]) -> set[str]:
    """Return those of ``categories`` that the mappings call Danger; none without mappings.

    Raises UserError if a category is in no mapping, or all have the same label.
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
    """Return synonyms of categories (``dog_bark = "dog"``) from a TOML file; none for None."""
    if path is None:
        return {}
    same = _read_toml(path, 'dog_bark = "dog"')
    if not all(isinstance(value, str) for value in same.values()):
        raise UserError(f'{path}: expected lines like dog_bark = "dog"')
    return same


def _read_toml(path: Path, example: str) -> dict:
    """Parse a TOML file. Raises UserError that shows the example if it is missing or not TOML."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path}: no file; expected one with lines like {example}")
    try:
        if os.path.getsize(path) > MAX_MAPPING_BYTES:
            raise UserError(f"{path}: too large for a file with lines like {example}")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected lines like {example}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested too deeply
        raise UserError(f"{path}: not TOML: {error}. Expected lines like {example}") from error


def _nearest(category: str, valid: set[str]) -> str:
    matches = difflib.get_close_matches(category.lower().replace(" ", "_"), sorted(valid), n=3, cutoff=0.5)
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    return f"Valid ones: {', '.join(sorted(valid))}"
