"""The RTL of the array equals the simulator: every result to the bit, and in the cycle in which it leaves."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.blocks.array import MultiplierStce, Stce
from weft.hdl.blocks.banks import IN_RTL, run_registers
from weft.hdl.blocks.frame import frame_of
from weft.hdl.drivers.array import StceDriver
from weft.hdl.flow.cosim import Cosim
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.simulator.operand import OPERAND_TYPES
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import array_mappings, compacts, gemms, halves, holds, make_spec, receivers


def machine(rows, cols, words, group, contexts, dense, held, multiply, add, format="fp16", read=1):
    return make_spec(
        array=ArraySpec(rows=rows, cols=cols, w2e_words=words, read_latency=read),
        pe=PESpec(
            max_group=group,
            accumulators=contexts,
            dense_words=dense,
            weight_pairs=held,
            multiply_latency=multiply,
            add_latency=add,
            format=format,
        ),
    )


SPECS = {
    "4x4": machine(4, 4, 1, 16, 8, 32, 4, 2, 4),
    "1x1 without a spare register": machine(1, 1, 1, 1, 1, 1, 1, 1, 1),
    "3x2, three words a cycle": machine(3, 2, 3, 8, 5, 24, 3, 3, 5),
    "2x4, short adder": machine(2, 4, 2, 4, 6, 16, 2, 1, 2),
    "4x1, wide port": machine(4, 1, 8, 8, 3, 20, 4, 4, 3),
    "2x3, banks with an output register": machine(2, 3, 2, 8, 4, 16, 3, 2, 4, read=2),
    "3x2, the slowest banks": machine(3, 2, 1, 4, 5, 20, 2, 1, 1, read=4),
    "8x8": machine(8, 8, 2, 8, 6, 32, 4, 2, 4),
    "3x2, BF16": machine(3, 2, 2, 8, 5, 24, 3, 2, 4, "bf16"),
    "3x2, FP8": machine(3, 2, 2, 8, 5, 24, 3, 2, 4, "fp8"),
    "2x2, FP8, shortest": machine(2, 2, 1, 4, 3, 8, 2, 1, 1, "fp8"),
    "3x2, INT8": machine(3, 2, 2, 8, 5, 24, 3, 2, 2, "int8"),
    "2x2, INT8, shortest": machine(2, 2, 1, 4, 3, 8, 2, 1, 1, "int8"),
    "16x16": machine(16, 16, 2, 8, 6, 32, 4, 2, 4),
}


@cache
def cosim(name, kind=Stce):
    """One for all tests: what a run leaves behind must not matter to the next."""
    array = kind(SPECS[name], blackbox=True)
    return StceDriver(SPECS[name], Cosim(array, parts=array.parts))


def first_difference(got, want, cols):
    """Cycle, signal and both values of the earliest word that is not what the simulator says."""
    result = want.result.view(np.uint32)
    wrong = np.argwhere((got.result != result) | (got.left != want.left))
    if not len(wrong):
        return None
    row, column = min(map(tuple, wrong), key=lambda at: want.left[at])
    return (
        f"south__{column % cols}: C[{row}, {column}] leaves the RTL "
        f"in cycle {got.left[row, column]} as {got.result[row, column]:08x}, "
        f"the simulator in cycle {want.left[row, column]} as {result[row, column]:08x}"
    )


def assert_equal(driver, mapping, gemm, a, b, ready=None, hold=None):
    want = run_array(driver.spec, mapping, a, b, ready=ready, hold=hold)
    gradients = a.dtype == ml_dtypes.float8_e5m2, b.values.dtype == ml_dtypes.float8_e5m2
    got = driver.run(
        mapping, gemm, a, b.values, b.indices, cycles=want.length, ready=ready, hold=hold, gradients=gradients
    )
    assert first_difference(got, want, driver.spec.array.cols) is None
    assert got.cycles == want.length


QUICK = ("4x4", "3x2, three words a cycle", "2x3, banks with an output register", "3x2, BF16", "3x2, FP8")
"""What is compiled in the quick tier: each takes five seconds."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, Stce) for name in QUICK),
        *(pytest.param(name, Stce, marks=pytest.mark.slow) for name in SPECS if name not in (*QUICK, "16x16")),
        *(pytest.param(name, MultiplierStce, marks=pytest.mark.slow) for name in ("4x4", "2x4, short adder")),
    ],
)
@settings(max_examples=examples(120))
@given(data=st.data())
def test_rtl_equals_the_simulator(name, kind, data):
    """Both dataflows; all patterns; interleave below, at and above the adder latency; ragged; special values."""
    driver = cosim(name, kind)
    mapping = data.draw(array_mappings(driver.spec, IN_RTL))
    gemm = data.draw(gemms(20, 20))
    b = data.draw(compacts(gemm, mapping.pattern, driver.spec.pe.format))
    a = data.draw(halves(gemm.m, gemm.k, format=driver.spec.pe.format))
    ready, hold = data.draw(st.none() | receivers(driver.spec.array.cols)), data.draw(st.none() | holds())

    assert_equal(driver, mapping, gemm, a, b, ready, hold)


