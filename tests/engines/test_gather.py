"""The gather engine through the suite of engines, over masks of every kind; what it refuses; and the choice by cost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.analysis.area import known_area, uncounted_blocks
from weft.analysis.compare import loss_ledger
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.tariff import tariff
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.account import Cycles
from weft.dataflow.config_io import dumps_spec, load_spec, parse_spec
from weft.dataflow.constraint import Constraint
from weft.dataflow.engines import engines_of, evaluate, place
from weft.dataflow.gather.dense import most_columns
from weft.dataflow.gather.engine import Gather
from weft.dataflow.gather.mapping import GatherMapping
from weft.dataflow.gather.spec import Balance, GatherSpec
from weft.dataflow.gather.time import gather_cycles, slots_of, slots_of_lines
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.hdl.drivers.gather import GatherDriver
from weft.simulator.gather import run_gather, step_mask
from weft.simulator.machine.product import product
from weft.simulator.operand import bits_of
from weft.simulator.reference.gather import gather_reference
from weft.simulator.step import simulate
from weft.simulator.system import require_same, simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.groups import Groups, GroupShape
from weft.workloads.operand import Gathered
from weft.workloads.step import MatrixOp, Workload
from weft.workloads.unstructured import Cell, Counted, Drawn, Histogram, Kept, Unstructured, counted_mask

from ..dataflow.problems import machines, make_op, matrix_ops
from ..examples_drawn import examples
from ..strategies import halves
from .conformance import Conformance, Run

Bools = npt.NDArray[np.bool_]
BALANCES: tuple[Balance, ...] = get_args(Balance)
SMALL = replace(load_spec("tiny"), gather=GatherSpec(lanes=3, width=2))

COPIES = replace(SMALL, gather=GatherSpec(lanes=2, width=1, balance="static", interleave=3))
"""One model of it is compiled."""


@cache
def rtl() -> GatherDriver:
    return GatherDriver(COPIES)


def roomy(lanes: int = 4, width: int = 4, **own: Any) -> AcceleratorSpec:
    """`tiny` with as many PEs once more, that gather, and buffers that hold small products."""
    tiny = load_spec("tiny")
    held = replace(tiny.buffers, w2e_bytes=2**20, n2s_bytes=2**18, output_bytes=2**18)
    return replace(tiny, buffers=held, gather=GatherSpec(lanes=lanes, width=width, **own))


def gather_of(spec: AcceleratorSpec) -> Gather:
    (found,) = (engine for engine in engines_of(spec) if engine.kind == "gather")
    assert isinstance(found, Gather)
    return found


@st.composite
def masks(draw: st.DrawFn, k: int, n: int) -> Bools:
    """Empty, full, one line full, diagonal, at random, and one long line in front of, or behind, short ones."""
    kind = draw(st.sampled_from(("empty", "full", "line", "diagonal", "random", "imbalanced", "one bank")))
    mask = np.zeros((k, n), np.bool_)
    match kind:
        case "full":
            mask[:] = True
        case "line":
            mask[:, draw(st.integers(0, n - 1))] = True
        case "diagonal":
            mask[np.arange(max(k, n)) % k, np.arange(max(k, n)) % n] = True
        case "random":
            mask = np.random.default_rng(draw(st.integers(0, 2**32))).random((k, n)) < draw(st.floats(0, 1))
        case "imbalanced":
            mask[0] = True
            mask[:, draw(st.sampled_from((0, n - 1)))] = True
        case "one bank":
            mask[:: draw(st.integers(1, 3))] = True
    return mask


@st.composite
def engines(
    draw: st.DrawFn, balances: tuple[Balance, ...] = BALANCES, banks: int = 5, interleave: int = 4
) -> GatherSpec:
    size = st.integers(1, 4)
    return GatherSpec(
        lanes=draw(size),
        width=draw(size),
        balance=draw(st.sampled_from(balances)),
        banks=draw(st.integers(0, banks)),
        interleave=draw(st.integers(1, interleave)),
    )


def known_of(mask: Bools) -> Kept:
    return counted_mask(mask, "b")


class TestGather(Conformance):
    kind = "gather"

    def machines(self) -> st.SearchStrategy[AcceleratorSpec]:
        return st.builds(lambda spec, own: replace(spec, gather=own), machines(), engines())

    def ops(self, spec: AcceleratorSpec) -> st.SearchStrategy[MatrixOp]:
        return gathered_ops(spec)

    def mappings(self, spec: AcceleratorSpec, op: MatrixOp) -> st.SearchStrategy[Mapping]:
        assert op.sparse is not None
        side = op.sparse.operand
        gemm = op.gemm if side == "b" else op.gemm.transposed
        assert spec.gather is not None
        return st.builds(
            lambda rows, resident, order, interleave: Mapping(
                array=GatherMapping(interleave=interleave),
                gemm=gemm,
                n2s=side,
                tile_rows=rows,
                tile_cols=gemm.n,
                resident=resident,
                order=order,
            ),
            st.integers(1, gemm.m),
            st.booleans(),
            st.sampled_from(("mn", "nm")),
            st.integers(1, spec.gather.interleave),
        )

    def on_values(self, data: st.DataObject) -> tuple[Cycles, dict[str, Run], bytes]:
        spec = data.draw(
            st.just(COPIES) | st.builds(lambda own: replace(SMALL, gather=own), engines(("static", "sorted"), banks=0))
        )
        m, k, n = (data.draw(st.integers(1, 7)) for _ in range(3))
        a, b, mask = data.draw(halves(m, k)), data.draw(halves(k, n)), data.draw(masks(k, n))
        assert spec.gather is not None
        interleave = data.draw(st.integers(1, spec.gather.interleave))
        stepped = run_gather(spec, a, b, mask, interleave=interleave)
        reference = gather_reference(spec, a, b, mask, interleave)
        kept = np.count_nonzero(mask, axis=0).astype(np.int64)
        slots = slots_of_lines(spec.gather, kept, interleave=interleave)
        assert slots.least == slots.most
        runs = {
            "stepped": Run(stepped.result.tobytes(), [stepped.left.tolist()], stepped.length),
            "reference": Run(reference.result.tobytes(), [reference.left], reference.cycles),
        }
        if spec is COPIES and m <= most_columns(spec, k, interleave):
            circuit = rtl().run(bits_of(a), bits_of(b), mask, cycles=stepped.length, interleave=interleave)
            runs["rtl"] = Run(circuit.result.tobytes(), [circuit.left.tolist()], circuit.cycles)
        return gather_cycles(spec, slots.least, m, interleave), runs, product(a, b, kept_b=mask).tobytes()

    def least_bytes(self, spec: AcceleratorSpec, op: MatrixOp) -> tuple[int, int, int]:
        assert isinstance(op.sparse, Gathered)
        stored = op.sparse.bytes(op.gemm, 16)
        return tuple(stored if side == op.sparse.operand else x for side, x in self._whole(op))  # type: ignore[return-value]

    def _whole(self, op: MatrixOp) -> list[tuple[str, int]]:
        return [("a", op.a.bytes), ("b", op.b.bytes), ("c", op.c.bytes)]


@st.composite
def gathered_ops(draw: st.DrawFn, spec: AcceleratorSpec) -> MatrixOp:
    """Ops of one group, with im2col operands, whose mask is counted, or drawn of a density."""
    op = draw(matrix_ops(spec).filter(lambda op: op.gemm.groups == 1))
    side = draw(st.sampled_from(("a", "b")))
    lines = op.gemm.n if side == "b" else op.gemm.m
    kept: Kept
    assert spec.gather is not None
    shape = GroupShape(lines=draw(st.integers(1, 3)), places=draw(st.none() | st.integers(1, 4)))
    if not shape.misfit(lines, op.gemm.run) and draw(st.booleans()):
        counts = [
            1,
            *draw(st.lists(st.integers(0, 1), min_size=lines // shape.lines - 1, max_size=lines // shape.lines - 1)),
        ]
        kept = Counted(lines=tuple((c, counts.count(c)) for c in sorted(set(counts))))
        return replace(op, sparse=Groups(operand=side, shape=shape, kept=kept, level=draw(st.integers(0, 1))))
    if draw(st.booleans()):
        kept = Drawn(density=draw(st.floats(0.01, 1)), distribution=draw(st.sampled_from(("balanced", "binomial"))))
    else:
        counts = [1, *draw(st.lists(st.integers(0, op.gemm.k), min_size=lines - 1, max_size=lines - 1))]
        kept = Counted(lines=tuple((c, counts.count(c)) for c in sorted(set(counts))))
    online = draw(st.booleans()) and spec.gather.balance != "sorted"
    stored = draw(st.sampled_from(("bitmap", "csr")))
    return replace(op, sparse=Unstructured(operand=side, kept=kept, stored=stored, online=online))


@settings(deadline=None, max_examples=examples(150))
@given(st.data())
def test_banks_and_stealing_are_stepped_as_by_the_reference_and_within_their_bounds(data: st.DataObject) -> None:
    own = data.draw(engines())
    spec = replace(SMALL, gather=own)
    m, k, n = (data.draw(st.integers(1, size)) for size in (3, 9, 9))
    a, b, mask = data.draw(halves(m, k)), data.draw(halves(k, n)), data.draw(masks(k, n))
    interleave = data.draw(st.integers(1, own.interleave))
    run = run_gather(spec, a, b, mask, interleave=interleave)
    reference = gather_reference(spec, a, b, mask, interleave)
    stepped, _ = step_mask(own, mask, interleave)

    assert run.result.tobytes() == reference.result.tobytes()
    assert (run.left.tolist(), run.length, run.waited) == (reference.left, reference.cycles, reference.waited)
    kept = np.count_nonzero(mask, axis=0).astype(np.int64)
    by_line = slots_of_lines(own, kept, interleave=interleave)
    known = Histogram(*(x.astype(np.int64) for x in np.unique(kept, return_counts=True)))
    by_count = slots_of(own, known, interleave=interleave)
    assert by_count.least <= by_line.least <= stepped.slots <= by_line.most <= by_count.most
    if own.banks == 0:
        assert run.waited == 0


@st.composite
def grouped(draw: st.DrawFn) -> tuple[GatherSpec, Bools, Cell]:
    """An engine with banks, and a mask [k, n] in groups that reach over all of them, all lanes, or neither."""
    own = replace(draw(engines(banks=0)), banks=draw(st.integers(1, 4)))
    places, lines = own.banks * draw(st.integers(1, 2)), own.lanes * draw(st.integers(1, 2))
    places, lines = draw(st.sampled_from(((places, 1), (places, 2), (1, lines), (3, lines), (2, 2))))
    cells = np.random.default_rng(draw(st.integers(0, 99))).random((draw(st.integers(1, 3)), draw(st.integers(1, 4))))
    kept = cells < draw(st.floats(0, 1))
    if draw(st.booleans()):
        kept[0] |= ~kept.any(axis=0)
    return own, kept.repeat(places, axis=0).repeat(lines, axis=1), Cell(lines, places)


@settings(deadline=None, max_examples=examples(150))
@given(grouped(), st.data())
def test_groups_that_reach_over_all_banks_or_lanes_hardly_wait(
    case: tuple[GatherSpec, Bools, Cell], data: st.DataObject
) -> None:
    """Against the kernel and the reference, which know no groups."""
    own, mask, cell = case
    spec = replace(SMALL, gather=own)
    a, b = data.draw(halves(2, len(mask))), data.draw(halves(*mask.shape))
    interleave = data.draw(st.integers(1, own.interleave))
    run = run_gather(spec, a, b, mask, interleave=interleave)
    reference = gather_reference(spec, a, b, mask, interleave)
    stepped, _ = step_mask(own, mask, interleave)

    assert run.result.tobytes() == reference.result.tobytes()
    assert (run.left.tolist(), run.length, run.waited) == (reference.left, reference.cycles, reference.waited)
    kept = np.count_nonzero(mask, axis=0).astype(np.int64)
    known = Histogram(*(x.astype(np.int64) for x in np.unique(kept, return_counts=True)))
    by_line, by_count = slots_of_lines(own, kept, cell, interleave), slots_of(own, known, cell, interleave)
    assert by_count.least <= by_line.least <= stepped.slots <= by_line.most <= by_count.most
    if cell.lines % own.lanes == 0:
        assert run.waited == 0
        assert by_line == slots_of_lines(replace(own, banks=0), kept, interleave=interleave)
    elif kept.min() > 0 and cell.places % own.banks == 0 and own.lanes <= own.banks and interleave == 1:
        waits = min(own.lanes, len(kept)) - 1
        assert run.waited <= waits * (waits + 1) // 2
        assert own.balance == "stealing" or by_line.most - by_line.least == waits


def test_a_walk_over_the_banks_by_hand() -> None:
    # Two lines of two groups of two places, two banks, one group alike: lane 1 waits a slot, once; 4 + 1.
    own, pair = GatherSpec(lanes=2, width=1, banks=2), Cell(1, 2)
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]).T == 1
    assert step_mask(own, mask)[0] == (5, 1)
    assert slots_of_lines(own, np.array([4, 4]), pair) == (4, 5)
    # All alike: the bank answers both, whatever the groups.
    assert step_mask(own, np.ones((4, 2), np.bool_))[0] == (4, 0)
    assert slots_of_lines(own, np.array([4, 4]), Cell(2, 1)) == (4, 4)
    # Of single places, of which nobody knows where they stand, all could wait for all.
    assert slots_of_lines(own, np.array([4, 4])) == (4, 8)
    # Three lanes have not a bank each; a walk over half of the banks is none over all.
    assert slots_of_lines(replace(own, lanes=3), np.array([4, 4]), pair).most == 8
    assert slots_of_lines(replace(own, banks=4), np.array([4, 4]), pair).most == 8
    # A line without any takes a slot of nobody's turn.
    assert slots_of_lines(own, np.array([4, 0]), pair) == (4, 5)


def test_who_wants_the_row_of_the_first_is_answered_with_it() -> None:
    # One bank, three lanes, first elements in rows 0, 1 and 0: in slot 0 lane 0 asks first, and lane 2 with it.
    own = GatherSpec(lanes=3, width=1, banks=1, balance="static")
    assert step_mask(own, np.array([[1, 0, 1], [0, 1, 0]]) == 1)[1].tolist() == [0, 1, 0]
    # In slot 1 it is lane 1: then lanes 0 and 2, which want row 2 both, have slot 2.
    assert step_mask(own, np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]) == 1)[1].tolist() == [2, 1, 2]


def test_groups_are_placed_by_their_slots_and_bytes() -> None:
    spec = roomy(lanes=2, width=4, banks=4)
    groups = Groups(operand="b", shape=GroupShape.parse("1x4"), kept=Counted(lines=((1, 2), (2, 1))))
    op = make_op(Gemm(m=8, k=8, n=3), sparse=groups)
    found = place(op, spec, Objective.CYCLES)

    # Sorted: 8 + 4 slots of lane 0, and one that it may wait for; two words of columns, the adder takes four.
    assert found.engine == "gather"
    assert (found.cycles.compute, found.cycles.interleave_stall) == (13 * 2, 13 * 2)
    assert found.counts.dram_read_bytes == 8 * 8 * 2 + 3 * -(-(16 * 2 + 4 + 4 * 4) // 3)
    assert found.counts.macs == 16 * 8
    engine = gather_of(spec)
    assert engine.slots(op) == (12, 13)
    assert engine.slots(replace(op, sparse=replace(groups, level=2))) == (16, 17)
    with pytest.raises(InputError, match="values of 4 bits with a scale a group, which nothing turns into numbers"):
        engine.place(replace(op, sparse=replace(groups, bits=4)), Objective.CYCLES)
    with pytest.raises(InputError, match="the STCE skips N:M alone"):
        engines_of(spec)[0].require(op)


@settings(deadline=None, max_examples=examples(100))
@given(st.data())
def test_results_are_those_of_the_dense_product_of_the_masked_operand(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.integers(1, 9)) for _ in range(3))
    mask = data.draw(masks(k, n))
    a, b = (np.nan_to_num(x, posinf=3, neginf=-3) for x in (data.draw(halves(m, k)), data.draw(halves(k, n))))
    gathered, dense = run_gather(SMALL, a, b, mask).result, product(a, np.where(mask, b, np.float16(0)))

    # Bit for bit but for the sign of a zero: a sum begins with -0.0, and what is not kept adds no zero to it.
    assert (gathered + np.float32(0)).tobytes() == (dense + np.float32(0)).tobytes()


def test_slots_by_hand() -> None:
    # Lines of 4, 0, 1 and 3 on two lanes: an empty one takes a slot.
    lines = np.array([4, 0, 1, 3])

    assert slots_of_lines(GatherSpec(lanes=2, width=1, balance="static"), lines) == (5, 5)  # 4 + 1 and 1 + 3
    assert slots_of_lines(GatherSpec(lanes=2, width=1, balance="sorted"), lines) == (5, 5)  # 4 + 1 and 3 + 1
    assert slots_of_lines(GatherSpec(lanes=2, width=1, balance="stealing"), lines) == (5, 6)  # 9 / 2; 5 / 2 + 4
    mask = np.arange(4)[:, None] < lines
    # The first lane: 4. The second: 1, then 1, then 3.
    assert step_mask(GatherSpec(lanes=2, width=1, balance="stealing"), mask)[0] == (5, 0)
    # In one bank lane 1 is behind by its empty line, and asks first for row 0; rows 1 and 2 are for both.
    assert step_mask(GatherSpec(lanes=2, width=1, balance="static", banks=1), mask)[0] == (6, 1)


def test_lanes_that_hold_two_lines_by_hand() -> None:
    # Lines of 4, 0, 1 and 3: lane 0 holds the first and the third, slots 0 2 4 6 and 1; lane 1 the others, 0 and 1 3 5.
    lines, own = np.array([4, 0, 1, 3]), GatherSpec(lanes=2, width=1, balance="static", interleave=2)
    mask = np.arange(4)[:, None] < lines

    assert slots_of_lines(own, lines, interleave=2) == (7, 7)
    stepped, done = step_mask(own, mask, 2)
    assert (stepped.slots, done.tolist()) == (7, [6, 0, 1, 5])
    # The longest first: 4 and 1, 3 and none.
    assert slots_of_lines(replace(own, balance="sorted"), lines, interleave=2) == (7, 7)
    # Whoever is free takes the next line: lane 0 the first, lane 1 the second, lane 0 in its other turn the third.
    assert step_mask(replace(own, balance="stealing"), mask, 2)[1].tolist() == [6, 0, 1, 5]
    # One lane: lines of 2 and 4 take slots 0 2 and 1 3 5 7; a third of 1 follows the first, slot 4.
    alone = GatherSpec(lanes=1, width=1, balance="static", interleave=2)
    assert step_mask(alone, np.arange(4)[:, None] < [2, 4, 1], 2)[1].tolist() == [2, 7, 4]
    assert slots_of_lines(alone, np.array([2, 4, 1]), interleave=2) == (8, 8)
    with pytest.raises(
        InputError, match="interleave must be an integer from 1 to 2, not 3; the nearest valid value is 2"
    ):
        step_mask(own, mask, 3)


def test_a_batch_of_one_holds_as_many_lines_as_the_adder_takes_cycles() -> None:
    op = make_op(Gemm(m=1, k=64, n=64), sparse=drawn(0.25))
    alone, four = (place(op, roomy(lanes=4, width=1, interleave=most), Objective.CYCLES) for most in (1, 8))

    # 64 lines of 16 on four lanes: 256 slots of four cycles, or of one with four lines a lane.
    assert (alone.cycles.compute, alone.cycles.interleave_stall) == (256, 3 * 256)
    assert (four.cycles.compute, four.cycles.interleave_stall) == (256, 0)
    assert isinstance(four.mapping.array, GatherMapping)
    assert four.mapping.array.interleave == 4
    # Of three lines a slot is two cycles; of the last of 22 rounds there is one, which ends two slots before the turn.
    three = place(op, roomy(lanes=1, width=1, interleave=8), Objective.CYCLES, wanted=Constraint(interleave=3))
    assert three.cycles.compute + three.cycles.interleave_stall == 2 * (22 * 16 * 3 - 2)
    with pytest.raises(InputError, match="have the sums of 3 columns of 2 lines"):
        spec = roomy(lanes=1, width=1, interleave=2)
        spec = replace(spec, pe=replace(spec.pe, accumulators=7))
        place(
            make_op(Gemm(m=4, k=64, n=64), sparse=drawn(0.25)),
            spec,
            Objective.CYCLES,
            wanted=Constraint(interleave=2, tile_rows=4),
        )


def test_cycles_and_bytes_of_a_placement_by_hand() -> None:
    spec = roomy(lanes=2, width=4)
    op = make_op(
        Gemm(m=10, k=8, n=3), sparse=Unstructured(operand="b", kept=Counted(lines=((2, 2), (5, 1))), stored="csr")
    )
    mapping = Mapping(
        array=GatherMapping(interleave=1), gemm=op.gemm, n2s="b", tile_rows=10, tile_cols=3, resident=True, order="nm"
    )
    found = evaluate(op, spec, mapping)

    # Sorted: 5 + 2 and 2 slots; ten columns on four PEs are three cycles, and the adder takes four.
    assert (found.cycles.compute, found.cycles.interleave_stall) == (7 * 3, 7 * 1)
    assert found.cycles.fill_drain == 2 + 2 + 4
    # Nine values, nine places of a byte, four pointers; a third of that, rounded up, is what a line weighs.
    assert found.counts.dram_read_bytes == 10 * 8 * 2 + 3 * -(-(9 * 2 + 9 + 16) // 3)
    assert found.counts.dram_write_bytes == 10 * 3 * 2
    assert (found.counts.macs, found.counts.w2e_words, found.counts.n2s_pairs) == (90, 90, 9)


def test_the_cheaper_engine_takes_an_op_and_the_other_is_named() -> None:
    spec = roomy()
    thin = make_op(Gemm(m=64, k=64, n=64), sparse=drawn(0.25))
    thick = replace(thin, name="thick", parameter="thick.weight", sparse=drawn(1.0))
    workload = Workload(model="two", batch=1, ops=(thin, thick))
    found = schedule(workload, replace(spec, gather=GatherSpec(lanes=2, width=4)), Objective.CYCLES)

    assert [p.engine for p in found.placements if p is not None] == ["gather", "STCE"]
    gathered, left = found.as_run.matrix_ops
    assert gathered == thin and left.sparse is None
    assert left.kept_dense.startswith("zeros of the weight follow no N:M pattern: dense on the STCE in ")
    assert left.kept_dense.endswith(" cycles")
    result = simulate(found, witness=True)
    assert energy(result).joules > 0
    require_same(simulate_system(found), simulate_system(found, witness=True))


def test_a_machine_that_does_not_gather_runs_it_dense() -> None:
    op = make_op(Gemm(m=64, k=64, n=64), sparse=drawn(0.25))
    workload = Workload(model="one", batch=1, ops=(op,))
    found = schedule(workload, load_spec("tiny"), Objective.CYCLES)
    dense = schedule(replace(workload, ops=(replace(op, sparse=None),)), load_spec("tiny"), Objective.CYCLES)

    assert found.placements == dense.placements
    assert found.as_run.matrix_ops[0].kept_dense == "zeros of the weight follow no N:M pattern"
    with pytest.raises(InputError, match="no engine of 'tiny' takes 'layer'"):
        place(op, load_spec("tiny"), Objective.CYCLES)


def drawn(density: float, **other: Any) -> Unstructured:
    return Unstructured(operand="b", kept=Drawn(density=density, distribution="balanced"), stored="bitmap", **other)


def test_a_dense_operand_that_no_buffer_holds_falls_back() -> None:
    spec = replace(load_spec("tiny"), gather=GatherSpec(lanes=4, width=4))
    op = make_op(Gemm(m=64, k=4096, n=16), sparse=drawn(0.1))
    found = schedule(Workload(model="one", batch=1, ops=(op,)), spec, Objective.CYCLES)

    assert "1 columns of the dense operand of 'layer' take 131072 bytes on the" in found.as_run.matrix_ops[0].kept_dense


def test_what_it_cannot_run_is_refused_with_the_reason() -> None:
    engine = gather_of(roomy())
    op = make_op(Gemm(m=8, k=8, n=8), sparse=drawn(0.5))

    assert engine.takes(op)
    with pytest.raises(InputError, match="takes masks without a pattern"):
        engine.place(replace(op, sparse=None), Objective.CYCLES)
    with pytest.raises(InputError, match="2 groups, whose counts by line are not told apart"):
        engine.place(make_op(Gemm(m=8, k=8, n=8, groups=2), sparse=drawn(0.5)), Objective.CYCLES)
    with pytest.raises(InputError, match="balance 'sorted' needs the counts in advance"):
        engine.place(replace(op, sparse=drawn(0.5, online=True)), Objective.CYCLES)
    with pytest.raises(
        InputError, match="interleave on the gather engine of 'tiny' must be an integer from 1 to 1, not 2"
    ):
        engine.place(op, Objective.CYCLES, wanted=Constraint(interleave=2))
    with pytest.raises(InputError, match="has no gather engine: give it a table"):
        GatherMapping(interleave=1).check(load_spec("tiny"))
    with pytest.raises(InputError, match="a must be a matrix of fp16"):
        run_gather(SMALL, np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float16))
    with pytest.raises(InputError, match=r"kept_b must be bool \[2, 2\]"):
        run_gather(SMALL, np.ones((2, 2), np.float16), np.ones((2, 2), np.float16), np.ones((2, 3), np.bool_))


def test_a_machine_whose_lanes_steal_has_no_area() -> None:
    assert "gather_engine" in {block.name for block in uncounted_blocks(roomy(), "ecp5")}
    with pytest.raises(InputError, match="is stealing, of which there is no RTL to count"):
        known_area(roomy(balance="stealing"), "ecp5")
    with pytest.raises(InputError, match="which nobody has told apart for the gather engine"):
        tariff(load_table("fpga-ultrascale-plus"), roomy())


def test_an_online_mask_comes_dense_from_memory() -> None:
    spec = roomy(balance="stealing")
    op = make_op(Gemm(m=8, k=64, n=8), sparse=drawn(0.125))
    made, found = (
        place(replace(op, sparse=drawn(0.125, online=online)), replace(spec), Objective.CYCLES)
        for online in (False, True)
    )

    assert found.counts.dram_read_bytes == 2 * (8 * 64 + 64 * 8)
    assert made.counts.dram_read_bytes == 2 * 8 * 64 + (64 * 2 + 8 * 8)
    assert made.counts.macs == found.counts.macs == 64 * 8


def test_a_machine_file_has_it_as_a_table() -> None:
    spec = roomy(balance="static", banks=8)

    assert parse_spec(dumps_spec(spec), "here") == spec
    with pytest.raises(InputError, match=r"gather\.lanes"):
        GatherSpec(lanes=0, width=1)


def test_what_a_step_of_use_loses_adds_up() -> None:
    machine = roomy()
    used = weft.trace("resnet9", use="infer", batch=1)
    gathered, dense = (
        simulate(schedule(weft.sparsify(used, name, nm), machine, Objective.CYCLES))
        for name, nm in (("erk", "2:8"), ("dense", None))
    )
    ledger = loss_ledger(gathered, dense)

    kept = [r.op.kept_dense for r in gathered.ops if isinstance(r.op, MatrixOp)]
    assert kept[0] == "first convolution" and not any(kept[1:])
    assert sum(row.cycles for row in ledger.rows) == gathered.cycles.total
    assert min(row.cycles for row in ledger.rows) >= 0
    assert ledger.ideal_speedup == pytest.approx(4, abs=0.01)
