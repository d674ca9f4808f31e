"""The stepped XNOR engine against the integers, the registers of its array, and the closed forms."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.spec import XnorSpec
from weft.dataflow.xnor.time import skipped_cycles, xnor_cycles
from weft.dataflow.xnor.words import Beat, beats_of, largest_sum, plane_weights, words_of
from weft.simulator.reference.xnor import xnor_reference
from weft.simulator.xnor import occupied_words, pack, run_xnor, xnor_product
from weft.simulator.xnor_edge import LEAST, MOST, fold, scaled, signs
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.integer_network import Norm
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..strategies import LEVELS, gemms, holds, integers_of, make_spec, receivers, xnor_mappings, xnor_specs

ALL_LEVELS = list(Levels)
PAIRS = list(product(ALL_LEVELS, ALL_LEVELS))


def machine(**given: int) -> AcceleratorSpec:
    return replace(make_spec(array=ArraySpec(rows=2, cols=2)), xnor=XnorSpec(**{"rows": 2, "cols": 2} | given))


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def closed_form(spec: AcceleratorSpec, mapping: XnorMapping, gemm: Gemm, slots: int) -> tuple[int, int, int]:
    """(cycles, compute, port stall), word for word from docs/design/machine.md with w = 1 and La = 1."""
    own = spec.xnor
    assert own is not None
    R, C, I, Lm, D = own.rows, own.cols, mapping.interleave, own.popcount_latency, mapping.group  # noqa: E741
    m, n = gemm.m, gemm.n
    if mapping.dataflow is Dataflow.OS:
        L, drain, tiles = slots * I, min(R, m) * I, ceil(m, R) * ceil(n, C * I)
        P = max(L, drain)
        cycles = 1 + (tiles - 1) * P + L - I + Lm + 1 + (R - 1) + (min(C, n) - 1) + drain
        return cycles, tiles * L, (tiles - 1) * (P - L)
    batches, k_tiles, n_tiles, B, s = ceil(m, I), ceil(ceil(slots, D), R), ceil(n, C), D * I, (D - 1) * I + 1
    P = max(batches * B, (R - 1) * s + D * R)
    start = max(D * R, I * D) + (k_tiles - 1) * max(n_tiles * P, R * s + 1) + (n_tiles - 1) * P
    cycles = start + (batches - 1) * B + Lm + R * s + (I - 1) + (min(C, n) - 1) + 1
    return cycles, k_tiles * n_tiles * batches * B, (k_tiles * n_tiles - 1) * (P - batches * B)


def slots_by_hand(gemm: Gemm, levels: tuple[Levels, Levels], word_bits: int) -> int:
    """The table of docs/design/xnor.md."""
    signed = [level in (Levels.BINARY, Levels.TERNARY) for level in levels]
    planes = [1 if one or level is Levels.SPIKE else level.bits for one, level in zip(signed, levels, strict=True)]
    beats = planes[0] * planes[1] * (2 if any(signed) and set(levels) != {Levels.BINARY} else 1)
    return gemm.k // gemm.run * ceil(gemm.run, word_bits) * beats


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_every_sum_and_cycle_is_that_of_the_registers(data: st.DataObject) -> None:
    spec, gemm, levels = data.draw(xnor_specs()), data.draw(gemms()), data.draw(st.tuples(LEVELS, LEVELS))
    mapping, skip = data.draw(xnor_mappings(spec)), data.draw(st.booleans())
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
    ready, hold = data.draw(st.none() | receivers(spec.xnor.cols)), data.draw(st.none() | holds())

    run = run_xnor(spec, mapping, a, b, levels, run=gemm.run, skip=skip, ready=ready, hold=hold)
    registers = xnor_reference(spec, mapping, a, b, levels, run=gemm.run, skip=skip, ready=ready, hold=hold)

    assert run.result.tolist() == registers.result.tolist() == (a @ b).tolist()
    assert run.length == registers.cycles
    assert run.left.tolist() == registers.left.tolist()


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_result_is_the_product_of_integers_and_time_the_closed_form(data: st.DataObject) -> None:
    spec, levels = data.draw(xnor_specs()), data.draw(st.tuples(LEVELS, LEVELS))
    gemm, mapping = data.draw(gemms(max_rows=60, max_cols=80)), data.draw(xnor_mappings(spec))
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))

    run = run_xnor(spec, mapping, a, b, levels, run=gemm.run)

    assert run.result.tolist() == (a @ b).tolist()
    slots = slots_by_hand(gemm, levels, spec.xnor.word_bits)
    assert (run.cycles.total, run.cycles.compute, run.cycles.port_stall) == closed_form(spec, mapping, gemm, slots)
    assert run.cycles == xnor_cycles(spec, gemm, mapping, levels)
    assert run.left.max() < run.cycles.total


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_words_that_are_left_out_cost_what_the_closed_form_says_and_change_no_sum(data: st.DataObject) -> None:
    spec, levels = data.draw(xnor_specs()), data.draw(st.tuples(LEVELS, LEVELS))
    gemm, mapping = data.draw(gemms(max_rows=40, max_cols=40)), data.draw(xnor_mappings(spec))
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
    own = spec.xnor

    run = run_xnor(spec, mapping, a, b, levels, run=gemm.run, skip=True)

    west, north = (pack(x, level, own.word_bits, gemm.run) for x, level in zip((a, b.T), levels, strict=True))
    occupied = occupied_words(own, mapping, west, north)
    assert run.result.tolist() == (a @ b).tolist()
    assert run.cycles == skipped_cycles(spec, mapping, gemm.m, gemm.n, len(beats_of(*levels)), occupied)
    assert run.cycles.total <= xnor_cycles(spec, gemm, mapping, levels).total
    if (a != 0).all() or (b != 0).all():
        words = words_of(gemm, *levels, own.word_bits).words
        both = (a != 0).any(axis=0) & (b != 0).any(axis=1)
        assert occupied.max() <= words and (occupied.max() > 0) == both.any()


def test_a_tile_without_words_leaves_zeros_and_costs_one_slot() -> None:
    spec = machine(word_bits=8)
    a, b = np.zeros((2, 40), int), np.ones((40, 2), int)
    for dataflow in (Dataflow.OS, Dataflow.WS):
        mapping = XnorMapping(dataflow=dataflow, interleave=1)
        run = run_xnor(spec, mapping, a, b, (Levels.SPIKE, Levels.BINARY), skip=True)
        one = run_xnor(spec, mapping, a[:, :1], b[:1], (Levels.SPIKE, Levels.SPIKE))

        assert not run.result.any()
        assert run.cycles == one.cycles


@pytest.mark.parametrize("levels", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_beats_are_those_of_the_page_and_make_every_product(levels: tuple[Levels, Levels]) -> None:
    """Every pair of values, one by one: what its beats count, times their weights, is the product."""
    beats = beats_of(*levels)

    assert len(beats) == slots_by_hand(Gemm(m=1, k=1, n=1), levels, 8)
    assert [beat[:3] for beat in beats] == sorted(beat[:3] for beat in beats)
    assert all(0 <= beat.shift <= 14 for beat in beats)
    x, y = (np.array([list(level.values)]) for level in levels)
    assert run_xnor(ONE, ONCE, x.T, y, levels).result.tolist() == (x.T * y).tolist()


ONE = machine(rows=1, cols=1, word_bits=8)
ONCE = XnorMapping(dataflow=Dataflow.OS, interleave=1)


def test_the_beats_of_some_pairs_in_full() -> None:
    assert beats_of(Levels.BINARY, Levels.BINARY) == (Beat(0, 0, False, 0, False),)
    assert beats_of(Levels.SPIKE, Levels.INT2) == (Beat(0, 0, False, 0, False), Beat(0, 1, False, 1, True))
    assert beats_of(Levels.TERNARY, Levels.BINARY) == (Beat(0, 0, False, 0, False), Beat(0, 0, True, 0, True))
    assert beats_of(Levels.INT2, Levels.BINARY) == (
        Beat(0, 0, False, 0, False),
        Beat(0, 0, True, 0, True),
        Beat(1, 0, False, 1, True),
        Beat(1, 0, True, 1, False),
    )
    assert max(beat.shift for beat in beats_of(Levels.INT8, Levels.INT8)) == 14
    assert [plane_weights(levels) for levels in (Levels.TERNARY, Levels.INT3)] == [(1,), (1, 2, -4)]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_ternary_pattern_of_a_short_contraction(k: int) -> None:
    lines = np.array(list(product((-1, 0, 1), repeat=k)))
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=4)

    for skip in (False, True):
        run = run_xnor(machine(word_bits=8), mapping, lines, lines.T, (Levels.TERNARY, Levels.TERNARY), skip=skip)
        assert run.result.tolist() == (lines @ lines.T).tolist()


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_no_padded_bit_is_ever_counted(data: st.DataObject) -> None:
    """Whatever sign is written where a word is padded, the sums are the same."""
    gemm, levels = data.draw(gemms()), data.draw(st.tuples(LEVELS, LEVELS))
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
    word_bits, rng = 8 * data.draw(st.integers(1, 10)), np.random.default_rng(data.draw(st.integers(0, 99)))

    def spoiled(values: np.ndarray, level: Levels):
        packed = pack(values, level, word_bits, gemm.run)
        real = pack(np.ones_like(values), Levels.BINARY, word_bits, gemm.run).side.mask[0, 0]
        noise = rng.integers(0, 2**64, packed.side.sign.shape, np.uint64) & ~real
        return packed._replace(side=packed.side._replace(sign=packed.side.sign | noise))

    assert xnor_product(spoiled(a, levels[0]), spoiled(b.T, levels[1]), gemm.k).tolist() == (a @ b).tolist()


def test_planes_lie_as_the_page_has_them() -> None:
    """Runs of three in words of eight: the second begins at bit 8; a sign is 1 for -1; bits of two's complement."""
    values = np.array([[1, -1, 1, -1, -1, 1]])
    binary = pack(values, Levels.BINARY, 8, 3).side
    assert (binary.sign.tolist(), binary.mask.tolist()) == ([[0b011_00000010]], [[[0b111_00000111]]])
    ternary = pack(values * [1, 0, 1, 1, 1, 0], Levels.TERNARY, 8, 3).side
    assert (ternary.sign.tolist(), ternary.mask.tolist()) == ([[0b011_00000000]], [[[0b011_00000101]]])
    assert pack(np.array([[-2, 1, -1]]), Levels.INT2, 8).side.mask.tolist() == [[[0b110]], [[0b101]]]
    assert pack(np.array([[1, 0, 1]]), Levels.SPIKE, 8).side.mask.tolist() == [[[0b101]]]


