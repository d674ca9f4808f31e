"""The system level: equal to the step in series, SimPy equal to the recurrence, conservation laws, order by role."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import evaluate
from weft.dataflow.integers import ceil_div
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.problem import RATE
from weft.dataflow.schedule import Schedule, schedule
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.simulator.kernels.tasks import Tasks
from weft.simulator.order import Order, order_of, role_order, serial_order
from weft.simulator.step import simulate
from weft.simulator.system import op_times, require_same, simulate_system, step_time
from weft.simulator.system_result import EngineUse, SystemResult
from weft.simulator.tasks import tasks_of
from weft.simulator.transfers import OneRate
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.models import zoo
from weft.workloads.operand import Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from weft.workloads.trace import trace_step

from ..dataflow.problems import machines, make_op
from ..examples_drawn import examples
from .plans import memories, orders, plans

SAT = load_spec("sat-vcu1525")
TWO_OF_EIGHT = NMPattern(keep=2, group=8)


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_in_series_the_system_is_the_step(data):
    plan = data.draw(plans())
    step, order = simulate(plan), serial_order(plan.workload)

    system = simulate_system(plan, order, OneRate())

    assert system.cycles == step_time(plan, order, OneRate()) == step.cycles.total
    took = -(-(system.end - system.start) // system.rate)
    assert took.tolist() == [r.cycles.total for r in step.ops]
    assert (system.start % system.rate == 0).all()


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_events_and_recurrence_agree_in_every_op(data):
    plan = data.draw(plans())
    order, transfers = data.draw(orders(plan)), data.draw(memories(plan.spec))

    events = simulate_system(plan, order, transfers, witness=True)
    system = simulate_system(plan, order, transfers)

    require_same(system, events)
    start, end = op_times(tasks_of(plan, order, transfers))
    assert (start.tolist(), end.tolist()) == (system.start.tolist(), system.end.tolist())


def test_a_difference_between_events_and_recurrence_is_told():
    plan = _plan(_linear("one"), _linear("two"))
    events = simulate_system(plan, witness=True)
    require_same(simulate_system(plan), events)
    wrong = events.record()
    wrong.timeline["DRAM"].moved[1] += 1
    with pytest.raises(AssertionError, match="disagree in DRAM"):
        require_same(simulate_system(plan), replace(events, record=lambda: wrong))
    other = replace(events, engines={**events.engines, "SORE": EngineUse(busy=1)})
    with pytest.raises(AssertionError, match="what engines do"):
        require_same(simulate_system(plan), other)


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_conservation(data):
    plan = data.draw(plans())
    order, transfers = data.draw(orders(plan)), data.draw(memories(plan.spec))
    tasks, step = tasks_of(plan, order, transfers), simulate(plan)

    system = simulate_system(plan, order, transfers)

    happened, total = system.record(), int(system.end.max())
    assert (system.start >= 0).all()
    assert (system.start <= system.end).all()
    for name, use in system.engines.items():
        assert use.total == total
        assert min(use.busy, use.fill_drain, use.dram, use.sore, use.dependency, use.idle) >= 0
        spans = happened.timeline[name]
        assert all(a <= b for a, b in pairwise(np.stack([spans.start, spans.end], 1).ravel().tolist())), "two at once"
        assert use.busy == int((spans.end - spans.start).sum())
    counts = step.counts
    served = happened.timeline["DRAM"]
    assert served.moved.sum() == counts.dram_bytes
    assert np.bincount(served.op, served.moved, len(tasks.engine)).tolist() == [r.counts.dram_bytes for r in step.ops]
    if transfers == OneRate():
        assert int((served.end - served.start).sum()) == counts.dram_bytes * RATE
    for held in happened.buffers.values():
        assert held.time[0] == 0 == held.halves[-1]
        assert (held.time[1:] > held.time[:-1]).all() and set(held.halves.tolist()) <= {0, 1, 2}
    for read, store, r in zip(_bytes_read(tasks), tasks.store.tolist(), step.ops, strict=True):
        # The last results are read before they are stored where col2im adds them up in memory.
        assert r.counts.dram_read_bytes - read in (0, store / 2)
    for op, waits_for in enumerate(order.after):
        for other in waits_for:
            _assert_after(system, order, op, int(system.end[other]))
    if transfers == OneRate():
        assert total <= _at_most(tasks, step.cycles.total)


def _of_ops(tasks: Tasks, of_phase: np.ndarray) -> list[int]:
    """Sums over the phases of every op."""
    pieces = zip(tasks.first.tolist(), tasks.behind.tolist(), strict=True)
    return [int((of_phase[a:b] * tasks.times[a:b]).sum()) for a, b in pieces]


def _bytes_read(tasks: Tasks) -> list[int]:
    """By op, but for what is read with the last store."""
    in_phases = _of_ops(tasks, tasks.read)
    return [sum(read) for read in zip(in_phases, tasks.west.tolist(), tasks.north.tolist(), strict=True)]


def _assert_after(system: SystemResult, order: Order, op: int, end: int) -> None:
    """Nothing of an op but the load of a ready weight happens before what it waits for has ended."""
    for name, spans in system.record().timeline.items():
        if not (order.weight_ready[op] and name in ("DRAM", "SORE")):
            assert (spans.start[spans.op == op] >= end).all()
    if not order.weight_ready[op]:
        assert system.start[op] >= end


def _at_most(tasks: Tasks, step_cycles: int) -> int:
    """What docs/design/machine.md proves: phases with both transfers and SORE may add them, ops end at whole cycles."""
    moved = (tasks.read + tasks.written) * RATE
    both = sum(_of_ops(tasks, np.minimum(moved, tasks.sore)))
    both += int(np.minimum((tasks.west + tasks.north) * RATE, tasks.north_sore).sum())
    return (step_cycles + len(tasks.engine)) * tasks.rate + both


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_order_by_role_waits_for_no_update_and_never_adds_to_the_step(data):
    plan = data.draw(plans())
    order, ops = role_order(plan.workload), plan.workload.ops

    for i, waits_for in enumerate(order.after):
        assert not any(isinstance(ops[other], UpdateOp) for other in waits_for)
        assert isinstance(ops[i], UpdateOp) or all(other < i for other in waits_for)
    tasks = tasks_of(plan, order, OneRate())
    assert op_times(tasks)[1].max() <= _at_most(tasks, simulate(plan).cycles.total)


def _linear(name: str, pass_: Pass = Pass.FF, rows: int = 64) -> MatrixOp:
    """rows x 64 x 64 over FP16."""
    gemm = {Pass.FF: Gemm(m=rows, k=64, n=64), Pass.BP: Gemm(m=rows, k=64, n=64), Pass.WU: Gemm(m=64, k=rows, n=64)}[
        pass_
    ]
    op = make_op(gemm, pass_=pass_)
    roles = {
        Pass.FF: (Role.ACTIVATION, Role.WEIGHT, Role.ACTIVATION),
        Pass.BP: (Role.GRADIENT, Role.WEIGHT, Role.GRADIENT),
        Pass.WU: (Role.GRADIENT, Role.ACTIVATION, Role.GRADIENT),
    }[pass_]
    a, b, c = (replace(x, role=role) for x, role in zip((op.a, op.b, op.c), roles, strict=True))
    return replace(op, name=name, parameter=f"{name}.weight", a=a, b=b, c=c)


def _plan(*ops: Op, spec: AcceleratorSpec = SAT) -> Schedule:
    return schedule(Workload(model="m", batch=1, ops=ops), spec)


def test_the_weight_of_the_next_op_is_loaded_under_the_last_one():
    """The second of two products waits for its input only: one weight's transfer less than in series."""
    plan = _plan(_linear("one"), _linear("two"))
    held = evaluate(_linear("one"), SAT, replace(plan.placements[0].mapping, resident=True))
    plan = replace(plan, placements=(held, held))
    weight = 2 * 64 * 64 * RATE
    overlapped = tasks_of(plan, transfers=OneRate())
    in_series = int(op_times(tasks_of(plan, serial_order(plan.workload), OneRate()))[1][1])

    assert int(op_times(overlapped)[1][1]) == in_series - weight
    assert step_time(plan, transfers=OneRate()) == ceil_div(in_series - weight, overlapped.rate)


