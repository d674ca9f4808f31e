"""The stepped array against the register-true machine, the definition of the product, and the closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.array import ArrayRun, run_array
from weft.simulator.compact import compress
from weft.simulator.operand import OPERAND_TYPES
from weft.simulator.reference import array_reference, gemm_reference
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import array_formats, array_mappings, compacts, gemms, halves, holds, make_spec, receivers, specs


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def bits(x: npt.NDArray[np.float32]) -> list[list[int]]:
    found: list[list[int]] = x.view(np.uint32).tolist()
    return found


def group_lengths(gemm: Gemm, pattern: NMPattern) -> list[int]:
    one_run = [min(pattern.group, gemm.run - start) for start in range(0, gemm.run, pattern.group)]
    return one_run * (gemm.k // gemm.run)


def closed_form(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> tuple[int, int, int, int]:
    """(cycles, compute, interleave stall, port stall), word for word from docs/design/machine.md."""
    return {Dataflow.OS: os_form, Dataflow.OS1: os_form, Dataflow.WS: ws_form}[mapping.dataflow](spec, mapping, gemm)


def os_form(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> tuple[int, int, int, int]:
    R, C, I, La = spec.array.rows, spec.array.cols, mapping.interleave, spec.pe.add_latency  # noqa: E741
    keep, J, m, n = mapping.pattern.keep, max(mapping.interleave, La), gemm.m, gemm.n
    lengths = group_lengths(gemm, mapping.pattern)
    load = [ceil(length, spec.array.w2e_words) for length in lengths]
    use = [min(keep, length) * J for length in lengths]
    L = sum(max(u, following) for u, following in zip(use, [*load[1:], load[0]], strict=True))
    bare = L - max(use[-1], load[0]) + use[-1]
    D = min(R, m) * I
    P = max(L, D) if mapping.dataflow is Dataflow.OS else max(L, bare - J + D)
    tiles, S = ceil(m, R) * ceil(n, C * I), sum(use) // J
    cycles = load[0] + (tiles - 1) * P + bare - J + spec.mac_latency + (R - 1) + (min(C, n) - 1) + D
    return cycles, tiles * S * I, tiles * S * (J - I), (tiles - 1) * (P - S * J) + bare - S * J


def ws_form(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> tuple[int, int, int, int]:
    R, C, I, La = spec.array.rows, spec.array.cols, mapping.interleave, spec.pe.add_latency  # noqa: E741
    keep, J, m, n = mapping.pattern.keep, max(mapping.interleave, La), gemm.m, gemm.n
    load = ceil(I * mapping.pattern.group, spec.array.w2e_words)
    B = max(keep * J, load)
    s = (keep - 1) * J + La
    batches, k_tiles, n_tiles = ceil(m, I), ceil(len(group_lengths(gemm, mapping.pattern)), R), ceil(n, C)
    P = max(batches * B, (R - 1) * s + keep * R)
    turn = max(n_tiles * P, R * s + spec.array.read_latency)
    start = max(keep * R, load) + (k_tiles - 1) * turn + (n_tiles - 1) * P
    cycles = start + (batches - 1) * B + spec.pe.multiply_latency + R * s + (I - 1) + (min(C, n) - 1) + 1
    tiles = k_tiles * n_tiles
    slots = tiles * batches * keep
    port = (tiles * batches - 1) * (B - keep * J) + (tiles - 1) * (P - batches * B)
    return cycles, slots * I, slots * (J - I), port


def check_times(run: ArrayRun, spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> None:
    c = run.cycles
    found = c.total, c.compute, c.interleave_stall, c.port_stall
    assert found == closed_form(spec, mapping, gemm)
    assert c.fill_drain >= 0
    assert run.left.max() < c.total


@settings(max_examples=examples(120), deadline=None)
@given(st.data())
def test_every_bit_and_cycle_is_that_of_the_registers(data: st.DataObject) -> None:
    format = data.draw(array_formats)
    spec = data.draw(specs(format))
    mapping, gemm = data.draw(array_mappings(spec)), data.draw(gemms())
    a, b = data.draw(halves(gemm.m, gemm.k, format=format)), data.draw(compacts(gemm, mapping.pattern, format))
    stalls = {"ready": data.draw(st.none() | receivers(spec.array.cols)), "hold": data.draw(st.none() | holds())}
    run, registers = run_array(spec, mapping, a, b, **stalls), array_reference(spec, mapping, a, b, **stalls)
    assert bits(run.result) == bits(registers.result)
    assert run.length == registers.cycles
    assert run.left.tolist() == registers.left.tolist()


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_receivers_cost_no_more_than_the_cycles_in_which_they_are_not_ready(data: st.DataObject) -> None:
    """And what causes the array's own cycles does not depend on them, nor do its results."""
    spec = data.draw(specs())
    mapping, gemm = data.draw(array_mappings(spec)), data.draw(gemms())
    a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(compacts(gemm, mapping.pattern))
    ready = data.draw(receivers(spec.array.cols))
    run, free = run_array(spec, mapping, a, b, ready=ready), run_array(spec, mapping, a, b)
    assert free.stalled == 0
    assert bits(run.result) == bits(free.result)
    assert run.cycles == free.cycles
    assert 0 <= run.stalled <= (~ready.all(axis=1)).sum()
    assert (run.left >= free.left).all()
    assert ready[
        run.left[run.left < len(ready)], (np.indices(run.left.shape)[1] % spec.array.cols)[run.left < len(ready)]
    ].all()


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_held_array_loses_the_cycles_in_which_it_was_held_and_no_other(data: st.DataObject) -> None:
    """With receivers that are always ready, every result is as late as cycles of hold stood before it; and array cycle
    ``x + 1`` follows the first cycle without hold from that of ``x`` on, the formula of the page."""
    spec = data.draw(specs())
    mapping, gemm = data.draw(array_mappings(spec)), data.draw(gemms())
    a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(compacts(gemm, mapping.pattern))
    hold = data.draw(holds())
    run, free = run_array(spec, mapping, a, b, hold=hold), run_array(spec, mapping, a, b)
    assert bits(run.result) == bits(free.result)
    assert run.cycles == free.cycles
    clock = [0]
    while len(clock) < free.length:
        clock.append(next(v for v in count(clock[-1]) if v >= len(hold) or not hold[v]) + 1)
    assert run.left.tolist() == [[clock[x] for x in row] for row in free.left.tolist()]
    assert run.stalled == hold[: run.length - 1].sum() == clock[-1] + 1 - free.length


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_result_is_the_definition_and_time_the_closed_form(data: st.DataObject) -> None:
    format = data.draw(array_formats)
    spec = data.draw(specs(format))
    mapping, gemm = data.draw(array_mappings(spec)), data.draw(gemms(max_rows=60, max_cols=80))
    a, b = data.draw(halves(gemm.m, gemm.k, format=format)), data.draw(compacts(gemm, mapping.pattern, format))
    run = run_array(spec, mapping, a, b)
    assert bits(run.result) == bits(gemm_reference(a, b))
    check_times(run, spec, mapping, gemm)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_result_does_not_depend_on_the_machine(data: st.DataObject) -> None:
    gemm = data.draw(gemms(max_rows=30, max_cols=30))
    pattern = data.draw(
        st.builds(lambda g, k: NMPattern(keep=min(g, k), group=g), st.integers(1, 8), st.integers(1, 4))
    )
    a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(compacts(gemm, pattern))
    results = []
    for dataflow in Dataflow:
        spec = data.draw(specs())
        spec = replace(spec, pe=replace(spec.pe, max_group=8, dense_words=64, weight_pairs=4, accumulators=8))
        mapping = ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=data.draw(st.integers(1, 8)))
        results.append(bits(run_array(spec, mapping, a, b).result))
    assert all(result == results[0] for result in results)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_dense_product_is_the_plain_one(data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(halves(gemm.k, gemm.n))
    spec = make_spec(array=ArraySpec(rows=3, cols=4))
    held = NMPattern(keep=4, group=4)
    runs = [
        run_array(spec, ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=4), a, b, run=gemm.run),
        run_array(spec, ArrayMapping(dataflow=Dataflow.WS, pattern=held, interleave=4), a, b, run=gemm.run),
    ]
    assert [bits(run.result) for run in runs] == [bits(gemm_reference(a, b))] * 2


