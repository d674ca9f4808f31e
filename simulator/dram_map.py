"""Which bits of a line's number are its channel, rank, bank group, bank, row and column."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..workloads.errors import InputError, nearest
from .dram_spec import MemorySpec

__all__ = ["MAPS", "Place", "locate"]

MAPS = {
    "bg-interleaved": "row,rank,bank,column,bankgroup,channel",
    "column-low": "row,rank,bank,bankgroup,column,channel",
    "channel-hashed": "row,rank,bank,column,bankgroup,channel^",
}
"""Fields from the highest bits to the lowest: neighbouring lines lie in different bank groups, or in one row; hashed, a
stride of a power of two meets all channels, as controllers of several channels see to."""

_FIELDS = ("channel", "rank", "bankgroup", "bank", "row", "column")

Int64 = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where lines lie; ``bank`` counts through ranks, groups and banks of a channel. All int64 [n]."""

    channel: Int64
    bank: Int64
    row: Int64
    column: Int64


def locate(line: Int64, memory: MemorySpec, order: str) -> Place:
    """Place of each line under a map: a name of `MAPS` or fields with commas, from the highest bits to the lowest.

    ``line``: int64 [n]. ``field:bits`` takes only that many bits of a field, its lowest first, so that one can be
    split: ``row,column,bank,bankgroup,column:2`` puts four neighbouring lines in one row. ``field^`` is hashed: its
    bits and all bits above, folded to as many, by exclusive or.
    """
    o = memory.organization
    sizes = (o.channels, o.ranks, o.bank_groups, o.banks, o.rows, o.row_lines)
    value: dict[str, Int64] = {}
    taken = dict.fromkeys(_FIELDS, 0)
    low = 0
    widths = dict(zip(_FIELDS, (s.bit_length() - 1 for s in sizes), strict=True))
    for name, bits, hashed in reversed(_slices(order, widths)):
        if bits:
            part = (_folded(line >> low, bits) if hashed else line >> low & ((1 << bits) - 1)) << taken[name]
            value[name] = part if name not in value else value[name] | part
        taken[name] += bits
        low += bits
    zero = np.zeros(len(line), np.int64)
    channel, rank, group, bank, row, column = (value.get(name, zero) for name in _FIELDS)
    # Fields are powers of two, so that none reaches into the next.
    bank = bank | group * o.banks | rank * (o.banks * o.bank_groups)
    return Place(channel, bank, row, column)


def _folded(number: Int64, bits: int) -> Int64:
    """Exclusive or of all groups of ``bits`` bits."""
    folded = np.zeros(len(number), np.int64)
    while number.any():
        folded ^= number & ((1 << bits) - 1)
        number = number >> bits
    return folded


def _slices(order: str, widths: dict[str, int]) -> list[tuple[str, int, bool]]:
    """Fields of a map with the bits each takes and whether hashed; together they must be all bits of every field."""
    text = MAPS.get(order, order)
    if "," not in text:
        raise InputError(f"--map {order!r} is neither a map nor a list of fields: {nearest(order, MAPS)}")
    left, slices = dict(widths), list[tuple[str, int | None, bool]]()
    for part in text.split(","):
        found = re.fullmatch(r"([a-z]+)(?::([0-9]{1,2}))?(\^?)", part.strip())
        if found is None or found[1] not in left:
            raise InputError(f"--map {order!r}: {part!r} is no field: {nearest(part.strip(), _FIELDS)}")
        bits = None if found[2] is None else int(found[2])
        left[found[1]] -= bits or 0
        slices.append((found[1], bits, bool(found[3])))
        if left[found[1]] < 0:
            raise InputError(f"--map {order!r} takes more bits of {found[1]} than its {widths[found[1]]}")
    # A field without a width takes what the others of its name leave.
    sized = []
    for name, bits, hashed in slices:
        sized.append((name, left[name] if bits is None else bits, hashed))
        left[name] = 0 if bits is None else left[name]
    for name, bits in left.items():
        if bits:
            raise InputError(f"--map {order!r} leaves out {bits} bits of {name}")
    return sized
