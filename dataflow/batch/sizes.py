"""A product of many sizes on one machine, placed in one kernel: what `engines.place` finds of each, and what it does.

Asked for where nothing but sizes differs, by as much from each to the next (`workloads/growth.py`). Vector work beside
it, likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...workloads.gemm import Gemm
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec
from ..engines import engines_of, ours_alone
from ..integers import ceil_div
from ..jit import kernel
from ..macro_tiles import FITS, Tile
from ..mapping import Mapping
from ..objective import Objective
from ..operand import BYTE
from ..prices import Prices, Pricing
from ..problem import NO_WINDOW, RATE, MemoryMachine, Problem
from ..stce.array_engine import CODE, Role
from ..stce.cost import Form
from ..stce.engine import Stce
from ..stce.pace import ArrayMachine
from ..stce.search import NOTHING, Side, search_sides
from ..stce.space import FREE_SPACE, Limits, Only
from .amounts import COUNTED
from .beside import beyond
from .counts import count_product
from .memory import price_at, problem_at

__all__ = ["ROLES", "Sizes", "beside_rows", "placed_sizes"]

ROLES: tuple[Role, Role] = ("b", "a")
"""Operands that may flow N2S, by number."""
_CYCLES, _ROLE, _FORM, _TILE, _COLUMNS = 0, 1, 2, 6, 11


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """A product in every size. ``cycles``: int64 [sizes]. ``counts``: int64 [sizes, counted], columns as
    `amounts.COUNTED`. ``roles``: int64 [sizes], 1 where operand a flows N2S, 0 where b does."""

    engine: Stce
    cycles: NDArray[np.int64]
    counts: NDArray[np.int64]
    roles: NDArray[np.int64]
    placed: NDArray[np.int64]
    problems: NDArray[np.int64]

    def mapping(self, size: int) -> Mapping:
        """That of one size."""
        role, row = int(self.roles[size]), self.placed[size].tolist()
        p = Problem(*self.problems[role, size].tolist())
        dataflow, keep, group, interleave = row[_FORM:_TILE]
        found = NOTHING._replace(
            dataflow=dataflow, keep=keep, group=group, interleave=interleave, tile=Tile(*row[_TILE:])
        )
        return self.engine.made(Gemm(m=p.rows, k=p.k, n=p.cols, groups=p.groups, run=p.run), ROLES[role], found)


def placed_sizes(
    sizes: int, at: Callable[[int], MatrixOp], spec: AcceleratorSpec, objective: Objective, pricing: Pricing
) -> Sizes | None:
    """The product ``at`` each of so many sizes, on ``spec``; None where that is not a question of numbers alone:
    operands under N:M, of few values or of convolutions, engines of others, a size that no mapping fits."""
    engine, ends = _engine(at(0), spec), (at(0), at(sizes - 1))
    if engine is None:
        return None
    problems = _problems(engine, *ends, sizes)
    if problems is None:
        return None
    prices = np.zeros((len(ROLES), sizes, len(Prices._fields)))
    if objective.priced:
        for i in range(sizes):
            prices[:, i] = [pricing(at(i), engine.kind, role) for role in ROLES]
    placed, counts = np.empty((sizes, _COLUMNS), np.int64), np.empty((sizes, len(COUNTED)), np.int64)
    machine = engine.machine, engine.memory, engine.limits
    if not _place_rows(problems, prices, *machine, CODE[objective], FREE_SPACE, placed, counts):
        return None
    return Sizes(engine, placed[:, _CYCLES], counts, placed[:, _ROLE], placed, problems)


def _engine(op: MatrixOp, spec: AcceleratorSpec) -> Stce | None:
    """The STCE, if it alone takes a product of any size."""
    given = op.sparse is not None or op.rows is not None
    if given or not ours_alone(spec) or any(x.levels is not None for x in (op.a, op.b, op.c)):
        return None
    takes = [engine for engine in engines_of(spec) if engine.takes(op)]
    return takes[0] if len(takes) == 1 and isinstance(takes[0], Stce) else None


def _problems(engine: Stce, first: MatrixOp, last: MatrixOp, sizes: int) -> NDArray[np.int64] | None:
    """By role, int64 [2, sizes, 22]; None where some number may not grow evenly between the ends.

    One dimension grows, so that elements do evenly, and their bytes, of whole bytes each. Where im2col repeats a tensor
    at both ends it does between them; of results only those that are stored as they are made are taken.
    """
    dims = [(getattr(first.gemm, name), getattr(last.gemm, name)) for name in ("m", "k", "n", "groups")]
    if sum(a != b for a, b in dims) > 1 or engine.spec.pe.operand.bits % BYTE:
        return None
    ends = np.array([[engine.problem(op, role) for op in (first, last)] for role in ROLES], np.int64)
    window = [Problem._fields.index(f"{side}_window") for side in ("west", "north", "out")]
    if (ends[:, 0, window] != ends[:, 1, window]).any() or (ends[:, :, window[2]] != NO_WINDOW).any():
        return None
    each, rest = np.divmod(ends[:, 1] - ends[:, 0], max(sizes - 1, 1))
    if rest.any():
        return None
    return ends[:, :1] + np.arange(sizes)[None, :, None] * each[:, None]


@kernel
def _place_rows(
    problems: NDArray[np.int64],
    prices: NDArray[np.float64],
    x: ArrayMachine,
    y: MemoryMachine,
    limits: Limits,
    objective: int,
    only: Only,
    placed: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> bool:
    """Whether every size has a mapping; the best of each, as `array_engine._search` has it, into ``placed``, int64
    [sizes, 11]: cycles, role, form and tile."""
    for i in range(problems.shape[1]):
        first = Side(problem_at(problems[0, i]), price_at(prices[0, i]), only)
        other = Side(problem_at(problems[1, i]), price_at(prices[1, i]), only)
        chosen = search_sides((first, other), x, y, limits, objective)
        best, role = chosen.found, chosen.side
        if best.status != FITS:
            return False
        form, t = Form(best.dataflow, best.keep, best.group, best.interleave), best.tile
        row = placed[i]
        row[0], row[1] = ceil_div(best.units, y.rate), role
        row[2], row[3], row[4], row[5] = best.dataflow, best.keep, best.group, best.interleave
        row[6], row[7], row[8], row[9], row[10] = t.rows, t.cols, t.resident, t.rows_slow, t.compact
        count_product(problem_at(problems[role, i]), x, y, form, t, counts[i])
    return True


@kernel
def beside_rows(
    moved: NDArray[np.int64],
    before: NDArray[np.int64],
    elements: NDArray[np.int64],
    product: NDArray[np.int64],
    rate: int,
    lanes: int,
    alone: int,
) -> NDArray[np.int64]:
    """Cycles of vector work of every size, int64 [sizes], as `beside.vector_cost` has them: of its bytes and of the
    ``elements`` that its lanes take. Where it is joined to a product of so many cycles, ``before`` it lanes took those
    elements; ``product`` is empty where it is not. ``alone``: as `beside.alone_of`."""
    cycles = np.empty(len(moved), np.int64)
    for i in range(len(moved)):
        own = ceil_div(elements[i], lanes)
        if len(product):
            last = beyond(ceil_div(before[i] + elements[i], lanes), product[i], alone)
            own = last - beyond(ceil_div(before[i], lanes), product[i], alone)
        cycles[i] = max(own, ceil_div(moved[i] * RATE, rate))
    return cycles
