"""Write tables of embeddings row by row, without holding a whole table in memory.

CSV suits spreadsheets and every other tool; Parquet suits large tables: it takes a third of the space, and can be split
into parts.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import atomic_folder, atomic_path, csv_line
from danger_safe.core.errors import UserError

INFO_COLUMNS = ("file", "label", "category", "fold", "source", "seen")
ROW_GROUP_SIZE = 1_000  # rows of a Parquet table in memory
_FLOAT_FORMAT = "%.9g"  # enough digits to restore a float32 exactly

Row = tuple  # the values of INFO_COLUMNS


def side_file(path: Path, ending: str) -> Path:
    """Return the path of a file beside a table: ``audio_embeddings.json`` for ``audio_embeddings.csv``."""
    return path.with_name(path.stem + ending)


def feature_names(dimensions: int) -> list[str]:
    """Return the column names feat_0000, feat_0001, …"""
    return [f"feat_{number:04d}" for number in range(dimensions)]


def write_table(
    path: Path, rows: Sequence[Row], embeddings: Iterable[np.ndarray], dimensions: int, rows_per_part: int = 0
) -> None:
    """Write a table atomically.

    Args:
        path: a .csv or .parquet file.
        rows: the values of INFO_COLUMNS for each clip.
        embeddings: float32, (dimensions,), for each clip.
        dimensions: length of an embedding.
        rows_per_part: if not 0, a Parquet table becomes a folder of parts, which pandas, PyArrow and Dask read as one.
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
    row_format = ",".join([_FLOAT_FORMAT] * dimensions)
    with atomic_path(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        file.write(",".join([*INFO_COLUMNS, *feature_names(dimensions)]) + "\n")
        for row, embedding in zip(rows, embeddings, strict=True):
            file.write(f"{csv_line(row)},{row_format % tuple(embedding.tolist())}\n")


def _write_parquet(path: Path, pairs: Iterator[tuple[Row, np.ndarray]], dimensions: int) -> None:
    pyarrow = need_parquet()
    from pyarrow import parquet

    types = dict.fromkeys(INFO_COLUMNS, pyarrow.string()) | {
        "label": pyarrow.int64(), "fold": pyarrow.int64(), "seen": pyarrow.bool_(),
    }  # fmt: skip
    schema = pyarrow.schema([*types.items(), *((name, pyarrow.float32()) for name in feature_names(dimensions))])
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(pairs, ROW_GROUP_SIZE)):
            columns = list(zip(*(row for row, _ in group), strict=True))
            arrays = [pyarrow.array(column, types[name]) for name, column in zip(INFO_COLUMNS, columns, strict=True)]
            values = np.stack([embedding for _, embedding in group])
            arrays += [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def need_parquet():
    """Import PyArrow. Raises UserError if it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise UserError("Parquet needs the optional package pyarrow: pip install pyarrow") from error
    return pyarrow
