"""Whom an op waits for: by hand, and by what happens when it is relieved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.analysis.waits import DRAM, INTERLEAVE, PORTS, SORE, TIES, waits
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import evaluate, place
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.simulator.result import OpResult
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp

from ..dataflow.problems import machines, make_op, matrix_ops
from ..examples_drawn import examples

SAT = load_spec("sat-vcu1525")
TWO_OF_EIGHT = NMPattern(keep=2, group=8)
ACCUMULATORS_AND_PORTS = TIES[frozenset((INTERLEAVE, PORTS))]


def _result(op: MatrixOp, spec: AcceleratorSpec, mapping: Mapping | None = None) -> OpResult:
    chosen = mapping or place(op, spec, Objective.CYCLES).mapping
    placed = evaluate(op, spec, chosen)
    return OpResult(op=op, mapping=chosen, cycles=placed.cycles, counts=placed.counts)


def _machine(*, add_latency: int = 4, words: int = 1, lanes: int = 32, dram: int = 10**15) -> AcceleratorSpec:
    return replace(
        SAT,
        pe=replace(SAT.pe, add_latency=add_latency),
        array=replace(SAT.array, w2e_words=words),
        sore=replace(SAT.sore, lanes=lanes),
        dram=replace(SAT.dram, bytes_per_second=dram),
    )


def _forward() -> MatrixOp:
    """FF of a layer with 64 filters: two contexts, whatever the accumulators."""
    sparse = NMOperand(operand="b", pattern=TWO_OF_EIGHT, online=False)
    return make_op(Gemm(m=4096, k=576, n=64, run=64), sparse=sparse)


def _gradient() -> MatrixOp:
    """WU with its gradient reduced online."""
    sparse = NMOperand(operand="a", pattern=TWO_OF_EIGHT, online=True)
    return make_op(Gemm(m=384, k=33280, n=384), sparse=sparse, pass_=Pass.WU)


@pytest.mark.parametrize(
    ("add_latency", "words", "accumulators", "ports", "both"),
    [(4, 1, 0, 0, 4), (2, 1, 0, 4, 0), (4, 2, 4, 0, 0), (6, 1, 4, 0, 4), (3, 1, 0, 2, 2), (2, 2, 0, 0, 0)],
)
def test_waits_of_a_group_by_hand(add_latency, words, accumulators, ports, both):
    """A group of 8 arrives in 8 / words cycles and is used for 2 pairs x max(2, latency), of which 4 are issues.

    128 row tiles of 72 groups.
    """
    op, spec = _forward(), _machine(add_latency=add_latency, words=words)
    array = ArrayMapping(dataflow=Dataflow.OS, pattern=TWO_OF_EIGHT, interleave=2)
    mapping = Mapping(array=array, gemm=op.gemm, n2s="b", tile_rows=1024, tile_cols=64, resident=True, order="mn")

    found = waits(_result(op, spec, mapping), spec)

    groups = 128 * 72
    assert (found[INTERLEAVE], found[PORTS]) == (accumulators * groups, ports * groups)
    assert found.get(ACCUMULATORS_AND_PORTS, 0) == both * groups


def test_what_is_bound_by_both_needs_both():
    op, spec = _forward(), _machine()
    before = _result(op, spec)
    tied = waits(before, spec)[ACCUMULATORS_AND_PORTS]

    def gain(**better: int) -> int:
        return before.cycles.total - _result(op, _machine(**better)).cycles.total

    assert tied > 0.4 * before.cycles.total
    assert max(gain(add_latency=2), gain(words=2)) < 0.01 * tied
    assert gain(add_latency=2, words=2) > 0.99 * tied


def test_waits_taken_to_spare_an_engine_are_booked_on_it():
    """With a lane of SORE the array runs a mapping that waits for its ports, as it reduces the gradient less often."""
    op, spec = _gradient(), _machine(lanes=1)
    before = _result(op, spec)
    found = waits(before, spec)

    def gain(**better: int) -> int:
        return before.cycles.total - _result(op, _machine(**{"lanes": 1, **better})).cycles.total

    assert before.cycles.port_stall > 0.25 * before.cycles.total and found[PORTS] == 0
    assert found[SORE] > 0.85 * before.cycles.total
    assert gain(words=2) < 0.01 * found[SORE] < 0.99 * found[SORE] < gain(lanes=4096)


def test_a_phase_that_loads_as_long_as_it_reduces_is_bound_by_both():
    """Two bytes a value, a lane takes a value a cycle, and DRAM brings 2 bytes a cycle."""
    sparse = NMOperand(operand="b", pattern=TWO_OF_EIGHT, online=True)
    op = make_op(Gemm(m=32, k=64, n=2048), sparse=sparse)
    slow = replace(SAT.dram, bytes_per_second=2 * SAT.clock_hz, efficiency_percent=100)
    spec = replace(_machine(lanes=1), dram=slow)
    array = ArrayMapping(dataflow=Dataflow.OS, pattern=TWO_OF_EIGHT, interleave=4)
    mapping = Mapping(array=array, gemm=op.gemm, n2s="b", tile_rows=32, tile_cols=256, resident=True, order="mn")

    result = _result(op, spec, mapping)
    found = waits(result, spec)

    # 7 of 8 loads of 256 x 64 values stand beside a macro-tile; what is stored comes on top of what is loaded.
    busy = (result.cycles.compute + result.cycles.port_stall) // 8
    assert found[TIES[frozenset((DRAM, SORE))]] == 7 * (256 * 64 - busy)
    assert found[SORE] == 0


def test_an_op_of_endless_phases_is_booked_at_once():
    """Each of 2^33 products of one element waits three of four cycles for its adder."""
    result = _result(make_op(Gemm(m=1, k=1, n=1, groups=2**33)), SAT)

    assert sum(waits(result, SAT).values()) == 3 * 2**33 + result.cycles.dram_stall


@settings(max_examples=examples(60))
@given(st.data())
def test_every_wait_is_booked_once(data):
    spec = data.draw(machines())
    op = data.draw(matrix_ops(spec))
    try:
        result = _result(op, spec)
    except InputError:
        assume(False)
    found, cycles = waits(result, spec), result.cycles

    assert sum(found.values()) == cycles.interleave_stall + cycles.port_stall + cycles.dram_stall + cycles.sore
    assert min(found.values()) >= 0
