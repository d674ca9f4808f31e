"""What a step needs against brute force, at its boundary, and in words, table and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.analysis import grown
from weft.analysis.grown import Point
from weft.analysis.need import Need, need
from weft.analysis.need_files import needs_dict, save_needs
from weft.analysis.need_words import needs_words
from weft.analysis.resources import Resource, own_scale, shapes, splits
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec
from weft.dataflow.batch.evaluate import Status, evaluate
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.spec import ArraySpec
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload

from ..dataflow.problems import step_of_layers
from ..examples_drawn import examples
from .conftest import step

TINY, NM = load_spec("tiny"), NMPattern(keep=2, group=8)
TOY = annotate(step(), "bdwp", NM)
SHARES = (0.001, 0.01, 0.1, 1.0)

small = st.builds(
    lambda sizes, sparse: annotate(step_of_layers(*sizes), "bdwp", NM) if sparse else step_of_layers(*sizes),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=2),
    st.booleans(),
)


def cycles(workload: Workload, machine: AcceleratorSpec, objective: str = "cycles") -> int | None:
    """By the scheduler and the simulator, one machine after the other."""
    try:
        return simulate(schedule(workload, machine, objective)).cycles.total
    except InputError:
        return None


def many(workload: Workload, machines: list[AcceleratorSpec]) -> list[float]:
    found = evaluate(workload, machines, "cycles")
    return [float(c) if s == Status.RUNS else float("inf") for s, c in zip(found.status, found.cycles, strict=True)]


def bound(asymptote: float, within: float) -> float:
    return int(int(asymptote) * (1 + Fraction(str(within))))


def rate(machine: AcceleratorSpec, bytes_per_second: int) -> AcceleratorSpec:
    return replace(machine, dram=replace(machine.dram, bytes_per_second=bytes_per_second))


@given(small, st.sampled_from((0.05, 0.2, 0.5, 1.0)))
@settings(max_examples=examples(4), deadline=None)
def test_the_least_bandwidth_is_that_of_a_scan(workload, within):
    """Of the first 3,000 rates that the machine tells apart, 1/256 byte a cycle each."""
    found = need(workload, TINY, "dram", within)
    unit = Fraction(TINY.clock_hz * 100, 256 * TINY.dram.efficiency_percent)
    asymptote = cycles(workload, rate(TINY, 10**15))
    assert asymptote is not None
    rates = [max(-int(-n * unit // 1), 10**6) for n in range(1, 3_000)]
    times = many(workload, [rate(TINY, each) for each in rates])
    enough = [each for each, time in zip(rates, times, strict=True) if time <= bound(asymptote, within)]

    assert found.exact
    assert found.asymptote == Point((10**15,), 10**15, asymptote, found.asymptote.dram_bytes)
    assert found.least.size == enough[0] if enough else found.least.size > rates[-1]
    assert sorted(times, reverse=True) == times


@given(small, st.sampled_from(SHARES))
@settings(max_examples=examples(4), deadline=None)
def test_the_least_buffers_are_those_of_a_scan(workload, within):
    found, scale = need(workload, TINY, "buffers", within), own_scale(Resource.BUFFERS, TINY)
    roomy = cycles(workload, Resource.BUFFERS.machine(TINY, (2**40, 2**40, 2**40)))
    assert roomy is not None
    own, best = found.lines
    totals = range(scale.least, own.least.size + 40)
    times = many(workload, [Resource.BUFFERS.machine(TINY, scale.at(total)) for total in totals])
    first = next(total for total, time in zip(totals, times, strict=True) if time <= bound(roomy, within))

    assert own.asymptote.cycles == roomy
    assert own.least.setting == scale.at(first)
    assert best.least.size <= own.least.size
    offered = splits(TINY)
    for total in {best.least.size - 1, best.least.size * 3 // 4, best.least.size // 2}:
        tried = [each.at(total) for each in offered if total >= each.least]
        if tried and (best.below is not None or total < best.least.size - 2):
            times = many(workload, [Resource.BUFFERS.machine(TINY, setting) for setting in tried])
            assert min(times) > bound(roomy, within)


@given(small, st.sampled_from(SHARES))
@settings(max_examples=examples(3), deadline=None)
def test_the_least_array_is_that_of_all_that_are_tried(workload, within):
    found = need(workload, TINY, "array", within)
    every = list(dict.fromkeys([*shapes()[0], *shapes()[1]]))
    machines = [replace(TINY, array=ArraySpec(rows=rows, cols=cols)) for rows, cols in every]
    times = dict(zip(every, many(workload, machines), strict=True))
    best, square = found.lines

    def enough(shape: tuple[int, ...], of: list[tuple[int, ...]]) -> bool:
        return times[shape] <= bound(min(times[each] for each in of), within)

    squares = [shape for shape in every if shape[0] == shape[1]]
    assert best.least.size == min(prod(shape) for shape in every if enough(shape, every))
    assert best.asymptote.cycles == min(times.values())
    assert square.least.setting == min(shape for shape in squares if enough(shape, squares))
    runs = [shape for shape in squares if times[shape] < float("inf")]
    late = [n for n in range(len(runs)) if all(enough(shape, squares) for shape in runs[n:])]
    assert (square.stays and square.stays.setting) == (runs[late[0]] if late else None)
    assert not found.exact


@given(small, st.data())
@settings(max_examples=examples(20), deadline=None)
def test_more_is_never_slower(workload, data):
    """What bisection rests on, by the scheduler and the simulator."""
    sizes, rates = st.integers(64, 20_000), st.integers(10**6, 10**11)
    few = [data.draw(sizes) for _ in range(3)]
    more = [size + data.draw(sizes) for size in few]
    slow, fast = sorted((data.draw(rates), data.draw(rates)))
    machines = [
        replace(rate(TINY, r), buffers=BufferSpec(w2e_bytes=w, n2s_bytes=n, output_bytes=o))
        for r, (w, n, o) in ((slow, few), (fast, few), (fast, more))
    ]
    times = [cycles(workload, machine) or float("inf") for machine in machines]

    assert sorted(times, reverse=True) == times


@pytest.mark.parametrize("within", SHARES)
@pytest.mark.parametrize("resource", list(Resource))
def test_the_answer_is_near_enough_and_the_next_smaller_is_not(resource, within):
    found = need(TOY, TINY, resource, within)
    asymptote = cycles(TOY, found.machine(found.asymptote))
    assert asymptote is not None
    for line in found.lines:
        most = bound(line.asymptote.cycles or 0, within)
        at, below = cycles(TOY, found.machine(line.least)), line.below
        assert at == line.least.cycles
        assert at is not None and at <= most
        # Of buffers and arrays the smallest that there is may do.
        if below is not None:
            before = cycles(TOY, found.machine(below))
            assert before == below.cycles
            assert before is None or before > most
            assert below.size < line.least.size
    if resource is Resource.DRAM:
        below = found.lines[0].below
        assert below is not None
        assert below.size == found.least.size - 1


def test_one_by_one_is_the_same_as_in_bulk(monkeypatch):
    """As it goes for machines with two engines and for operands of few values."""
    in_bulk = need(TOY, TINY, "dram")
    monkeypatch.setattr(grown, "_in_bulk", lambda workload: False)
    monkeypatch.setattr(grown, "evaluate", None)

    assert need(TOY, TINY, "dram") == in_bulk


def test_a_binary_network_on_two_engines():
    """The least by bulk, its cycles by the machine's own schedule."""
    spec, work = load_spec("bnn-ecp5"), annotate(step(), "xnor", None)
    found = need(work, spec, "dram", 0.05)

    assert cycles(work, found.machine()) == found.least.cycles
    assert found.least.cycles is not None and found.least.cycles <= found.bound
    below = found.lines[0].below
    assert below is not None and (cycles(work, found.machine(below)) or 0) > found.bound