def test_an_update_runs_under_the_backward_pass_of_the_layer_before():
    ops = (
        _linear("one", rows=8192),
        _linear("two", rows=8192),
        _linear("two", Pass.BP, 8192),
        _linear("two", Pass.WU, 8192),
        _linear("one", Pass.WU, 8192),
        UpdateOp(name="one.weight", elements=4096),
        UpdateOp(name="two.weight", elements=4096),
    )
    plan = _plan(*ops)

    system = simulate_system(plan)

    first, second = system.start[6], system.end[4]
    assert system.end[3] <= first < second, "the update of the later layer starts before the first layer is done"
    assert system.start[5] >= system.end[4]
    assert system.cycles < system.step.cycles.total


def test_vector_work_of_the_next_layer_runs_under_the_weight_gradient_of_this_one():
    relu = VectorOp(
        name="relu",
        op="aten.threshold_backward",
        pass_=Pass.BP,
        dtype="float16",
        elements=64 * 8192,
        read_bytes=2**20,
        write_bytes=2**20,
    )
    ops = (_linear("two", Pass.BP, 8192), _linear("two", Pass.WU, 8192), relu, _linear("one", Pass.BP, 8192))
    system = simulate_system(_plan(*ops))

    assert system.start[2] < system.end[1]
    assert system.start[2] >= system.end[0]
    array = system.engines["STCE"]
    assert array.dependency >= 0 < array.busy


