# amaranth: UnusedElaboratable=no
"""Floating-point units against numpy and apytypes, bit for bit and cycle for cycle."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from apytypes import APyFloatArray

from weft.hdl.blocks.fp.add import Fp32Add
from weft.hdl.blocks.fp.convert import Bf16ToFp32, Fp16ToFp32, Fp32ToBf16, Fp32ToFp16
from weft.hdl.blocks.fp.multiply import Bf16Multiply, Fp16Multiply, Fp32Multiply
from weft.hdl.flow.cosim import Cosim
from weft.workloads.errors import InputError

Bits = npt.NDArray[Any]

N = 1 << 20
UNITS: dict[str, Callable[[int], Any]] = {
    "Fp16Multiply": Fp16Multiply,
    "Fp32Add": Fp32Add,
    "Fp32Add of multipliers": lambda latency: Fp32Add(latency, multipliers=True),
    "Fp32Add with subnormals": lambda latency: Fp32Add(latency, subnormals=True),
    "Fp32Multiply": Fp32Multiply,
    "Fp32Multiply without subnormals": lambda latency: Fp32Multiply(latency, subnormals=False),
    "Fp32ToFp16": Fp32ToFp16,
    "Fp16ToFp32": Fp16ToFp32,
    "Bf16Multiply": Bf16Multiply,
    "Fp32ToBf16": Fp32ToBf16,
    "Bf16ToFp32": Bf16ToFp32,
}


OF_MULTIPLIERS = pytest.param("Fp32Add of multipliers", marks=pytest.mark.slow)
LATENCY = dict(zip(UNITS, (2, 4, 4, 4, 2, 2, 1, 1, 2, 1, 1), strict=True))


@cache
def sim(unit: str) -> Cosim:
    return Cosim(UNITS[unit](LATENCY[unit]))


def run(unit: str, *operands: Bits) -> Bits:
    """Results of ``operands``, taken a latency after them."""
    return stream(sim(unit), *operands, tail=LATENCY[unit])[LATENCY[unit] :]


def stream(unit: Cosim, *operands: Bits, tail: int) -> Bits:
    """Everything the unit shows while ``operands`` and then ``tail`` zeros go in."""
    names = [name for name in unit.inputs if name != "rst"]
    fed = dict(zip(names, (np.pad(o, (0, tail)) for o in operands), strict=True))
    (result,) = unit.run(fed).values()
    return result


def canonical32(value: npt.NDArray[np.float32]) -> Bits:
    return np.where(np.isnan(value), np.uint32(0x7FC00000), value.view(np.uint32))


def canonical16(value: npt.NDArray[np.float16]) -> Bits:
    return np.where(np.isnan(value), np.uint16(0x7E00), value.view(np.uint16))


def f16(bits: Bits) -> npt.NDArray[np.float16]:
    return bits.astype(np.uint16).view(np.float16)


def fb16(bits: Bits) -> npt.NDArray[np.float32]:
    """BF16 is the upper half of FP32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32(bits: Bits) -> npt.NDArray[np.float32]:
    return bits.astype(np.uint32).view(np.float32)


def apy16(bits: Bits) -> APyFloatArray:
    return APyFloatArray.from_bits(bits, 5, 10)


def apyb16(bits: Bits) -> APyFloatArray:
    # to FP64: apytypes 0.5.1 doubles a subnormal that it casts to a longer fraction with as many exponent bits
    return APyFloatArray.from_bits(bits, 8, 7).cast(11, 52)


def apy32(bits: Bits) -> APyFloatArray:
    return APyFloatArray.from_bits(bits, 8, 23)


def apy_bits32(value: APyFloatArray) -> Bits:
    return canonical32(f32(value.to_bits(numpy=True)))


def apy_bitsb16(value: APyFloatArray) -> Bits:
    bits = np.asarray(value.to_bits(numpy=True), dtype=np.uint16)
    return np.where(np.isnan(fb16(bits)), np.uint16(0x7FC0), bits)


def apy_bits16(value: APyFloatArray) -> Bits:
    return canonical16(f16(value.to_bits(numpy=True)))


