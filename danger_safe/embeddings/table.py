"""Read audio_embeddings.csv, and refuse a table that cannot be trusted.

The first version of this pipeline wrote ``str(array)`` into its table. NumPy shortens that to six numbers and ``...``,
and every classifier trained on it answered Safe. ``read_table`` refuses such tables, and others that are damaged.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from danger_safe.core.atomic import unescape_formula
from danger_safe.core.cli import one_line, warn
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.data.clips import MAX_FOLDS, normalise_name
from danger_safe.embeddings.table_writer import INFO_COLUMNS, feature_names, need_parquet, side_file

MAX_INFO_BYTES = 10 << 20  # size limit of audio_embeddings.json
TEXT_COLUMNS = ("file", "category", "source")
MAX_LISTED = 10  # groups of duplicates in one message


@dataclass(frozen=True)
class EmbeddingTable:
    """The embeddings of a dataset's clips, one row per clip."""

    clips: pd.DataFrame  # the columns of INFO_COLUMNS
    features: np.ndarray  # float32, (clips, dimensions)
    info: dict  # audio_embeddings.json: checkpoint, versions, counts; empty if the file is absent
    path: Path

    @property
    def labels(self) -> np.ndarray:
        """0 Safe, 1 Danger."""
        return self.clips["label"].to_numpy()

    @property
    def seen(self) -> np.ndarray:
        """(clips,) bool: the clips that the embedding network was trained on."""
        return self.clips["seen"].to_numpy(bool)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that a training uses: embeddings, and label, category, fold and source of each file."""
        text = self.clips[["file", "label", "category", "fold", "source"]].to_csv(index=False, lineterminator="\n")
        return sha256(text.encode() + np.ascontiguousarray(self.features).tobytes()).hexdigest()

    @property
    def checkpoint(self) -> dict:
        """Name and SHA-256 of the network that the embeddings come from."""
        return self.info.get("checkpoint", {"name": "unknown", "sha256": "unknown"})


def read_table(path: Path) -> EmbeddingTable:
    """Read and check a table. Raises UserError that says what is wrong with it and what to do."""
    if not path.is_file() and not (path.is_dir() and path.suffix == ".parquet"):  # --rows-per-part makes a folder
        raise UserError(f"{path}: no such table. Make it with {command_line('extract')}")
    try:
        if path.suffix == ".parquet":
            need_parquet()
            table = pd.read_parquet(path)
        else:
            # converters keep text as it is: a category may be called NA
            table = pd.read_csv(path, converters=dict.fromkeys(TEXT_COLUMNS, unescape_formula), low_memory=False)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: cannot be read as a table: {error}") from error
    features = [name for name in table.columns if str(name).startswith("feat_")]
    _check_columns(path, table, features)
    for name in TEXT_COLUMNS:
        table[name] = table[name].astype(object).fillna("").astype(str).map(normalise_name)
    labels = pd.to_numeric(table["label"], errors="coerce")
    if not labels.isin([0, 1]).all():
        raise UserError(f"{path}: column label must hold 0 (Safe) or 1 (Danger) in every row")
    if labels.nunique() < 2:
        raise UserError(f"{path}: all clips have label {int(labels.iloc[0])}; both Danger and Safe are needed")
    table["label"] = labels.astype(int)
    table["seen"] = _seen(path, table["seen"])
    table["fold"] = _folds(path, table["fold"])
    table["source"] = table["source"].where(table["source"] != "", table["file"])  # no source: a recording of its own
    values = _numbers(path, table, features)
    _check_values(path, table, values)
    info = _read_info(path, len(features))
    counts = info.get("counts")
    n_written = counts.get("clips") if isinstance(counts, dict) else None
    if isinstance(n_written, int) and n_written != len(table):
        warn(f"{path} has {len(table)} rows, and had {n_written} when it was made: rows are missing, or were added")
    return EmbeddingTable(table[list(INFO_COLUMNS)], values, info, path)


def _seen(path: Path, column: pd.Series) -> pd.Series:
    """Parse the column ``seen``: True or False, 1 or 0; an empty cell is False."""
    values = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False, "nan": False}
    text = column.astype(str).str.strip().str.lower()
    if len(invalid := column[~text.isin(list(values))]):
        raise UserError(f"{path}: column seen: {invalid.iloc[0]!r} is neither True nor False")
    return text.map(values)


def _folds(path: Path, column: pd.Series) -> pd.Series:
    """Parse the column ``fold``: whole numbers; an empty cell is 0."""
    folds = pd.to_numeric(column.replace("", np.nan), errors="coerce")
    invalid = (column.notna() & (column != "")) & ~(folds.between(0, MAX_FOLDS) & (folds % 1 == 0))
    if invalid.any():
        raise UserError(f"{path}: column fold: {column[invalid].iloc[0]} is not a whole number from 0 to {MAX_FOLDS}")
    return folds.fillna(0).astype(int)


def _check_columns(path: Path, table: pd.DataFrame, features: list[str]) -> None:
    """Raise UserError unless the table has all columns, each once, and numbers in them."""
    missing = [name for name in INFO_COLUMNS if name not in table.columns]
    as_text = [
        name
        for name in table.columns
        if name not in INFO_COLUMNS and table[name].dtype.kind not in "biuf" and _looks_like_array(table[name])
    ]
    if as_text:
        raise UserError(
            f"{path}: column {as_text[0]} holds whole arrays as text"
            + (", shortened with '...': most numbers are lost" if _is_shortened(table[as_text[0]]) else "")
            + f". Write one numeric column per dimension: run {command_line('extract')} again"
        )
    if not len(table):
        raise UserError(f"{path}: the table has no rows")
    if len(table.columns) == 1 and any(sign in str(table.columns[0]) for sign in ";\t"):
        raise UserError(f"{path}: the columns are parted by semicolons or tabs: save it with commas")
    if not features:
        raise UserError(f"{path}: no columns feat_0000, feat_0001, …; make the table with {command_line('extract')}")
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; make it with {command_line('extract')}")
    if list(features) != feature_names(len(features)):
        pairs = zip(features, feature_names(len(features)), strict=True)
        found, expected = next((found, expected) for found, expected in pairs if found != expected)
        raise UserError(
            f"{path}: column {found} where {expected} should be: "
            "columns are missing, repeated or out of order; extract again"
        )
    repeated = [name for name in table.columns if name.rpartition(".")[0] in INFO_COLUMNS]  # pandas: file, file.1
    if repeated:
        raise UserError(f"{path}: column {repeated[0].rpartition('.')[0]} is there twice; extract again")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: rows have more values than there are columns; extract again")
    if table["file"].duplicated().any():
        raise UserError(f"{path}: {table['file'][table['file'].duplicated()].iloc[0]} has more than one row")


def _looks_like_array(column: pd.Series) -> bool:
    text = column.astype(str).str.strip()
    return text.str.match(r"^\[.*\]$|^tensor\(|^array\(", na=False).any() or _is_shortened(column)


def _is_shortened(column: pd.Series) -> bool:
    return column.astype(str).str.contains("...", regex=False).any()


def _numbers(path: Path, table: pd.DataFrame, features: list[str]) -> np.ndarray:
    """Return the embeddings: float32, (clips, dimensions). Raises UserError if one of the columns holds text."""
    for name in features:
        if table[name].dtype.kind not in "biuf":
            numbers = pd.to_numeric(table[name], errors="coerce")
            row = int(np.flatnonzero(numbers.isna())[0]) if numbers.isna().any() else 0
            raise UserError(
                f"{path}: {name} of {table['file'].iloc[row]} is text ({table[name].iloc[row]!r}), not a number"
            )
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, which is refused later
        return table[features].to_numpy(np.float32)


def _check_values(path: Path, table: pd.DataFrame, values: np.ndarray) -> None:
    """Raise UserError for embeddings that are not finite, constant, or equal to another clip's."""
    invalid = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(invalid):
        raise UserError(
            f"{path}: {len(invalid)} rows hold NaN or infinite numbers, first {table['file'].iloc[invalid[0]]}. "
            "Remove them, or extract again"
        )
    if len(values) > 1 and (values == values[0]).all():
        raise UserError(f"{path}: all embeddings are the same (constant): nothing can be learnt. Extract again")
    constant = np.flatnonzero(values.min(axis=1) == values.max(axis=1)) if values.shape[1] > 1 else []
    if len(constant):
        raise UserError(
            f"{path}: the embedding of {table['file'].iloc[constant[0]]} is constant "
            f"({values[constant[0], 0]:g} in every dimension): extraction failed for it. Extract again"
        )
    _, group, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    if (counts > 1).any():
        names = table["file"].to_numpy()
        duplicates = sorted(" = ".join(names[group.ravel() == number]) for number in np.flatnonzero(counts > 1))
        listed = "; ".join(duplicates[:MAX_LISTED])
        if len(duplicates) > MAX_LISTED:
            listed += f"; and {len(duplicates) - MAX_LISTED} more"
        raise UserError(
            f"{path}: {int((counts - 1).sum())} embeddings are duplicated: {listed}. "
            "The same sound twice, or an extraction gone wrong: remove the copies"
        )


