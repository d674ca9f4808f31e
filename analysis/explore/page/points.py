"""Rows of a sweep a part at a time: the protocol that the page reads by, and the two who answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from ....workloads.errors import InputError, reading

__all__ = ["FolderPoints", "FramePoints", "Points"]

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
        self._folder = folder / "points"
        files = sorted(self._folder.glob("*.parquet"))
        if not files:
            raise InputError(
                f"{self._folder}: holds no points; give a folder that `weft explore SPACE -o {folder}` wrote to"
            )
        with reading(str(self._folder), "a folder of Parquet files with points"):
            self._dataset = ds.dataset([str(file) for file in files], format="parquet")
            self._count = int(self._dataset.count_rows())

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._dataset.schema.names)

    def __len__(self) -> int:
        return self._count

    def parts(self, columns: Sequence[str]) -> Iterator[Any]:
        with reading(str(self._folder), "a folder of Parquet files with points"):
            batches = self._dataset.to_batches(
                columns=list(columns), batch_size=_ROWS, batch_readahead=2, fragment_readahead=2
            )
            # A sweep may have written many small parts.
            held, rows = [], 0
            for batch in batches:
                held.append(pa.Table.from_batches([batch]))
                rows += batch.num_rows
                if rows >= _ROWS:
                    yield _plain(pa.concat_tables(held))
                    held, rows = [], 0
            if rows:
                yield _plain(pa.concat_tables(held))


def _plain(part: Any) -> Any:
    """With words for words: every file numbers them its own way."""
    for i, column in enumerate(part.schema):
        if pa.types.is_dictionary(column.type):
            words = part.column(i).cast(column.type.value_type)
            part = part.set_column(i, column.name, words)
    return part