@pytest.mark.slow
@settings(max_examples=16, deadline=None)
@given(data=st.data())
def test_16_by_16_equals_the_simulator(data):
    """The patterns of training, dense too; interleave on both sides of the adder; ragged; tiles back to back."""
    driver = cosim("16x16")
    dataflow = data.draw(st.sampled_from(IN_RTL), "dataflow")
    dense = "1:1" if dataflow == Dataflow.OS else "4:4"
    executed = NMPattern.parse(data.draw(st.sampled_from((dense, "1:4", "2:4", "2:8", "4:8")), "pattern"))
    held = driver.spec.pe.dense_words // executed.group if dataflow == Dataflow.WS else driver.spec.pe.accumulators
    interleave = data.draw(st.sampled_from([i for i in (1, 3, 4, 6) if i <= held]), "interleave")
    run = data.draw(st.integers(1, 40), "run")
    gemm = Gemm(m=data.draw(st.integers(1, 40), "m"), k=3 * run, n=data.draw(st.integers(1, 60), "n"), run=run)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
    ready, hold = (
        data.draw(st.none() | receivers(driver.spec.array.cols), "ready"),
        data.draw(st.none() | holds(), "hold"),
    )

    mapping = ArrayMapping(dataflow=dataflow, pattern=executed, interleave=interleave)
    assert_equal(driver, mapping, gemm, a, compress(b, executed, gemm.run), ready, hold)


@pytest.mark.parametrize("interleave", [1, 3, 4, 6])
@pytest.mark.parametrize("pattern", ["1:1", "1:4", "2:4", "2:8", "4:8"])
@pytest.mark.parametrize("dataflow", IN_RTL)
def test_rtl_equals_the_simulator_in_the_patterns_of_training(dataflow, pattern, interleave):
    """8 x 8, tiles back to back, ragged in every direction, a contraction of kernel taps."""
    driver = cosim("8x8")
    executed = NMPattern.parse(pattern)
    if dataflow == Dataflow.WS:
        interleave = min(interleave, driver.spec.pe.dense_words // executed.group)
    mapping = ArrayMapping(dataflow=dataflow, pattern=executed, interleave=interleave)
    gemm = Gemm(m=21, k=9 * 13, n=19, run=13)
    rng = np.random.default_rng(11)
    a = rng.standard_normal((gemm.m, gemm.k)).astype(np.float16)
    b = rng.standard_normal((gemm.k, gemm.n)).astype(np.float16)

    assert_equal(driver, mapping, gemm, a, compress(b, executed, gemm.run))


@pytest.mark.parametrize("dataflow", IN_RTL)
def test_a_bf16_product_below_the_normal_range_is_rounded_before_it_is_added(dataflow):
    """Products of 2^-150 to 2^-126, their sums on both sides of the end of the subnormals."""
    driver = cosim("3x2, BF16")
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern(keep=2, group=4), interleave=4)
    gemm = Gemm(m=7, k=200, n=5)
    rng = np.random.default_rng(4)
    a, b = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-72, -64, shape)).astype(OPERAND_TYPES["bf16"])
        for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n))
    )

    assert_equal(driver, mapping, gemm, a, compress(b, mapping.pattern))


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_may_follow_another_at_once(order):
    """The rows are 1 cycle apart in the short run and 28 in the long, whose rows must not see the end of the short."""
    driver = cosim("4x4")
    ones = np.ones((1, 1), np.float16)
    short = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)
    long = ArrayMapping(dataflow=Dataflow.WS, pattern=NMPattern(keep=4, group=4), interleave=8)
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((9, 20), (20, 6)))
    runs = [
        (short, Gemm(m=1, k=1, n=1), ones, compress(ones, short.pattern)),
        (long, Gemm(m=9, k=20, n=6), a, compress(b, long.pattern)),
    ]

    for mapping, gemm, dense, pairs in runs[::order] * 2:
        assert_equal(driver, mapping, gemm, dense, pairs)


