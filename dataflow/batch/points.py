"""Machines as rows of numbers: what of them the schedule of a step depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ..accelerator import AcceleratorSpec
from ..engines import engines_of
from ..jit import inlined
from ..prices import Pricing
from ..problem import RATE, MemoryMachine, memory_machine
from ..stce.engine import Stce
from ..stce.pace import ArrayMachine
from ..stce.space import Limits
from .step import Family

__all__ = ["COLUMN", "Point", "Points", "PricesOf", "array_of", "lanes_of", "limits_of", "memory_of", "points_of"]

PricesOf = Callable[[AcceleratorSpec], Pricing]
"""What a machine pays; refuses one that nobody can price."""


class Point(NamedTuple):
    """One machine: `ArrayMachine`, `MemoryMachine` and `Limits`, field by field, and the lanes beside the array."""

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


COLUMN = {name: number for number, name in enumerate(Point._fields)}
"""Where a number stands in a row."""

_REST = Point._fields.index("wuve_lanes")
if Point._fields[:_REST] != (*ArrayMachine._fields, *MemoryMachine._fields, *Limits._fields):
    raise TypeError(f"a point is {Point._fields}, not what array, memory and registers are made of")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Machines, struct of arrays: ``rows`` int64 [points, 21], columns as `Point`; ``family`` int64 [points], which of
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
    the same; refuses one with an engine besides its STCE."""
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
    engines = engines_of(spec)
    if len(engines) > 1:
        names = ", ".join(engine.name for engine in engines)
        raise InputError(
            f"{spec.name!r} has the engines {names}, and machines are evaluated in bulk with an STCE alone; "
            "use weft.schedule for this one"
        )
    slow = int(spec.dram_bytes_per_cycle * RATE) < 1
    memory = MemoryMachine(0, 0, 0, 0, spec.sore.lanes, 0) if slow else memory_machine(spec)
    stce = engines[0]
    assert isinstance(stce, Stce), "the first engine of a machine is its array"
    return Point(*stce.machine, *memory, *stce.limits, spec.wuve.lanes, spec.vector.lanes)


@inlined
def array_of(v: NDArray[np.int64]) -> ArrayMachine:
    """The array of a row, int64 [21]."""
    return ArrayMachine(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8])


@inlined
def memory_of(v: NDArray[np.int64]) -> MemoryMachine:
    """Buffers, DRAM and SORE of a row, int64 [21]."""
    return MemoryMachine(v[9], v[10], v[11], v[12], v[13], v[14])


@inlined
def limits_of(v: NDArray[np.int64]) -> Limits:
    """Registers of a PE of a row, int64 [21]."""
    return Limits(v[15], v[16], v[17], v[18])


@inlined
def lanes_of(v: NDArray[np.int64]) -> tuple[int, int]:
    """Lanes of the update and of vector work of a row, int64 [21]."""
    return v[19], v[20]
