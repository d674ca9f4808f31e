"""The closed form of an op's cost against its phases stepped one by one, and its bounds and conservation laws."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import BufferSpec
from weft.dataflow.engines import evaluate, place
from weft.dataflow.mapping import COMPACT, Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.placement import Placement
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.time import array_cycles
from weft.simulator.step import stepped
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern

from ..engines.conformance import claimed
from ..examples_drawn import examples
from .problems import machines, make_op, mappings, matrix_ops


def _fitting(op, spec, mapping) -> Placement:
    try:
        return evaluate(op, spec, mapping)
    except InputError:
        assume(False)
        raise


@pytest.mark.parametrize("compact", COMPACT)
@settings(max_examples=examples(60))
@given(data=st.data())
def test_closed_form_of_a_reduced_operand_that_is_streamed_again(data, compact):
    """Several row tiles, each of which needs columns that SORE reduces: few of the free draws come here."""
    spec = replace(data.draw(machines()), buffers=BufferSpec(w2e_bytes=2**14, n2s_bytes=2**14, output_bytes=2**14))
    op = data.draw(matrix_ops(spec))
    group = data.draw(st.integers(1, spec.pe.max_group))
    pattern = NMPattern(keep=data.draw(st.integers(1, group)), group=group)
    op = replace(op, sparse=NMOperand(operand="b", pattern=pattern, online=True))
    interleave = data.draw(st.integers(1, spec.pe.accumulators))
    array = ArrayMapping(dataflow=Dataflow.OS, pattern=pattern, interleave=interleave)
    mapping = Mapping(
        array=array,
        gemm=op.gemm,
        n2s="b",
        tile_rows=min(spec.array.rows, op.gemm.m),
        tile_cols=min(spec.array.cols * interleave, op.gemm.n),
        resident=False,
        order="nm" if compact == "buffer" else data.draw(st.sampled_from(("mn", "nm"))),
        compact=compact,
    )
    placement = _fitting(op, spec, mapping)

    assert claimed(placement) == stepped(op, placement.mapping, spec)


@settings(max_examples=examples(100))
@given(st.data())
def test_one_untiled_group_costs_what_the_array_takes(data):
    """With one macro-tile the op level adds exposed transfers to the array's own run and nothing else."""
    roomy = BufferSpec(w2e_bytes=2**24, n2s_bytes=2**24, output_bytes=2**24)
    spec = replace(data.draw(machines()), buffers=roomy)
    op = data.draw(matrix_ops(spec))
    op = make_op(replace(op.gemm, groups=1), sparse=op.sparse)
    drawn = data.draw(mappings(spec, op))
    mapping = replace(drawn, tile_rows=drawn.gemm.m, tile_cols=drawn.gemm.n, resident=True, compact="remade")
    cycles = evaluate(op, spec, mapping).cycles

    alone = array_cycles(spec, mapping.gemm, mapping.array)

    assert cycles.total - cycles.dram_stall - cycles.sore == alone.total
    assert (cycles.compute, cycles.interleave_stall) == (alone.compute, alone.interleave_stall)


def test_an_online_operand_waits_for_sore_and_a_pregenerated_one_does_not(sat):
    """1024 x 1024 values through 32 lanes take 32,768 cycles; 64 x 256 x 1024 kept products on 1,024 PEs half of it."""
    gemm = Gemm(m=64, k=1024, n=1024)
    cycles = {}
    for online in (False, True):
        sparse = NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=online)
        op = make_op(gemm, sparse=sparse)
        cycles[online] = place(op, sat, Objective.CYCLES).cycles

    assert cycles[False].sore == 0
    assert cycles[False].total < 18_000
    assert cycles[True].sore > 0
    assert 32_768 < cycles[True].total < 36_000


def test_interleave_boundary_pair(sat):
    """La - 1 accumulators stall, La do not."""
    gemm = Gemm(m=32, k=64, n=512)
    short, enough = (
        array_cycles(sat, gemm, ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=i))
        for i in (sat.pe.add_latency - 1, sat.pe.add_latency)
    )

    assert short.interleave_stall > 0
    assert enough.interleave_stall == 0


def test_a_one_word_port_without_interleave_leaves_nothing_of_2_in_8(port_bound):
    """Without interleave the dense feed is M/keep = 4 words a cycle; one word makes sparse as slow as dense."""
    gemm = Gemm(m=32, k=1024, n=32 * 64)
    dense = array_cycles(port_bound, gemm, ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1))
    sparse = array_cycles(
        port_bound, gemm, ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=8), interleave=1)
    )

    assert sparse.port_stall > sparse.compute
    assert dense.total / sparse.total == pytest.approx(1.0, abs=0.01)
