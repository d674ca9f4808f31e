"""Several engines for products: the recurrence equal to SimPy in all that happens, small cases by hand, names."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.area import buffer_blocks
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.report.data import RunData
from weft.analysis.timeline import timeline_tracks
from weft.dataflow import engines
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import Schedule, schedule
from weft.dataflow.stce.engine import Stce
from weft.dataflow.stce.spec import StceSpec
from weft.simulator import channels
from weft.simulator.channels import Channel, Names, Purpose
from weft.simulator.kernels.tasks import Tasks
from weft.simulator.order import Order
from weft.simulator.step import simulate
from weft.simulator.system import overlapped, require_same, simulate_system, witnessed
from weft.simulator.system_result import Overlapped
from weft.simulator.tasks import tasks_of
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.step import Workload

from ..dataflow.problems import make_op
from ..examples_drawn import examples
from .plans import memories, orders, plans

NAMES = ("one", "two", "three")
SAT = load_spec("sat-vcu1525")


Streak = tuple[int, int, int, int, int]
"""Of equal phases: busy, transfer, sore, loads, times."""


class Ops:
    """Tasks, op by op; times in 1/rate cycles, bytes as many as time of DRAM."""

    def __init__(self, products: int, rate: int = 1) -> None:
        self.products, self.rate = products, rate
        self._ops: list[dict[str, int]] = []
        self._after: list[Streak] = []
        self._streaks: list[Streak] = []

    def product(self, engine: int, streaks: list[Streak], after: tuple[int, ...] = (), **settings: int) -> None:
        resident = settings.get("resident", 1)
        loading = [[k for k, streak in enumerate(streaks) if streak[3] & bit] for bit in (1, 2)]
        ends = [(found[-1] if found else -1) if resident else len(streaks) - 1 for found in loading]
        self._op(engine, streaks, after, {"resident": 1, **settings, "free_west": ends[0], "free_north": ends[1]})

    def beside(self, unit: int, streaks: list[Streak], after: tuple[int, ...] = ()) -> None:
        """On the vector unit, 0, or WUVE, 1."""
        self._op(self.products + unit, streaks, after, {"resident": 1, "free_west": -1, "free_north": -1})

    def _op(self, engine: int, streaks: list[Streak], after: tuple[int, ...], settings: dict[str, int]) -> None:
        first = len(self._streaks)
        self._streaks += streaks
        self._ops.append({"engine": engine, "first": first, "behind": first + len(streaks), **settings})
        self._after.append(after)

    def tasks(self) -> Tasks:
        def of(name: str) -> np.ndarray:
            bytes_of = {"west": "west_time", "north": "north_time", "store": "store_time"}
            return np.array([op.get(bytes_of.get(name, name), 0) for op in self._ops], np.int64)

        busy, transfer, sore, loads, times = np.array(self._streaks, np.int64).reshape(-1, 5).T.copy()
        by_streak = {"busy": busy, "transfer": transfer, "sore": sore, "loads": loads, "times": times}
        by_streak |= {"read": transfer // 2, "written": transfer - transfer // 2}
        after_first = np.append(0, np.cumsum([len(ops) for ops in self._after])).astype(np.int64)
        after = np.array([op for ops in self._after for op in ops], np.int64)
        by_op = {name: of(name) for name in Tasks._fields[2:-2] if name not in by_streak}
        return Tasks(rate=self.rate, products=self.products, **by_op, **by_streak, after_first=after_first, after=after)


def _both(tasks: Tasks) -> Overlapped:
    """The recurrence, held to SimPy, and both to what must hold of any run."""
    names = Names(NAMES[: tasks.products])
    found = overlapped(tasks, names)
    require_same(found, witnessed(tasks, names))
    happened = found.record()
    for name, use in found.engines.items():
        spans = happened.timeline[name]
        assert all(a <= b for a, b in pairwise(np.stack([spans.start, spans.end], 1).ravel().tolist())), "two at once"
        assert use.total == int(found.end.max())
        assert use.busy == int((spans.end - spans.start).sum())
        if name in names.products:
            assert {int(tasks.engine[op]) for op in spans.op} <= {names.products.index(name)}
            assert (np.diff(spans.op) >= 0).all(), "in the order of the workload"
    assert len(happened.buffers) == 3 * tasks.products
    for held in happened.buffers.values():
        assert held.halves[-1] == 0 and set(held.halves.tolist()) <= {0, 1, 2}
    for op in range(len(tasks.engine)):
        for other in tasks.after[tasks.after_first[op] : tasks.after_first[op + 1]].tolist():
            for name in names.engines[:-2]:
                spans = happened.timeline[name]
                assert (spans.start[spans.op == op] >= found.end[other]).all()
    return found


_small = st.integers(0, 6)
"""Short times, so that much happens at once."""


@st.composite
def drawn(draw: st.DrawFn) -> Tasks:
    """Any tasks: ops on any engine, resident and streamed, with work of SORE, and any dependencies."""
    ops = Ops(draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    count = draw(st.integers(1, 8))
    kinds = [draw(st.integers(0, ops.products + 1)) for _ in range(count)]
    for i, engine in enumerate(kinds):
        # Updates, for which nothing waits, may stand before what they wait for.
        updates = engine == ops.products + 1
        others = [j for j in range(count) if kinds[j] <= ops.products and (j < i or updates)]
        after = tuple(j for j in others if draw(st.integers(0, 3)) == 0)
        if engine >= ops.products:
            pieces = [(draw(_small), draw(st.integers(1, 6)), draw(_small), 0, 1) for _ in range(draw(_small))]
            ops.beside(engine - ops.products, pieces, after)
            continue
        streaks = [
            (draw(st.integers(1, 6)), draw(_small), draw(_small), draw(st.integers(0, 3)), draw(st.integers(1, 4)))
            for _ in range(draw(st.integers(1, 4)))
        ]
        settings_ = {"ramp": draw(_small), "store_time": draw(st.integers(1, 20))}
        if draw(st.booleans()):
            settings_ |= {"west_time": draw(st.integers(1, 6)), "north_time": draw(st.integers(1, 6))}
            settings_ |= {name: draw(st.integers(0, 1)) for name in ("west_ready", "north_ready")}
            settings_ |= {"resident": 1, "north_sore": draw(_small)}
        else:
            settings_ |= {"resident": 0, "lead": draw(_small)}
        ops.product(engine, streaks, after, **settings_)
    return ops.tasks()


@settings(max_examples=examples(400), deadline=None)
@given(drawn())
def test_events_and_recurrence_agree_with_any_number_of_product_engines(tasks):
    _both(tasks)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_they_agree_on_real_products_dealt_out_to_engines(data):
    plan = data.draw(plans())
    tasks = tasks_of(plan, data.draw(orders(plan)), data.draw(memories(plan.spec)))
    products = data.draw(st.integers(1, 3))
    dealt = [data.draw(st.integers(0, products - 1)) if e == 0 else e + products - 1 for e in tasks.engine.tolist()]

    _both(tasks._replace(products=products, engine=np.array(dealt, np.int64)))


LOADED = {"west_time": 4, "north_time": 6, "ramp": 2, "store_time": 5}
THREE = [(10, 0, 0, 0, 3)]
"""Three phases of 10 that move nothing."""


def test_two_independent_products_run_side_by_side():
    """First loads take turns, N2S before W2E and engine 0 before 1: 0-6, 6-12, 12-16, 16-20. Then each computes 30 and
    ramps 2: until 48 and 52; the first stores until 53, for which the second waits."""
    ops = Ops(2)
    ops.product(0, THREE, **LOADED)
    ops.product(1, THREE, **LOADED)

    found = _both(ops.tasks())

    assert (found.start.tolist(), found.end.tolist()) == ([0, 0], [53, 58])
    dram = found.record().timeline["DRAM"]
    assert list(zip(dram.op.tolist(), dram.start.tolist(), dram.end.tolist(), strict=True)) == [
        (0, 0, 6),
        (1, 6, 12),
        (0, 12, 16),
        (1, 16, 20),
        (0, 48, 53),
        (1, 53, 58),
    ]
    one, two = found.engines["one"], found.engines["two"]
    assert (one.busy, one.fill_drain, one.dram, one.idle) == (30, 2, 16, 10)
    assert (two.busy, two.fill_drain, two.dram, two.idle) == (30, 2, 20, 6)
    # One engine alone starts at 10 and then has hidden the loads of the second.
    alone = _both(ops.tasks()._replace(products=1, engine=np.zeros(2, np.int64)))
    assert alone.end.tolist() == [10 + 30 + 2 + 5, 10 + 2 * (30 + 2) + 5]


def test_a_product_waits_for_the_result_of_another_engine():
    """Its weight, from the north, is there in advance; its input is loaded when the first has stored, at 53."""
    ops = Ops(2)
    ops.product(0, THREE, **LOADED)
    ops.product(1, THREE, (0,), north_ready=1, **LOADED)

    found = _both(ops.tasks())

    assert (found.start.tolist(), found.end.tolist()) == ([0, 0], [53, 53 + 4 + 30 + 2 + 5])
    two = found.engines["two"]
    assert (two.busy, two.fill_drain, two.dependency, two.dram, two.idle) == (30, 2, 53, 4, 5)
    north, west = found.record().buffers["two N2S"], found.record().buffers["two W2E"]
    assert (north.time.tolist(), north.halves.tolist()) == ([0, 87], [1, 0])
    assert (west.time.tolist(), west.halves.tolist()) == ([0, 53, 87], [0, 1, 0])


def test_a_load_takes_its_half_when_its_phase_starts():
    """The second phase waits until 106 for the store of the op before, and its load with it."""
    ops = Ops(1)
    ops.product(0, [(1, 0, 0, 0, 1)], resident=0, ramp=5, store_time=100)
    ops.product(0, [(9, 0, 0, 0, 1), (1, 0, 0, 1, 1), (1, 0, 0, 0, 1)], west_time=1, north_time=1, store_time=1)

    found = _both(ops.tasks())

    held = found.record().buffers["W2E"]
    assert list(zip(held.time.tolist(), held.halves.tolist(), strict=True)) == [
        (0, 2),
        (1, 1),
        (106, 2),
        (107, 1),
        (108, 0),
    ]


def test_dram_serves_by_purpose_first_and_by_engine_second():
    """At 0 all four ask for a phase; at 20 the second engine stores while the first goes on to a phase that moves."""
    ops = Ops(2)
    ops.beside(1, [(0, 2, 0, 0, 1)])
    ops.beside(0, [(0, 3, 0, 0, 1)])
    ops.product(1, [(20, 4, 0, 0, 1)], resident=0, store_time=6)
    ops.product(0, [(20, 5, 0, 0, 1), (1, 7, 0, 0, 1)], resident=0, store_time=1)

    found = _both(ops.tasks())

    dram = found.record().timeline["DRAM"]
    asked = [channels.channels(2)[number] for number in dram.channel.tolist()]
    assert list(zip(asked, dram.start.tolist(), dram.end.tolist(), strict=True)) == [
        (Channel(Purpose.PHASE, 0), 0, 5),
        (Channel(Purpose.PHASE, 1), 5, 9),
        (Channel(Purpose.BESIDE, 2), 9, 12),
        (Channel(Purpose.BESIDE, 3), 12, 14),
        (Channel(Purpose.STORE, 1), 20, 26),
        (Channel(Purpose.PHASE, 0), 26, 33),
        (Channel(Purpose.STORE, 0), 33, 34),
    ]
    assert found.engines["one"].dram == 33 - 20 - 1


def test_what_starts_with_a_phase_and_goes_before_it_is_not_passed_over():
    """The fourth of equal phases starts at 30, when the other engine stores, which goes first."""
    ops = Ops(2)
    ops.product(0, [(10, 3, 0, 0, 6)], resident=0, store_time=1)
    ops.product(1, [(30, 0, 0, 0, 1)], resident=0, store_time=8)

    found = _both(ops.tasks())

    dram = found.record().timeline["DRAM"]
    served = list(zip(dram.op.tolist(), dram.start.tolist(), dram.end.tolist(), strict=True))
    assert served[3:6] == [(1, 30, 38), (0, 38, 41), (0, 41, 44)]


def test_the_order_of_channels_is_that_of_a_machine_with_one_engine():
    order = [("STORE", 0), ("PHASE", 0), ("NORTH", 0), ("WEST", 0), ("BESIDE", 1), ("BESIDE", 2)]
    assert [(c.purpose.name, c.engine) for c in channels.channels(1)] == order
    assert all(list(channels.channels(n)) == sorted(channels.channels(n)) for n in (1, 2, 3))


class Second(Stce):
    """The same array under another name."""

    @property
    def name(self) -> str:
        return "second"


@pytest.fixture
def with_second(monkeypatch):
    """Every machine has two arrays."""

    def both(spec):
        return (Stce(spec, spec.engines[0]), Second(spec, spec.engines[0]))

    monkeypatch.setattr(engines, "engines_of", both)
    monkeypatch.setattr(channels, "engines_of", both)


def _two_products(*names: str) -> Schedule:
    op = make_op(Gemm(m=512, k=256, n=256))
    plan = schedule(Workload(model="m", batch=1, ops=(op,) * len(names)), SAT)
    return replace(plan, placements=tuple(replace(p, engine=e) for p, e in zip(plan.placements, names, strict=True)))


@pytest.mark.usefixtures("with_second")
def test_the_placement_says_on_which_engine_an_op_runs():
    apart, alone = _two_products("second", "STCE"), _two_products("STCE", "STCE")
    free = Order(after=((), ()), weight_ready=(False, False))

    result = simulate_system(apart, free)

    require_same(result, simulate_system(apart, free, witness=True))
    assert list(result.engines) == ["STCE", "second", "vector", "WUVE", "DRAM", "SORE"]
    assert result.record().timeline["second"].op.tolist()[0] == 0
    assert result.engines["STCE"].busy == result.engines["second"].busy > 0
    assert result.cycles < simulate_system(alone, free).cycles
    tracks = list(timeline_tracks(result))
    assert tracks[:2] == ["STCE", "second"]
    assert {"DMA: STCE, macro-tiles", "DMA: second, macro-tiles", "DMA: second, last stores"} <= set(tracks)
    assert list(result.record().buffers)[3:] == ["second W2E", "second N2S", "second output"]
    page = RunData(SimpleNamespace(system=result, result=result.step, timed=result), {"compute": "compute"})
    assert page.system is not None and len(page.system.occupancy) == 6
    assert page.dram is not None and list(page.dram.asked)[:2] == ["STCE", "second"]
    assert sum(sum(by_pass.values()) for by_pass in page.dram.asked.values()) == result.step.counts.dram_bytes


def test_every_engine_has_buffers_that_take_space_and_leak(monkeypatch):
    def leaks(result):
        return next(
            row.joules for row in energy(result, load_table("asic-16nm")).rows if row.action.name == "static power"
        )

    step, area = simulate(_two_products("STCE")), buffer_blocks(SAT, "xcup")
    alone = leaks(step)
    arrays = (StceSpec(array=SAT.array, pe=SAT.pe),) * 2
    monkeypatch.setattr(AcceleratorSpec, "engines", property(lambda spec: arrays))

    assert [item.count for item in buffer_blocks(SAT, "xcup")] == [2 * item.count for item in area]
    two = replace(step, spec=replace(SAT, name="two"))  # what a machine pays is asked once
    assert leaks(two) == pytest.approx(2 * alone) != 0


def test_an_engine_that_the_machine_does_not_have_is_refused():
    with pytest.raises(InputError, match=r"on the engine 'second', which 'sat-vcu1525' does not have \(STCE\)"):
        tasks_of(_two_products("second", "STCE"))


@pytest.mark.parametrize("name", ["STCE", "vector"])
def test_two_engines_of_one_name_are_refused(name, monkeypatch, with_second):
    monkeypatch.setattr(Second, "name", property(lambda self: name))
    with pytest.raises(InputError, match=f"'sat-vcu1525' has two engines that are called '{name}'"):
        simulate_system(_two_products("STCE", "STCE"))
