"""The gather engine: row-wise (Gustavson) products of an operand without a pattern and a dense one (docs/gather.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ...workloads.errors import InputError
from ...workloads.groups import Groups
from ...workloads.operand import Gathered, whole
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec, EngineKind
from ..account import Counts, Cycles
from ..constraint import ALL, Constraint, Extent
from ..integers import ceil_div
from ..macro_tiles import FITS, TOO_LARGE, Axis, Demand, Issue, Tiled, op_cost
from ..mapping import Mapping
from ..objective import TIE, Objective
from ..on_chip import with_on_chip
from ..placement import Placement
from ..prices import Pricing, unpriced
from ..problem import CONTRACTION, NO_WINDOW, NORTH, OUT, RATE, WEST, Problem, memory_machine, problem_of, too_long
from .dense import held_bytes, most_columns
from .mapping import GatherMapping
from .spec import GatherSpec
from .time import Slots, ramp, slot_cycles, slots_of

__all__ = ["Gather"]


@dataclass(frozen=True, slots=True)
class Gather:
    """The engine ``own`` of the machine ``spec``; an `engine.Engine`.

    Lines of the operand without a pattern are the columns of its problem and are never cut into macro-tiles, so that
    all of them share the lanes; rows are the columns of the dense operand, of which a macro-tile holds some in full.
    """

    spec: AcceleratorSpec
    own: GatherSpec

    @property
    def kind(self) -> EngineKind:
        """Of its mappings."""
        return self.own.kind

    @property
    def name(self) -> str:
        """As reports call it."""
        return "gather"

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.own.peak

    def takes(self, op: MatrixOp) -> bool:
        """Products of one group with an operand without a pattern, or in groups that are kept whole."""
        try:
            self._require(op)
        except InputError:
            return False
        return True

    def _require(self, op: MatrixOp) -> Gathered:
        where = f"{op.name!r} in {op.pass_} cannot run on the gather engine of {self.spec.name!r}"
        if not isinstance(op.sparse, Gathered):
            raise InputError(f"{where}: its operands are {op.sparse or 'dense'}, and it takes masks without a pattern")
        if op.gemm.groups > 1:
            raise InputError(f"{where}: it has {op.gemm.groups} groups, whose counts by line are not told apart")
        if op.a.levels is not None or op.b.levels is not None:
            raise InputError(f"{where}: its operands have few values, and it multiplies numbers")
        if whole(op.sparse):
            raise InputError(f"{where}: the zeros of {op.sparse} are put back, and it leaves them out")
        if isinstance(op.sparse, Groups) and op.sparse.bits:
            raise InputError(
                f"{where}: it has values of {op.sparse.bits} bits with a scale a group, which nothing turns into "
                "numbers there"
            )
        if op.sparse.online and self.own.balance == "sorted":
            raise InputError(
                f"{where}: balance 'sorted' needs the counts in advance, and its mask is online; use stealing"
            )
        return op.sparse

    def slots(self, op: MatrixOp, interleave: int = 1) -> Slots:
        """Slots of all lines of ``op``, as far as its counts say."""
        sparse = self._require(op)
        return slots_of(self.own, sparse.histogram(op.gemm), sparse.cell(op.gemm), interleave)

    def _problem(self, op: MatrixOp, mapping: Mapping) -> Problem:
        mapping.array.check(self.spec)
        sparse = self._require(op)
        mapping.check(op, online=False)
        p = problem_of(op, mapping.n2s, self.spec)
        stored = p.north_tensor if sparse.online else sparse.bytes(op.gemm, self.spec.pe.operand.bits)
        if not sparse.online:
            p = p._replace(north_tensor=stored, north_expanded=stored, north_window=NO_WINDOW)
        if p.west_window == CONTRACTION:
            # Columns of the dense operand are held for the whole contraction, so no window is cut.
            p = p._replace(west_window=NO_WINDOW, west_expanded=p.west_tensor)
        # Kept elements stream: the N2S buffer never holds a line.
        return p._replace(north_bits=0, on_chip=mapping.held)

    def tiled(self, op: MatrixOp, mapping: Mapping) -> Tiled:
        """The macro-tiles of a placed product."""
        p, tile, interleave = self._problem(op, mapping), mapping.tile, _interleave(mapping)
        slots = self.slots(op, interleave).most
        if tile.cols != p.cols:
            raise InputError(
                f"a macro-tile of the gather engine has all {p.cols} lines of the mask of {op.name!r}, not {tile.cols}"
            )
        if tile.rows > most_columns(self.spec, p.k, interleave):
            held, pe, half = held_bytes(self.spec, p.k, tile.rows), self.spec.pe, self.spec.buffers.w2e_bytes // 2
            raise InputError(
                f"{tile.rows} columns of the dense operand of {op.name!r} take {held} bytes on the gather engine of "
                f"{self.spec.name!r}, but half of buffers.w2e_bytes is {half}, and its PEs have the sums of "
                f"{self.own.width * (pe.accumulators // interleave)} columns of {interleave} lines (gather.width x "
                "pe.accumulators / interleave)"
            )
        tiles = ceil_div(p.rows, tile.rows)
        last = p.rows - (tiles - 1) * tile.rows
        busy, busy_last = (slots * sum(slot_cycles(self.spec, n, interleave)) for n in (tile.rows, last))
        rows = Axis(tiles, tile.rows, last, busy, busy_last)
        issue = Issue(((busy, busy), (busy_last, busy_last)), ramp(self.spec))
        demand = Demand(chunk=p.k, streams=1, result_bits=self.spec.pe.operand.bits, index_bits=0)
        return Tiled(p, rows, Axis(1, p.cols, p.cols, 1, 1), tile, issue, demand)

    def evaluate(self, op: MatrixOp, mapping: Mapping, pricing: Pricing = unpriced) -> Placement:
        """Cost of ``op`` under ``mapping``; where the counts leave it open, the most that it can take."""
        product, memory = self.tiled(op, mapping), memory_machine(self.spec)
        p, rows, interleave = product.problem, product.rows, _interleave(mapping)
        slots = self.slots(op, interleave).most
        cost = op_cost(product, memory)
        all_ = cost.totals
        if all_.status == TOO_LARGE:
            raise InputError(
                f"a macro-tile of {mapping.tile_rows} x {mapping.tile_cols} of {op.name!r} does not fit the buffers of "
                f"{self.spec.name!r}; use smaller tiles or stream the operands"
            )
        if all_.status != FITS:
            raise too_long(p)
        waits = [slot_cycles(self.spec, n, interleave)[1] for n in (rows.full, rows.last)]
        stall = slots * ((rows.tiles - 1) * waits[0] + waits[1])
        waited, all_cycles = ceil_div(cost.memory_units, memory.rate), all_.array
        sparse = self._require(op)
        counts = Counts(
            macs=op.macs,
            w2e_words=op.macs,
            n2s_pairs=sparse.histogram(op.gemm).total * rows.tiles,
            output_words=p.rows * p.cols,
            buffer_bytes=all_.read_bytes + all_.write_bytes,
            dram_read_bytes=all_.read_bytes,
            dram_write_bytes=all_.write_bytes,
        )
        if mapping.on_chip:
            # The buffers take what they took, from another memory.
            free = op_cost(product._replace(problem=p._replace(on_chip=0)), memory).totals
            counts = with_on_chip(
                replace(counts, buffer_bytes=free.read_bytes + free.write_bytes),
                free.read_bytes - all_.read_bytes,
                free.write_bytes - all_.write_bytes,
            )
        price = pricing(op, self.kind, mapping.n2s)
        sides = ((WEST, p.west_tensor), (NORTH, p.north_tensor), (OUT, p.out_tensor))
        least = sum(size for side, size in sides if not p.on_chip & side) * RATE
        cycles = Cycles(
            compute=all_cycles - all_.ramp - stall,
            interleave_stall=stall,
            fill_drain=all_.ramp,
            dram_stall=waited - all_cycles,
        )
        return Placement(
            engine=self.name,
            mapping=mapping,
            cycles=cycles,
            counts=counts,
            bound_cycles=max(ceil_div(op.macs, self.peak), ceil_div(least, memory.rate)),
            energy_pj=price.fixed
            + counts.w2e_words * price.w2e_word
            + counts.n2s_pairs * price.n2s_pair
            + counts.output_words * price.output_word
            + counts.dram_bytes * price.dram_byte
            + counts.buffer_bytes * price.buffer_byte
            + cycles.total * price.cycle,
        )

    def place(
        self, op: MatrixOp, objective: Objective, pricing: Pricing = unpriced, wanted: Constraint | None = None
    ) -> Placement:
        """The cheapest placement of ``op``, of those that are ``wanted``."""
        side = self._require(op).operand
        found, refused = list[Placement](), list[InputError]()
        for mapping in self._mappings(op, side, wanted or Constraint()):
            try:
                found.append(self.evaluate(op, mapping, pricing))
            except InputError as error:
                refused.append(error)
        if found:
            least = min(placement.cost(objective) for placement in found)
            if objective is Objective.THRIFT:
                least += least / TIE
            alike = (placement for placement in found if placement.cost(objective) <= least)
            return min(alike, key=lambda placement: (placement.counts.dram_bytes, placement.cost(objective)))
        if refused:
            raise refused[0]
        raise InputError(f"{op.name!r} in {op.pass_} cannot have {wanted} on the gather engine of {self.spec.name!r}")

    def _mappings(self, op: MatrixOp, side: Literal["a", "b"], wanted: Constraint) -> Iterator[Mapping]:
        """Tiles of whole PEs: powers of two of them, the most that the buffer holds, and all columns; lines until none
        waits for the adder; or as wanted."""
        gemm = op.gemm if side == "b" else op.gemm.transposed
        other = wanted.dataflow is not None or wanted.pairs is not None
        if other or wanted.n2s not in (None, side) or wanted.compact not in (None, "remade"):
            return
        if gemm.n not in _extents(wanted.tile_cols, gemm.n, {gemm.n}):
            return
        most, width = min(max(most_columns(self.spec, gemm.k), 1), gemm.m), self.own.width
        # As many tiles as there must be, all of nearly one size: a short last one leaves the adders waiting.
        even = ceil_div(ceil_div(gemm.m, ceil_div(gemm.m, most)), width) * width
        sizes = {1, most, max(most // width * width, 1), min(even, most)}
        sizes |= {min(width << i, most) for i in range(most.bit_length())}
        for resident in (True, False) if wanted.resident is None else (wanted.resident,):
            for rows in sorted(_extents(wanted.tile_rows, gemm.m, sizes)):
                for interleave in self._interleaves(rows, wanted.interleave):
                    yield Mapping(
                        array=GatherMapping(interleave=interleave),
                        gemm=gemm,
                        n2s=side,
                        tile_rows=rows,
                        tile_cols=gemm.n,
                        resident=resident,
                        order=wanted.order or "nm",
                    )

    def _interleaves(self, columns: int, asked: int | tuple[int, ...] | None) -> Iterable[int]:
        """Lines that a lane could hold over so many columns, of those ``asked`` for."""
        if asked is not None:
            return asked if isinstance(asked, tuple) else (asked,)
        words, pe = ceil_div(columns, self.own.width), self.spec.pe
        return range(1, max(min(self.own.interleave, pe.accumulators // words, ceil_div(pe.add_latency, words)), 1) + 1)


def _interleave(mapping: Mapping) -> int:
    assert isinstance(mapping.array, GatherMapping)
    return mapping.array.interleave


def _extents(asked: Extent | tuple[Extent, ...] | None, size: int, free: set[int]) -> set[int]:
    """Those asked for that a product of so many rows or columns can have; ``free`` where none is asked for."""
    if asked is None:
        return free
    listed = asked if isinstance(asked, tuple) else (asked,)
    return {size if extent == ALL else int(extent) for extent in listed if extent == ALL or int(extent) <= size}