@settings(max_examples=examples(30), deadline=None)
@given(st.data())
def test_a_plain_operand_is_compressed_on_the_way(data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(halves(gemm.k, gemm.n))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=8), interleave=2)
    spec = make_spec(array=ArraySpec(rows=2, cols=2))
    plain = run_array(spec, mapping, a, b, run=gemm.run)
    assert bits(plain.result) == bits(run_array(spec, mapping, a, compress(b, mapping.pattern, gemm.run)).result)


BOUNDARIES = {
    "os, interleave one short of the adder": (Dataflow.OS, "2:4", 3, {"add_latency": 4}, 4, (8, 16, 16)),
    "os, interleave hides the adder": (Dataflow.OS, "2:4", 4, {"add_latency": 4}, 4, (8, 16, 16)),
    "os, port exactly enough": (Dataflow.OS, "2:8", 2, {"add_latency": 1}, 2, (8, 32, 16)),
    "os, port one word short": (Dataflow.OS, "2:8", 2, {"add_latency": 1}, 1, (8, 32, 16)),
    "os, port exactly enough for an odd group": (Dataflow.OS, "1:9", 3, {"add_latency": 3}, 3, (8, 27, 16)),
    "os, port one cycle short for an odd group": (Dataflow.OS, "1:10", 3, {"add_latency": 3}, 3, (8, 30, 16)),
    "os, short last groups": (Dataflow.OS, "2:8", 2, {"add_latency": 1}, 1, (8, 27, 16)),
    "os, drain as long as the tile": (Dataflow.OS, "1:1", 4, {"add_latency": 4}, 1, (8, 4, 64)),
    "os, drain one slot longer than the tile": (Dataflow.OS, "1:1", 4, {"add_latency": 4}, 1, (8, 3, 64)),
    "os, many tiles in flight": (Dataflow.OS, "1:1", 1, {"add_latency": 1, "multiply_latency": 9}, 1, (1, 1, 64)),
    "ws, interleave one short of the adder": (Dataflow.WS, "2:4", 3, {"add_latency": 4}, 8, (20, 40, 8)),
    "ws, interleave hides the adder": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 8, (20, 40, 8)),
    "ws, port exactly enough": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 2, (20, 40, 8)),
    "ws, port one word short": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 1, (20, 40, 8)),
    "ws, weights as long as the batches": (Dataflow.WS, "1:1", 4, {"add_latency": 4}, 4, (16, 16, 9)),
    "ws, weights longer than the batches": (Dataflow.WS, "1:1", 4, {"add_latency": 4}, 4, (12, 16, 9)),
    "ws, sums come back late": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 8, (4, 64, 4)),
    "ws, sums come back after the weights are in": (Dataflow.WS, "2:2", 8, {"add_latency": 4}, 16, (8, 16, 4)),
    "ws, sums come back while others stream": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 8, (4, 64, 8)),
    "ws, sums come back late from slow banks": (Dataflow.WS, "2:4", 4, {"add_latency": 4}, 8, (4, 64, 5)),
    "ws, a single row of PEs": (Dataflow.WS, "2:4", 1, {"add_latency": 1, "multiply_latency": 1}, 8, (5, 32, 4)),
}


