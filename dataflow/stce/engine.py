"""The STCE, a systolic array of N:M sparse PEs, as an engine: its search, its cost, its bound."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal, assert_never

from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec
from ..account import Counts, Cycles
from ..constraint import Constraint, refusal
from ..engine_time import compares_per_group
from ..integers import ceil_div
from ..macro_tiles import FITS, TOO_LARGE, TOO_LONG, Tiled
from ..mapping import COMPACT, Mapping
from ..objective import Objective
from ..placement import Placement
from ..prices import FREE, Prices
from ..problem import Problem, memory_machine, problem_of, too_long
from .cost import cost_of, form_of, tiled_as
from .dataflows import PACES
from .mapping import ArrayMapping
from .pace import array_machine
from .search import CYCLES, EDP, ENERGY, FREE_SPACE, NOTHING, THRIFT, Found, Limits, search
from .spec import StceSpec

__all__ = ["Stce"]

_CODE = {Objective.THRIFT: THRIFT, Objective.CYCLES: CYCLES, Objective.ENERGY: ENERGY, Objective.EDP: EDP}

Role = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Stce:
    """The array ``own`` in the machine ``spec``; an `engine.Engine`."""

    spec: AcceleratorSpec
    own: StceSpec

    @property
    def kind(self) -> str:
        """Of its mappings."""
        return self.own.kind

    @property
    def name(self) -> str:
        """As reports call it."""
        return "STCE"

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle: one a PE."""
        return self.own.peak

    def takes(self, op: MatrixOp) -> bool:
        """Any product."""
        return True

    def place(
        self, op: MatrixOp, objective: Objective, price: Prices = FREE, wanted: Constraint | None = None
    ) -> Placement:
        """The cheapest placement of ``op`` in the space that search.py states, or of those that are ``wanted``."""
        return self.evaluate(op, self._mapping(op, objective, price, wanted), price)

    def _mapping(
        self, op: MatrixOp, objective: Objective, price: Prices = FREE, wanted: Constraint | None = None
    ) -> Mapping:
        """The mapping of that placement."""
        spec = self.spec
        if op.sparse is not None:
            spec.check_pattern(op.sparse.pattern)
        roles: tuple[Role, ...] = ("b", "a") if op.sparse is None else (op.sparse.operand,)
        problems = tuple(problem_of(op, role, spec) for role in roles)

        def searched(wanted: Constraint | None) -> Mapping | None:
            chosen = [i for i, role in enumerate(roles) if wanted is None or wanted.n2s in (None, role)]
            if not chosen:
                return None
            index, mapping = _search(tuple(problems[i] for i in chosen), spec, objective, price, wanted)
            return None if mapping is None else replace(mapping, n2s=roles[chosen[index]])

        mapping = searched(wanted)
        if mapping is None and wanted is not None and searched(None) is not None:
            raise InputError(refusal(op, spec, wanted, bool(problems[0].online), searched))
        if mapping is None:
            raise InputError(
                f"no tile of {op.name!r} ({op.gemm}) fits the buffers of {spec.name!r}: one array tile needs the "
                f"operands of one N:M group and its results; with {_enough(problems, spec)} one fits"
            )
        return mapping

    def evaluate(self, op: MatrixOp, mapping: Mapping, price: Prices = FREE) -> Placement:
        """Cost of ``op`` under ``mapping``; refuses one of another op, or that registers or buffers cannot hold."""
        spec = self.spec
        p, y = self._problem(op, mapping), memory_machine(spec)
        cost = cost_of(p, array_machine(spec), y, form_of(mapping.array), mapping.tile, price)
        all_ = cost.op.totals
        if all_.status == TOO_LARGE:
            raise InputError(
                f"a macro-tile of {mapping.tile_rows} x {mapping.tile_cols} of {op.name!r} does not fit the buffers of "
                f"{spec.name!r}; use smaller tiles or stream the operands"
            )
        if all_.status != FITS:
            raise too_long(p)
        compute, stall = cost.compute, cost.interleave_stall
        memory_cycles = ceil_div(cost.op.memory_units, y.rate)
        cycles = Cycles(
            compute=compute,
            interleave_stall=stall,
            fill_drain=all_.ramp,
            port_stall=all_.array - all_.ramp - compute - stall,
            dram_stall=memory_cycles - all_.array,
            sore=ceil_div(cost.op.units, y.rate) - memory_cycles,
        )
        counts = Counts(
            macs=op.macs,
            selects=op.macs if op.sparse else 0,
            w2e_words=cost.moved.w2e_words,
            n2s_pairs=cost.moved.n2s_pairs,
            output_words=cost.moved.output_words,
            buffer_bytes=all_.read_bytes + all_.write_bytes,
            dram_read_bytes=all_.read_bytes,
            dram_write_bytes=all_.write_bytes,
            sore_compares=all_.sore_groups * compares_per_group(op.sparse.pattern, spec) if op.sparse else 0,
        )
        return Placement(
            engine=self.name,
            mapping=mapping,
            cycles=cycles,
            counts=counts,
            bound_cycles=cost.bound,
            energy_pj=cost.energy_pj,
        )

    def tiled(self, op: MatrixOp, mapping: Mapping) -> Tiled:
        """The macro-tiles of a placed product."""
        form = form_of(mapping.array)
        return tiled_as(self._problem(op, mapping), array_machine(self.spec), form, mapping.tile)

    def _problem(self, op: MatrixOp, mapping: Mapping) -> Problem:
        """``op`` as the mapping has it."""
        mapping.array.check(self.spec)
        p = problem_of(op, mapping.n2s, self.spec)
        mapping.check(op, bool(p.online))
        return p


