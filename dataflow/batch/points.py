"""Machines as rows of numbers: what of them the schedule of a step depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ..accelerator import AcceleratorSpec
from ..engines import engines_of, ours_alone
from ..jit import inlined
from ..prices import Pricing
from ..problem import RATE, MemoryMachine, memory_machine
from ..stce.engine import Stce
from ..stce.pace import ArrayMachine
from ..stce.space import Limits
from ..stce.spec import StceSpec
from .step import Family

__all__ = [
    "COLUMN",
    "SHARED",
    "XNOR",
    "Point",
    "Points",
    "PricesOf",
    "alike_together",
    "array_of",
    "lanes_of",
    "limits_of",
    "memory_of",
    "points_of",
]

PricesOf = Callable[[AcceleratorSpec], Pricing]
"""What a machine pays; refuses one that nobody can price."""


class Point(NamedTuple):
    """One machine: `ArrayMachine`, `MemoryMachine` and `Limits`, field by field, the lanes beside the array, and what
    there is of an `XnorSpec`, zeros without one."""

    R: int
    C: int
    w: int
    Lm: int
    La: int
    word_bits: int
    sum_bits: int
    index_bits: int
    Lr: int
    west_half: int
    north_half: int
    out_half: int
    rate: int
    """0: less than a byte in 256 cycles, which no step can be timed at."""
    sore_lanes: int
    sore_network: int
    accumulators: int
    dense_words: int
    weight_pairs: int
    max_group: int
    wuve_lanes: int
    vector_lanes: int
    xnor_rows: int
    xnor_cols: int
    xnor_word_bits: int
    xnor_accumulators: int
    xnor_dense_words: int
    xnor_weight_words: int
    xnor_popcount_latency: int


XNOR = Point._fields[Point._fields.index("xnor_rows") :]
"""Those of the XNOR engine, as its description has them."""
COLUMN = {name: number for number, name in enumerate(Point._fields)}
"""Where a number stands in a row."""
_ROOM = ("west_half", "north_half", "out_half", "accumulators", "dense_words", "weight_pairs", "max_group")
SHARED = tuple(n for name, n in COLUMN.items() if name not in (*_ROOM, *XNOR, "wuve_lanes", "vector_lanes"))
"""Columns of what a search depends on beside capacities (`memory.Memory`)."""

_REST = Point._fields.index("wuve_lanes")
if Point._fields[:_REST] != (*ArrayMachine._fields, *MemoryMachine._fields, *Limits._fields):
    raise TypeError(f"a point is {Point._fields}, not what array, memory and registers are made of")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Machines, struct of arrays: ``rows`` int64 [points, 28], columns as `Point`; ``family`` int64 [points], which of
    ``families`` each is of, machines to which a step looks the same but for these numbers; ``pricings``: what each
    of those pays, None where nobody knows, empty where nobody asked."""

    rows: NDArray[np.int64]
    family: NDArray[np.int64]
    families: tuple[AcceleratorSpec, ...]
    pricings: tuple[Pricing | None, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


def points_of(specs: Iterable[AcceleratorSpec], prices: PricesOf | None = None) -> Points:
    """``specs`` as points, with what each pays if ``prices`` are given, best the same `Pricing` for machines that pay
    the same; refuses one with an engine of others."""
    rows, which = list[Point](), list[int]()
    families: dict[tuple[object, ...], AcceleratorSpec] = {}
    numbers: dict[tuple[object, ...], int] = {}
    pricings = dict[tuple[object, ...], Pricing | None]()
    for spec in specs:
        rows.append(_point(spec))
        pricing = None if prices is None else _pricing(spec, prices)
        key = (Family.of(spec), pricing)
        pricings[key] = pricing
        families.setdefault(key, spec)
        which.append(numbers.setdefault(key, len(numbers)))
    if not rows:
        raise InputError("there are no machines to evaluate; give one at least")
    paid = () if prices is None else tuple(pricings.values())
    return Points(np.array(rows, np.int64), np.array(which, np.int64), tuple(families.values()), paid)


def _pricing(spec: AcceleratorSpec, prices: PricesOf) -> Pricing | None:
    try:
        return prices(spec)
    except InputError:
        return None


def _point(spec: AcceleratorSpec) -> Point:
    if spec.gather is not None or not ours_alone(spec):
        names = ", ".join(engine.name for engine in engines_of(spec))
        raise InputError(
            f"{spec.name!r} has the engines {names}, and machines are evaluated in bulk with STCE and XNOR alone; "
            "use weft.schedule for this one"
        )
    if spec.buffers.resident_bytes:
        raise InputError(
            f"{spec.name!r} keeps tensors on chip (buffers.resident_bytes {spec.buffers.resident_bytes:,}), which "
            "machines that are evaluated in bulk cannot; use weft.schedule for this one, or 0 bytes"
        )
    slow = int(spec.dram_bytes_per_cycle * RATE) < 1
    memory = MemoryMachine(0, 0, 0, 0, spec.sore.lanes, 0) if slow else memory_machine(spec)
    stce = Stce(spec, StceSpec(array=spec.array, pe=spec.pe))
    own = spec.xnor
    xnor = [0 if own is None else getattr(own, name.removeprefix("xnor_")) for name in XNOR]
    return Point(*stce.machine, *memory, *stce.limits, spec.wuve.lanes, spec.vector.lanes, *xnor)


def alike_together(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row numbers, int64 [points], so that arrays that differ in capacities only stand together, the roomiest first:
    their searches answer for the others."""
    keys = [*(rows[:, column] for column in SHARED), *(-rows[:, COLUMN[name]] for name in _ROOM)]
    return np.lexsort(keys[::-1])


@inlined
def array_of(v: NDArray[np.int64]) -> ArrayMachine:
    """The array of a row, int64 [28]."""
    return ArrayMachine(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8])


@inlined
def memory_of(v: NDArray[np.int64]) -> MemoryMachine:
    """Buffers, DRAM and SORE of a row, int64 [28]."""
    return MemoryMachine(v[9], v[10], v[11], v[12], v[13], v[14])


@inlined
def limits_of(v: NDArray[np.int64]) -> Limits:
    """Registers of a PE of a row, int64 [28]."""
    return Limits(v[15], v[16], v[17], v[18])


@inlined
def lanes_of(v: NDArray[np.int64]) -> tuple[int, int]:
    """Lanes of the update and of vector work of a row, int64 [28]."""
    return v[19], v[20]