def corners(exponent: int, fraction: int) -> Bits:
    """Zeros, subnormals, ones, the ends of every range, infinities and NaNs, of both signs."""
    top = (1 << exponent) - 1
    middle = top >> 1
    fields = sorted({0, 1, 2, middle - fraction - 1, middle - 1, middle, middle + 1, middle + fraction, top - 1, top})
    ones = (1 << fraction) - 1
    fractions = sorted({0, 1, 2, 3, ones >> 1, (ones >> 1) + 1, (ones >> 1) + 2, 0x155 & ones, ones - 1, ones})
    positive = np.array([e << fraction | f for e in fields for f in fractions], dtype=np.uint32)
    return np.concatenate([positive, positive | np.uint32(1 << exponent + fraction)])


def pairs(values: Bits) -> tuple[Bits, Bits]:
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


def random32(seed: int, count: int = N) -> Bits:
    return np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint32)


def with_exponent(bits: Bits, exponent: Bits) -> Bits:
    return bits & np.uint32(0x807FFFFF) | np.clip(exponent, 0, 255).astype(np.uint32) << np.uint32(23)


def add_operands() -> tuple[Bits, Bits]:
    """Corner pairs, any bits, close exponents (cancellation, ties) and equal magnitudes that differ in few low bits."""
    rng = np.random.default_rng(3)
    a, b = random32(1), random32(2)
    near = with_exponent(b, (a >> 23 & 255).astype(np.int64) + rng.integers(-27, 28, N))
    # few significant bits make exact ties likely
    short = np.uint32(0xFFFFFFFF) << rng.integers(0, 23, N).astype(np.uint32)
    almost = a ^ np.uint32(0x80000000) ^ rng.integers(0, 4, N, dtype=np.uint32)
    edge_a, edge_b = pairs(corners(8, 23))
    return (
        np.concatenate([edge_a, a, a, a & short, a]),
        np.concatenate([edge_b, b, near, near & np.roll(short, 1), almost]),
    )


def multiply_operands() -> tuple[Bits, Bits]:
    """Corner pairs, any bits, and products around the subnormal and the overflow range."""
    rng = np.random.default_rng(6)
    a, b = random32(4), random32(5)
    exponent = rng.integers(0, 255, N)
    around = np.where(rng.integers(0, 2, N) == 0, rng.integers(95, 135, N), rng.integers(375, 386, N))
    ranged = with_exponent(a, exponent), with_exponent(b, around - exponent)
    short = np.uint32(0xFFFFFFFF) << rng.integers(0, 23, N).astype(np.uint32)
    edge_a, edge_b = pairs(corners(8, 23))
    return (
        np.concatenate([edge_a, a, ranged[0], ranged[0] & short]),
        np.concatenate([edge_b, b, ranged[1], ranged[1] & short[::-1]]),
    )


def is_subnormal(bits: Bits) -> Bits:
    return ((bits & 0x7F800000) == 0) & ((bits & 0x7FFFFF) != 0)


def flushed(bits: Bits) -> Bits:
    return np.where(is_subnormal(bits), bits & np.uint32(0x80000000), bits)


def check(unit: str, operands: tuple[Bits, ...], **expected: Bits) -> None:
    got = run(unit, *operands)
    for oracle, bits in expected.items():
        wrong = np.flatnonzero(got != bits)
        shown = [[hex(int(o[i])) for o in (*operands, got, bits)] for i in wrong[:3]]
        assert not wrong.size, f"{wrong.size} of {got.size} differ from {oracle}; operands, RTL, {oracle}: {shown}"


def add32(a: Bits, b: Bits) -> Bits:
    with np.errstate(all="ignore"):
        return canonical32(f32(a) + f32(b))


def multiply32(a: Bits, b: Bits) -> Bits:
    with np.errstate(all="ignore"):
        return canonical32(f32(a) * f32(b))


def multiply32_flushed(a: Bits, b: Bits) -> Bits:
    """Subnormal operands are zeros, and what is below the normal range once rounded to 24 bits is one too."""
    a, b = flushed(a), flushed(b)
    with np.errstate(all="ignore"):
        # 48 bits: exact, and never a subnormal of FP64
        exact = f32(a).astype(np.float64) * f32(b).astype(np.float64)
        significand, exponent = np.frexp(exact)
        tiny = np.abs(np.ldexp(np.rint(significand * 2**24), exponent - 24)) < 2.0**-126
    return np.where(tiny, (a ^ b) & np.uint32(0x80000000), multiply32(a, b))


