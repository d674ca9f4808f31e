"""What stays on chip: played op by op in a memory of bytes, never more moved or waited for, both levels alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.analysis.dram_tensors import dram_tensors
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.cli import main
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.batch.evaluate import evaluate
from weft.dataflow.beside import joined_products
from weft.dataflow.fusion.crossings import crossings
from weft.dataflow.fusion.fuse import FUSIONS, groups_of
from weft.dataflow.program.spaces import Target
from weft.dataflow.residency import Residency
from weft.dataflow.schedule import schedule
from weft.simulator.order import in_turn, order_of, serial_order
from weft.simulator.result import SimResult
from weft.simulator.step import simulate
from weft.simulator.step_requests import step_requests
from weft.simulator.system import require_same, simulate_system
from weft.simulator.transfers import OneRate
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import save_workload
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, Workload
from weft.workloads.trace import trace_step
from weft.workloads.update_rule import SGD

from ..examples_drawn import examples
from . import fusion_interpreter
from .fusion_interpreter import Trips
from .problems import step_of_layers
from .test_fusion import GRAPHS, TINY, graph

SAT = weft.machine("sat-vcu1525")


def holding(spec: AcceleratorSpec, size: int) -> AcceleratorSpec:
    return replace(spec, buffers=replace(spec.buffers, resident_bytes=size))


STEPS = st.tuples(
    st.integers(0, GRAPHS - 1),
    st.sampled_from(("none", "full")),
    st.sampled_from(("dense", "bdwp", "sdgp")),
    st.sampled_from((64, 256, 1000, 4096, 2**14, 2**16, 2**20)),
    st.booleans(),
)
"""Graph, fusion, scheme, bytes for tensors, large or small array."""


def made(drawn: tuple[int, str, str, int, bool]) -> tuple[Workload, AcceleratorSpec]:
    seed, fusion, scheme, size, large = drawn
    step = weft.fuse(graph(seed), fusion)
    if scheme != "dense":
        step = annotate(step, scheme, NMPattern(keep=2, group=8))
    return step, holding(SAT if large else replace(TINY, buffers=SAT.buffers), size)


def play(result: SimResult, found: Residency) -> list[tuple[int, int]]:
    """Bytes that every op reads and writes on chip; AssertionError where one does not find there what it reads.

    The memory is its bytes, each with the tensor that lies there. What is held across steps lies there from the last.
    """
    memory, across = np.full(found.capacity, -1, np.int32), (0, len(result.ops) - 1)
    places = list(zip(found.kept, found.offsets, strict=True))
    for number, (one, at) in enumerate(places):
        if (one.first, one.last) == across:
            assert (memory[at : at + one.size] == -1).all(), "two tensors are held across steps in one place"
            memory[at : at + one.size] = number
    moved = []
    for i, run in enumerate(result.ops):
        read = write = 0
        for number, (one, at) in enumerate(places):
            lies = memory[at : at + one.size]
            assert len(lies) == one.size, "a tensor lies beyond the end"
            for use in (use for use in one.uses if use.op == i):
                assert one.first <= i <= one.last
                # A sum that is added up in place is written before it is read.
                if use.write and (one.first, one.last) != across:
                    lies[:] = number
                assert (lies == number).all(), f"op {i}, {run.op.name}, does not find its {one.kind} {one.name}"
                read, write = read + use.read, write + use.write
        moved.append((read, write))
    return moved


@settings(max_examples=examples(6), deadline=None)
@given(STEPS)
def test_every_op_finds_what_it_reads_and_nothing_is_more_than_without(drawn):
    step, spec = made(drawn)
    free, held = simulate(schedule(step, holding(spec, 0))), simulate(schedule(step, spec), witness=True)
    found = held.residency
    assert free.residency is None
    assert found is not None
    assert found.peak <= found.capacity
    for a, b, (read, write) in zip(free.ops, held.ops, play(held, found), strict=True):
        assert a.counts.dram_read_bytes - b.counts.dram_read_bytes == read
        assert a.counts.dram_write_bytes - b.counts.dram_write_bytes == write
        assert getattr(b.counts, "resident_read_bytes", 0) == read
        assert getattr(b.counts, "resident_write_bytes", 0) == write
        assert (a.counts.buffer_bytes, a.counts.macs) == (b.counts.buffer_bytes, b.counts.macs)
        assert min(b.counts.dram_read_bytes, b.counts.dram_write_bytes) >= 0
        assert b.bound_cycles <= b.cycles.total or not isinstance(b.op, MatrixOp)
    for before, after in zip(_trips(free), _trips(held), strict=True):
        assert after <= before
    assert free.counts.dram_bytes - held.counts.dram_bytes == found.saved
    assert sum(row.read_bytes + row.write_bytes for row in dram_tensors(held)) == held.counts.dram_bytes


def _trips(result: SimResult) -> list[int]:
    """Cycles of every op with the work that is joined to it: a faster product hides less of that."""
    behind, cycles = joined_products([one.op for one in result.ops]), [one.cycles.total for one in result.ops]
    for i, (product, _) in behind.items():
        cycles[product] += cycles[i]
        cycles[i] = 0
    return cycles


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_crosses_memory_is_what_an_interpreter_sees_cross_it(fusion: str) -> None:
    """Who leaves a tensor in DRAM and who fetches it, trip by trip; what the pass leaves out is a share."""
    seen = told = 0
    for seed in range(0, GRAPHS, 3):
        step, groups = graph(seed), groups_of(graph(seed), fusion)
        heads = {i: group.head for group in groups.groups for i in group.ops}
        trips: Trips = {}
        fusion_interpreter.play(step, groups, trips)
        for one in crossings(weft.fuse(step, fusion)):
            readers = {heads.get(i, i) for i, _ in one.read}
            assert (one.first, readers) == trips[one.tensor], (seed, one)
            told += 1
        seen += sum(bool(readers) for _, readers in trips.values())
    assert 0.6 * seen < told <= seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "swin_t", "lstm_lm", "unet_s", "cnv", "birealnet", "snn_t4"]
)
def test_nothing_is_more_in_models_of_the_zoo(name: str) -> None:
    for size in (2**20, 2**24):
        step = annotate(weft.fuse(trace_step(zoo.source(name)), "full"), "bdwp", NMPattern(keep=2, group=8))
        free, held = (simulate(schedule(step, holding(SAT, n))) for n in (0, size))
        assert held.residency is not None
        moved = play(held, held.residency)
        for a, b, (read, write) in zip(free.ops, held.ops, moved, strict=True):
            assert a.counts.dram_read_bytes - b.counts.dram_read_bytes == read
            assert a.counts.dram_write_bytes - b.counts.dram_write_bytes == write
        assert all(after <= before for before, after in zip(_trips(free), _trips(held), strict=True))


@settings(max_examples=examples(6), deadline=None)
@given(STEPS)
def test_with_ops_overlapped_as_many_bytes_are_moved_and_no_place_is_taken_before_it_is_free(drawn):
    step, spec = made(drawn)
    plan = schedule(step, spec)
    found = plan.residency
    assert found is not None
    system = simulate_system(plan)
    require_same(system, simulate_system(plan, witness=True))
    moved = {name: int(intervals.moved.sum()) for name, intervals in system.record().timeline.items()}
    assert moved["DRAM"] == system.step.counts.dram_bytes
    in_series = simulate_system(plan, serial_order(plan.workload), OneRate())
    assert in_series.cycles == system.step.cycles.total
    spans = [
        (at, at + one.size, min(system.start[use.op] for use in one.uses), max(system.end[use.op] for use in one.uses))
        for one, at in zip(found.kept, found.offsets, strict=True)
        if one.last - one.first < len(step.ops) - 1
    ]
    for n, (low, high, begin, end) in enumerate(spans):
        for other in spans[:n]:
            assert high <= other[0] or other[1] <= low or end <= other[2] or other[3] <= begin


def test_a_place_that_is_used_again_is_waited_for():
    """Two layers, each updated behind its own products, and room for one gradient: both lie there, one after the
    other."""
    step = step_of_layers((64, 8, 8), (64, 8, 8))
    plan = schedule(step, holding(SAT, 128))
    assert plan.residency is not None
    assert [(one.kind, one.first, one.last) for one in plan.residency.kept] == [("gradient", 2, 3), ("gradient", 6, 7)]
    assert plan.residency.turns() == {6: {2, 3}}
    assert 3 not in order_of(step).after[6]
    assert {2, 3} <= set(in_turn(order_of(step), plan.residency).after[6])
    system = simulate_system(plan)
    assert system.start[6] >= system.end[3]


def test_all_that_is_held_leaves_what_no_parameter_moves_and_some_leaves_more():
    step = weft.fuse(weft.trace("resnet9", batch=2), "full")
    none, some, every = (simulate(schedule(step, holding(SAT, size))) for size in (0, 2**24, 2**32))
    assert some.residency is not None
    assert every.residency is not None
    assert set(every.residency.kept) == set(every.residency.candidates)
    assert 0 < every.counts.dram_bytes < some.counts.dram_bytes < none.counts.dram_bytes
    updates = [one for one in every.ops if isinstance(one.op, UpdateOp)]
    by_product = {op.parameter for op in step.ops if isinstance(op, MatrixOp) and op.pass_ is Pass.WU}
    # The gradients of norms are results of vector work.
    left = sum(SAT.pe.operand.size(one.op.elements) for one in updates if one.op.name not in by_product)
    assert sum(one.counts.dram_bytes for one in updates) == left > 0


def test_weights_that_nothing_trains_stay_across_steps():
    step = weft.trace("vit_s", batch=1, use="infer")
    none, every = (simulate(schedule(step, holding(SAT, size))) for size in (0, 2**28))
    assert every.residency is not None
    weights = sum(one.size for one in every.residency.kept if one.kind == "weight")
    assert none.counts.dram_read_bytes - every.counts.dram_read_bytes >= weights > 0
    assert every.cycles.total < none.cycles.total


def test_the_memory_is_paid_for():
    """By hand: bits on chip at the price of a bank of 4 MiB, those of the buffers as before; its banks leak."""
    step = weft.fuse(weft.trace("resnet9", batch=2), "full")
    free, held = (simulate(schedule(step, holding(SAT, size))) for size in (0, 2**24))
    table, counts = load_table("asic-16nm"), held.counts
    before, after = ({row.action.name: row for row in energy(result, table).rows} for result in (free, held))
    for way in ("read", "write"):
        row = after[f"resident memory {way}"]
        assert row.count == 8 * getattr(counts, f"resident_{way}_bytes")
        usual = after["W2E buffer read" if way == "read" else "output buffer write"]
        assert 1 < row.pj_each / usual.pj_each < 10
        assert row.pj_each < after[f"DRAM {way}"].pj_each / 3
    assert after["buffer write by DMA"].count == before["buffer write by DMA"].count
    assert after["buffer read by DMA"].count == before["buffer read by DMA"].count
    banks = sum(size // 2**16 for size in (SAT.buffers.w2e_bytes, SAT.buffers.n2s_bytes, SAT.buffers.output_bytes))
    leaks = after["static power"].pj_each / before["static power"].pj_each
    assert leaks == pytest.approx((banks + 256) / banks, rel=1e-6)
    assert energy(held, table).joules < energy(free, table).joules
    # On an FPGA a bit of any memory has one price.
    fabric = {row.action.name: row.pj_each for row in energy(held, load_table("fpga-ultrascale-plus")).rows}
    assert fabric["resident memory read"] == fabric["W2E buffer read"]


def test_what_cannot_know_of_it_says_so():
    step = graph(2)
    plan = schedule(step, holding(SAT, 4096))
    with pytest.raises(InputError, match="for this one, or 0 bytes"):
        evaluate(step, [holding(SAT, 4096)])
    with pytest.raises(InputError, match="ask for it with 0 bytes"):
        step_requests(plan, simulate(plan))
    with pytest.raises(InputError, match="machine of programs has no memory"):
        Target(spec=holding(SAT, 4096), rule=SGD)
    with pytest.raises(InputError, match="resident_bytes must be"):
        holding(SAT, -1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_workload(graph(3), tmp_path / "toy.json")
    return tmp_path / "toy.json"


def test_a_run_says_what_stays(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["run", str(model), "--arch", "tiny", "--scheme", "dense", "--resident", "4KiB"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    held = simulate(schedule(weft.sparsify(graph(3), "dense"), holding(TINY, 4096)))
    found = held.residency
    assert found is not None
    assert f"Stays on chip: {len(found.kept)} of {len(found.candidates)} tensors in " in out
    assert main([*asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["residency"]["saved_bytes"] == found.saved
    assert sum(one["saved_read_bytes"] for one in said["residency"]["kept"]) == held.counts.resident_read_bytes
    assert (said["cycles"], said["resident_write_bytes"]) == (held.cycles.total, held.counts.resident_write_bytes)
    assert main([*asked[:-1], "0", "--json"]) == 0
    assert "residency" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("size", ["-1", "4 apples", "0.3B", "99999GiB"])
def test_sizes_that_are_none_are_refused(size: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(model), "--arch", "tiny", "--resident", size]) != 0
    assert "16MiB" in (said := capsys.readouterr().err) or "resident_bytes" in said
