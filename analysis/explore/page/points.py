"""Rows of a sweep a part at a time: the protocol that the page reads by, and the two who answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ....workloads.errors import InputError, reading

__all__ = ["FolderPoints", "FramePoints", "Points"]

_KIND = "a Parquet file of points"
_ROWS = 2**17
"""Rows in memory at a time: a hundred columns of them are a hundred megabytes."""


class Points(Protocol):
    """Points of a sweep, read as often as asked, in the order of the points."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what there is of a point."""

    def __len__(self) -> int:
        """Points in all."""

    def parts(self, columns: Sequence[str]) -> Iterator[Any]:
        """Arrow tables of some rows each, with these columns."""


class FramePoints:
    """Points in memory."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._table = pa.Table.from_pandas(frame, preserve_index=False)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def parts(self, columns: Sequence[str]) -> Iterator[Any]:
        chosen = self._table.select(list(columns))
        for start in range(0, len(self), _ROWS):
            yield _plain(chosen.slice(start, _ROWS))


class FolderPoints:
    """Points of a results folder, of which a few parts are in memory at a time."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted((folder / "points").glob("*.parquet"))
        if not self._files:
            raise InputError(
                f"{folder / 'points'}: holds no points; give a folder that `weft explore SPACE -o {folder}` wrote to"
            )
        self._count = 0
        for path in self._files:
            with reading(str(path), _KIND):
                self._count += pq.read_metadata(path).num_rows
        with reading(str(self._files[0]), _KIND):
            self._columns = tuple(pq.read_schema(self._files[0]).names)

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    def __len__(self) -> int:
        return self._count

    def parts(self, columns: Sequence[str]) -> Iterator[Any]:
        held = None
        for path in self._files:
            with reading(str(path), _KIND):
                for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS, columns=list(columns)):
                    # Concatenated at once, so that a part of another kind is refused by its name.
                    part = _plain(pa.Table.from_batches([batch]).select(list(columns)))
                    held = part if held is None else pa.concat_tables([held, part])
                    # A sweep may have written many small parts.
                    if held.num_rows >= _ROWS:
                        yield held
                        held = None
        if held is not None:
            yield held


def _plain(part: Any) -> Any:
    """With words for words: every file numbers them its own way."""
    for i, column in enumerate(part.schema):
        if pa.types.is_dictionary(column.type):
            words = part.column(i).cast(column.type.value_type)
            part = part.set_column(i, column.name, words)
    return part
