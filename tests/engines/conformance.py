"""What any engine keeps to: a suite that a new one passes by naming its draws and its machines.

Four implementations of one contract are held equal: the closed form of a placement, its phases stepped one by one, the
array stepped on real values with its register-level reference, and (where there is one) the RTL.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.account import Cycles
from weft.dataflow.constraint import Constraint
from weft.dataflow.engine import Engine
from weft.dataflow.engines import engines_of
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.placement import Placement
from weft.simulator.step import Stepped, stepped
from weft.workloads.errors import InputError
from weft.workloads.step import MatrixOp

from ..examples_drawn import examples

DIMENSIONS = ("rows", "cols")

# Several classes inherit a test. What Hypothesis fears of that is an example found in one and replayed in another; runs
# are derandomized, so none is kept.
_of_every_engine = partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors]
)


class Run(NamedTuple):
    """A product on an engine: results as bits [m, n], the cycle each leaves in [m, n], all cycles."""

    bits: bytes
    left: list[list[int]]
    cycles: int


class Conformance:
    """Subclass it in a test file, with what follows filled in."""

    kind: ClassVar[str]

    def machines(self) -> st.SearchStrategy[AcceleratorSpec]:
        """Machines with such an engine, with buffers and memory of every proportion."""
        raise NotImplementedError

    def ops(self, spec: AcceleratorSpec) -> st.SearchStrategy[MatrixOp]:
        """Products of every kind that it takes."""
        raise NotImplementedError

    def mappings(self, spec: AcceleratorSpec, op: MatrixOp) -> st.SearchStrategy[Mapping]:
        """Mappings that its registers can run; the buffers may refuse them."""
        raise NotImplementedError

    def on_values(self, data: st.DataObject) -> tuple[Cycles, dict[str, Run], bytes]:
        """A drawn product on real values: its closed form; the runs by every implementation; the bits of its
        definition."""
        raise NotImplementedError

    def least_bytes(self, spec: AcceleratorSpec, op: MatrixOp) -> tuple[int, int, int]:
        """Bytes of A, B and C that have to be moved, however it is done."""
        return op.a.bytes, op.b.bytes, op.c.bytes

    def contraction(self, spec: AcceleratorSpec, op: MatrixOp) -> int:
        """How long the contraction is to a PE."""
        return op.gemm.k

    # --- below this line a new engine writes nothing

    def engine(self, spec: AcceleratorSpec) -> Engine:
        (found,) = (engine for engine in engines_of(spec) if engine.kind == self.kind)
        return found

    def placed(self, data: st.DataObject) -> tuple[AcceleratorSpec, MatrixOp, Placement]:
        spec = data.draw(self.machines())
        op = data.draw(self.ops(spec))
        assert self.engine(spec).takes(op)
        try:
            return spec, op, self.engine(spec).evaluate(op, data.draw(self.mappings(spec, op)))
        except InputError:
            assume(False)
            raise

    @_of_every_engine(max_examples=examples(400))
    @given(st.data())
    def test_closed_form_equals_stepped_phases(self, data: st.DataObject) -> None:
        spec, op, placement = self.placed(data)

        assert claimed(placement) == stepped(op, placement.mapping, spec)

    @_of_every_engine(max_examples=examples(200))
    @given(st.data())
    def test_cost_is_never_below_its_bound_and_every_cause_is_counted(self, data: st.DataObject) -> None:
        spec, op, placement = self.placed(data)
        cycles, counts = placement.cycles, placement.counts

        assert placement.engine == self.engine(spec).name
        assert cycles.total >= placement.bound_cycles
        assert min(cycles.compute, cycles.fill_drain, cycles.interleave_stall, cycles.port_stall) >= 0
        assert min(cycles.dram_stall, cycles.sore) >= 0
        assert counts.macs == op.macs <= cycles.compute * self.engine(spec).peak, "utilisation above 100 %"
        least = self.least_bytes(spec, op)
        on_chip = getattr(counts, "resident_read_bytes", 0), getattr(counts, "resident_write_bytes", 0)
        assert counts.dram_write_bytes + on_chip[1] >= least[2]
        assert counts.dram_read_bytes + on_chip[0] >= least[1 if placement.mapping.n2s == "a" else 0]

    @_of_every_engine(max_examples=examples(200))
    @given(st.data())
    def test_macro_tiles_cover_the_product_once(self, data: st.DataObject) -> None:
        spec, op, placement = self.placed(data)
        tiled = self.engine(spec).tiled(op, placement.mapping)

        for name in DIMENSIONS:
            axis = getattr(tiled, name)
            assert (axis.tiles - 1) * axis.full + axis.last == getattr(tiled.problem, name)
            assert 1 <= axis.last <= axis.full
        p, g = tiled.problem, op.gemm
        assert p.groups * p.rows * p.cols == g.groups * g.m * g.n
        assert p.k == self.contraction(spec, op)

    @_of_every_engine(max_examples=examples(100))
    @given(st.data())
    def test_a_placement_is_what_its_mapping_costs_and_no_rule_makes_it_faster(self, data: st.DataObject) -> None:
        spec, op, drawn = self.placed(data)
        engine = self.engine(spec)
        best = engine.place(op, Objective.CYCLES)
        asked = Constraint(resident=drawn.mapping.resident, order=drawn.mapping.order)
        try:
            restricted = engine.place(op, Objective.CYCLES, wanted=asked)
        except InputError:
            assume(False)
            raise

        assert best == engine.evaluate(op, best.mapping)
        assert best.bound_cycles <= best.cycles.total <= restricted.cycles.total
        assert (restricted.mapping.resident, restricted.mapping.order) == (asked.resident, asked.order)

    @_of_every_engine(max_examples=examples(100))
    @given(st.data())
    def test_every_implementation_has_the_same_bits_and_cycles(self, data: st.DataObject) -> None:
        closed, runs, defined = self.on_values(data)

        assert {run.bits for run in runs.values()} == {defined}
        assert {run.cycles for run in runs.values()} == {closed.total}
        (left,) = {str(run.left) for run in runs.values()}
        assert left


def claimed(placement: Placement) -> Stepped:
    """What the closed form says of what stepping can see."""
    c, counts = placement.cycles, placement.counts
    array = c.compute + c.interleave_stall + c.port_stall
    memory = array + c.dram_stall
    return Stepped(array, memory, memory + c.sore, counts.dram_read_bytes, counts.dram_write_bytes)


def as_run(result: npt.NDArray[np.float32] | npt.NDArray[np.int32], left: npt.NDArray[np.int64], cycles: int) -> Run:
    return Run(result.tobytes(), left.tolist(), cycles)