_ROOM = 2**26
"""Bytes of a buffer that is never what a tile lacks: an array tile of the largest array takes less."""


def _enough(problems: tuple[Problem, ...], spec: AcceleratorSpec) -> str:
    """The buffers to enlarge for any tile at all, each to the least power of two times its size."""
    given = spec.buffers
    chosen, enlarged = replace(given, w2e_bytes=_ROOM, n2s_bytes=_ROOM, output_bytes=_ROOM), list[str]()
    for field in fields(given):
        size = getattr(given, field.name)
        while size < _ROOM:
            tried = replace(spec, buffers=replace(chosen, **{field.name: size}))
            if _search(problems, tried, Objective.CYCLES, FREE)[1] is not None:
                break
            size *= 2
        chosen = replace(chosen, **{field.name: size})
        if size > getattr(given, field.name):
            enlarged.append(f"buffers.{field.name} = {size}")
    return " and ".join(enlarged)


@lru_cache(maxsize=16384)
def _search(
    problems: tuple[Problem, ...],
    spec: AcceleratorSpec,
    objective: Objective,
    price: Prices,
    wanted: Constraint | None = None,
) -> tuple[int, Mapping | None]:
    """Index of the best role and its mapping; the first of equals wins."""
    x, y = array_machine(spec), memory_machine(spec)
    limits = Limits(spec.pe.accumulators, spec.pe.dense_words, spec.pe.weight_pairs, spec.pe.max_group)
    spaces = [FREE_SPACE if wanted is None else wanted.only(p) for p in problems]
    found = [
        NOTHING if only is None else search(p, x, y, limits, price, _CODE[objective], only)
        for p, only in zip(problems, spaces, strict=True)
    ]
    best = min(range(len(found)), key=lambda i: _rank(found[i], objective))
    f, p = found[best], problems[best]
    if f.status == TOO_LONG:
        raise too_long(p)
    if f.status != FITS:
        return best, None
    return best, Mapping(
        array=ArrayMapping(
            dataflow=PACES[f.dataflow].dataflow, pattern=NMPattern(keep=f.keep, group=f.group), interleave=f.interleave
        ),
        gemm=Gemm(m=p.rows, k=p.k, n=p.cols, groups=p.groups, run=p.run),
        n2s="b",
        tile_rows=f.tile.rows,
        tile_cols=f.tile.cols,
        resident=bool(f.tile.resident),
        order="mn" if f.tile.rows_slow else "nm",
        compact=COMPACT[f.tile.compact],
    )


def _rank(found: Found, objective: Objective) -> tuple[int, float, int]:
    """Roles in order of merit: those that fit, then those that could be too long; by cost, of equally fast by bytes."""
    order = {FITS: 0, TOO_LONG: 1}.get(found.status, 2)
    match objective:
        case Objective.THRIFT:
            return order, found.units, 0
        case Objective.CYCLES:
            return order, found.units, found.moved
        case Objective.ENERGY | Objective.EDP:
            return order, found.key, 0
        case _:
            assert_never(objective)