def test_under_thrift_a_grid_is_swept():
    found = need(TOY, TINY, "dram", 0.01, "thrift")
    grid = [min(round(10**6 * 2 ** (n / 8)), 10**15) for n in range(8 * 31)]
    times = [cycles(TOY, rate(TINY, each), "thrift") for each in sorted(set(grid))]
    ran = [time for time in times if time is not None]
    first = next(n for n, time in enumerate(times) if time is not None and time <= bound(min(ran), 0.01))

    assert not found.exact
    assert found.least.size == sorted(set(grid))[first]
    assert any("a grid was tried" in sentence for sentence in needs_words(found))


def test_the_most_is_what_can_be_timed():
    """At a kilohertz a cycle at 1 PB/s has 2^48 parts, and 64 bits hold few of those."""
    slow, work = replace(TINY, clock_hz=1000), step_of_layers((500, 40, 40))
    found = need(work, slow, "dram")

    assert cycles(work, rate(slow, 10**15)) is None
    assert cycles(work, rate(slow, found.asymptote.size)) == found.asymptote.cycles == cycles(work, rate(slow, 10**12))
    assert "unlimited" not in needs_words(found)[0]


def test_a_machine_that_cannot_run_it_is_told_what_would():
    cramped = replace(TINY, buffers=BufferSpec(w2e_bytes=64, n2s_bytes=64, output_bytes=64))
    found = need(TOY, cramped, "buffers")

    assert found.own.cycles is None
    assert any("does not run" in sentence for sentence in needs_words(found))
    assert cycles(TOY, found.machine()) == found.least.cycles
    with pytest.raises(InputError, match="buffers"):
        need(TOY, cramped, "dram")


