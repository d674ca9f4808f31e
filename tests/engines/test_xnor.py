"""The XNOR engine through the suite of engines; what it refuses; and ops with levels on the STCE."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.tariff import prices
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.account import Cycles
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import engines_of, evaluate, place
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.counts import StceCounts
from weft.dataflow.stce.dataflows import NUMBER, PACES
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.xnor.engine import Xnor
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.spec import XnorSpec
from weft.dataflow.xnor.time import xnor_cycles, xnor_machine
from weft.hdl.drivers.xnor import XnorDriver
from weft.simulator.dram import memory_of
from weft.simulator.reference.xnor import xnor_reference
from weft.simulator.regions import lay_out
from weft.simulator.step import simulate, stepped
from weft.simulator.step_requests import _matrix_phases, step_requests
from weft.simulator.system import require_same, simulate_system
from weft.simulator.xnor import run_xnor
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Workload

from ..dataflow.problems import machines, make_op, mappings, matrix_ops, with_levels
from ..examples_drawn import examples
from ..strategies import LEVELS, gemms, integers_of, make_spec, xnor_mappings, xnor_specs
from .conformance import Conformance, Run, as_run, claimed

RESULTS = (("float16", None), ("int32", None), ("float16", Levels.BINARY), ("bool", Levels.SPIKE))
"""What the edge makes of a sum: a number of the machine, the sum, a sign, an event."""


SMALL = replace(
    make_spec(array=ArraySpec(rows=1, cols=1)),
    xnor=XnorSpec(rows=2, cols=3, word_bits=8, accumulators=3, dense_words=9, weight_words=3, popcount_latency=2),
)
"""Ragged in everything; one model of it is compiled, that of `tests/equivalence/test_rtl_xnor.py`."""


@cache
def rtl() -> XnorDriver:
    return XnorDriver(SMALL)


def xnor_of(spec: AcceleratorSpec) -> Xnor:
    (found,) = (engine for engine in engines_of(spec) if engine.kind == "xnor")
    assert isinstance(found, Xnor)
    return found


@st.composite
def xnor_machines(draw: st.DrawFn) -> AcceleratorSpec:
    return replace(draw(machines()), xnor=draw(xnor_specs()).xnor)


@st.composite
def level_ops(draw: st.DrawFn, spec: AcceleratorSpec) -> MatrixOp:
    op = replace(draw(matrix_ops(spec)), sparse=None)
    return with_levels(op, draw(LEVELS), draw(LEVELS), draw(st.sampled_from(RESULTS)))


@st.composite
def xnor_tiles(draw: st.DrawFn, spec: AcceleratorSpec, op: MatrixOp) -> Mapping:
    array = draw(xnor_mappings(spec))
    assert spec.xnor is not None
    high, wide = PACES[NUMBER[array.dataflow]].unit(xnor_machine(spec.xnor), array.interleave)
    n2s = draw(st.sampled_from(("a", "b")))
    gemm = op.gemm if n2s == "b" else op.gemm.transposed
    return Mapping(
        array=array,
        gemm=gemm,
        n2s=n2s,
        tile_rows=min(high * draw(st.integers(1, 6)), gemm.m),
        tile_cols=min(wide * draw(st.integers(1, 6)), gemm.n),
        resident=draw(st.booleans()),
        order=draw(st.sampled_from(("mn", "nm"))),
    )


def beats(a: Levels, b: Levels) -> int:
    """The table of docs/design/xnor.md, once more."""
    signed = [levels in (Levels.BINARY, Levels.TERNARY) for levels in (a, b)]
    planes = [1 if one else levels.bits for one, levels in zip(signed, (a, b), strict=True)]
    return planes[0] * planes[1] * (2 if any(signed) and not (a == b == Levels.BINARY) else 1)


class TestXnor(Conformance):
    kind = "xnor"

    def machines(self) -> st.SearchStrategy[AcceleratorSpec]:
        return xnor_machines()

    def ops(self, spec: AcceleratorSpec) -> st.SearchStrategy[MatrixOp]:
        return level_ops(spec)

    def mappings(self, spec: AcceleratorSpec, op: MatrixOp) -> st.SearchStrategy[Mapping]:
        return xnor_tiles(spec, op)

    def contraction(self, spec: AcceleratorSpec, op: MatrixOp) -> int:
        return _words(spec, op) * beats(op.a.levels, op.b.levels)

    def least_bytes(self, spec: AcceleratorSpec, op: MatrixOp) -> tuple[int, int, int]:
        """Of A and B the words of what is stored, padded; of C the bits of a sign, a number or a sum."""
        words, run = _words(spec, op) // (op.gemm.k // op.gemm.run), op.gemm.run
        a, b = (-(-x.elements // run) * words * spec.xnor.word_bits * x.levels.bits // 8 for x in (op.a, op.b))
        g = op.gemm
        a, b = min(a, g.groups * g.m * g.k // run * words * spec.xnor.word_bits * op.a.levels.bits // 8), b
        bits = {None: 32 if op.c.dtype == "int32" else 16}.get(op.c.levels, 1)
        return a, b, op.c.elements * bits // 8

    def on_values(self, data: st.DataObject) -> tuple[Cycles, dict[str, Run], bytes]:
        spec = data.draw(st.just(SMALL) | xnor_specs())
        gemm, levels = data.draw(gemms(9, 9)), data.draw(st.tuples(LEVELS, LEVELS))
        mapping = data.draw(xnor_mappings(spec))
        a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
        run = run_xnor(spec, mapping, a, b, levels, run=gemm.run)
        reference = xnor_reference(spec, mapping, a, b, levels, run=gemm.run)
        runs = {
            "stepped": as_run(run.result, run.left, run.length),
            "reference": as_run(reference.result, reference.left, reference.cycles),
        }
        if spec is SMALL:
            circuit = rtl().run(mapping, gemm, levels, a, b, cycles=run.length)
            runs["rtl"] = as_run(circuit.result, circuit.left, circuit.cycles)
        return xnor_cycles(spec, gemm, mapping, levels), runs, (a @ b).astype(np.int32).tobytes()


def _words(spec: AcceleratorSpec, op: MatrixOp) -> int:
    g = op.gemm
    return g.k // g.run * -(-g.run // spec.xnor.word_bits)


SPEC = replace(make_spec(array=ArraySpec(rows=4, cols=4)), xnor=XnorSpec(rows=4, cols=4))
BINARY = with_levels(make_op(Gemm(m=64, k=576, n=32, run=64)), Levels.BINARY, Levels.BINARY, ("int32", None))


def test_an_op_goes_where_it_costs_least_and_only_with_levels_on_both_sides_to_the_xnor_engine() -> None:
    plain = make_op(BINARY.gemm)
    one_side = with_levels(plain, None, Levels.BINARY, ("float16", None))

    assert place(BINARY, SPEC, Objective.CYCLES).engine == "XNOR"
    assert [place(op, SPEC, Objective.CYCLES).engine for op in (plain, one_side)] == ["STCE", "STCE"]
    assert SPEC.macs_per_cycle == 16 + 16 * 64
    slow = replace(SPEC, xnor=XnorSpec(rows=1, cols=1, word_bits=8, accumulators=1, dense_words=1, weight_words=1))
    assert place(BINARY, slow, Objective.CYCLES).engine == "STCE"


def test_a_binary_product_in_full() -> None:
    """Nine words of 64 bits: 4 x 4 elements and interleave 2 make 16 x 4 tiles of 18 cycles; bits in, sums out."""
    mapping = Mapping(
        array=XnorMapping(dataflow=Dataflow.OS, interleave=2),
        gemm=BINARY.gemm,
        n2s="b",
        tile_rows=64,
        tile_cols=32,
        resident=True,
        order="mn",
    )
    found = evaluate(BINARY, SPEC, mapping)

    assert found.cycles.compute == 16 * 4 * 18
    assert found.counts.popcounts == 64 * 32 * 9
    assert (found.counts.dram_read_bytes, found.counts.dram_write_bytes) == ((64 + 32) * 576 // 8, 64 * 32 * 4)
    assert (found.counts.w2e_words, found.counts.n2s_pairs) == (64 * 9 * 4, 32 * 9 * 16)
    assert found.counts.macs == BINARY.macs


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (make_op(BINARY.gemm), "its operand a is float16 without levels"),
        (replace(BINARY, b=replace(BINARY.b, levels=None)), "its operand b is float16 without levels"),
        (
            replace(BINARY, sparse=NMOperand(operand="b", pattern=NMPattern(keep=2, group=4), online=False)),
            "its operand b is 2:4, and words are dense",
        ),
        (with_levels(BINARY, Levels.BINARY, Levels.BINARY, ("float16", Levels.INT4)), "its result is int4"),
        (
            with_levels(make_op(Gemm(m=1, k=2**17, n=1)), Levels.INT8, Levels.INT8, ("int32", None)),
            "the longest contraction is 131071",
        ),
        (
            with_levels(make_op(Gemm(m=2**20, k=2**12, n=2**20, run=1)), Levels.TERNARY, Levels.SPIKE, ("int32", None)),
            r"above the limit of 2\^56",
        ),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_reason(op: MatrixOp, message: str) -> None:
    engine = xnor_of(SPEC)
    assert not engine.takes(op)
    with pytest.raises(InputError, match=rf"'layer' in FF cannot run on the XNOR engine of 'test': .*{message}"):
        engine.place(op, Objective.CYCLES)


def test_a_mapping_of_an_engine_that_the_machine_lacks_is_refused() -> None:
    mapping = place(BINARY, SPEC, Objective.CYCLES).mapping
    with pytest.raises(InputError, match="has no engine of kind 'xnor'"):
        evaluate(BINARY, replace(SPEC, xnor=None), mapping)


# --- ops with levels on the STCE


@settings(max_examples=examples(150))
@given(st.data())
def test_the_phases_of_an_op_with_levels_on_the_stce_are_its_cost(data: st.DataObject) -> None:
    spec = data.draw(machines())
    some = st.none() | LEVELS
    op = with_levels(data.draw(matrix_ops(spec)), data.draw(some), data.draw(some), data.draw(st.sampled_from(RESULTS)))
    try:
        found = evaluate(op, spec, data.draw(mappings(spec, op)))
    except InputError:
        assume(False)
        raise

    assert claimed(found) == stepped(op, found.mapping, spec)
    plain = replace(op, a=replace(op.a, levels=None), b=replace(op.b, levels=None), c=replace(op.c, levels=None))
    assert found.counts.dram_read_bytes <= evaluate_or_none(plain, spec, found)
    signs = {Levels.BINARY, Levels.TERNARY, Levels.SPIKE}
    flips = op.macs if {op.a.levels, op.b.levels} & signs else 0
    assert (found.counts.sign_flips if isinstance(found.counts, StceCounts) else 0) == flips


def evaluate_or_none(op: MatrixOp, spec: AcceleratorSpec, found) -> int:
    """Bytes read of the op without levels; as many as there may be where its tiles do not fit."""
    try:
        return evaluate(op, spec, found.mapping).counts.dram_read_bytes
    except InputError:
        return 2**62


def test_an_operand_with_levels_weighs_its_bits_on_the_stce() -> None:
    """A of 64 x 576 FP16, B of 576 x 32 signs, C of FP16: B comes in a sixteenth of its bytes."""
    op = with_levels(make_op(BINARY.gemm), None, Levels.BINARY, ("float16", None))
    mapping = place(make_op(BINARY.gemm), SPEC, Objective.CYCLES).mapping
    mapping = replace(mapping, tile_rows=mapping.gemm.m, tile_cols=mapping.gemm.n, resident=True)
    wide = replace(SPEC, buffers=replace(SPEC.buffers, w2e_bytes=2**20, n2s_bytes=2**20, output_bytes=2**20))

    found, plain = evaluate(op, wide, mapping), evaluate(make_op(BINARY.gemm), wide, mapping)

    assert plain.counts.dram_read_bytes == 2 * (64 + 32) * 576
    assert found.counts.dram_read_bytes == 2 * 64 * 576 + 32 * 576 // 8
    assert found.cycles.compute == plain.cycles.compute


# --- a step on both engines


def _step() -> Workload:
    plain = make_op(BINARY.gemm, pass_=Pass.BP)
    return Workload(model="two", batch=1, ops=(replace(BINARY, name="binary"), replace(plain, name="plain")))


def test_a_step_on_both_engines_adds_up_and_says_what_it_is_charged_for() -> None:
    found = simulate(schedule(_step(), load_spec("bnn-ecp5")), witness=True)
    binary, plain = found.ops
    report = energy(found, load_table("asic-16nm"))
    charged = {str(row.action): row.count for row in report.rows}

    assert (binary.mapping.array.kind, plain.mapping.array.kind) == ("xnor", "stce")
    assert found.counts.popcounts == 64 * 32 * 9
    assert charged["bit compared and counted"] == 64 * 64 * 32 * 9
    assert charged["32-bit add of a count"] == 64 * 32 * 9
    # A binary product multiplies nothing; what the words are read of is bits.
    assert charged["operand multiply"] == charged["accumulator add"] == plain.op.macs
    assert charged["W2E buffer read"] == 64 * binary.counts.w2e_words + 16 * plain.counts.w2e_words
    assert report.by_component["XNOR array"] > 0


def test_signs_on_the_stce_are_flipped_and_added_but_not_multiplied() -> None:
    op = with_levels(make_op(BINARY.gemm), None, Levels.TERNARY, ("float16", None))
    found = simulate(schedule(Workload(model="one", batch=1, ops=(op,)), load_spec("sat-ecp5")), witness=True)
    charged = {str(row.action): row.count for row in energy(found, load_table("asic-16nm")).rows}

    assert "operand multiply" not in charged
    assert charged["sign flip"] == charged["accumulator add"] == op.macs == found.counts.sign_flips
    assert charged["PE registers"] == op.macs
    mapping, counts = found.ops[0].mapping, found.counts
    bits = (2, 16) if mapping.n2s == "a" else (16, 2)
    assert charged["W2E buffer read"] == bits[0] * counts.w2e_words
    assert charged["N2S buffer read"] == bits[1] * counts.n2s_pairs


@pytest.mark.parametrize("objective", [Objective.ENERGY, Objective.EDP])
@pytest.mark.parametrize("name", ["bnn-ecp5", "sat-ecp5"])
def test_the_energy_that_a_placement_is_chosen_by_is_that_of_the_step(name: str, objective: Objective) -> None:
    """Clock and static power of an FPGA included. Of DRAM, buffers and output words the scheduler takes the mean of
    both directions, so within those."""
    spec = load_spec(name)
    step = Workload(model="one", batch=1, ops=(BINARY,))
    (placed,) = schedule(step, spec, objective, prices(spec)).placements
    report = energy(simulate(schedule(step, spec, objective, prices(spec))))

    assert report.by_component["static"] + report.by_component["clock"] > 0.2 * report.joules
    assert placed.energy_pj * 1e-12 == pytest.approx(report.joules, rel=0.1)


def test_both_engines_work_side_by_side() -> None:
    plan = schedule(_step(), load_spec("bnn-ecp5"))
    found = simulate_system(plan)

    require_same(found, simulate_system(plan, witness=True))
    assert min(found.engines[name].busy for name in ("XNOR", "STCE")) > 0
    assert found.cycles < simulate(plan).cycles.total


@pytest.mark.parametrize("levels", [(Levels.BINARY, Levels.BINARY, Levels.BINARY), (Levels.INT8, Levels.TERNARY, None)])
def test_requests_of_levels_are_those_of_the_step(levels: tuple[Levels, Levels, Levels | None]) -> None:
    """Bytes of every product; a result of one bit lies in as many bytes, row by row."""
    a, b, c = levels
    made = replace(BINARY, a=replace(BINARY.a, levels=a), b=replace(BINARY.b, levels=b), c=replace(BINARY.c, levels=c))
    for name in ("bnn-ecp5", "sat-ecp5"):
        plan = schedule(replace(_step(), ops=(made, *_step().ops[1:])), load_spec(name))
        result, (places, _) = simulate(plan), lay_out(plan)
        for op, where, placed, ran in zip(plan.as_run.ops, places, plan.placements, result.ops, strict=True):
            if isinstance(op, MatrixOp) and placed is not None:
                moves = [m for phase in _matrix_phases(op, placed.mapping, where, plan.spec) for m in phase.moves]
                assert sum(m.size for m in moves if not m.write) == ran.counts.dram_read_bytes
                assert sum(m.size for m in moves if m.write) == ran.counts.dram_write_bytes
        bits = 1 if c else {"bnn-ecp5": 32, "sat-ecp5": 16}[name]  # of int32, on the XNOR engine and on the STCE
        assert places[0].c is not None and places[0].c.size == made.c.elements * bits // 8
        asked = sum(len(part) for part in step_requests(plan, result).parts)
        assert asked * memory_of(plan.spec.dram).organization.line_bytes >= result.counts.dram_bytes


def test_a_streamed_word_has_no_index_at_any_level() -> None:
    """The least buffer that holds a chunk of words held it by the closed form alone: phases asked for an index too."""
    op = with_levels(make_op(Gemm(m=64, k=4096, n=64)), Levels.BINARY, Levels.BINARY, ("int32", None))
    array = XnorMapping(dataflow=Dataflow.WS, interleave=3, group=3)
    mapping = Mapping(array=array, gemm=op.gemm, n2s="b", tile_rows=64, tile_cols=64, resident=False, order="mn")

    def claims(n2s_bytes: int) -> object:
        spec = replace(SMALL, buffers=replace(SMALL.buffers, w2e_bytes=2**14, output_bytes=2**16, n2s_bytes=n2s_bytes))
        try:
            return claimed(evaluate(op, spec, mapping)), stepped(op, mapping, spec)
        except InputError:
            return None

    # Two halves of 64 columns, six words of a byte each.
    assert claims(2 * 64 * 6 - 2) is None
    closed, phases = claims(2 * 64 * 6)
    assert closed == phases
