"""Points as tables: of columns, as Parquet, and back. The same columns always give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...workloads.errors import InputError

__all__ = ["batches", "parquet_bytes", "read_parts", "table_of"]

_ROWS = 2**16
"""That are read at a time."""


def table_of(numbers: NDArray[np.int64], values: dict[str, NDArray[Any]], columns: dict[str, NDArray[Any]]) -> pa.Table:
    """A table: the numbers of points, int64 [points], their values by axis, and what was found, int64, float64 or text,
    [points] each."""
    arrays: dict[str, Any] = {"point": pa.array(numbers)}
    for name, column in (*values.items(), *columns.items()):
        text = column.dtype == object
        arrays[name] = pa.array(column.tolist(), pa.string()).dictionary_encode() if text else pa.array(column)
    return pa.table(arrays)


def parquet_bytes(table: pa.Table) -> bytes:
    """The file of a table."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def read_parts(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Tables of files, one below the other; refused where one is damaged."""
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=None if columns is None else list(columns)))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it, and its points are made again") from None
    return pa.concat_tables(tables).unify_dictionaries() if tables else pa.table({})


def batches(paths: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The same a batch at a time, in order, so that memory does not grow with the number of points."""
    for path in paths:
        yield from ds.dataset(path, format="parquet").to_batches(
            columns=None if columns is None else list(columns), batch_size=_ROWS
        )