def product(a: Bits, b: Bits) -> Bits:
    with np.errstate(all="ignore"):
        return canonical32(f16(a).astype(np.float32) * f16(b).astype(np.float32))


def productb16(a: Bits, b: Bits) -> Bits:
    with np.errstate(all="ignore"):
        return canonical32(fb16(a) * fb16(b))


def half_b16(value: Bits) -> Bits:
    """The nearer of the two BF16 neighbours; numpy has no BF16, so by their distance in FP64, even on a tie."""
    value = value.astype(np.uint32)
    low = value >> np.uint32(16)
    # what lies above the largest number stands where the next one would, as it does for every rounding to nearest
    with np.errstate(all="ignore"):
        exact, below = f32(value).astype(np.float64), fb16(low).astype(np.float64)
        above = np.where((low & 0x7FFF) == 0x7F7F, np.copysign(2.0**128, below), fb16(low + np.uint32(1)))
        nearer, tie = abs(exact - below) > abs(above - exact), abs(exact - below) == abs(above - exact)
    rounded = np.where(np.isinf(exact), low, low + (nearer | (tie & (low & 1 == 1))))
    return np.where(np.isnan(exact), 0x7FC0, rounded).astype(np.uint16)


def half(value: Bits) -> Bits:
    with np.errstate(all="ignore"):
        return canonical16(f32(value).astype(np.float16))


def test_multiply_of_halves() -> None:
    edge, any_ = pairs(corners(5, 10)), (random32(7) >> 16, random32(8) >> 16)
    a, b = (np.concatenate(both) for both in zip(edge, any_, strict=True))
    check("Fp16Multiply", (a, b), numpy=product(a, b), apytypes=apy_bits32(apy16(a).cast(8, 23) * apy16(b).cast(8, 23)))


def productb16_operands() -> tuple[Bits, Bits]:
    """Corner pairs, any bits, and products around the subnormal and the overflow range."""
    rng = np.random.default_rng(13)
    a, b = random32(14) >> 16, random32(15) >> 16
    exponent = rng.integers(0, 255, N)
    around = np.where(rng.integers(0, 2, N) == 0, rng.integers(95, 135, N), rng.integers(375, 386, N))
    near = (with_exponent(bits << 16, e) >> 16 for bits, e in ((a, exponent), (b, around - exponent)))
    both = pairs(corners(8, 7)), (a, b), near
    first, second = (np.concatenate(column) for column in zip(*both, strict=True))
    return first, second


def test_multiply_of_bfloats() -> None:
    a, b = productb16_operands()
    expected = productb16(a, b)
    with np.errstate(all="ignore"):
        exact = fb16(a).astype(np.float64) * fb16(b).astype(np.float64)
    rounded = is_subnormal(expected) & (f32(expected) != exact)
    assert np.count_nonzero(rounded) > N // 10
    check("Bf16Multiply", (a, b), numpy=expected, apytypes=apy_bits32((apyb16(a) * apyb16(b)).cast(8, 23)))


def test_add_with_subnormals() -> None:
    a, b = add_operands()
    check("Fp32Add with subnormals", (a, b), numpy=add32(a, b), apytypes=apy_bits32(apy32(a) + apy32(b)))


@pytest.mark.parametrize("unit", ["Fp32Add", OF_MULTIPLIERS])
def test_add_without_subnormals(unit: str) -> None:
    a, b = (canonical32(f32(flushed(x))) for x in add_operands())
    normal = ~is_subnormal(add32(a, b))
    a, b = a[normal], b[normal]
    assert a.size > 3 * N
    check(unit, (a, b), numpy=add32(a, b), apytypes=apy_bits32(apy32(a) + apy32(b)))


@pytest.mark.parametrize("unit", ["Fp32Add", "Fp32Add with subnormals", OF_MULTIPLIERS])
def test_zeros_of_the_sum(unit: str) -> None:
    plus, minus, one, minus_one = 0, 0x80000000, 0x3F800000, 0xBF800000
    cases = [
        (plus, plus, plus),
        (plus, minus, plus),
        (minus, plus, plus),
        (minus, minus, minus),
        (one, minus, one),
        (minus, minus_one, minus_one),
        (one, minus_one, plus),
        (minus_one, one, plus),
    ]
    a, b, expected = (np.array(column, dtype=np.uint32) for column in zip(*cases, strict=True))
    check(unit, (a, b), table=expected)