class Deaf:
    """A machine whose banks do not hear that the array stands still."""

    def __init__(self, machine):
        self.machine = machine

    def run(self, inputs):
        seen = self.machine.run(inputs)
        return seen | {"advance": np.ones_like(seen["advance"])}


@pytest.mark.parametrize(("dataflow", "pattern"), [(Dataflow.OS, "2:4"), (Dataflow.WS, "2:4")])
def test_banks_that_ignore_the_array_standing_still_are_caught(dataflow, pattern):
    array = Stce(SPECS["4x4"], blackbox=True)
    cosimulation = Cosim(array, parts=array.parts)
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(pattern), interleave=2)
    gemm = Gemm(m=20, k=16, n=9)
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
    pairs = compress(b, mapping.pattern)
    for stalls in ({"ready": rng.random((200, 4)) < 0.5}, {"hold": rng.random(200) < 0.5}):
        want = run_array(array.spec, mapping, a, pairs, **stalls)
        right, wrong = (
            StceDriver(array.spec, machine).run(mapping, gemm, a, pairs.values, pairs.indices, cycles=500, **stalls)
            for machine in (cosimulation, Deaf(cosimulation))
        )

        assert first_difference(right, want, 4) is None
        assert first_difference(wrong, want, 4) is not None
        assert (wrong.left == want.left).all()


class HeldAt:
    """A machine that stands still for two cycles more after each of ``cycles``, and of which nobody sees these."""

    def __init__(self, machine, cycles):
        self.machine, self.cycles = machine, cycles

    def run(self, inputs):
        times = np.where(np.isin(np.arange(len(inputs["start"])), self.cycles), 3, 1)
        first = np.cumsum(times) - times
        fed = {name: np.repeat(values, times, axis=0) if np.ndim(values) else values for name, values in inputs.items()}
        still = np.ones(times.sum(), np.bool_)
        still[first] = False
        fed["start"][still] = 0
        fed["hold"][:-1] |= still[1:]
        seen = self.machine.run(fed)
        assert (seen["advance"] == ~still).all()
        assert seen["busy"][still].all()
        return {name: values[first] for name, values in seen.items()}


@pytest.mark.parametrize("dataflow", IN_RTL)
def test_an_array_that_is_held_before_cycle_0_begins_later_and_is_the_same(dataflow):
    """From the cycle of ``start`` on; and in the cycles of the first words, which the rows below still wait for."""
    array = Stce(SPECS["4x4"], blackbox=True)
    driver = StceDriver(array.spec, HeldAt(Cosim(array, parts=array.parts), range(frame_of(array.spec).lead + 9)))
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern(keep=2, group=4), interleave=3)
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((6, 40), (40, 7)))

    for _ in range(2):
        assert_equal(driver, mapping, Gemm(m=6, k=40, n=7), a, compress(b, mapping.pattern))


