"""Which ops of a traced step must follow which, from the storages that they read and write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .passes import Record
from .provenance import Provenance

__all__ = ["Dependencies"]


class Dependencies:
    """Whoever reads a storage follows who last wrote it; whoever writes it follows all that read or wrote it before.

    Storages are as eager PyTorch gives them out, none used twice: only work in place waits for readers.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._writer: dict[Provenance, int] = {}
        self._readers: dict[Provenance, list[int]] = {}
        self.after: list[tuple[int, ...]] = []
        for i, record in enumerate(records):
            self.after.append(self.of(record.reads, record.writes))
            for storage in record.reads:
                self._readers.setdefault(storage, []).append(i)
            for storage in record.writes:
                self._writer[storage], self._readers[storage] = i, []

    def of(self, reads: Iterable[Provenance], writes: Iterable[Provenance]) -> tuple[int, ...]:
        """Ops, in order, that one which comes after all of them must follow."""
        writes = list(writes)
        found = {self._writer[storage] for storage in (*reads, *writes) if storage in self._writer}
        return tuple(sorted(found.union(*(self._readers.get(storage, ()) for storage in writes))))
