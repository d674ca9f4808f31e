"""What a mapping costs on the array, in one kernel, so that the first placement of a process loads one from disk."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined, kernel
from ..macro_tiles import FITS, OpCost, Tile, Tiled, Totals, op_cost
from ..prices import Prices
from ..problem import MemoryMachine, Problem, bound_cycles
from .dataflows import NUMBER, issuing, tiles, tiling, words
from .pace import ArrayMachine, Executed, Tiling, Words

__all__ = ["Cost", "Form", "cost_of", "energy_of", "energy_pj", "form_of", "lasting", "tiled_as"]


class Form(NamedTuple):
    """The mapping of an array as numbers; ``dataflow``: its place in `dataflows.PACES`."""

    dataflow: int
    keep: int
    group: int
    interleave: int


class Cost(NamedTuple):
    """Cost of an op; of what its phases cost alone only ``op.totals.status`` unless it is `FITS`."""

    op: OpCost
    compute: int
    interleave_stall: int
    moved: Words
    bound: int
    energy_pj: float


def form_of(mapping: Executed) -> Form:
    """The mapping as numbers."""
    pattern = mapping.pattern
    return Form(NUMBER[mapping.dataflow], pattern.keep, pattern.group, mapping.interleave)


@inlined
def energy_of(a: Words, moved: int, sore_groups: int, price: Prices) -> float:
    """Picojoules of what a mapping does; of no more it is no more, each term rounded alike."""
    return (
        price.fixed
        + moved * (price.dram_byte + price.buffer_byte)
        + a.w2e_words * price.w2e_word
        + a.n2s_pairs * price.n2s_pair
        + a.output_words * price.output_word
        + sore_groups * price.sore_group
    )


@inlined
def lasting(energy: float, units: int, rate: int, price: Prices) -> float:
    """``energy`` of actions, with what the machine draws for ``units`` of 1/``rate`` cycles."""
    return energy + price.cycle * (units / rate)


@inlined
def energy_pj(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, cost: Totals, price: Prices) -> float:
    """Picojoules of what a mapping does."""
    return energy_of(words(p, x, t, tile.rows), cost.read_bytes + cost.write_bytes, cost.sore_groups, price)


@inlined
def _tiled(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile) -> Tiled:
    rows, cols, issue, demand = tiles(x, t, p.rows, p.cols, tile.rows, tile.cols)
    return Tiled(p, rows, cols, tile, issue, demand)


@inlined
def _paced(p: Problem, x: ArrayMachine, f: Form) -> Tiling:
    return tiling(f.dataflow, x, f.keep, f.group, f.interleave, p.rows, p.k, p.run)


@kernel
def tiled_as(p: Problem, x: ArrayMachine, form: Form, tile: Tile) -> Tiled:
    """The macro-tiles of a product."""
    return _tiled(p, x, _paced(p, x, form), tile)


@kernel
def cost_of(p: Problem, x: ArrayMachine, y: MemoryMachine, form: Form, tile: Tile, price: Prices) -> Cost:
    """Cost of a product under a mapping."""
    t = _paced(p, x, form)
    cost = op_cost(_tiled(p, x, t, tile), y)
    if cost.totals.status != FITS:
        return Cost(cost, 0, 0, Words(0, 0, 0), 0, 0.0)
    compute, stall = issuing(p.groups, p.rows, p.cols, x, t, tile.rows, tile.cols)
    energy = lasting(energy_pj(p, x, t, tile, cost.totals, price), cost.units, y.rate, price)
    return Cost(cost, compute, stall, words(p, x, t, tile.rows), bound_cycles(p, x.R * x.C, y), energy)