def test_order_by_role_by_hand():
    relu = VectorOp(name="act", op="aten.relu", pass_=Pass.FF, dtype="float16", elements=9, read_bytes=2, write_bytes=2)
    bias = VectorOp(name="two", op="aten.sum", pass_=Pass.WU, dtype="float16", elements=9, read_bytes=2, write_bytes=2)
    back = replace(relu, pass_=Pass.BP)
    ops = (
        _linear("one"),
        relu,
        _linear("two"),  # 0 1 2
        _linear("two", Pass.BP),
        _linear("two", Pass.WU),
        bias,  # 3 4 5
        back,
        _linear("one", Pass.WU),  # 6 7
        *(UpdateOp(name=name, elements=9) for name in ("one.weight", "two.weight", "two.bias", "act.scale", "lost")),
    )

    order = role_order(Workload(model="m", batch=1, ops=ops))

    assert order.after[:8] == ((), (0,), (1,), (2,), (2,), (3, 4), (3,), (5, 6))
    assert order.after[8:] == ((0, 7), (3, 5), (3, 5), (6,), (6, 7))
    assert [i for i, ready in enumerate(order.weight_ready) if ready] == [0, 2, 3, 4, 7]


def test_a_weight_that_vector_work_may_have_made_is_waited_for():
    def cast(name: str) -> VectorOp:
        return VectorOp(
            name=name, op="aten._to_copy", pass_=Pass.FF, dtype="float16", elements=9, read_bytes=2, write_bytes=2
        )

    ops = (cast("one.parametrizations.weight"), _linear("one"), _linear("two"), cast("two"), _linear("two", Pass.BP))

    assert role_order(Workload(model="m", batch=1, ops=ops)).weight_ready == (False, False, True, False, False)


def test_a_real_step_overlaps_and_every_update_waits_for_its_gradient():
    workload = annotate(trace_step(zoo.source("resnet9"), batch=4), "bdwp", TWO_OF_EIGHT)
    plan = schedule(workload, SAT)

    system = simulate_system(plan)

    assert system.cycles == step_time(plan)
    assert max(use.busy for use in system.engines.values()) <= system.cycles * system.rate
    assert system.cycles < system.step.cycles.total
    order = order_of(workload)
    for i, op in enumerate(workload.ops):
        if isinstance(op, UpdateOp):
            makers = [o for o in order.after[i] if workload.ops[o].pass_ in (Pass.BP, Pass.WU)]
            assert makers and len(order.after[i]) <= 3, op.name
            assert system.start[i] >= max(system.end[o] for o in makers)
    assert tasks_of(plan).engine.tolist().count(0) == len(workload.matrix_ops)