@pytest.mark.parametrize("name", BOUNDARIES)
def test_boundaries(name: str) -> None:
    dataflow, pattern, interleave, latencies, port, (m, k, n) = BOUNDARIES[name]
    gemm = Gemm(m=m, k=k, n=n)
    rows = 1 if "a single row" in name else 4
    slow = 3 if "slow banks" in name else 1
    spec = make_spec(array=ArraySpec(rows=rows, cols=4, w2e_words=port, read_latency=slow), pe=PESpec(**latencies))
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(pattern), interleave=interleave)
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((m, k)).astype(np.float16), rng.standard_normal((k, n)).astype(np.float16)
    run, registers = run_array(spec, mapping, a, b), array_reference(spec, mapping, a, b)
    check_times(run, spec, mapping, gemm)
    assert (run.cycles.total, bits(run.result)) == (registers.cycles, bits(registers.result))
    assert run.left.tolist() == registers.left.tolist()


@pytest.mark.parametrize(("m", "n"), [(256, 4), (600, 4), (600, 9), (12, 4), (13, 3)])
def test_partial_sums_of_long_and_of_short_tiles(m: int, n: int) -> None:
    """More rows than the kernel sums up at once, and so few that each is asked for as soon as it has left."""
    gemm = Gemm(m=m, k=44, n=n)
    spec = make_spec(array=ArraySpec(rows=3, cols=4, w2e_words=16))
    mapping = ArrayMapping(dataflow=Dataflow.WS, pattern=NMPattern(keep=2, group=4), interleave=4)
    rng = np.random.default_rng(11)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((m, 44), (44, n)))
    pairs = compress(b, mapping.pattern)
    run = run_array(spec, mapping, a, pairs)
    check_times(run, spec, mapping, gemm)
    assert bits(run.result) == bits(gemm_reference(a, pairs))