@pytest.mark.parametrize("latency", [1, 2, 5, 32])
@pytest.mark.parametrize("dataflow", [Dataflow.OS, Dataflow.WS])
def test_a_longer_count_delays_every_result_by_as_much(latency: int, dataflow: Dataflow) -> None:
    a, b = np.ones((5, 33), int), np.ones((33, 5), int)
    mapping, levels = XnorMapping(dataflow=dataflow, interleave=2), (Levels.BINARY, Levels.SPIKE)
    short, long = (
        run_xnor(machine(word_bits=8, popcount_latency=cycles), mapping, a, b, levels) for cycles in (1, latency)
    )

    assert (long.left - short.left == latency - 1).all()
    assert long.cycles.total - short.cycles.total == latency - 1


# --- the edge

FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = st.integers(-8, 8).map(float)
VARIANCE = st.sampled_from([0.25, 1.0, 4.0]) | st.floats(2.0**-60, 2.0**60, width=32)
SCALE = st.sampled_from([0.0, 0.5, 1.0, -2.0]) | st.floats(2.0**-60, 2.0**60, width=32)


def not_below_zero(x: Fraction, beta: Fraction, variance: Fraction) -> bool:
    """Whether x / sqrt(variance) + beta >= 0, by squares: x against -beta sqrt(variance)."""
    if x < 0:
        return beta > 0 and x * x <= beta * beta * variance
    return beta >= 0 or x * x >= beta * beta * variance


