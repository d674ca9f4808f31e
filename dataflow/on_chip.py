"""What is counted where a tensor stays on chip between ops: its bytes go to and from a memory of its own, not DRAM."""

from __future__ import annotations

from dataclasses import dataclass

from .account import Counts, items, kind_of
from .actions import Action, Component, Each, moved
from .operand import BYTE

__all__ = ["RESIDENT_READ", "RESIDENT_WRITE", "OnChipCounts", "with_on_chip"]

RESIDENT_READ = Action("resident memory read", Component.BUFFERS, "bit", "resident.read")
RESIDENT_WRITE = Action("resident memory write", Component.BUFFERS, "bit", "resident.write")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChipCounts(Counts):
    """Of an op of which a tensor stays on chip."""

    resident_read_bytes: int = moved(
        "bytes read from the memory that holds whole tensors", Each((RESIDENT_READ,), BYTE)
    )
    resident_write_bytes: int = moved(
        "bytes written to the memory that holds whole tensors", Each((RESIDENT_WRITE,), BYTE)
    )


def with_on_chip(counts: Counts, read: int, write: int) -> Counts:
    """``counts`` of an op that moves so many bytes more on chip, where it does."""
    if not read and not write:
        return counts
    kind = kind_of(type(counts), (OnChipCounts,))
    return kind(**items(counts), **{"resident_read_bytes": read, "resident_write_bytes": write})