@pytest.mark.parametrize("unit", ["Fp32Add", OF_MULTIPLIERS])
def test_sums_of_products_of_halves_need_no_subnormals(unit: str) -> None:
    rng = np.random.default_rng(9)
    total = np.full(4096, 0x80000000, dtype=np.uint32)
    for _ in range(64):
        # small operands of both signs, so that the sums cancel deep
        a, b = (rng.integers(0, 0x800, total.size) | rng.integers(0, 2, total.size) << 15 for _ in range(2))
        term = product(a, b)
        assert not is_subnormal(term).any()
        check(unit, (total, term), numpy=add32(total, term))
        total = add32(total, term)


def test_multiply_with_subnormals() -> None:
    a, b = multiply_operands()
    check("Fp32Multiply", (a, b), numpy=multiply32(a, b), apytypes=apy_bits32(apy32(a) * apy32(b)))


def test_multiply_without_subnormals() -> None:
    a, b = multiply_operands()
    check("Fp32Multiply without subnormals", (a, b), numpy=multiply32_flushed(a, b))


def test_to_half() -> None:
    any_ = random32(10)
    ranged = with_exponent(any_, np.random.default_rng(11).integers(95, 147, N))
    # every boundary between two halves, with its neighbours
    finite = np.arange(0x7C00, dtype=np.uint16)
    below = finite.view(np.float16).astype(np.float32)
    above = np.append(below[1:], np.float32(65536))
    ties = ((below + above) / 2).view(np.uint32)
    edges = np.concatenate([below.view(np.uint32), ties - 1, ties, ties + 1, corners(8, 23)])
    value = np.concatenate([any_, ranged, edges, edges | np.uint32(0x80000000)])
    check("Fp32ToFp16", (value,), numpy=half(value), apytypes=apy_bits16(apy32(value).cast(5, 10)))


def test_from_half_exhaustively() -> None:
    value = np.arange(1 << 16, dtype=np.uint32)
    expected = canonical32(f16(value).astype(np.float32))
    check("Fp16ToFp32", (value,), numpy=expected, apytypes=apy_bits32(apy16(value).cast(8, 23)))


def test_to_bfloat() -> None:
    any_ = random32(16)
    finite = np.arange(0x7F80, dtype=np.uint32) << 16
    ties = finite + 0x8000
    edges = np.concatenate([finite, ties - 1, ties, ties + 1, finite + 0xFFFF, corners(8, 23)])
    value = np.concatenate([any_, edges, edges | np.uint32(0x80000000)])
    check("Fp32ToBf16", (value,), fp64=half_b16(value), apytypes=apy_bitsb16(apy32(value).cast(8, 7)))


def test_from_bfloat_exhaustively() -> None:
    value = np.arange(1 << 16, dtype=np.uint32)
    check("Bf16ToFp32", (value,), numpy=canonical32(fb16(value)), apytypes=apy_bits32(apyb16(value).cast(8, 23)))


REFERENCES: dict[str, Callable[..., Bits]] = {
    "Fp16Multiply": product,
    "Fp32Add": add32,
    "Fp32Add of multipliers": add32,
    "Fp32Add with subnormals": add32,
    "Fp32Multiply": multiply32,
    "Fp32Multiply without subnormals": multiply32_flushed,
    "Fp32ToFp16": half,
    "Fp16ToFp32": lambda value: canonical32(f16(value).astype(np.float32)),
    "Bf16Multiply": productb16,
    "Fp32ToBf16": half_b16,
    "Bf16ToFp32": lambda value: canonical32(fb16(value)),
}