@settings(max_examples=examples(500))
@given(
    st.lists(st.tuples(*[FLOAT | SMALL] * 3, VARIANCE, SCALE, FLOAT | SMALL), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e-5, 0.25]),
)
@example([(0.0, b, 0.0, 1.0, 1.0, 0.0) for b in (0.0, -1.0)], 0.0)
@example([(g, 0.0, mu, 1.0, 1.0, 0.0) for g in (1.0, -1.0) for mu in (3.0, 2.0**40)], 0.0)
@example([(g, b, 3.0, 4.0, 0.5, 1.0) for g in (1.0, -2.0) for b in (0.5, -0.5)], 0.0)
@example([(g, b, 3.0, 4.0, 0.0, 1.0) for g in (1.0, -2.0) for b in (1.0, -1.0)], 0.0)
def test_a_threshold_is_batch_norm_and_sign_in_exact_arithmetic(channels, epsilon) -> None:
    gamma, beta, mean, variance, scale, bias = (np.array(x, np.float32) for x in zip(*channels, strict=True))

    folded = fold(Norm(gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=epsilon), scale, bias)

    at = folded.at.astype(np.int64)
    sums = np.unique(np.concatenate([at - 1, at, at + 1, [0, -1, 1, LEAST + 1, MOST]]).clip(LEAST + 1, MOST))
    found = signs(np.repeat(sums[:, None], len(channels), axis=1).astype(np.int32), folded)
    for s, row in zip(sums.tolist(), found.tolist(), strict=True):
        for bit, *numbers in zip(row, gamma, beta, mean, variance, scale, bias, strict=True):
            g, b, mu, v, alpha, shift = (Fraction(float(x)) for x in numbers)
            assert bit == not_below_zero(g * (alpha * s + shift - mu), b, v + Fraction(epsilon))


