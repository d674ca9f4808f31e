"""Weights in groups that are put back on the way into the array: bytes, work and refusals by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

import weft
from weft.analysis.energy import energy
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import engines_of, place
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.simulator.system import require_same, simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.grouped import DEQUANTISE, grouped
from weft.workloads.groups import Groups, GroupShape
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.operand import Role
from weft.workloads.phase import Phase
from weft.workloads.step import MatrixOp, VectorOp, Workload
from weft.workloads.unstructured import Drawn

from ..dataflow.problems import make_op

GEMM = Gemm(m=4, k=64, n=32)
IN_USE = Phase(use="infer")


def step() -> Workload:
    first = make_op(GEMM)
    assert first.b.role is Role.WEIGHT
    second = replace(make_op(Gemm(m=4, k=32, n=64)), name="second", parameter="second.weight")
    last = replace(make_op(GEMM), name="last", parameter="last.weight")
    return Workload(model="three", batch=4, ops=(first, second, last), phase=IN_USE)


def test_a_step_keeps_its_products_and_moves_its_groups() -> None:
    found = grouped(step(), "1x16", 0.5, 4)
    first, scales, second, _, last = found.ops

    assert isinstance(first, MatrixOp) and isinstance(first.sparse, Groups) and isinstance(second, MatrixOp)
    assert last == step().ops[2]
    # Of four groups a row two stay: 32 lines of 32 values of 4 bits, two scales of two bytes, two places; 33 pointers.
    assert first.sparse.bytes(GEMM, 16) == 32 * (32 // 2 + 2 * 2 + 2) + 33 * 4
    assert first.macs == GEMM.macs
    assert isinstance(scales, VectorOp) and scales.joined is not None
    assert (scales.op, scales.elements, scales.joined.lanes) == (DEQUANTISE, 32 * 32, 32 * 32)
    assert (scales.joined.read, scales.joined.write) == (first.sparse.bytes(GEMM, 16), 2 * 32 * 32)
    assert loads_workload(dumps_workload(found)) == found
    # Numbers of the machine need no scale.
    assert [type(op) for op in grouped(step(), "1x16", 0.5).ops] == [MatrixOp] * 3


def test_the_array_multiplies_all_of_it_and_memory_moves_the_rest() -> None:
    tiny = load_spec("tiny")
    op, dense = grouped(step(), "1x16", 0.5, 4).ops[0], step().ops[0]
    assert isinstance(op, MatrixOp) and isinstance(dense, MatrixOp) and op.sparse is not None
    found, before = place(op, tiny, Objective.CYCLES), place(dense, tiny, Objective.CYCLES)
    kept = op.sparse.bytes(GEMM, 16)

    assert found.engine == "STCE" and found.counts.macs == before.counts.macs == GEMM.macs
    assert found.cycles.compute == before.cycles.compute
    # Each of 32 lines is a share of them, rounded up; the weight is read once, its other operand as often as before.
    less = 2 * 64 * 32 - 32 * -(-kept // 32)
    assert before.counts.dram_read_bytes - found.counts.dram_read_bytes == less
    for n2s in ("a", "b"):
        p = engines_of(tiny)[0].problem(op, n2s)  # type: ignore[attr-defined]
        assert (p.north_tensor if n2s == "b" else p.west_tensor) == kept


def test_steps_are_the_same_with_their_witness() -> None:
    tiny = load_spec("tiny")
    for bits in (0, 4):
        found = schedule(grouped(step(), "1x16", 0.5, bits), tiny, Objective.CYCLES)
        assert [op.sparse is not None for op in found.as_run.matrix_ops] == [True, True, False]
        assert energy(simulate(found)).joules > 0
        require_same(simulate_system(found), simulate_system(found, witness=True))
        assert simulate_system(found).step.counts.dram_bytes == simulate(found).counts.dram_bytes


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="are for use: trace a step with use infer or decode"):
        grouped(Workload(model="one", batch=4, ops=(make_op(GEMM),)), "1x16", 0.5)
    with pytest.raises(InputError, match="no layer of 'three' but its last has whole groups of 1x24"):
        grouped(step(), "1x24", 0.5)
    with pytest.raises(InputError, match=r"density of a mask must be above 0 to 1, not 1\.5"):
        grouped(step(), "1x16", 1.5)
    gathers = replace(load_spec("tiny"), gather=GatherSpec(lanes=2, width=2))
    sparse = Groups(
        operand="b", shape=GroupShape.parse("1x16"), kept=Drawn(density=0.5, distribution="balanced"), expanded=True
    )
    (engine,) = (engine for engine in engines_of(gathers) if engine.kind == "gather")
    with pytest.raises(InputError, match="are put back, and it leaves them out"):
        engine.place(make_op(GEMM, sparse=sparse), Objective.CYCLES)
    assert place(make_op(GEMM, sparse=sparse), gathers, Objective.CYCLES).engine == "STCE"
    assert weft.machine("tiny") == load_spec("tiny")
