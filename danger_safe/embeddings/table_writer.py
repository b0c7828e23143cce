"""audio_embeddings.csv and what lies beside it, written row by row: a table is never held in memory.

CSV for spreadsheets and every other tool; Parquet (``.parquet``) for large tables: a third of the size, and in parts
where one file would be too large.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import atomic_folder, atomic_path, csv_line
from danger_safe.core.errors import UserError

INFO_COLUMNS = ("file", "label", "category", "fold", "source", "seen")
ROWS_AT_ONCE = 1_000  # of a Parquet table, in memory
_NUMBER = "%.9g"  # enough digits for a float32 to come back as it was

Row = tuple  # the values of INFO_COLUMNS


def side_file(path: Path, ending: str) -> Path:
    """``audio_embeddings.json`` for ``audio_embeddings.csv``."""
    return path.with_name(path.stem + ending)


def feature_names(dimensions: int) -> list[str]:
    """feat_0000, feat_0001, …"""
    return [f"feat_{number:04d}" for number in range(dimensions)]


def write_table(
    path: Path, rows: Sequence[Row], embeddings: Iterable[np.ndarray], dimensions: int, rows_per_part: int = 0
) -> None:
    """Write a table, whole or not at all. ``embeddings`` has one float32 array (dimensions,) for each of ``rows``.

    ``rows_per_part`` makes a Parquet table a folder of parts, which pandas, PyArrow and Dask read as one.
    """
    if path.is_dir() and not rows_per_part:
        raise UserError(f"{path} is a folder: move it away, or give --rows-per-part again")
    if path.suffix == ".csv":
        _write_csv(path, rows, embeddings, dimensions)
        return
    pairs = zip(rows, embeddings, strict=True)
    if not rows_per_part:
        with atomic_path(path) as part:
            _write_parquet(part, pairs, dimensions)
        return
    with atomic_folder(path) as folder:
        for number in range(-(-len(rows) // rows_per_part)):
            _write_parquet(folder / f"part-{number:05d}.parquet", islice(pairs, rows_per_part), dimensions)


def _write_csv(path: Path, rows: Sequence[Row], embeddings: Iterable[np.ndarray], dimensions: int) -> None:
    numbers = ",".join([_NUMBER] * dimensions)
    with atomic_path(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        file.write(",".join([*INFO_COLUMNS, *feature_names(dimensions)]) + "\n")
        for row, embedding in zip(rows, embeddings, strict=True):
            file.write(f"{csv_line(row)},{numbers % tuple(embedding.tolist())}\n")


def _write_parquet(path: Path, pairs: Iterator[tuple[Row, np.ndarray]], dimensions: int) -> None:
    pyarrow = need_parquet()
    from pyarrow import parquet

    types = dict.fromkeys(INFO_COLUMNS, pyarrow.string()) | {
        "label": pyarrow.int64(), "fold": pyarrow.int64(), "seen": pyarrow.bool_(),
    }  # fmt: skip
    schema = pyarrow.schema([*types.items(), *((name, pyarrow.float32()) for name in feature_names(dimensions))])
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(pairs, ROWS_AT_ONCE)):
            columns = list(zip(*(row for row, _ in some), strict=True))
            arrays = [pyarrow.array(column, types[name]) for name, column in zip(INFO_COLUMNS, columns, strict=True)]
            values = np.stack([embedding for _, embedding in some])
            arrays += [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def need_parquet():
    """PyArrow. Raises UserError where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise UserError("Parquet needs the optional package pyarrow: pip install pyarrow") from error
    return pyarrow
