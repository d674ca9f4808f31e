"""An engine of one's own: a dot-product unit beside the array, for products that are too narrow to fill it.

`LANES` multipliers and a tree of adders make one result of a product of k in ceil(k / LANES) cycles. An engine says
what it takes, what a macro-tile takes it (`tiled`), what a mapping costs (`evaluate`) and which is best (`place`);
bytes, phases, the step and the system level are the house's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import weft
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.account import Counts, Cycles
from weft.dataflow.constraint import Constraint
from weft.dataflow.integers import ceil_div
from weft.dataflow.macro_tiles import FITS, Axis, Demand, Issue, Tiled, op_cost
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.outside import OutsideMapping
from weft.dataflow.placement import Placement
from weft.dataflow.prices import Pricing, unpriced
from weft.dataflow.problem import bound_cycles, memory_machine, problem_of
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.step import MatrixOp

LANES, LATENCY = 256, 12
"""Multipliers, and cycles from the operands of a result to its sum."""


@dataclass(frozen=True)
class DotUnit:
    """The unit in the machine ``spec``; a `weft.dataflow.engine.Engine`."""

    spec: AcceleratorSpec
    kind: ClassVar[Literal["outside"]] = "outside"
    name: ClassVar[str] = "dot unit"
    peak: ClassVar[int] = LANES

    def takes(self, op: MatrixOp) -> bool:
        return op.sparse is None

    def tiled(self, op: MatrixOp, mapping: Mapping) -> Tiled:
        p, tile = problem_of(op, mapping.n2s, self.spec), mapping.tile
        rows, cols = axis(p.rows, tile.rows), axis(p.cols, tile.cols)
        busy = [
            [r * c * ceil_div(p.k, LANES) for c in (cols.work, cols.work_last)] for r in (rows.work, rows.work_last)
        ]
        issue = Issue(((busy[0][0], busy[0][1]), (busy[1][0], busy[1][1])), LATENCY)
        # Operands stay for the whole contraction: there is no chunk to stream.
        return Tiled(p, rows, cols, tile, issue, Demand(chunk=p.k, streams=0, result_bits=32, index_bits=0))

    def evaluate(self, op: MatrixOp, mapping: Mapping, pricing: Pricing = unpriced) -> Placement:
        mapping.check(op, online=False)
        product, memory = self.tiled(op, mapping), memory_machine(self.spec)
        cost, p = op_cost(product, memory), product.problem
        all_ = cost.totals
        if all_.status != FITS:
            raise InputError(f"a macro-tile of {op.name!r} does not fit the buffers of {self.spec.name!r}")
        waited = ceil_div(cost.memory_units, memory.rate)
        price = pricing(op, self.kind, mapping.n2s)
        words = p.groups * p.rows * p.cols * p.k
        counts = Counts(
            macs=op.macs,
            w2e_words=words,
            n2s_pairs=words,
            output_words=p.groups * p.rows * p.cols,
            buffer_bytes=all_.read_bytes + all_.write_bytes,
            dram_read_bytes=all_.read_bytes,
            dram_write_bytes=all_.write_bytes,
        )
        return Placement(
            engine=self.name,
            mapping=mapping,
            cycles=Cycles(compute=all_.array - LATENCY, fill_drain=LATENCY, dram_stall=waited - all_.array),
            counts=counts,
            bound_cycles=bound_cycles(p, self.peak, memory),
            energy_pj=price.fixed
            + words * (price.w2e_word + price.n2s_pair)
            + counts.output_words * price.output_word
            + counts.dram_bytes * (price.dram_byte + price.buffer_byte),
        )

    def place(
        self, op: MatrixOp, objective: Objective, pricing: Pricing = unpriced, wanted: Constraint | None = None
    ) -> Placement:
        if wanted is not None:
            raise InputError(f"the {self.name} takes no rules of a mapping file, but {op.name!r} has {wanted}")
        found = []
        for mapping in mappings(op):
            try:
                found.append(self.evaluate(op, mapping, pricing))
            except InputError:
                continue
        if not found:
            raise InputError(f"no macro-tile of {op.name!r} fits the buffers of {self.spec.name!r}")
        return min(found, key=lambda placement: placement.cost(objective))


def axis(size: int, extent: int) -> Axis:
    """Macro-tiles of ``extent`` along an axis; the unit's work on one is its length."""
    tiles = ceil_div(size, extent)
    last = size - (tiles - 1) * extent
    return Axis(tiles, extent, last, extent, last)


def mappings(op: MatrixOp) -> Iterator[Mapping]:
    """Macro-tiles of powers of two, and of the whole of an axis."""
    whole = Mapping(
        array=OutsideMapping(engine=DotUnit.name),
        gemm=op.gemm,
        n2s="b",
        tile_rows=op.gemm.m,
        tile_cols=op.gemm.n,
        resident=True,
        order="mn",
    )
    for rows in extents(op.gemm.m):
        for cols in extents(op.gemm.n):
            yield replace(whole, tile_rows=rows, tile_cols=cols)


def extents(size: int) -> list[int]:
    return [*(1 << i for i in range((size - 1).bit_length())), size]


if __name__ == "__main__":
    step, machine = weft.trace("lstm_lm", batch=1), weft.machine("tiny")
    alone = weft.simulate(weft.schedule(step, machine))
    weft.register_engine("dot unit", DotUnit)
    schedule = weft.schedule(step, machine)
    beside = weft.simulate(schedule)
    taken = [placement for placement in schedule.placements if placement and placement.engine == DotUnit.name]
    print(f"{alone.cycles.total:>12,} cycles on the array alone")
    print(f"{beside.cycles.total:>12,} with the {DotUnit.name}, for {len(taken)} of {len(step.matrix_ops)} products")
    print(f"{simulate_system(schedule).cycles:>12,} with both at work side by side")