class AmaranthSim:
    """Arrays of real submodules in Amaranth's simulator, a new one for each run."""

    def __init__(self, spec):
        self.spec = spec

    def run(self, inputs):
        array = Stce(self.spec)
        cycles = max(np.size(values) for values in inputs.values())
        ports = {"__".join(map(str, path)): (member, port) for path, member, port in array.signature.flatten(array)}
        fed = [(ports[name][1], np.broadcast_to(values, cycles).tolist()) for name, values in inputs.items()]
        read = {name: port for name, (member, port) in ports.items() if member.flow == Out}
        seen = {name: np.zeros(cycles, np.uint32) for name in read}

        async def bench(ctx):
            for t in range(cycles):
                for port, values in fed:
                    ctx.set(port, values[t])
                for name, port in read.items():
                    seen[name][t] = ctx.get(port)
                await ctx.tick()

        simulator = Simulator(array)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
        return seen


@pytest.mark.parametrize(("dataflow", "pattern"), [(Dataflow.OS, "1:2"), (Dataflow.WS, "2:3")])
def test_the_array_of_real_submodules_is_the_same_in_a_second_simulator(dataflow, pattern):
    spec = machine(2, 2, 1, 4, 3, 8, 2, 2, 3)
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(pattern), interleave=2)
    gemm = Gemm(m=3, k=7, n=3)
    rng = np.random.default_rng(5)
    a = rng.standard_normal((gemm.m, gemm.k)).astype(np.float16)
    b = compress(rng.standard_normal((gemm.k, gemm.n)).astype(np.float16), mapping.pattern)

    assert_equal(StceDriver(spec, AmaranthSim(spec)), mapping, gemm, a, b)


@pytest.mark.parametrize(("format", "dataflow"), [("fp8", Dataflow.OS), ("int8", Dataflow.WS)])
def test_a_pe_of_eight_bits_is_the_simulators(format, dataflow):
    """Gradients in E5M2 meet weights in E4M3; of INT8 every word may come."""
    spec = machine(2, 1, 1, 4, 3, 8, 2, 2, 2, format)
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse("1:2"), interleave=2)
    gemm = Gemm(m=3, k=6, n=3)
    rng = np.random.default_rng(5)
    words = [rng.integers(0, 256, shape, np.uint8) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n))]
    kinds = (np.int8, np.int8) if format == "int8" else (ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn)
    a, b = (x.view(kind) for x, kind in zip(words, kinds, strict=True))

    assert_equal(StceDriver(spec, AmaranthSim(spec)), mapping, gemm, a, compress(b, mapping.pattern))


def test_a_difference_is_told_by_cycle_signal_and_both_values():
    driver = cosim("4x4")
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=2)
    a, b = np.ones((4, 3), np.float16), compress(np.ones((3, 4), np.float16), DENSE)
    want = run_array(driver.spec, mapping, a, b)
    got = driver.run(mapping, Gemm(m=4, k=3, n=4), a, b.values, b.indices, cycles=want.cycles.total)
    got.result[2, 1] ^= 1

    assert first_difference(got, want, 4) == (
        f"south__1: C[2, 1] leaves the RTL in cycle {want.left[2, 1]} as 40400001, "
        f"the simulator in cycle {want.left[2, 1]} as 40400000"
    )


@pytest.mark.parametrize(
    ("gemm", "reason"),
    [
        (Gemm(m=4, k=2**16, n=4), "takes 65536 parts, but a loop counter of the array has 16 bits"),
        (Gemm(m=4, k=8, n=4, groups=2), "one product, but .* has 2; run them one by one"),
    ],
)
def test_a_product_too_large_for_the_registers_is_refused(gemm, reason):
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=2)
    with pytest.raises(InputError, match=reason):
        run_registers(SPECS["4x4"], mapping, gemm)