def _read_info(path: Path, dimensions: int) -> dict:
    """Read the table's .json; empty without one. Raises UserError if it is damaged, or another table's."""
    file = side_file(path, ".json")
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_INFO_BYTES:
        raise UserError(f"{file}: too large for what an extraction writes. Extract again")
    try:
        info = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read: {error}. Extract again") from error
    try:
        stated = info["settings"]["dimensions"]
        is_valid = all(isinstance(info["checkpoint"][key], str) for key in ("name", "sha256"))
        made_of = info.get("made_of", {})
        is_valid = is_valid and isinstance(made_of, dict) and all(isinstance(value, str) for value in made_of.values())
    except (KeyError, TypeError, AttributeError):
        is_valid = False
    if not is_valid:
        raise UserError(f"{file}: does not say which checkpoint the table is of: extract again")
    if stated != dimensions:
        raise UserError(f"{file} is of {stated} dimensions and {path} has {dimensions}: extract again")
    return info


def describe_data(table: EmbeddingTable) -> str:
    """Return one line for captions: the number of clips, and the network of their embeddings."""
    danger, seen = int(table.labels.sum()), int(table.seen.sum())
    network = one_line(table.checkpoint["name"])
    description = f"{len(table.labels)} clips ({danger} Danger, {len(table.labels) - danger} Safe), {network}"
    return description + (f", {seen} SEEN by the network" if seen else "")


def read_baseline(path: Path, table: EmbeddingTable) -> EmbeddingTable:
    """Read a table of other features for the same clips in the same order. Raises UserError if the clips differ."""
    baseline = read_table(path)
    columns = ["file", "label", "fold", "source"]
    if not baseline.clips[columns].astype(str).equals(table.clips[columns].astype(str)):
        raise UserError(f"{path}: not of the same clips as the embeddings; extract it from the same --dataset")
    return baseline
