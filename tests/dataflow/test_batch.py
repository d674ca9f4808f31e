"""A step on many machines at once against `schedule` and `simulate` on each, and its front against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from operator import attrgetter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow import engines
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, VectorSpec, WuveSpec
from weft.dataflow.batch.columns import points_from_columns
from weft.dataflow.batch.evaluate import Evaluated, Status, evaluate
from weft.dataflow.batch.front import front, lower_bounds
from weft.dataflow.batch.points import points_of
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import engines_of
from weft.dataflow.operand import OPERAND_FORMATS
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.engine import Stce
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.levels import Levels
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from weft.workloads.trace import trace_step
from weft.workloads.update_rule import UPDATE_RULES

from ..examples_drawn import examples
from .problems import step_of_layers, with_levels

SAT = load_spec("sat-vcu1525")
LARGE = (
    ("resnet9", 512, "dense", ""),
    ("vit_s", 64, "bdwp", "2:8"),
    ("lstm_lm", 4, "bdwp-x", "1:4"),
    ("lstm_lm", 20, "srste", "2:8"),
    ("resnet50", 2, "bdwp", "2:8"),
    ("resnet50", 64, "bdwp", "1:16"),
)
Asked = tuple[str, int, str, str]


@cache
def workload(asked: Asked) -> Workload:
    model, batch, scheme, pattern = asked
    step = trace_step(zoo.source(model), batch=batch)
    return step if scheme == "dense" else annotate(step, scheme, NMPattern.parse(pattern))


def machine(draw: Random) -> AcceleratorSpec:
    """Machines of every proportion, some of which cannot run a step."""
    group, power = draw.choice((16, 16, 16, 8, 4)), draw.randint

    return replace(
        SAT,
        clock_hz=draw.choice((200_000_000, 1_000_000_000)),
        array=ArraySpec(rows=power(1, 128), cols=power(1, 64), w2e_words=power(1, 8)),
        pe=PESpec(
            max_group=group,
            accumulators=power(1, 16),
            dense_words=group * power(1, 4),
            weight_pairs=power(1, 8),
            multiply_latency=power(1, 4),
            add_latency=power(1, 8),
            format=draw.choice(tuple(OPERAND_FORMATS)),
        ),
        buffers=BufferSpec(w2e_bytes=2 ** power(7, 21), n2s_bytes=2 ** power(7, 21), output_bytes=2 ** power(7, 20)),
        sore=SoreSpec(lanes=power(1, 100), kind=draw.choice(("serial", "network"))),
        wuve=WuveSpec(lanes=power(1, 200), pregenerate=draw.random() < 0.7),
        vector=VectorSpec(lanes=power(1, 500)),
        dram=DramSpec(kind=SAT.dram.kind, bytes_per_second=2 ** power(20, 40), efficiency_percent=power(50, 100)),
    )


MACHINES = st.randoms(use_true_random=False).map(machine)
SCHEMES = st.sampled_from(("dense", "bdwp", "bdwp-x", "srste", "sdgp", "sdwp", "transposable-mvue"))
SIZES = st.tuples(*(st.sampled_from((1, 2, 5, 8, 16, 33, 64, 200)) for _ in range(3)))


@st.composite
def layers(draw: st.DrawFn) -> Workload:
    """Steps of a few linear layers, many of which N:M does not help."""
    optimizer, scheme = draw(st.sampled_from(tuple(UPDATE_RULES))), draw(SCHEMES)
    dense = step_of_layers(*draw(st.lists(SIZES, min_size=1, max_size=3)), optimizer=optimizer)
    group = draw(st.sampled_from((4, 8)))
    pattern = NMPattern(keep=group // draw(st.sampled_from((2, 4))), group=group)
    return dense if scheme == "dense" else annotate(dense, scheme, pattern)


def two_engines(draw: Random) -> AcceleratorSpec:
    """Machines of every proportion, most of them with an XNOR engine."""
    spec, power = machine(draw), draw.randint
    if draw.random() < 0.2:
        return spec
    own = XnorSpec(
        rows=power(1, 32),
        cols=power(1, 32),
        word_bits=draw.choice((8, 16, 64, 128)),
        accumulators=power(1, 16),
        dense_words=power(1, 16),
        weight_words=power(1, 8),
        popcount_latency=power(1, 4),
    )
    return replace(spec, xnor=own)


TWO_ENGINES = st.randoms(use_true_random=False).map(two_engines)
FEW_SCHEMES = st.sampled_from(("xnor", "bireal", "bitnet", "integer"))


@st.composite
def few_layers(draw: st.DrawFn) -> Workload:
    """Steps of a few linear layers under a scheme of few values, which leaves the first and the last alone."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=3))
    dense = step_of_layers((8, 8, 8), *sizes, (8, 8, 8), optimizer=draw(st.sampled_from(tuple(UPDATE_RULES))))
    return annotate(dense, draw(FEW_SCHEMES), None)


