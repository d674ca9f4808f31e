"""The bytes of single products worked out by hand from the rules of docs/design/machine.md; here is the arithmetic.

2 bytes a word. Convolutions: ``X`` is the image that PyTorch stores, ``m`` its positions, ``k`` kernel taps x channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from weft.dataflow.engines import evaluate
from weft.dataflow.mapping import Compact, Mapping
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.im2col import Window
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp

from .problems import convolution_op, make_op

THREE = Window(image=(16, 16), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
STEM = Window(image=(32, 32), kernel=(7, 7), stride=(2, 2), padding=(3, 3), dilation=(1, 1))
SKIP = Window(image=(16, 16), kernel=(1, 1), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
X = 4 * 16 * 16 * 8
"""Elements of 4 images of 16 x 16 x 8: as many of any result of ``THREE`` with 8 channels."""


class Case(NamedTuple):
    """A product, its macro-tiles, and what it moves: ``reduced`` are groups of the pattern that SORE takes."""

    op: MatrixOp
    rows: int
    cols: int
    read: int
    write: int
    n2s: str = "b"
    order: str = "mn"
    resident: bool = True
    compact: Compact = "remade"
    reduced: int = 0


def _linear(m: int, k: int, n: int, run: int = 0, groups: int = 1) -> MatrixOp:
    return make_op(Gemm(m=m, k=k, n=n, run=run, groups=groups))


def _conv(pass_: Pass, window: Window = THREE, channels: tuple[int, int] = (8, 16), groups: int = 1) -> MatrixOp:
    return convolution_op(pass_, 4, channels, window, groups)[0]


def _sparse(op: MatrixOp, keep: int, group: int, operand: str = "b", *, online: bool = False) -> MatrixOp:
    pattern = NMPattern(keep=keep, group=group)
    return replace(op, sparse=NMOperand(operand=operand, pattern=pattern, online=online))


CASES = {
    "one macro-tile: both operands once": Case(
        _linear(64, 96, 128), 64, 128, read=2 * (64 * 96 + 96 * 128), write=2 * 64 * 128
    ),
    "4 row tiles outside 2 column tiles: B four times": Case(
        _linear(256, 96, 128), 64, 64, read=2 * (256 * 96 + 4 * 96 * 128), write=2 * 256 * 128
    ),
    "2 column tiles outside 4 row tiles: A twice": Case(
        _linear(256, 96, 128), 64, 64, read=2 * (2 * 256 * 96 + 96 * 128), write=2 * 256 * 128, order="nm"
    ),
    "one column tile stays for all row tiles": Case(
        _linear(256, 96, 128), 64, 128, read=2 * (256 * 96 + 96 * 128), write=2 * 256 * 128
    ),
    "streamed: A twice and B four times, whatever the order": Case(
        _linear(128, 96, 64), 32, 32, read=2 * (2 * 128 * 96 + 4 * 96 * 64), write=2 * 128 * 64, resident=False
    ),
    "a ragged last tile: 3 row tiles of 100 rows, B three times, A once": Case(
        _linear(100, 7, 50), 48, 40, read=2 * (100 * 7 + 3 * 7 * 50), write=2 * 100 * 50
    ),
    "12 heads: every one by itself": Case(
        _linear(65, 32, 65, groups=12), 65, 65, read=12 * 2 * (65 * 32 + 32 * 65), write=12 * 2 * 65 * 65
    ),
    # 4 x 16 x 16 positions in 4 row tiles; k = 9 x 8.
    "FF 3 x 3, window whole: X once as stored, the weight once": Case(
        _conv(Pass.FF), 256, 16, read=2 * (X + 72 * 16), write=2 * 2 * X
    ),
    "FF 3 x 3, streamed: X nine times, the weight for each of 32 row tiles": Case(
        _conv(Pass.FF), 32, 16, read=2 * (9 * X + 32 * 72 * 16), write=2 * 2 * X, resident=False
    ),
    "FF 7 x 7 by 2: a row weighs the quarter of a 32 x 32 x 3 image that is one position of 16 x 16": Case(
        _conv(Pass.FF, STEM, (3, 16)), 1024, 16, read=2 * (4 * 32 * 32 * 3 + 147 * 16), write=2 * 4 * 16 * 16 * 16
    ),
    "BP 3 x 3, window whole: col2im adds dX up on chip": Case(
        _conv(Pass.BP), 256, 72, read=2 * (2 * X + 16 * 72), write=2 * X
    ),
    "BP 3 x 3, taps cut in two: dX is added up in memory, and the weight read for each of 2 row tiles": Case(
        _conv(Pass.BP), 512, 36, read=2 * (2 * X + 2 * 16 * 72 + 9 * X), write=2 * 9 * X
    ),
    # One of 72 columns of X weighs 2 X / 72 = 227.6 bytes, whole ones are moved.
    "WU 3 x 3, window whole: X and dY once": Case(_conv(Pass.WU), 16, 72, read=2 * 2 * X + 72 * 228, write=2 * 16 * 72),
    # A position of dX stands for 4 pixels of a 16 x 16 image, 3 of them without any product: zeros for who reads dX.
    "BP 1 x 1 by 2: all of dX is stored, a fourth of it made": Case(
        _conv(Pass.BP, SKIP), 64, 8, read=2 * (4 * 64 * 16 + 16 * 8), write=2 * X
    ),
    "BP 1 x 1 by 2, channels cut in two: the zeros are stored with their neighbours": Case(
        _conv(Pass.BP, SKIP), 64, 4, read=2 * (4 * 64 * 16 + 4 * 16 * 8), write=2 * X
    ),
    "FF 1 x 1 by 2: only the pixels that it needs are read": Case(
        _conv(Pass.FF, SKIP), 256, 16, read=2 * (X // 4 + 8 * 16), write=2 * 4 * 64 * 16
    ),
    "WU 3 x 3, taps cut in three: X nine times": Case(
        _conv(Pass.WU), 16, 24, read=2 * (2 * X + 9 * X), write=2 * 16 * 72
    ),
    "WU 3 x 3 transposed, streamed, window whole: taps are rows, dY and X once": Case(
        _conv(Pass.WU), 72, 16, read=2 * 2 * X + 72 * 228, write=2 * 16 * 72, n2s="a"
    ),
    # A depthwise image is 8 matrices of one channel.
    "FF 3 x 3 depthwise": Case(_conv(Pass.FF, channels=(8, 8), groups=8), 1024, 1, read=2 * (X + 8 * 9), write=2 * X),
    # 9 runs of 8: 9 x 2 pairs of 16 + 3 bits are 342 bits, 43 bytes a column of 16.
    "FF 3 x 3, 2:8 made in advance: X as stored and 16 compact columns": Case(
        _sparse(_conv(Pass.FF), 2, 8), 1024, 16, read=2 * X + 16 * 43, write=2 * 2 * X
    ),
    "the same copy read again for each of 4 row tiles, as its columns are cut": Case(
        _sparse(_conv(Pass.FF), 2, 8), 256, 8, read=2 * X + 4 * 16 * 43, write=2 * 2 * X
    ),
    # Runs of 12 are groups of 8 and 4, 2 pairs of 19 bits each: 4 runs hold 16 pairs, 38 bytes.
    "2:8 with a short last group, streamed for each of 2 row tiles": Case(
        _sparse(_linear(64, 48, 32, run=12), 2, 8),
        32,
        32,
        read=2 * 64 * 48 + 2 * 32 * 38,
        write=2 * 64 * 32,
        resident=False,
    ),
    # 3:4 needs 2 bits, 1:1 none, 5:16 needs 4: 48 x 18, 64 x 16 and 20 x 20 bits.
    "3:4": Case(_sparse(_linear(32, 64, 32), 3, 4), 32, 32, read=2 * 32 * 64 + 32 * 108, write=2 * 32 * 32),
    "1:1": Case(_sparse(_linear(32, 64, 32), 1, 1), 32, 32, read=2 * 32 * 64 + 32 * 128, write=2 * 32 * 32),
    "5:16": Case(_sparse(_linear(32, 64, 32), 5, 16), 32, 32, read=2 * 32 * 64 + 32 * 50, write=2 * 32 * 32),
    "online: B is read dense, 8 groups a column reduced once": Case(
        _sparse(_linear(32, 64, 32), 2, 8, online=True),
        32,
        32,
        read=2 * (32 * 64 + 64 * 32),
        write=2 * 32 * 32,
        reduced=32 * 8,
    ),
    "online dY of a WU: A is columns of 1024 positions; 3 tiles of taps outside, it is held": Case(
        _sparse(_conv(Pass.WU), 2, 8, "a", online=True),
        24,
        16,
        read=2 * (2 * X + 9 * X),
        write=2 * 16 * 72,
        n2s="a",
        reduced=16 * 128,
    ),
    "the same with dY cut in two: read and reduced for each of 3 tiles of taps": Case(
        _sparse(_conv(Pass.WU), 2, 8, "a", online=True),
        24,
        8,
        read=2 * (3 * 2 * X + 9 * X),
        write=2 * 16 * 72,
        n2s="a",
        reduced=3 * 16 * 128,
    ),
    # 128 groups x 2 pairs x 19 bits: 608 bytes a column.
    "the same with its compact copy in memory: written once, read for the 2 later tiles of taps": Case(
        _sparse(_conv(Pass.WU), 2, 8, "a", online=True),
        24,
        8,
        read=2 * (2 * X + 9 * X) + 2 * 16 * 608,
        write=2 * 16 * 72 + 16 * 608,
        n2s="a",
        compact="memory",
        reduced=16 * 128,
    ),
    "the same kept in the buffer while the taps stream past, twice": Case(
        _sparse(_conv(Pass.WU), 2, 8, "a", online=True),
        24,
        8,
        read=2 * (2 * X + 2 * 9 * X),
        write=2 * 16 * 72,
        n2s="a",
        order="nm",
        resident=False,
        compact="buffer",
        reduced=16 * 128,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_by_hand(sat, name):
    case = CASES[name]
    op = case.op
    pattern = op.sparse.pattern if op.sparse else DENSE
    mapping = Mapping(
        array=ArrayMapping(dataflow=Dataflow.OS, pattern=pattern, interleave=4),
        gemm=op.gemm if case.n2s == "b" else op.gemm.transposed,
        n2s=case.n2s,
        tile_rows=case.rows,
        tile_cols=case.cols,
        resident=case.resident,
        order=case.order,
        compact=case.compact,
    )

    counts = evaluate(op, sat, mapping).counts

    assert (counts.dram_read_bytes, counts.dram_write_bytes) == (case.read, case.write)
    assert counts.sore_compares == case.reduced * pattern.group * pattern.keep


def test_without_pregeneration_a_weight_is_read_dense_and_reduced_at_every_load(sat):
    """4 row tiles x 16 columns x 9 runs of one group each."""
    op = _sparse(_conv(Pass.FF), 2, 8)
    late = replace(sat, wuve=replace(sat.wuve, pregenerate=False))
    mapping = Mapping(
        array=ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=8), interleave=2),
        gemm=op.gemm,
        n2s="b",
        tile_rows=256,
        tile_cols=8,
        resident=True,
        order="mn",
    )

    counts = evaluate(op, late, mapping).counts

    assert counts.dram_read_bytes == 2 * (X + 4 * 72 * 16)
    assert counts.sore_compares == 4 * 16 * 9 * 8 * 2


def test_columns_kept_compact_fill_half_a_buffer(sat):
    """8 columns of 608 bytes, and not the chunks of a group in which others stream past."""
    case = CASES["the same kept in the buffer while the taps stream past, twice"]
    mapping = Mapping(
        array=ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=8), interleave=4),
        gemm=case.op.gemm.transposed,
        n2s="a",
        tile_rows=24,
        tile_cols=8,
        resident=False,
        order="nm",
        compact="buffer",
    )
    enough = replace(sat, buffers=replace(sat.buffers, n2s_bytes=2 * 8 * 608))

    assert evaluate(case.op, enough, mapping).counts.dram_read_bytes == case.read
    with pytest.raises(InputError, match="does not fit the buffers"):
        evaluate(case.op, replace(sat, buffers=replace(sat.buffers, n2s_bytes=2 * 8 * 608 - 1)), mapping)