def test_leaving_times_of_os_are_those_of_the_page() -> None:
    spec = make_spec(array=ArraySpec(rows=3, cols=2, w2e_words=2))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=4), interleave=3)
    gemm = Gemm(m=2, k=12, n=6)
    a, b = np.ones((2, 12), np.float16), np.ones((12, 6), np.float16)
    run = run_array(spec, mapping, a, b)
    J, lat = 4, spec.mac_latency
    first = 2 + 3 * 2 * J - J + lat
    for row in range(gemm.m):
        for column in range(gemm.n):
            i, c = divmod(column, 2)
            assert run.left[row, column] == first + 2 + c + (2 - 1 - row) * 3 + i


def test_infinities_and_nans_come_out_canonical() -> None:
    spec = make_spec(array=ArraySpec(rows=2, cols=2))
    a = np.array([[np.inf, np.inf], [np.nan, 1.0], [-0.0, -0.0]], np.float16)
    b = np.array([[1.0, 1.0], [-1.0, 1.0]], np.float16)
    expected = [[0x7FC00000, 0x7F800000], [0x7FC00000, 0x7FC00000], [0x00000000, 0x80000000]]
    for dataflow in Dataflow:
        mapping = ArrayMapping(dataflow=dataflow, pattern=DENSE, interleave=1)
        assert bits(run_array(spec, mapping, a, b).result) == expected


def test_a_product_is_rounded_before_it_is_added() -> None:
    """BF16 below 2^-126: if a compiler fused the two operations, most sums would come out otherwise."""
    rng, k = np.random.default_rng(3), 60
    a, b = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-69, -65, shape)).astype(OPERAND_TYPES["bf16"])
        for shape in ((40, k), (k, 40))
    )
    fused = np.full((40, 40), np.float32(-0.0))
    for j in range(k):
        # exact: 16 bits of a product and 24 of a sum lie within 53
        fused = (a[:, j, None].astype(np.float64) * b[j].astype(np.float64) + fused).astype(np.float32)
    expected = gemm_reference(a, b)
    assert np.count_nonzero(expected != fused) > expected.size // 2
    spec = make_spec(array=ArraySpec(rows=3, cols=4), pe=PESpec(format="bf16"))
    for dataflow in Dataflow:
        mapping = ArrayMapping(dataflow=dataflow, pattern=DENSE, interleave=4)
        assert bits(run_array(spec, mapping, a, b).result) == bits(expected)