@st.composite
def levels_anywhere(draw: st.DrawFn) -> Workload:
    """Products of any levels, whose copies updates write and vector work packs for some of them or for all, scaled at
    an edge or not."""
    step = step_of_layers(*draw(st.lists(SIZES, min_size=1, max_size=3)))
    few, ops = st.none() | st.sampled_from(list(Levels)), list[Op]()
    results = st.sampled_from((("float32", None), ("int32", None), ("float32", Levels.BINARY)))
    for op in step.matrix_ops:
        made = with_levels(op, draw(few), draw(few), draw(results))
        ops.append(made)
        edge, packs = draw(st.booleans()), made.packed_operands if draw(st.booleans()) else ()
        size = 4 * made.c.elements
        ops.append(
            VectorOp(
                name=op.name,
                op="aten.mul",
                pass_=op.pass_,
                dtype="float32",
                elements=made.c.elements,
                read_bytes=size,
                write_bytes=size,
                parameter=draw(st.sampled_from((op.parameter, None))),
                packs=packs,
                wide_read=draw(st.sampled_from((0, 400))),
                edge=edge,
            )
        )
    for update in step.ops:
        if isinstance(update, UpdateOp):
            readers = [op for op in ops if isinstance(op, MatrixOp) and op.parameter == update.name]
            copies = dict.fromkeys(op.copy for op in readers if op.copy is not None)
            ops.append(replace(update, copies=tuple(copies), looks=draw(st.integers(0, 2))))
    return replace(step, ops=tuple(ops))


def one_by_one(step: Workload, specs: Sequence[AcceleratorSpec], objective: str) -> list[tuple[bool, int, int]]:
    """Whether each machine runs the step, its cycles and DRAM bytes."""
    rows = []
    for spec in specs:
        try:
            found = simulate(schedule(step, spec, objective))
        except InputError:
            rows.append((False, 0, 0))
        else:
            rows.append((True, found.cycles.total, found.counts.dram_bytes))
    return rows


def as_rows(found: Evaluated) -> list[tuple[bool, int, int]]:
    return [
        (status == Status.RUNS, int(cycles), int(moved))
        for status, cycles, moved in zip(found.status, found.cycles, found.dram_bytes, strict=True)
    ]


OBJECTIVES = st.sampled_from(("cycles", "thrift"))


@given(step=layers(), specs=st.lists(MACHINES, min_size=1, max_size=4), objective=OBJECTIVES)
@settings(max_examples=examples(600), deadline=None)
def test_is_the_schedule_of_each_machine(step, specs, objective):
    assert as_rows(evaluate(step, specs, objective)) == one_by_one(step, specs, objective)


@given(
    step=few_layers() | levels_anywhere() | layers(),
    specs=st.lists(TWO_ENGINES, min_size=1, max_size=4),
    objective=OBJECTIVES,
)
@settings(max_examples=examples(400), deadline=None)
def test_is_the_schedule_of_each_machine_with_two_engines(step, specs, objective):
    assert as_rows(evaluate(step, specs, objective)) == one_by_one(step, specs, objective)


@given(step=few_layers() | levels_anywhere(), base=TWO_ENGINES, draw=st.randoms(use_true_random=False))
@settings(max_examples=examples(90), deadline=None)
def test_machines_share_the_searches_of_either_engine(step, base, draw):
    """A grid: what varies is of the one, of the other, or the memory of both."""
    specs = [with_room(base, draw) for _ in range(4)]
    engines = [None, *(two_engines(draw).xnor for _ in range(3))]
    specs = [replace(spec, xnor=own) for spec in specs for own in engines]

    assert as_rows(evaluate(step, specs, "thrift")) == one_by_one(step, specs, "thrift")