@pytest.mark.parametrize("within", [0.0, -0.01, 2.0, float("nan"), float("inf")])
def test_a_share_outside_of_its_range_is_refused(within):
    with pytest.raises(InputError, match="within must be above 0 % and at most 100 %"):
        need(TOY, TINY, "dram", within)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="resource is 'dran': did you mean 'dram'"):
        weft.need(TOY, TINY, "dran")
    with pytest.raises(InputError, match="objective edp does not look for the least time"):
        weft.need(TOY, TINY, "dram", objective="edp")


@pytest.fixture(scope="module")
def needs() -> list[Need]:
    return [weft.need(TOY, "tiny", resource) for resource in Resource]


def test_the_answer_in_words(needs):
    dram, buffers, array = (needs_words(found) for found in needs)
    amounts = [found.resource.amount(found.least.size) for found in needs]

    assert dram[0].startswith(f"toy, batch 10, bdwp 2:8 on tiny needs {amounts[0]} of DRAM to be within 1 % of what un")
    assert buffers[0].startswith(f"toy, batch 10, bdwp 2:8 on tiny needs {amounts[1]} of buffers in its own propor")
    assert buffers[1].startswith("Split in the best way ")
    assert array[0].startswith(f"toy, batch 10, bdwp 2:8 on tiny needs {amounts[2]} (")
    square, last = needs[2].lines[1], "every larger one that runs is."
    assert array[1].startswith(f"Of squares {square.least.size:,} PEs (")
    assert array[1].endswith(last) == (square.stays is not None)
    assert repr(needs[0]) == f"<Need: toy, batch 10, bdwp 2:8 on tiny: {amounts[0]} of DRAM within 1 %>"


def test_the_table_has_every_point_and_the_machine(needs):
    for found in needs:
        frame = found.frame()
        assert len(frame) == sum(len(line.points) for line in found.lines) + 1
        assert frame.iloc[-1]["size"] == found.own.size
        for line in found.lines:
            rows = frame[frame["line"] == line.name]
            assert rows["size"].is_monotonic_increasing
            (least,) = rows[rows["is"].str.contains("least")].to_dict("records")
            assert least["cycles"] == line.least.cycles
            assert tuple(least[path] for path in found.resource.paths) == line.least.setting


def test_what_is_saved_can_be_read(needs, tmp_path):
    save_needs(needs, tmp_path / "out", "weft need")
    names = {f"need-{r}{end}" for r in Resource for end in (".csv", ".png")}

    assert {path.name for path in (tmp_path / "out").iterdir()} - {".weft.lock"} == names | {
        "need.json",
        "manifest.json",
    }
    document = json.loads((tmp_path / "out" / "need.json").read_text())
    assert document == json.loads(json.dumps(needs_dict(needs, "weft need")))
    assert document["needs"]["dram"]["lines"][0]["least"]["dram.bytes_per_second"] == needs[0].least.size
