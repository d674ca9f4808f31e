"""One op under one mapping: its cycles by cause, its actions, and the bound that no mapping can beat."""

from __future__ import annotations

from dataclasses import dataclass

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp
from .accelerator import AcceleratorSpec
from .account import Counts, Cycles
from .array_time import array_machine, ceil_div, mapped_tiling
from .cost import (
    FITS,
    TOO_LARGE,
    Problem,
    Tile,
    bound_cycles,
    col_axis,
    memory_machine,
    op_cost,
    problem_of,
    row_axis,
    share,
    too_long,
)
from .engine_time import compares_per_group
from .mapping import COMPACT, Dataflow, Mapping
from .search import actions

__all__ = ["Constrained", "Placement", "evaluate", "tile_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained:
    """That a user restricted the mapping of an op, and to what; what the free search would have taken it to."""

    asked: str
    free_cycles: int
    free_dram_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One op on the machine: its mapping, its cost by closed form, and what no mapping can beat."""

    mapping: Mapping
    cycles: Cycles
    counts: Counts
    bound_cycles: int
    constrained: Constrained | None = None


def tile_of(mapping: Mapping) -> Tile:
    """The macro-tiles of a mapping as numbers."""
    return Tile(
        mapping.tile_rows, mapping.tile_cols, int(mapping.resident), int(mapping.order == "mn"),
        COMPACT.index(mapping.compact),
    )  # fmt: skip


def evaluate(op: MatrixOp, spec: AcceleratorSpec, mapping: Mapping) -> Placement:
    """Cost of ``op`` under ``mapping``; refuses one of another op, or that registers or buffers cannot hold."""
    mapping.array.check(spec)
    p = problem_of(op, mapping.n2s, spec.wuve.pregenerate)
    mapping.check(op, bool(p.online))
    x, y = array_machine(spec), memory_machine(spec)
    t = mapped_tiling(x, mapping.array, p.rows, p.k, p.run)
    r, c = row_axis(p, x, t, mapping.tile_rows), col_axis(p, x, t, mapping.tile_cols)
    tile = tile_of(mapping)
    cost = op_cost(p, x, y, t, share(p), r, c, tile)
    all_ = cost.totals
    if all_.status == TOO_LARGE:
        raise InputError(
            f"a macro-tile of {mapping.tile_rows} x {mapping.tile_cols} of {op.name!r} does not fit the buffers of "
            f"{spec.name!r}; use smaller tiles or stream the operands"
        )
    if all_.status != FITS:
        raise too_long(p)
    slots = p.groups * t.slots * _blocks(p, mapping, x.R, x.C) * (t.keep if t.ws else 1)
    memory_cycles = ceil_div(cost.memory_units, y.rate)
    compute, stall = slots * t.interleave, slots * (t.J - t.interleave)
    cycles = Cycles(
        compute=compute,
        interleave_stall=stall,
        fill_drain=all_.ramp,
        port_stall=all_.array - all_.ramp - compute - stall,
        dram_stall=memory_cycles - all_.array,
        sore=ceil_div(cost.units, y.rate) - memory_cycles,
    )
    words = actions(p, x, t, tile)
    counts = Counts(
        macs=op.macs,
        selects=op.macs if op.sparse else 0,
        w2e_words=words.w2e_words,
        n2s_pairs=words.n2s_pairs,
        output_words=words.output_words,
        buffer_bytes=all_.read_bytes + all_.write_bytes,
        dram_read_bytes=all_.read_bytes,
        dram_write_bytes=all_.write_bytes,
        sore_compares=all_.sore_groups * compares_per_group(op.sparse.pattern, spec) if op.sparse else 0,
    )
    return Placement(mapping=mapping, cycles=cycles, counts=counts, bound_cycles=bound_cycles(p, x, y))


def _blocks(p: Problem, mapping: Mapping, R: int, C: int) -> int:
    """OS: array tiles of one group. WS: batches x column tiles of one k-tile."""
    ws = mapping.array.dataflow == Dataflow.WS
    row_unit = mapping.array.interleave if ws else R
    col_unit = C if ws else C * mapping.array.interleave
    return _pieces(p.rows, mapping.tile_rows, row_unit) * _pieces(p.cols, mapping.tile_cols, col_unit)


def _pieces(size: int, tile: int, unit: int) -> int:
    """Units that an axis takes when it is cut into tiles first."""
    tiles = ceil_div(size, tile)
    return int((tiles - 1) * ceil_div(tile, unit) + ceil_div(size - (tiles - 1) * tile, unit))