def test_operands_of_the_other_format_are_refused() -> None:
    spec = make_spec(array=ArraySpec(rows=2, cols=2), pe=PESpec(format="bf16"))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)
    half, bfloat = (np.ones((2, 2), OPERAND_TYPES[format]) for format in ("fp16", "bf16"))
    with pytest.raises(InputError, match="a must be a non-empty matrix of bfloat16, not float16"):
        run_array(spec, mapping, half, bfloat)
    with pytest.raises(InputError, match=r"b holds float16, but pe\.format of 'test' is 'bf16'"):
        run_array(spec, mapping, bfloat, compress(half, DENSE))


def test_operands_of_either_encoding_of_fp8_meet_and_no_others() -> None:
    spec = make_spec(array=ArraySpec(rows=2, cols=2), pe=PESpec(format="fp8"))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)
    weights, gradients = np.full((2, 2), 448, OPERAND_TYPES["fp8"]), np.full((2, 2), 57344, ml_dtypes.float8_e5m2)
    assert run_array(spec, mapping, gradients, weights).result.tolist() == [[2 * 448.0 * 57344.0] * 2] * 2
    with pytest.raises(InputError, match="a must be a non-empty matrix of float8_e4m3fn or float8_e5m2, not int8"):
        run_array(spec, mapping, np.ones((2, 2), np.int8), weights)
    with pytest.raises(InputError, match=r"b holds int8, but pe\.format of 'test' is 'fp8'"):
        run_array(spec, mapping, weights, compress(np.ones((2, 2), np.int8), DENSE))


def test_sums_of_int8_wrap_around() -> None:
    """131,071 products of the largest magnitudes are the most that cannot; 2^17 of them are 2^31."""
    spec = make_spec(array=ArraySpec(rows=1, cols=1), pe=PESpec(format="int8"))
    assert spec.pe.operand.exact_sums == 2**17 - 1
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)
    for k, total in ((2**17 - 1, 2**31 - 2**14), (2**17, -(2**31))):
        a = np.full((1, k), -128, np.int8)
        found = run_array(spec, mapping, a, a.T.copy()).result
        assert found.dtype == np.int32 and found.tolist() == [[total]]


def test_bad_operands_are_refused_by_name() -> None:
    spec = make_spec(array=ArraySpec(rows=2, cols=2))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=4), interleave=1)
    a, b = np.ones((2, 8), np.float16), np.ones((8, 2), np.float16)
    with pytest.raises(InputError, match="a must be a non-empty matrix of float16, not float32"):
        run_array(spec, mapping, a.astype(np.float32), b)
    with pytest.raises(InputError, match="a is 2 x 8, but b has a contraction of 4"):
        run_array(spec, mapping, a, b[:4])
    with pytest.raises(InputError, match="b holds pairs of 1:4, but the mapping executes 2:4"):
        run_array(spec, mapping, a, compress(b, NMPattern(keep=1, group=4)))
    with pytest.raises(InputError, match="run must divide k"):
        run_array(spec, mapping, a, b, run=3)
    for wrong in (np.ones((5, 3), np.bool_), np.ones((5, 2), np.int8), np.ones(5, np.bool_)):
        with pytest.raises(InputError, match=r"ready must be bool \[cycles, 2\], a column for each of the array, not"):
            run_array(spec, mapping, a, b, ready=wrong)
    for still in (np.zeros((3, 1), np.bool_), np.zeros(3, np.uint8)):
        with pytest.raises(InputError, match=r"hold must be bool \[cycles\], not"):
            run_array(spec, mapping, a, b, hold=still)
    with pytest.raises(InputError, match="run is 8, but b was compressed in runs of 4"):
        run_array(spec, mapping, a, compress(b, mapping.pattern, 4), run=8)
