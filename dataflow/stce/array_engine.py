"""What the engines that are systolic arrays share: search, cost and macro-tiles over one set of closed forms.

An engine says how an op looks to its array, in numbers (`problem`, `machine`, `limits`), and what its mappings and its
counts are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import lru_cache
from typing import Literal, assert_never

from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.operand import whole
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec, ArrayKind, EngineKind
from ..account import Counts, Cycles
from ..constraint import Constraint, refusal
from ..gather.mapping import GatherMapping
from ..integers import ceil_div
from ..macro_tiles import FITS, TOO_LARGE, TOO_LONG, Tiled
from ..mapping import COMPACT, EngineMapping, Mapping
from ..objective import Objective
from ..on_chip import with_on_chip
from ..outside import OutsideMapping
from ..placement import Placement
from ..prices import Prices, Pricing, unpriced
from ..problem import MemoryMachine, Problem, too_long
from ..xnor.mapping import XnorMapping
from .cost import Cost, Form, cost_of, form_of, tiled_as
from .mapping import ArrayMapping
from .pace import ArrayMachine
from .search import CYCLES, EDP, ENERGY, NOTHING, THRIFT, Found, Side, search_sides
from .space import FREE_SPACE, Limits

__all__ = ["CODE", "ArrayEngine", "Role"]

CODE = {Objective.THRIFT: THRIFT, Objective.CYCLES: CYCLES, Objective.ENERGY: ENERGY, Objective.EDP: EDP}

Role = Literal["a", "b"]
_SIZES = {"w2e_bytes": "west_half", "n2s_bytes": "north_half", "output_bytes": "out_half"}
"""Buffers of a machine, by what their halves are to the cost model."""


class ArrayEngine(ABC):
    """An array in the machine ``spec``; with ``kind``, ``peak`` and ``takes`` an `engine.Engine`."""

    __slots__ = ()

    spec: AcceleratorSpec
    own: ArrayKind

    @property
    def kind(self) -> EngineKind:
        """Of its mappings."""
        return self.own.kind

    @property
    @abstractmethod
    def name(self) -> str:
        """As reports call it."""

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.own.peak

    @abstractmethod
    def require(self, op: MatrixOp) -> None:
        """Refuse an op that it cannot run, and say why."""

    @property
    @abstractmethod
    def machine(self) -> ArrayMachine:
        """The array as numbers."""

    @property
    @abstractmethod
    def memory(self) -> MemoryMachine:
        """What is around it."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """Registers of a PE."""

    @abstractmethod
    def problem(self, op: MatrixOp, n2s: str) -> Problem:
        """``op`` as the array sees it."""

    @abstractmethod
    def mapped(self, found: Found) -> EngineMapping:
        """The engine's part of a mapping that the search found."""

    @abstractmethod
    def counted(self, op: MatrixOp, cost: Cost) -> Counts:
        """What ``op`` does at such a cost."""

    def takes(self, op: MatrixOp) -> bool:
        """Whether it can run ``op`` at all."""
        try:
            self.require(op)
        except InputError:
            return False
        return True

    def place(
        self, op: MatrixOp, objective: Objective, pricing: Pricing = unpriced, wanted: Constraint | None = None
    ) -> Placement:
        """The cheapest placement of ``op`` in the space that search.py states, or of those that are ``wanted``."""
        return self.evaluate(op, self._mapping(op, objective, pricing, wanted), pricing)

    def _mapping(
        self, op: MatrixOp, objective: Objective, pricing: Pricing, wanted: Constraint | None = None
    ) -> Mapping:
        """The mapping of that placement."""
        self.require(op)
        roles: tuple[Role, ...] = ("b", "a") if op.sparse is None or whole(op.sparse) else (op.sparse.operand,)
        problems = tuple(self.problem(op, role) for role in roles)
        price = tuple(pricing(op, self.kind, role) for role in roles)
        x, y, limits = self.machine, self.memory, self.limits

        def searched(wanted: Constraint | None) -> Mapping | None:
            chosen = [i for i, role in enumerate(roles) if wanted is None or wanted.n2s in (None, role)]
            if not chosen:
                return None
            some = tuple((problems[i], price[i]) for i in chosen)
            index, found = _search(some, x, y, limits, objective, wanted)
            if found.status != FITS:
                return None
            role = roles[chosen[index]]
            return self.made(op.gemm if role == "b" else op.gemm.transposed, role, found)

        mapping = searched(wanted)
        if mapping is None and wanted is not None and searched(None) is not None:
            raise InputError(refusal(op, self.own, self.spec, wanted, bool(problems[0].online), searched))
        if mapping is None:
            raise InputError(
                f"no tile of {op.name!r} ({op.gemm}) fits the buffers of {self.spec.name!r}: one array tile needs the "
                f"operands of one N:M group and its results; with {_enough(problems, x, y, limits)} one fits"
            )
        return mapping

    def made(self, gemm: Gemm, n2s: Role, f: Found) -> Mapping:
        """What a search found, of a product as the array sees it."""
        return Mapping(
            array=self.mapped(f),
            gemm=gemm,
            n2s=n2s,
            tile_rows=f.tile.rows,
            tile_cols=f.tile.cols,
            resident=bool(f.tile.resident),
            order="mn" if f.tile.rows_slow else "nm",
            compact=COMPACT[f.tile.compact],
        )

    def evaluate(self, op: MatrixOp, mapping: Mapping, pricing: Pricing = unpriced) -> Placement:
        """Cost of ``op`` under ``mapping``; refuses one of another op, or that registers or buffers cannot hold."""
        p, y, price = self._problem(op, mapping), self.memory, pricing(op, self.kind, mapping.n2s)
        rest = (self.machine, y, self._form(mapping), mapping.tile, price)
        cost = cost_of(p, *rest)
        all_ = cost.op.totals
        if all_.status == TOO_LARGE:
            raise InputError(
                f"a macro-tile of {mapping.tile_rows} x {mapping.tile_cols} of {op.name!r} does not fit the buffers of "
                f"{self.spec.name!r}; use smaller tiles or stream the operands"
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
        counts = self.counted(op, cost)
        if mapping.on_chip:
            # The buffers take what they took, from another memory.
            free = self.counted(op, cost_of(p._replace(on_chip=0), *rest))
            read = free.dram_read_bytes - counts.dram_read_bytes
            write = free.dram_write_bytes - counts.dram_write_bytes
            counts = with_on_chip(replace(counts, buffer_bytes=free.buffer_bytes), read, write)
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
        return tiled_as(self._problem(op, mapping), self.machine, self._form(mapping), mapping.tile)

    def _form(self, mapping: Mapping) -> Form:
        match mapping.array:
            case ArrayMapping() | XnorMapping():
                return form_of(mapping.array)
            case GatherMapping():
                raise InputError(f"a mapping of the gather engine is none of the {self.name}")
            case OutsideMapping(engine=engine):
                raise InputError(f"a mapping of {engine!r} is none of the {self.name}")
            case _:
                assert_never(mapping.array)

    def _problem(self, op: MatrixOp, mapping: Mapping) -> Problem:
        """``op`` as the mapping has it."""
        mapping.array.check(self.spec)
        self.require(op)
        p = self.problem(op, mapping.n2s)._replace(on_chip=mapping.held)
        mapping.check(op, bool(p.online))
        return p


_ROOM = 2**26
"""Bytes of a buffer that is never what a tile lacks: an array tile of the largest array takes less."""


def _enough(problems: tuple[Problem, ...], x: ArrayMachine, y: MemoryMachine, limits: Limits) -> str:
    """The buffers to enlarge for any tile at all, each to the least power of two times its size."""
    roomy, enlarged = y._replace(**dict.fromkeys(_SIZES.values(), _ROOM // 2)), list[str]()
    free = tuple((p, Prices(*[0.0] * len(Prices._fields))) for p in problems)
    for buffer, half in _SIZES.items():
        size = given = getattr(y, half)
        while size < _ROOM // 2:
            _, found = _search(free, x, roomy._replace(**{half: size}), limits, Objective.CYCLES)
            if found.status == FITS:
                break
            size *= 2
        roomy = roomy._replace(**{half: size})
        if size > given:
            enlarged.append(f"buffers.{buffer} = {2 * size}")
    return " and ".join(enlarged)


@lru_cache(maxsize=16384)
def _search(
    problems: tuple[tuple[Problem, Prices], ...],
    x: ArrayMachine,
    y: MemoryMachine,
    limits: Limits,
    objective: Objective,
    wanted: Constraint | None = None,
) -> tuple[int, Found]:
    """Index of the role of the best mapping, and that mapping; of equals that of the first role."""
    allowed = [FREE_SPACE if wanted is None else wanted.only(p) for p, _ in problems]
    sides = tuple(Side(*of, only) for of, only in zip(problems, allowed, strict=True) if only is not None)
    if not sides:
        return 0, NOTHING
    best = search_sides(sides, x, y, limits, CODE[objective])
    if best.found.status == TOO_LONG:
        raise too_long(sides[best.side].p)
    return [i for i, only in enumerate(allowed) if only is not None][best.side], best.found