@pytest.mark.parametrize("scheme", ["bireal", "bitnet", "dense"])
def test_is_the_schedule_of_presets_with_two_engines(scheme):
    """Some of whose products run on either engine."""
    step = trace_step(zoo.source("resnet9"), batch=4)
    step = step if scheme == "dense" else annotate(step, scheme, None)
    bases = [load_spec("bnn-vu9p"), load_spec("bnn-ecp5")]
    specs = [*bases, *(replace(spec, xnor=replace(spec.xnor, rows=1, cols=n)) for spec in bases for n in (1, 2))]

    assert as_rows(evaluate(step, specs, "cycles")) == one_by_one(step, specs, "cycles")
    on = [{placement.engine for placement in schedule(step, spec).placements if placement} for spec in specs]
    assert {"STCE"} in on if scheme == "dense" else {"STCE", "XNOR"} in on


@pytest.mark.parametrize("objective", ["cycles", "thrift"])
def test_is_the_schedule_of_traced_steps(objective):
    specs = [machine(Random(seed)) for seed in range(60)]
    step = workload(("resnet9", 4, "bdwp", "2:8"))

    found = evaluate(step, specs, objective)

    assert as_rows(found) == one_by_one(step, specs, objective)
    assert {Status.RUNS, Status.NO_ROOM, Status.PATTERN} <= set(found.status.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("asked", LARGE, ids=str)
@pytest.mark.parametrize("objective", ["cycles", "thrift"])
def test_thousands_are_the_schedule_of_each(objective, asked):
    specs = [machine(Random(seed)) for seed in range(500)]
    step = workload(asked)

    found = evaluate(step, specs, objective)

    assert as_rows(found) == one_by_one(step, specs, objective)
    assert 100 < np.count_nonzero(found.status == Status.RUNS) < 500, "both kinds should be among them"


def with_room(spec: AcceleratorSpec, draw: Random) -> AcceleratorSpec:
    """``spec`` with other capacities."""
    size = [2 ** draw.randint(8, 16) for _ in range(3)]
    pe = replace(
        spec.pe,
        accumulators=draw.choice((1, 4, 16)),
        dense_words=spec.pe.max_group * draw.randint(1, 4),
        weight_pairs=draw.randint(1, 8),
    )
    return replace(spec, pe=pe, buffers=BufferSpec(w2e_bytes=size[0], n2s_bytes=size[1], output_bytes=size[2]))


@given(step=layers(), base=MACHINES, draw=st.randoms(use_true_random=False), objective=OBJECTIVES)
@settings(max_examples=examples(90), deadline=None)
def test_machines_that_differ_in_capacities_share_searches(step, base, draw, objective):
    """Their searches answer for each other where they can, and nowhere else."""
    specs = [with_room(base, draw) for _ in range(30)]

    assert as_rows(evaluate(step, specs, objective)) == one_by_one(step, specs, objective)


def with_more(spec: AcceleratorSpec, what: str, share: float) -> AcceleratorSpec:
    """``spec`` with ``share`` of its bandwidth, or of a buffer."""
    part = spec.dram if what == "bytes_per_second" else spec.buffers
    larger = replace(part, **{what: round(getattr(part, what) * share)})
    return replace(spec, **{"dram" if part is spec.dram else "buffers": larger})


def check_never_slower(step: Workload, base: AcceleratorSpec, what: str, shares: Sequence[float]) -> None:
    """Cycles never rise from machine to machine, and whatever runs on one runs on those with more."""
    found = evaluate(step, [with_more(base, what, share) for share in (1.0, *sorted(shares))], "cycles")

    runs = found.status == Status.RUNS
    assert (np.diff(runs.astype(int)) >= 0).all(), found.status
    assert (np.diff(found.cycles[runs]) <= 0).all(), found.cycles


MORE = st.sampled_from(("bytes_per_second", "w2e_bytes", "n2s_bytes", "output_bytes"))
SHARES = st.lists(st.floats(1.0, 16.0), min_size=1, max_size=6)


@given(step=layers(), base=MACHINES, what=MORE, shares=SHARES)
@settings(max_examples=examples(300), deadline=None)
def test_under_cycles_more_bandwidth_or_a_larger_buffer_is_never_slower(step, base, what, shares):
    check_never_slower(step, base, what, shares)


@pytest.mark.parametrize("what", ["bytes_per_second", "w2e_bytes", "n2s_bytes", "output_bytes"])
@pytest.mark.parametrize("asked", [("resnet9", 4, "bdwp", "2:8"), ("lstm_lm", 4, "bdwp-x", "1:4")], ids=str)
def test_traced_steps_are_never_slower_on_more(what, asked):
    for seed in range(4):
        check_never_slower(workload(asked), machine(Random(seed)), what, [1.1, 1.5, 2.0, 3.0, 8.0])


@pytest.mark.slow
@pytest.mark.parametrize("asked", LARGE, ids=str)
def test_large_steps_are_never_slower_on_more(asked):
    for what in ("bytes_per_second", "w2e_bytes", "n2s_bytes", "output_bytes"):
        for base in (SAT, *(machine(Random(seed)) for seed in range(10))):
            check_never_slower(workload(asked), base, what, [1.01, 1.1, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0])


def test_thrift_may_be_slower_on_more_bandwidth():
    """230 and 307 GB/s: of the mappings within 1/128 of the fastest it takes one that moves the fewest bytes."""
    step = step_of_layers((256, 2000, 128))
    two = [with_more(SAT, "bytes_per_second", share) for share in (3.0, 4.0)]
    thrift, strict = (evaluate(step, two, objective) for objective in ("thrift", "cycles"))

    assert thrift.cycles.tolist() == [201_216, 201_431]
    assert thrift.dram_bytes[1] <= thrift.dram_bytes[0]
    assert strict.cycles[1] <= strict.cycles[0] <= 201_216


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cycles", "thrift"])
def test_a_grid_of_capacities_of_a_traced_step(objective):
    draw, step = Random(1), workload(("resnet50", 2, "bdwp", "2:8"))
    specs = [with_room(SAT, draw) for _ in range(300)]

    assert as_rows(evaluate(step, specs, objective)) == one_by_one(step, specs, objective)


def costs_of(specs: Sequence[AcceleratorSpec]) -> np.ndarray:
    """PEs and bytes of buffers."""
    return np.array(
        [(s.array.pes, s.buffers.w2e_bytes + s.buffers.n2s_bytes + s.buffers.output_bytes) for s in specs], float
    )


def rules_out(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def check_front(step: Workload, specs: Sequence[AcceleratorSpec], objective: str) -> int:
    """How many machines were left out, of a front that is that of brute force."""
    costs = costs_of(specs)
    found, every = front(step, specs, costs, objective), one_by_one(step, specs, objective)

    rows = {i: (cycles, *costs[i]) for i, (runs, cycles, _) in enumerate(every) if runs}
    assert found.best.tolist() == [
        i for i, row in rows.items() if not any(rules_out(other, row) for other in rows.values())
    ]
    left = 0
    for i, (runs, cycles, moved) in enumerate(every):
        assert not runs or 0 <= found.bound[i] <= cycles
        if found.status[i] == Status.LEFT_OUT:
            left += 1
            assert any(rules_out(rows[j], (found.bound[i], *costs[i])) for j in found.best)
        else:
            assert (found.status[i] == Status.RUNS, found.cycles[i], found.dram_bytes[i]) == (runs, cycles, moved)
    return left


@given(step=layers(), specs=st.lists(MACHINES, min_size=1, max_size=12), objective=OBJECTIVES, twice=st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_a_front_is_that_of_brute_force(step, specs, objective, twice):
    """Also where machines are equal, all of which are of the front."""
    check_front(step, specs * 2 if twice else specs, objective)


@given(step=few_layers() | levels_anywhere(), specs=st.lists(TWO_ENGINES, min_size=1, max_size=12))
@settings(max_examples=examples(100), deadline=None)
def test_a_front_of_machines_with_two_engines_is_that_of_brute_force(step, specs):
    check_front(step, specs, "cycles")


@given(step=few_layers() | levels_anywhere() | layers(), specs=st.lists(TWO_ENGINES, min_size=1, max_size=6))
@settings(max_examples=examples(100), deadline=None)
def test_no_machine_with_two_engines_is_faster_than_its_bound(step, specs):
    found, bounds = evaluate(step, specs, "cycles"), lower_bounds(step, specs)

    runs = found.status == Status.RUNS
    assert (bounds[runs] > 0).all() and (bounds[runs] <= found.cycles[runs]).all()


def test_most_machines_are_left_out_of_a_front():
    left = check_front(
        workload(("resnet9", 4, "bdwp", "2:8")), [machine(Random(seed)) for seed in range(150)], "cycles"
    )

    assert left > 50


@pytest.mark.slow
@pytest.mark.parametrize("asked", LARGE, ids=str)
def test_a_front_of_hundreds_is_that_of_brute_force(asked):
    assert check_front(workload(asked), [machine(Random(seed)) for seed in range(1000, 1400)], "thrift") > 100


def test_why_a_machine_cannot_run_says_its_schedule():
    """A status is no reason, so the schedule of the same machine must refuse it."""
    step = workload(("resnet9", 4, "bdwp", "2:8"))
    narrow = replace(SAT, pe=replace(SAT.pe, max_group=4))
    slow = replace(SAT, dram=replace(SAT.dram, bytes_per_second=1_000_000), clock_hz=10**10)
    little = replace(SAT, buffers=BufferSpec(w2e_bytes=64, n2s_bytes=64, output_bytes=64))
    refused = {Status.PATTERN: (narrow, "max_group"), Status.TOO_SLOW: (slow, "dram"), Status.NO_ROOM: (little, "fits")}

    found = evaluate(step, [SAT, *(spec for spec, _ in refused.values())])

    assert found.status.tolist() == [Status.RUNS, *refused]
    for spec, reason in refused.values():
        with pytest.raises(InputError, match=reason):
            simulate(schedule(step, spec))


def test_cycles_beyond_64_bits_are_a_status():
    """One PE that waits 32 cycles for every sum: a schedule counts on, in integers without end."""
    alone = replace(
        SAT,
        array=ArraySpec(rows=1, cols=1),
        pe=replace(SAT.pe, accumulators=1, add_latency=32),
        dram=replace(SAT.dram, bytes_per_second=10**9, efficiency_percent=1),
        clock_hz=10**9,
    )
    step = step_of_layers((2**18, 2**16, 2**18))
    ((runs, cycles, _),) = one_by_one(step, [alone], "cycles")

    assert runs and cycles > 2**57
    assert evaluate(step, [alone], "cycles").status.tolist() == [Status.TOO_MANY]


def test_what_is_refused():
    step = workload(("resnet9", 4, "bdwp", "2:8"))

    with pytest.raises(InputError, match=r"objective energy needs the energy.*prices"):
        evaluate(step, [SAT], "energy")
    with pytest.raises(InputError, match="no machines"):
        evaluate(step, [])
    with pytest.raises(InputError, match=r"\[2, costs\].*\(1, 1\)"):
        front(step, [SAT, SAT], [[1.0]])
    with pytest.raises(InputError, match="finite"):
        front(step, [SAT], [[float("nan")]])


def test_a_layer_both_under_nm_and_of_few_values_is_refused():
    step = annotate(step_of_layers((16, 16, 16)), "bdwp", NMPattern.parse("2:8"))
    ops = [
        with_levels(op, Levels.BINARY, Levels.BINARY, ("float32", None)) if op.pass_ == "WU" else op for op in step.ops
    ]

    with pytest.raises(InputError, match=r"layer 'layer0.weight'.*N:M.*few values.*weft.schedule"):
        evaluate(replace(step, ops=tuple(ops)), [SAT])


def test_a_machine_with_an_engine_of_others_is_refused(monkeypatch):
    monkeypatch.setattr(engines, "_OUTSIDE", {"other": lambda spec: Stce(spec, spec.engines[0])})
    engines_of.cache_clear()

    with pytest.raises(InputError, match=r"sat-vcu1525.*STCE, STCE.*weft.schedule"):
        evaluate(step_of_layers((16, 16, 16)), [SAT])
    engines_of.cache_clear()


def test_points_are_taken_as_they_are():
    specs = [machine(Random(seed)) for seed in range(5)]
    step = workload(("resnet9", 4, "bdwp", "2:8"))

    assert as_rows(evaluate(step, points_of(specs))) == as_rows(evaluate(step, specs))


FIELDS = (
    "clock_hz", "array.rows", "array.cols", "array.w2e_words", "pe.max_group", "pe.accumulators", "pe.dense_words",
    "pe.weight_pairs", "pe.multiply_latency", "pe.add_latency", "pe.format", "buffers.w2e_bytes", "buffers.n2s_bytes",
    "buffers.output_bytes", "sore.lanes", "sore.kind", "wuve.lanes", "wuve.pregenerate", "vector.lanes",
    "dram.bytes_per_second", "dram.efficiency_percent",
)  # fmt: skip
OF_XNOR = (
    "xnor.rows", "xnor.cols", "xnor.word_bits", "xnor.accumulators", "xnor.dense_words", "xnor.weight_words",
    "xnor.popcount_latency",
)  # fmt: skip


BASE = replace(SAT, dram=replace(SAT.dram, capacity_bytes=None))


def column_of(specs: Sequence[AcceleratorSpec], path: str) -> list[object]:
    return [attrgetter(path)(spec) for spec in specs]


@given(specs=st.lists(MACHINES, min_size=1, max_size=6), clock=st.sampled_from((1_000, 10**9, 10**11)))
@settings(max_examples=examples(150), deadline=None)
def test_points_of_columns_are_those_of_descriptions(specs, clock):
    """All that a machine here differs in, memories that are too slow and rates beyond 64 bits among them."""
    fast = replace(BASE, clock_hz=clock, dram=replace(BASE.dram, bytes_per_second=10**15))
    specs = [*specs, fast, BASE]

    found, wanted = points_from_columns(BASE, {path: column_of(specs, path) for path in FIELDS}), points_of(specs)

    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.family.tolist() == wanted.family.tolist()
    assert found.families == wanted.families


@given(specs=st.lists(TWO_ENGINES, min_size=1, max_size=6))
@settings(max_examples=examples(60), deadline=None)
def test_points_of_columns_with_two_engines(specs):
    base = replace(BASE, xnor=XnorSpec(rows=3, cols=5))
    specs = [base, *(spec for spec in specs if spec.xnor is not None)]

    found = points_from_columns(base, {path: column_of(specs, path) for path in (*FIELDS, *OF_XNOR)})
    wanted = points_of(specs)

    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.family.tolist() == wanted.family.tolist()
    assert found.families == wanted.families


def test_columns_of_a_machine_with_two_engines_leave_the_other_as_it_is():
    base = load_spec("bnn-ecp5")

    found = points_from_columns(base, {"array.rows": [8, 4]})

    assert found.rows.tolist() == points_of([replace(base, array=replace(base.array, rows=8)), base]).rows.tolist()
    with pytest.raises(InputError, match=r"xnor.word_bits must be whole bytes, not 12"):
        points_from_columns(base, {"xnor.word_bits": [8, 12]})


def test_columns_leave_the_rest_as_it_is():
    found = points_from_columns(SAT, {"array.rows": np.array([8, 32]), "dram.kind": ["hbm2", SAT.dram.kind]})

    assert found.rows.tolist() == points_of([replace(SAT, array=replace(SAT.array, rows=8)), SAT]).rows.tolist()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"array.row": [1]}, r"'array.row'.*did you mean 'array.rows'"),
        ({"xnor.rows": [1]}, "no field"),
        ({}, "one at least"),
        ({"array.rows": [1, 2], "array.cols": [1]}, "all as many"),
        ({"array.rows": []}, "one at least"),
        ({"array.rows": [1.5]}, r"'array.rows' must hold 1 to 1,024, not float64"),
        ({"array.rows": [4, 5000]}, r"array.rows must be an integer from 1 to 1024, not 5,?000"),
        ({"pe.max_group": [4, 16], "pe.dense_words": [8, 8]}, "pe.dense_words.*16"),
        ({"sore.kind": ["serial", "none"]}, "sore.kind must be"),
        ({"wuve.pregenerate": [1]}, "true or false"),
    ],
)
def test_what_columns_are_refused(columns, reason):
    with pytest.raises(InputError, match=reason):
        points_from_columns(SAT, columns)