def operands_of(unit: str, count: int, seed: int = 12) -> tuple[Bits, ...]:
    """Normal operands whose results are different from one to the next."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 16, (2, count), dtype=np.uint32)
    if unit in ("Fp16Multiply", "Fp16ToFp32"):
        bits = bits & 0x83FF | 0x3C00
    elif unit in ("Bf16Multiply", "Bf16ToFp32"):
        bits = bits & 0xBFFF ^ 0x2000
    else:
        bits = bits << 12 | 0x3F800000 | rng.integers(0, 1 << 12, (2, count), dtype=np.uint32)
    return tuple(bits) if "To" not in unit else (bits[0],)


class AllUnits(wiring.Component):
    """Every unit with one latency, so that one build serves all; port ``i_name`` is ``name`` of unit ``i``."""

    def __init__(self, latency: int) -> None:
        self.units = [make(latency) for make in UNITS.values()]
        super().__init__({f"u{i}_{n}": f for i, u in enumerate(self.units) for n, f in u.signature.members.items()})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for i, unit in enumerate(self.units):
            m.submodules[f"u{i}"] = unit
            for name, member in unit.signature.members.items():
                inner, outer = getattr(unit, name), getattr(self, f"u{i}_{name}")
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


@pytest.mark.parametrize("latency", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9))])
def test_latency_is_exact(latency: int) -> None:
    component = AllUnits(latency)
    fed: dict[str, Bits] = {}
    expected: dict[str, Bits] = {}
    for i, name in enumerate(UNITS):
        operands = operands_of(name, 64)
        ports = component.units[i].signature.members.items()
        fed |= zip((f"u{i}_{n}" for n, f in ports if f.flow == In), operands, strict=True)
        (output,) = (f"u{i}_{n}" for n, f in ports if f.flow == Out)
        expected[output] = REFERENCES[name](*operands)
    shown = Cosim(component).run({port: np.pad(bits, (0, latency)) for port, bits in fed.items()})
    for output, bits in expected.items():
        np.testing.assert_array_equal(shown[output][latency:], bits, err_msg=output)
        early = shown[output][latency - 1 : -1]
        assert np.count_nonzero(early == bits) <= 8, output


@pytest.mark.parametrize("unit", ["Fp16Multiply", "Fp32Add", "Fp32ToFp16"])
def test_amaranth_simulator_agrees(unit: str) -> None:
    latency = LATENCY[unit]
    operands = [o[::997] for o in (add_operands() if unit == "Fp32Add" else pairs(corners(5, 10)))]
    if unit == "Fp32Add":
        operands = [canonical32(f32(flushed(o)[:400])) for o in operands]
    if unit == "Fp32ToFp16":
        operands = operands[:1]
    component = UNITS[unit](latency)
    names = [name for name in component.signature.members if name not in ("product", "sum", "half")]
    (result,) = (name for name in component.signature.members if name not in names)
    got: list[int] = []

    async def bench(ctx: Any) -> None:
        for t in range(operands[0].size + latency):
            for name, values in zip(names, operands, strict=True):
                ctx.set(getattr(component, name), int(values[t]) if t < values.size else 0)
            got.append(ctx.get(getattr(component, result)))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(got[latency:], run(unit, *operands))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("latency", [0, 33, 1.5])
def test_impossible_latencies_are_refused(unit: str, latency: int) -> None:
    with pytest.raises(InputError, match="latency must be an integer from 1 to 32"):
        UNITS[unit](latency)


@pytest.mark.slow
@pytest.mark.parametrize(("multiply", "decode"), [(Fp16Multiply, f16), (Bf16Multiply, fb16)])
def test_every_pair_of_operands(multiply: Callable[[int], Any], decode: Callable[[Bits], Bits]) -> None:
    """All 2^32 products, in two threads: the compiled loop runs without the interpreter's lock."""
    latency, rows = 2, 64
    every = np.arange(1 << 16, dtype=np.uint32)
    values = decode(every).astype(np.float32)

    def first_wrong(start: int) -> tuple[int, int] | None:
        unit = Cosim(multiply(latency))
        for low in range(start, start + (1 << 15), rows):
            a = every[low : low + rows]
            got = stream(unit, np.repeat(a, every.size), np.tile(every, rows), tail=latency)[latency:]
            with np.errstate(all="ignore"):
                expected = np.multiply(values[a][:, None], values[None, :])
            bits = expected.view(np.uint32)
            bits[np.isnan(expected)] = 0x7FC00000
            wrong = np.flatnonzero(got != bits.ravel())
            if wrong.size:
                return int(a[wrong[0] >> 16]), int(wrong[0] & 0xFFFF)
        return None

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(first_wrong, (0, 1 << 15))] == [None, None]