@pytest.mark.parametrize("model", ["resnet9", "vit_s", "bert_base", "mobilenet_v2", "unet_s", "lstm_lm"])
def test_order_by_role_lets_nothing_go_before_what_the_tensors_of_a_trace_tell(model: str):
    step = trace_step(zoo.source(model), batch=2)
    before = np.zeros((len(step.ops), len(step.ops)), bool)

    for i, waits_for in enumerate(role_order(step).after):
        for other in waits_for:
            before[i] |= before[other]
            before[i, other] = True

    missing = [
        (step.ops[i].name, other) for i, others in enumerate(step.after) for other in others if not before[i, other]
    ]
    assert not missing
    assert order_of(step).after == step.after
    assert order_of(replace(step, after=())) == role_order(step)


def test_progress_counts_every_op():
    seen: list[tuple[int, int]] = []

    plan = _plan(_linear("one"), _linear("two"))
    simulate_system(plan, progress=lambda done, of: seen.append((done, of)), witness=True)

    assert seen == [(1, 2), (2, 2)]


def test_too_many_macro_tiles_are_refused(monkeypatch):
    monkeypatch.setattr("weft.simulator.tasks._MOST_PHASES", 2**12)
    op = make_op(Gemm(m=4, k=4, n=4, groups=2**13))

    with pytest.raises(InputError, match="takes 8,192 macro-tiles on 'tiny', more than the system level takes"):
        step_time(_plan(op, spec=load_spec("tiny")))


def test_equal_phases_are_stored_once():
    tasks = tasks_of(_plan(make_op(Gemm(m=4, k=4, n=4, groups=2**20)), spec=load_spec("tiny")))

    assert int(tasks.times.sum()) == 2**20
    assert len(tasks.times) < 8


def test_of_a_step_of_too_many_phases_no_service_is_kept(monkeypatch):
    plan = _plan(_linear("one"), _linear("two"))
    whole = simulate_system(plan)
    monkeypatch.setattr("weft.simulator.system.MOST_LOGGED", 1)
    system = simulate_system(plan)

    assert system.record() is None
    assert (system.engines, system.end.tolist()) == (whole.engines, whole.end.tolist())


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_short_op_between_a_long_store_and_a_streamed_op(data):
    """The last stores of two ops hold both halves of the output buffer; free draws hardly ever come here."""
    spec = replace(data.draw(machines()), buffers=BufferSpec(w2e_bytes=2**14, n2s_bytes=2**14, output_bytes=2**14))
    large, small = make_op(Gemm(m=32, k=1, n=32)), make_op(Gemm(m=1, k=1, n=1))
    array = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)

    def placed(op, resident):
        sides = {"tile_rows": op.gemm.m, "tile_cols": op.gemm.n}
        if not resident:
            sides = {"tile_rows": min(op.gemm.m, spec.array.rows), "tile_cols": min(op.gemm.n, spec.array.cols)}
        return evaluate(op, spec, Mapping(array=array, gemm=op.gemm, n2s="b", resident=resident, order="mn", **sides))

    placements = placed(large, True), placed(small, data.draw(st.booleans())), placed(large, False)
    workload = Workload(model="m", batch=1, ops=(large, small, large))
    plan = Schedule(workload=workload, spec=spec, objective=Objective.CYCLES, placements=placements)
    order = Order(after=((), (), ()), weight_ready=(False,) * 3)

    system = simulate_system(plan, order, OneRate(), witness=True)
    start, end = op_times(tasks_of(plan, order, OneRate()))

    assert (system.start.tolist(), system.end.tolist()) == (start.tolist(), end.tolist())
