"""The step level: order and sum of ops, update and vector work by hand, overlap of SORE with the update."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.dataflow.account import Counts, Cycles
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import MOST_STEPPED, simulate
from weft.simulator.system import step_time
from weft.workloads.copies import CompactCopy
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import Operand, Role
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload

SAT = load_spec("sat-vcu1525")
BYTES_PER_CYCLE = 76.8e9 * 0.89 / 200e6
TWO_OF_EIGHT = NMPattern(keep=2, group=8)


def _run(*ops, spec=SAT, optimizer="sgd"):
    return simulate(schedule(Workload(model="m", batch=1, optimizer=optimizer, ops=ops), spec))


def _linear(pass_: Pass = Pass.FF) -> MatrixOp:
    value = Operand(role=Role.ACTIVATION, dtype="float32", bytes=4 * 64 * 64)
    return MatrixOp(name="fc", op="aten.mm", pass_=pass_, gemm=Gemm(m=64, k=64, n=64), a=value, b=value, c=value)


def _vector(elements: int, read: int, write: int, dtype: str = "float32") -> VectorOp:
    return VectorOp(
        name="relu", op="aten.relu", pass_=Pass.FF, dtype=dtype, elements=elements, read_bytes=read, write_bytes=write
    )


def test_vector_work_takes_its_lanes_or_its_traffic():
    many_elements = _run(_vector(elements=64_000, read=64, write=64)).ops[0]
    many_bytes = _run(_vector(elements=64, read=10**6, write=10**6, dtype="float16")).ops[0]

    assert many_elements.cycles == Cycles(vector=1000)
    assert many_bytes.cycles.vector == pytest.approx(2e6 / BYTES_PER_CYCLE, rel=1e-3)


def test_floating_traffic_is_halved_to_fp16_and_integers_are_not():
    single = _run(_vector(elements=1, read=400, write=200)).ops[0].counts
    index = _run(_vector(elements=1, read=400, write=200, dtype="int64")).ops[0].counts

    assert (single.dram_read_bytes, single.dram_write_bytes) == (200, 100)
    assert (index.dram_read_bytes, index.dram_write_bytes) == (400, 200)


@pytest.mark.parametrize(
    ("optimizer", "read", "write"), [("sgd", 10, 10), ("nesterov", 10, 10), ("adam", 14, 14), ("adamw", 14, 14)]
)
def test_update_traffic_by_hand(optimizer, read, write):
    result = _run(UpdateOp(name="w", elements=1_000_000), optimizer=optimizer).ops[0]

    assert result.counts == Counts(
        dram_read_bytes=read * 1_000_000, dram_write_bytes=write * 1_000_000, updates=1_000_000
    )
    assert result.cycles.wuve == pytest.approx((read + write) * 1e6 / BYTES_PER_CYCLE, rel=1e-3)


def test_compact_copies_replace_the_dense_one_and_hide_behind_the_update():
    copy = CompactCopy(pattern=TWO_OF_EIGHT, groups=8_000, kept=16_000)
    dense = _run(UpdateOp(name="w", elements=64_000)).ops[0]
    both = _run(UpdateOp(name="w", elements=64_000, dense_copy=False, copies=(copy, copy))).ops[0]

    assert both.counts.dram_write_bytes == dense.counts.dram_write_bytes - 2 * 64_000 + 2 * (16_000 * 19 // 8)
    # 1,000 blocks of 8 x 8 are 250 tiles of 2 x 8 cycles, behind a depth of 20, the 8 of the first tile, and before the
    # last 2 pairs; against 64,000 x 19.1 bytes SORE is just the longer.
    assert both.cycles.total == 20 + 8 + 250 * 16 + 2
    assert both.cycles.sore == both.cycles.total - both.cycles.wuve > 0


def test_network_sore_hides_completely():
    copy = CompactCopy(pattern=TWO_OF_EIGHT, groups=8_000, kept=16_000)
    network = replace(SAT, sore=replace(SAT.sore, kind="network"))

    result = _run(UpdateOp(name="w", elements=64_000, dense_copy=False, copies=(copy, copy)), spec=network).ops[0]

    assert result.cycles.sore == 0


def test_without_pregeneration_the_dense_copy_is_written_and_nothing_is_compressed():
    copy = CompactCopy(pattern=TWO_OF_EIGHT, groups=8_000, kept=16_000)
    late = replace(SAT, wuve=replace(SAT.wuve, pregenerate=False))
    plain = _run(UpdateOp(name="w", elements=64_000)).ops[0]

    result = _run(UpdateOp(name="w", elements=64_000, dense_copy=False, copies=(copy, copy)), spec=late).ops[0]

    assert (result.cycles, result.counts) == (plain.cycles, plain.counts)


def test_step_is_the_sum_of_its_ops_in_order():
    ops = (_linear(), _vector(10, 40, 40), _linear(Pass.WU), UpdateOp(name="fc.weight", elements=4096))

    result = _run(*ops)

    assert [r.op for r in result.ops] == list(ops)
    assert result.cycles.total == sum(r.cycles.total for r in result.ops)
    assert [r.op for r in result.select(Pass.WU)] == [ops[2]]
    assert result.counts.macs == 2 * 64**3
    assert 0 < result.utilization <= 1


def test_progress_counts_every_op():
    seen = []
    plan = schedule(Workload(model="m", batch=1, ops=(_linear(), _linear())), SAT)

    simulate(plan, progress=lambda done, of: seen.append((done, of)))

    assert seen == [(1, 2), (2, 2)]


def test_the_witness_sees_a_placement_that_the_phases_do_not_come_to():
    plan = schedule(Workload(model="m", batch=1, ops=(_linear(),)), SAT)
    simulate(plan, witness=True)
    placement = plan.placements[0]
    for wrong in (
        replace(placement, cycles=replace(placement.cycles, dram_stall=placement.cycles.dram_stall + 1)),
        replace(placement, counts=replace(placement.counts, dram_read_bytes=placement.counts.dram_read_bytes - 2)),
    ):
        with pytest.raises(AssertionError, match="fc: the stepped phases come to"):
            simulate(replace(plan, placements=(wrong,)), witness=True)


def _many(groups: int) -> MatrixOp:
    value = Operand(role=Role.ACTIVATION, dtype="float16", bytes=2 * groups)
    gemm = Gemm(m=1, k=1, n=1, groups=groups)
    return MatrixOp(name="fc", op="aten.mm", pass_=Pass.FF, gemm=gemm, a=value, b=value, c=value)


def test_time_does_not_grow_with_groups():
    """2^33 products of 1 x 1 x 1, an adder of 4 cycles each; stepping them takes hours. 2^22 of them are stepped."""
    plan = schedule(Workload(model="m", batch=1, ops=(_many(MOST_STEPPED),)), SAT)
    ends = simulate(plan, witness=True).cycles.total - 4 * MOST_STEPPED

    assert _run(_many(2**33)).cycles.total == 4 * 2**33 + ends
    with pytest.raises(InputError, match="more than the system level takes"):
        step_time(schedule(Workload(model="m", batch=1, ops=(_many(2**33),)), SAT))


def test_what_the_system_level_cannot_time_exactly_is_refused():
    slow = replace(SAT, clock_hz=10**6, dram=replace(SAT.dram, bytes_per_second=10**12))
    for elements, count in ((2**50, 1), (2**39, 2**5)):
        ops = tuple(_vector(elements=elements, read=2, write=2, dtype="float16") for _ in range(count))

        with pytest.raises(InputError, match="more than the system level can time exactly"):
            step_time(schedule(Workload(model="m", batch=1, ops=ops), slow))
