"""Run registers made in hardware are those of the formulas, run after run, and an array that they start computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.blocks.array import Stce
from weft.hdl.blocks.banks import IN_RTL, run_choices, run_registers
from weft.hdl.blocks.frame import frame_of
from weft.hdl.blocks.run_setup import RunSetup
from weft.hdl.blocks.xnor_banks import slots_of, xnor_registers
from weft.hdl.drivers.array import StceDriver
from weft.hdl.flow.cosim import Cosim
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples
from ...strategies import LEVELS, array_mappings, gemms, make_spec, xnor_mappings, xnor_specs
from ..proof import mutant


def number(layout, fields):
    """The bits of a struct of ``fields``."""
    return sum(value << layout[name].offset for name, value in fields.items())


def run_in_turn(setup, chosen, gaps, lengths, held):
    """Cycles in which runs are taken, start and end, and their registers; an array that each keeps busy for its length,
    from the cycle after ``start`` on, and that is busy besides where ``held``."""
    taken, starts, dones, registers = [], [], [], []
    names = [name for name, _ in setup.format.run]

    def read(ctx: Any) -> dict[str, int]:
        return {name: ctx.get(Value.cast(getattr(setup.run, name))) for name in names}

    async def bench(ctx: Any) -> None:
        left, gap, stood, held_now = 0, gaps[0], None, 0
        for t in range(5000):
            offered = len(taken) < len(chosen) and gap == 0
            ctx.set(setup.put.valid, offered)
            if offered:
                ctx.set(Value.cast(setup.put.payload), number(setup.chosen, chosen[len(taken)]))
            ctx.set(setup.busy, left > 0 or held_now)
            ready, start, done = ctx.get(setup.put.ready), ctx.get(setup.start), ctx.get(setup.done)
            assert not (start and (left or held_now)), "an array that is busy hears no start"
            if stood is not None:
                assert read(ctx) == stood, "registers change in a run"
            if done:
                dones.append(t)
                stood = None
            if start:
                starts.append(t)
                registers.append(read(ctx))
                stood = registers[-1]
            gap = max(gap - 1, 0)
            if offered and ready:
                taken.append(t)
                gap = gaps[len(taken) % len(gaps)]
            left = lengths[len(starts) - 1] if start else max(left - 1, 0)
            held_now = t < len(held) and held[t]
            if len(dones) == len(chosen):
                return
            await ctx.tick()

    simulator = Simulator(setup)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken, starts, dones, registers


@st.composite
def arrays(draw):
    rows, contexts = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    group = draw(st.integers(1, 9))
    return make_spec(
        array=ArraySpec(rows=rows, cols=draw(st.integers(1, 9)), read_latency=draw(st.integers(1, 4))),
        pe=PESpec(
            max_group=group,
            accumulators=contexts,
            dense_words=draw(st.integers(group, 40)),
            weight_pairs=draw(st.integers(1, 9)),
            multiply_latency=draw(st.integers(1, 4)),
            add_latency=draw(st.integers(1, 6)),
        ),
    )


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_registers_are_those_of_the_formulas_and_runs_follow_in_turn(data):
    """Any machine, any products, put at any time, on an array that is busy for any time and held at any."""
    spec = data.draw(arrays())
    frame = frame_of(spec)
    runs = [
        (data.draw(array_mappings(spec, IN_RTL)), data.draw(gemms(60, 60))) for _ in range(data.draw(st.integers(1, 4)))
    ]
    gaps = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=4, max_size=4))
    held = data.draw(st.lists(st.booleans(), max_size=60))
    setup = RunSetup(spec)

    taken, starts, dones, registers = run_in_turn(
        setup, [run_choices(frame, *run) for run in runs], gaps, lengths, held
    )

    assert registers == [run_registers(spec, *run) for run in runs]
    assert len(taken) == len(starts) == len(dones)
    for i, (start, done) in enumerate(zip(starts, dones, strict=True)):
        free = next(t for t in range(start + 1 + lengths[i], 10_000) if not (0 < t <= len(held) and held[t - 1]))
        assert done == free
        if i:
            assert start >= dones[i - 1] + 1
        assert start >= taken[i] + setup.cycles
    if not any(held):
        assert starts[0] == taken[0] + setup.cycles
        for i in range(1, len(runs)):
            if taken[i] + setup.cycles <= dones[i - 1] and taken[i] > starts[i - 1]:
                assert starts[i] == dones[i - 1] + 1


def test_two_runs_wait_beside_the_one_in_the_array():
    spec = make_spec(array=ArraySpec(rows=4, cols=4))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=4), interleave=2)
    chosen = [run_choices(frame_of(spec), mapping, Gemm(m=m, k=8, n=3)) for m in range(1, 6)]
    setup = RunSetup(spec)

    taken, starts, dones, _ = run_in_turn(setup, chosen, [0], [100] * 5, [])

    assert all(t < dones[0] for t in taken[:3])
    assert taken[3] == dones[0] + 1
    assert [after - before for before, after in zip(dones, starts[1:], strict=False)] == [1] * 4


@settings(max_examples=examples(30), deadline=None)
@given(data=st.data())
def test_those_of_an_xnor_engine_too(data):
    spec, levels = data.draw(xnor_specs()), data.draw(st.tuples(LEVELS, LEVELS))
    mapping, gemm, own = data.draw(xnor_mappings(spec)), data.draw(gemms(30, 30)), spec.xnor
    want = xnor_registers(own, mapping, gemm, levels)
    setup = RunSetup(own)
    choices = run_choices(frame_of(own), mapping, slots_of(own, mapping, gemm, levels))
    chosen = choices | {name: want[name] for name in setup.format.pe.run}

    _, _, _, registers = run_in_turn(setup, [chosen], [0], [1], [])

    assert registers == [want]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(frame.rows - 1)),", "frame.rows),"),
        ("Mux(own.keep < own.rest, own.keep, own.rest)", "own.keep"),
        ("leaves.eq(is_set & ~pending & (~running | self.done))", "leaves.eq(is_set & ~pending)"),
        ("pending.eq(leaves | (pending & self.busy))", "pending.eq(leaves)"),
    ],
)
def test_a_broken_unit_is_found(old, new):
    spec = make_spec(array=ArraySpec(rows=3, cols=2))
    ws = ArrayMapping(dataflow=Dataflow.WS, pattern=NMPattern(keep=2, group=4), interleave=3)
    os = ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=4, group=8), interleave=5)
    runs = [(ws, Gemm(m=7, k=30, n=5)), (os, Gemm(m=2, k=10, n=5))]
    chosen = [run_choices(frame_of(spec), *run) for run in runs]

    def works(setup):
        try:
            found = run_in_turn(setup, chosen, [0], [50, 50], [False] * 8 + [True] * 9)
        except AssertionError:
            return False
        return found[3] == [run_registers(spec, *run) for run in runs]

    assert works(RunSetup(spec))
    assert not works(mutant(RunSetup, old, new)(spec))


class Started(wiring.Component):
    """An array with its unit: its ports, but for the runs that are put."""

    def __init__(self, spec):
        self.array, self.setup = Stce(spec, blackbox=True), RunSetup(spec)
        inside = dict(self.array.signature.members)
        del inside["run"], inside["start"]
        super().__init__({**inside, "put_valid": In(1), "put": In(self.setup.chosen)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array, m.submodules.setup = array, setup = self.array, self.setup
        for name in self.signature.members:
            if name not in ("put_valid", "put"):
                self.connect(m, getattr(array, name), getattr(self, name), array.signature.members[name])
        m.d.comb += [array.start.eq(setup.start), setup.busy.eq(array.busy), setup.put.valid.eq(self.put_valid)]
        m.d.comb += [getattr(array.run, name).eq(getattr(setup.run, name)) for name, _ in setup.format.run]
        m.d.comb += setup.put.payload.eq(self.put)
        return m

    def connect(self, m, inner, outer, member):
        for at in np.ndindex(*member.dimensions) if member.dimensions else [()]:
            x, y = inner, outer
            for i in at:
                x, y = x[i], y[i]
            if member.is_signature:
                wiring.connect(m, wiring.flipped(y), x)
            elif member.flow == In:
                m.d.comb += x.eq(y)
            else:
                m.d.comb += y.eq(x)


class Put:
    """The machine that a driver sees, whose ``start`` and registers become a run that is put, as much earlier."""

    def __init__(self, spec):
        self.started = Started(spec)
        self.cosim = Cosim(self.started, parts=self.started.array.parts)
        self.chosen = None

    def run(self, inputs):
        early, layout = self.started.setup.cycles, self.started.setup.chosen
        length = len(inputs["start"]) + early
        fed = {
            name: np.concatenate([np.repeat(values[:1] * 0, early, axis=0), values]) if np.ndim(values) else values
            for name, values in inputs.items()
            if name != "start" and not name.startswith("run__")
        }
        bits = number(layout, self.chosen)
        fed["put"] = np.tile([bits >> 32 * i & 0xFFFFFFFF for i in range(-(-layout.size // 32))], (length, 1))
        fed["put_valid"] = np.arange(length) == 0
        return {name: values[early:] for name, values in self.cosim.run(fed).items()}


@pytest.mark.parametrize("dataflow", IN_RTL)
def test_an_array_that_it_starts_computes_the_product_in_its_cycles(dataflow):
    spec = make_spec(array=ArraySpec(rows=2, cols=3, read_latency=2), pe=PESpec(accumulators=4, dense_words=16))
    machine = Put(spec)
    driver, rng = StceDriver(spec, machine), np.random.default_rng(3)
    for gemm in (Gemm(m=5, k=22, n=7, run=11), Gemm(m=1, k=3, n=1)):
        mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern(keep=2, group=4), interleave=3)
        a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
        pairs = compress(b, mapping.pattern, gemm.run)
        machine.chosen = run_choices(driver.frame, mapping, gemm)
        hold = rng.random(60) < 0.3
        want = run_array(spec, mapping, a, pairs, run=gemm.run, hold=hold)

        got = driver.run(mapping, gemm, a, pairs.values, pairs.indices, cycles=want.length, hold=hold)

        assert got.result.tolist() == want.result.view(np.uint32).tolist()
        assert got.left.tolist() == want.left.tolist()
        assert got.cycles == want.length
