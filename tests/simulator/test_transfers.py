"""Transfers by shape: what lies in one piece, and times that no memory beats."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.cost import RATE, memory_machine, problem_of
from weft.dataflow.placement import evaluate
from weft.dataflow.schedule import Objective, best_mapping
from weft.simulator.dram import transfer_efficiency
from weft.simulator.kernels.phases import MacroTiles
from weft.simulator.step import macro_tiles
from weft.simulator.transfers import ONE_PIECE, ByShape, OneRate, Stored, by_shape, layout_of, timed
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Role, SparseOperand

from ..dataflow.problems import make_op

SAT = load_spec("sat-vcu1525")
ROLES = {
    Pass.FF: (Role.ACTIVATION, Role.WEIGHT), Pass.BP: (Role.GRADIENT, Role.WEIGHT),
    Pass.WU: (Role.GRADIENT, Role.ACTIVATION),
}  # fmt: skip


def _op(pass_: Pass, gemm: Gemm, sparse: SparseOperand | None = None) -> MatrixOp:
    op = make_op(gemm, pass_=pass_)
    a, b = (replace(x, role=role) for x, role in zip((op.a, op.b), ROLES[pass_], strict=True))
    return replace(op, a=a, b=b, sparse=sparse)


def _tiles(op: MatrixOp, rows: int, cols: int, *, n2s: str = "b") -> tuple[MacroTiles, ByShape]:
    mapping = replace(best_mapping(op, SAT, Objective.CYCLES), n2s=n2s, tile_rows=rows, tile_cols=cols, resident=True)
    evaluate(op, SAT, mapping)
    p, transfers = problem_of(op, n2s, SAT.wuve.pregenerate), by_shape(SAT)
    tiles, _, _ = macro_tiles(p, mapping, SAT)
    return timed(tiles, p, mapping, layout_of(op, n2s), memory_machine(SAT).w2e_half, transfers), transfers


def _cycles(transfers: ByShape, size: int, shape: Stored, *, write: bool = False) -> int:
    share = transfer_efficiency(transfers.memory, *shape, write)
    return -int(-size * transfers.unit // (share * transfers.memory.organization.bytes_per_second))


def test_forward_reads_rows_and_weights_in_one_piece_and_stores_part_of_rows():
    tiles, transfers = _tiles(_op(Pass.FF, Gemm(m=256, k=96, n=128)), 64, 32)

    assert tiles.west_time[0] == _cycles(transfers, 64 * 96 * 2, ONE_PIECE)
    assert tiles.north_time[0] == _cycles(transfers, 32 * 96 * 2, ONE_PIECE)
    assert tiles.store_time[0, 0] == _cycles(transfers, 64 * 32 * 2, Stored(64, 256), write=True)
    assert tiles.store_time[0, 0] > 1.5 * _cycles(transfers, 64 * 32 * 2, ONE_PIECE, write=True)


def test_swapped_sides_lie_in_memory_as_before():
    tiles, transfers = _tiles(_op(Pass.FF, Gemm(m=256, k=96, n=128)), 32, 64, n2s="a")

    assert tiles.west_time[0] == _cycles(transfers, 32 * 96 * 2, ONE_PIECE)
    assert tiles.north_time[0] == _cycles(transfers, 64 * 96 * 2, ONE_PIECE)
    assert tiles.store_time[0, 0] == _cycles(transfers, 64 * 32 * 2, Stored(64, 256), write=True)


def test_backward_reads_the_dense_weight_across_and_the_compact_one_in_one_piece():
    gemm = Gemm(m=256, k=96, n=128)
    dense, transfers = _tiles(_op(Pass.BP, gemm), 64, 32)
    pattern = SparseOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False)
    sparse, _ = _tiles(_op(Pass.BP, gemm, pattern), 64, 32)

    assert dense.north_time[0] == _cycles(transfers, int(dense.north[0]), Stored(64, 256))
    assert sparse.north_time[0] == _cycles(transfers, int(sparse.north[0]), ONE_PIECE)


def test_weight_gradient_reads_both_operands_across_unless_it_takes_all_of_them():
    gemm = Gemm(m=64, k=512, n=128)
    parts, transfers = _tiles(_op(Pass.WU, gemm), 32, 32)
    whole, _ = _tiles(_op(Pass.WU, Gemm(m=64, k=128, n=128)), 64, 128)

    assert parts.west_time[0] == _cycles(transfers, 32 * 512 * 2, Stored(64, 128))
    assert parts.north_time[0] == _cycles(transfers, 32 * 512 * 2, Stored(64, 256))
    assert whole.west_time[0] == _cycles(transfers, 64 * 128 * 2, ONE_PIECE)


@settings(max_examples=40)
@given(st.integers(0, 10**7), st.sampled_from([ONE_PIECE, Stored(64, 256), Stored(16, 4096)]), st.booleans())
def test_nothing_beats_the_port_or_the_peak(size: int, shape: Stored, write: bool):
    for spec in (SAT, load_spec("tiny")):
        transfers = by_shape(spec)
        peak = min(transfers.memory.organization.bytes_per_second, spec.dram.bytes_per_second)

        took = Fraction(transfers.time(size, shape, write=write), transfers.unit)

        assert took >= Fraction(size, peak)
        assert transfers.time(size, ONE_PIECE, write=write) <= transfers.time(size, shape, write=write) + 1


def test_a_narrow_port_is_always_full():
    tiny = load_spec("tiny")

    assert by_shape(tiny).time(10**6, ONE_PIECE, write=False) == -(
        -(10**6) * by_shape(tiny).unit // tiny.dram.bytes_per_second
    )


def test_a_turn_is_tens_of_nanoseconds():
    transfers = by_shape(SAT)

    assert 10 < transfers.turn / transfers.unit * 1e9 < 40


def test_one_rate_is_the_rate_of_the_step():
    assert OneRate().time(3, Stored(1, 9), write=True) == 3 * RATE
    assert np.iinfo(np.int64).max > OneRate().time(2**40, ONE_PIECE, write=False)


def test_an_unknown_memory_is_refused_by_name():
    with pytest.raises(InputError, match=r"dram.kind of 'sat-vcu1525': .*'ddr4-2400-x8'"):
        by_shape(replace(SAT, dram=replace(SAT.dram, kind="ddr4-2400-x9")))