def test_the_threshold_of_a_tie_counts_as_plus_one() -> None:
    """sign(0) = +1, on both sides; a gamma of 0 leaves the sign of beta."""
    gamma, beta, mean = (np.array(x, np.float32) for x in ([2, -2, 2, 0, 0], [0, 0, 1, 0, -1], [3, 3, 3, 9, 9]))
    folded = fold(Norm(gamma=gamma, beta=beta, mean=mean, variance=np.full(5, 16, np.float32), epsilon=0.0))

    assert folded.at[:3].tolist() == [3, 3, 1] and folded.flip[:3].tolist() == [False, True, False]
    assert signs(np.full((1, 5), 3, np.int32), folded).tolist() == [[True, True, True, True, False]]


def test_a_scaled_sum_is_rounded_to_fp32_and_then_to_the_operand() -> None:
    """2^24 + 1 is no FP32; 2049 is no FP16, and a tie that goes to 2048."""
    pe = machine().pe
    sums = np.array([[2**24 + 1, 2049, -3]], np.int32)
    assert scaled(sums, np.array([2.0**-13, 1, 0.5], np.float32), pe).tolist() == [[2048.0, 2048.0, -1.5]]


# --- what is refused


@pytest.mark.parametrize(
    ("levels", "value", "nearest"),
    [
        (Levels.BINARY, 0, "the nearest is -1"),
        (Levels.SPIKE, -1, "the nearest is 0"),
        (Levels.TERNARY, 2, "the nearest is 1"),
        (Levels.INT2, 2, "the nearest is 1"),
        (Levels.INT8, -129, "the nearest is -128"),
    ],
)
def test_a_value_outside_of_its_levels_is_refused(levels: Levels, value: int, nearest: str) -> None:
    a = np.ones((2, 3), int)
    a[1, 2] = value
    with pytest.raises(InputError, match=rf"a holds {value} at \[1, 2\], which is no value of {levels}; {nearest}"):
        run_xnor(ONE, ONCE, a, np.ones((3, 1), int), (levels, Levels.BINARY))


def test_sums_beyond_an_accumulator_are_refused_and_those_at_its_end_are_not() -> None:
    most = (2**31 - 1) // 2**14
    assert largest_sum(most, Levels.INT8, Levels.INT8) < 2**31 <= largest_sum(most + 1, Levels.INT8, Levels.INT8)
    levels = (Levels.INT8, Levels.INT8)
    a = np.full((1, most + 1), -128, np.int16)
    spec = machine(rows=1, cols=1, word_bits=256)
    with pytest.raises(InputError, match=f"the longest contraction is {most}"):
        run_xnor(spec, ONCE, a, a.T, levels)
    assert run_xnor(spec, ONCE, a[:, :most], a[:, :most].T, levels).result.item() == most * 2**14


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"word_bits": 12}, "whole bytes, not 12; the nearest valid value is 8"),
        ({"word_bits": 264}, "xnor.word_bits must be an integer from 8 to 256"),
        ({"rows": 0}, "xnor.rows must be an integer from 1 to 1024"),
        ({"popcount_latency": 33}, "xnor.popcount_latency"),
    ],
)
def test_an_engine_that_cannot_be_built_is_refused(given: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        machine(**given)


def test_mappings_that_the_elements_do_not_hold_are_refused() -> None:
    spec = machine(accumulators=4, dense_words=4, weight_words=2)
    with pytest.raises(InputError, match="interleave must be an integer from 1 to 4"):
        XnorMapping(dataflow=Dataflow.OS, interleave=5).check(spec)
    with pytest.raises(InputError, match=r"holds 6 words of the other operand.*at most 2"):
        XnorMapping(dataflow=Dataflow.WS, interleave=3, group=2).check(spec)
    with pytest.raises(InputError, match="group must be an integer from 1 to 2"):
        XnorMapping(dataflow=Dataflow.WS, interleave=1, group=3).check(spec)
    with pytest.raises(InputError, match="group must be an integer from 1 to 1"):
        XnorMapping(dataflow=Dataflow.OS, interleave=1, group=2)
    with pytest.raises(InputError, match="dataflow is 'os1'"):
        XnorMapping(dataflow=Dataflow.OS1, interleave=1)
    with pytest.raises(InputError, match=r"'test' has no XNOR engine: give it a table \[xnor\]"):
        ONCE.check(make_spec(array=ArraySpec(rows=2, cols=2)))


@pytest.mark.parametrize(
    ("a", "b", "given", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2), int), {}, "a must be a matrix of integers, not float64"),
        (np.ones((2, 3), int), np.ones((4, 2), int), {}, "their k must be equal"),
        (np.ones((2, 4), int), np.ones((4, 2), int), {"run": 3}, "run must divide k"),
        (np.ones((2, 4), int), np.ones((4, 0), int), {}, "b must be a matrix of integers"),
    ],
)
def test_operands_that_make_no_product_are_refused(a, b, given, message) -> None:
    with pytest.raises(InputError, match=message):
        run_xnor(ONE, ONCE, a, b, (Levels.BINARY, Levels.BINARY), **given)
