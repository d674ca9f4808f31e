"""Transfers by shape: what lies in one piece, and times that no memory beats."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import place, tiled
from weft.dataflow.objective import Objective
from weft.dataflow.problem import RATE, memory_machine
from weft.simulator.dram import run_memory, transfer_efficiency
from weft.simulator.dram_requests import lines_of, nest
from weft.simulator.dram_spec import MemorySpec
from weft.simulator.kernels.phases import MacroTiles
from weft.simulator.step import macro_tiles
from weft.simulator.transfers import ONE_PIECE, ByShape, OneRate, Stored, by_shape, layout_of, timed
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand, Role
from weft.workloads.rows import Alike, Rows
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp

from ..dataflow.problems import make_op
from ..examples_drawn import examples

Int64 = npt.NDArray[np.int64]
SAT = load_spec("sat-vcu1525")
ROLES = {
    Pass.FF: (Role.ACTIVATION, Role.WEIGHT),
    Pass.BP: (Role.GRADIENT, Role.WEIGHT),
    Pass.WU: (Role.GRADIENT, Role.ACTIVATION),
}


def _op(pass_: Pass, gemm: Gemm, sparse: NMOperand | None = None) -> MatrixOp:
    op = make_op(gemm, pass_=pass_)
    a, b = (replace(x, role=role) for x, role in zip((op.a, op.b), ROLES[pass_], strict=True))
    return replace(op, a=a, b=b, sparse=sparse)


def _tiles(
    op: MatrixOp, rows: int, cols: int, *, n2s: str = "b", compact: str = "remade"
) -> tuple[MacroTiles, ByShape]:
    mapping = replace(
        place(op, SAT, Objective.THRIFT).mapping,
        gemm=op.gemm if n2s == "b" else op.gemm.transposed,
        n2s=n2s,
        tile_rows=rows,
        tile_cols=cols,
        resident=True,
        order="mn",
        compact=compact,
    )
    product, transfers = tiled(op, SAT, mapping), by_shape(SAT)
    tiles, _, _ = macro_tiles(product, SAT)
    return timed(
        tiles, product.problem, mapping, layout_of(op, mapping), memory_machine(SAT).west_half, transfers
    ), transfers


def _cycles(transfers: ByShape, size: int, shape: Stored, *, write: bool = False) -> int:
    share = transfer_efficiency(transfers.memory, *shape, write, transfers.order)
    return -int(-size * transfers.unit // (share * transfers.memory.organization.bytes_per_second))


@pytest.mark.parametrize("n2s", ["a", "b"])
def test_rows_that_tokens_keep_lie_apart_in_pieces_of_their_own(n2s):
    """Of 4 x 96 inputs a quarter is read: pieces of 128 outputs, 4 x 256 bytes apart; and of 3 x 128 outputs."""
    gemm, alike = Gemm(m=64, k=96, n=128), Alike(density=0.25)

    def weight_time(rows, part):
        op = replace(_op(Pass.FF, gemm), rows=rows)
        tiles, transfers = _tiles(op, part if n2s == "a" else 64, part if n2s == "b" else 64, n2s=n2s)
        return (tiles.north_time[0, 0] if n2s == "b" else tiles.west_time[0]), transfers

    inputs = Rows(along="inputs", of=384, form="teal", alike=alike)
    outputs = Rows(along="outputs", of=384, form="cats", alike=alike)
    for rows, part, shape in (
        (inputs, 128, Stored(256, 1024)),
        (inputs, 32, Stored(64, 1024)),
        (outputs, 128, Stored(192, 576)),
        (outputs, 32, Stored(192, 576)),
        (replace(inputs, of=96), 128, ONE_PIECE),
        (replace(outputs, of=128), 32, ONE_PIECE),
    ):
        found, transfers = weight_time(rows, part)
        assert found == _cycles(transfers, part * 96 * 2, shape)


def test_forward_reads_rows_and_weights_in_one_piece_and_stores_part_of_rows():
    tiles, transfers = _tiles(_op(Pass.FF, Gemm(m=256, k=96, n=128)), 64, 32)

    assert tiles.west_time[0] == _cycles(transfers, 64 * 96 * 2, ONE_PIECE)
    assert tiles.north_time[0, 0] == _cycles(transfers, 32 * 96 * 2, ONE_PIECE)
    assert tiles.store_time[0, 0] == _cycles(transfers, 64 * 32 * 2, Stored(64, 256), write=True)


def test_swapped_sides_lie_in_memory_as_before():
    tiles, transfers = _tiles(_op(Pass.FF, Gemm(m=256, k=96, n=128)), 32, 64, n2s="a")

    assert tiles.west_time[0] == _cycles(transfers, 32 * 96 * 2, ONE_PIECE)
    assert tiles.north_time[0, 0] == _cycles(transfers, 64 * 96 * 2, ONE_PIECE)
    assert tiles.store_time[0, 0] == _cycles(transfers, 64 * 32 * 2, Stored(64, 256), write=True)


def test_backward_reads_the_dense_weight_across_and_the_compact_one_in_one_piece():
    gemm = Gemm(m=256, k=96, n=128)
    dense, transfers = _tiles(_op(Pass.BP, gemm), 64, 32)
    pattern = NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False)
    sparse, _ = _tiles(_op(Pass.BP, gemm, pattern), 64, 32)

    assert dense.north_time[0, 0] == _cycles(transfers, int(dense.north[0, 0]), Stored(64, 256))
    assert sparse.north_time[0, 0] == _cycles(transfers, int(sparse.north[0, 0]), ONE_PIECE)


def test_a_gradient_is_read_again_in_one_piece_where_its_compact_copy_is_kept():
    online = NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=True)
    tiles, transfers = _tiles(_op(Pass.WU, Gemm(m=64, k=512, n=128), online), 32, 32, compact="memory")

    compact = 32 * 512 // 4 * 19 // 8
    assert (tiles.north[0, 0], tiles.north[1, 0], tiles.copy[0]) == (32 * 512 * 2, compact, compact)
    assert tiles.north_time[0, 0] == _cycles(transfers, 32 * 512 * 2, Stored(64, 256))
    assert tiles.north_time[1, 0] == _cycles(transfers, compact, ONE_PIECE)
    assert tiles.copy_time[0] == _cycles(transfers, compact, ONE_PIECE, write=True)
    assert tiles.sore[1, 0] == 0


def test_weight_gradient_reads_both_operands_across_unless_it_takes_all_of_them():
    gemm = Gemm(m=64, k=512, n=128)
    parts, transfers = _tiles(_op(Pass.WU, gemm), 32, 32)
    whole, _ = _tiles(_op(Pass.WU, Gemm(m=64, k=128, n=128)), 64, 128)

    assert parts.west_time[0] == _cycles(transfers, 32 * 512 * 2, Stored(64, 128))
    assert parts.north_time[0, 0] == _cycles(transfers, 32 * 512 * 2, Stored(64, 256))
    assert whole.west_time[0] == _cycles(transfers, 64 * 128 * 2, ONE_PIECE)


@settings(max_examples=examples(40))
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


def test_pieces_a_power_of_two_apart_meet_one_channel_unless_channels_are_hashed():
    hashed, half = by_shape(SAT), Stored(64, 256)
    plain = replace(hashed, order="bg-interleaved")

    assert plain.time(10**6, half, write=False) > 1.9 * hashed.time(10**6, half, write=False)
    assert plain.time(10**6, ONE_PIECE, write=False) == pytest.approx(
        hashed.time(10**6, ONE_PIECE, write=False), rel=0.01
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


def _lines(memory: MemorySpec, phase: int, parts: tuple[tuple[int, int, int], ...]) -> list[Int64]:
    """Lines of a phase's parts (pieces, bytes, bytes apart): tiles side by side in a row of a matrix each, then on."""
    made = []
    for i, (pieces, piece, pitch) in enumerate(parts):
        side_by_side = max(pitch // piece, 1)
        start = (i << 28) + phase % side_by_side * piece + phase // side_by_side * pieces * pitch
        made.append(nest(start, (pieces,), (pitch,), piece, memory.organization.line_bytes) % memory.organization.lines)
    return made


@pytest.mark.parametrize(
    ("parts", "least", "most"),
    [
        # W2E, N2S, results: as FF, BP and WU of a ResNet ask for them; all in one piece; and short ones.
        (((1, 8192, 8192), (64, 64, 512)), 0.9, 1.1),
        (((1, 8192, 8192), (64, 64, 1024), (64, 256, 1024)), 0.95, 1.1),
        (((512, 64, 256), (512, 512, 2304), (32, 512, 2304)), 0.98, 1.04),
        (((1, 65536, 65536), (1, 65536, 65536), (1, 16384, 16384)), 0.99, 1.05),
        (((1, 4096, 4096), (1, 4096, 4096)), 0.83, 1.0),
    ],
)
@pytest.mark.parametrize(("kind", "rate"), [("ddr4-2400-x4", 76_800_000_000), ("ddr4-2400-x8", 19_200_000_000)])
def test_parts_and_a_turn_are_what_the_memory_takes_for_a_phase(kind, rate, parts, least, most):
    """The last of the parts is written. Two witnesses: the requests of many phases at once, and phase by phase."""
    transfers = by_shape(replace(SAT, dram=replace(SAT.dram, kind=kind, bytes_per_second=rate)))
    memory, count = transfers.memory, 40
    last = len(parts) - 1
    ours = transfers.turn + sum(
        transfers.time(pieces * piece, ONE_PIECE if piece == pitch else Stored(piece, pitch), write=i == last)
        for i, (pieces, piece, pitch) in enumerate(parts)
    )

    def cycles(phases: list[int]) -> int:
        found = [(line, i == last) for phase in phases for i, line in enumerate(_lines(memory, phase, parts))]
        write = np.concatenate([np.full(len(line), writes) for line, writes in found])
        asked = lines_of(np.concatenate([line for line, _ in found]), write)
        return run_memory(memory, asked, transfers.order).cycles

    for theirs in (cycles(list(range(count))), sum(cycles([phase]) for phase in range(count))):
        assert least <= count * ours / transfers.unit * memory.organization.clock_hz / theirs <= most
