"""Operands in groups: bytes by hand, counts of real masks, files, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.groups import Groups, GroupShape, grouped_mask
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.step import UpdateOp, Workload
from weft.workloads.unstructured import Counted, Drawn, Kept

from ..dataflow.problems import make_op
from ..examples_drawn import examples

GEMM = Gemm(m=5, k=288, n=8, run=32)
"""Nine taps of 32 channels, eight outputs."""
ROWS = Counted(lines=((0, 1), (3, 2), (18, 1)))


def operand(shape: str = "2x16", kept: Kept = ROWS, **other: Any) -> Groups:
    return Groups(operand="b", shape=GroupShape.parse(shape), kept=kept, **other)


def test_bytes_with_indices_by_hand() -> None:
    # Four rows of two lines keep 0, 3, 3 and all 18 groups of 2 x 16: 24 of 32 values, a place of a byte, 5 pointers.
    assert operand().bytes(GEMM, 16) == 24 * 32 * 2 + 24 + 5 * 4
    assert operand().bytes(GEMM, 8) == 24 * 32 + 24 + 5 * 4
    # With room for 18 a row there are 72, and no pointers.
    assert operand(level=18).bytes(GEMM, 16) == 72 * 32 * 2 + 72
    # Values of 4 bits, a scale of two bytes for each group.
    assert operand(bits=4).bytes(GEMM, 16) == 24 * 32 // 2 + 24 * 2 + 24 + 5 * 4
    # A kernel is one of 32 channels; nine taps each.
    kernels = operand("kernel", Counted(lines=((0, 7), (32, 1))))
    assert kernels.bytes(GEMM, 16) == 32 * 9 * 2 + 32 + 9 * 4
    # More than 256 groups a row take two bytes.
    wide = Groups(operand="a", shape=GroupShape.parse("1x1"), kept=Counted(lines=((1, 5),)))
    assert wide.bytes(Gemm(m=5, k=257, n=2), 16) == 5 * 2 + 5 * 2 + 6 * 4
    # Read with a value: of a byte its 32nd, a bit; of a byte and a scale, 24 bits, a bit.
    assert (operand().index_bits(GEMM), operand(bits=4).index_bits(GEMM)) == (1, 1)
    assert operand("1x1", Counted(lines=((1, 8),))).index_bits(GEMM) == 16


def test_lines_and_work_by_hand() -> None:
    found = operand().histogram(GEMM)
    assert dict(zip(found.kept.tolist(), found.lines.tolist(), strict=True)) == {0: 2, 48: 4, 288: 2}
    assert operand().macs(GEMM) == make_op(GEMM, sparse=operand()).macs == 24 * 32 * 5
    # Rows that are filled up are multiplied whole.
    assert operand(level=18).macs(GEMM) == GEMM.macs
    assert (operand().cell(GEMM), operand("kernel", Counted(lines=((1, 8),))).cell(GEMM)) == ((2, 16), (1, 1))


SHAPES = ("1x4", "2x1", "2x2", "4x8", "kernel", "2xkernel")


@settings(deadline=None, max_examples=examples(80))
@given(st.sampled_from(SHAPES), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9), st.floats(0.05, 1))
def test_counts_of_a_mask_are_those_of_its_groups(text: str, rows: int, taps: int, seed: int, density: float) -> None:
    """Against a walk over the elements, line by line."""
    shape, run = GroupShape.parse(text), 8
    places = taps if shape.places is None else shape.places
    lines, length = rows * shape.lines, taps * run
    columns = length // places
    kept = np.random.default_rng(seed).random((rows, columns)) < density
    kept[0, 0] = True
    mask = np.zeros((lines, length), np.bool_)
    for line in range(lines):
        for place in range(length):
            column = place % run if shape.places is None else place // places
            mask[line, place] = kept[line // shape.lines, column]

    found = grouped_mask(mask, shape, run)
    assert dict(found.lines) == Counter(int(row.sum()) for row in kept)
    gemm = Gemm(m=3, k=length, n=lines, run=run)
    made = Groups(operand="b", shape=shape, kept=found)
    by_line = made.histogram(gemm)
    assert Counter(dict(zip(by_line.kept.tolist(), by_line.lines.tolist(), strict=True))) == Counter(
        int(line.sum()) for line in mask
    )
    assert made.macs(gemm) == 3 * int(mask.sum())
    if places * shape.lines > 1:
        at = tuple(np.argwhere(mask)[0])
        mask[at] = False
        with pytest.raises(InputError, match=f"of group 0 of row 0, but groups of {shape} are kept whole or not"):
            grouped_mask(mask, shape, run)


@pytest.mark.parametrize("kept", [ROWS, Drawn(density=0.25, distribution="binomial")])
@pytest.mark.parametrize("other", [{}, {"bits": 4}, {"level": 18}])
def test_files_keep_it(kept: Kept, other: dict[str, int]) -> None:
    workload = Workload(model="one", batch=1, ops=(make_op(GEMM, sparse=operand(kept=kept, **other)),))

    assert loads_workload(dumps_workload(workload)) == workload


def test_what_are_no_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"groups '16' are not lines x places, for example 1x16"):
        GroupShape.parse("16")
    with pytest.raises(InputError, match="lines of a group must be an integer from 1"):
        GroupShape.parse("0x4")
    with pytest.raises(InputError, match="runs of 32 are no whole groups of 1x24"):
        make_op(GEMM, sparse=operand("1x24"))
    with pytest.raises(InputError, match="8 outputs are no whole groups of 3x1"):
        make_op(GEMM, sparse=operand("3x1"))
    with pytest.raises(InputError, match="counts of 4 lines, but its operand has 8"):
        make_op(GEMM, sparse=operand("1x16"))
    with pytest.raises(InputError, match="keeps 18 elements of a line, but a line of its operand has 9"):
        make_op(GEMM, sparse=operand("2x32"))
    with pytest.raises(InputError, match="a row keeps 18 groups, but level 17 is the most"):
        make_op(GEMM, sparse=operand(level=17))
    with pytest.raises(InputError, match="level of groups must be at most 18"):
        make_op(GEMM, sparse=operand(level=19))
    with pytest.raises(InputError, match="a mask of 3 x 8 cannot be in groups: 3 outputs"):
        grouped_mask(np.ones((3, 8), np.bool_), GroupShape.parse("2x2"), 8)
    with pytest.raises(InputError, match="8 elements are no whole runs of 3"):
        grouped_mask(np.ones((3, 8), np.bool_), GroupShape.parse("1x3"), 3)
    with pytest.raises(InputError, match="must be a bool matrix"):
        grouped_mask(np.ones((3, 8)), GroupShape.parse("1x2"), 8)


def test_a_step_that_trains_the_weight_is_refused() -> None:
    with pytest.raises(InputError, match="a step that trains it writes no such copy"):
        op = make_op(GEMM, sparse=operand())
        Workload(model="one", batch=1, ops=(op, UpdateOp(name="layer.weight", elements=2304)))


def test_a_step_of_use_draws_groups_at_the_density_of_the_pattern() -> None:
    used = weft.trace("resnet9", use="infer", batch=1)
    found = {op.name: op for op in weft.sparsify(used, "group-1x16", ["2:8", "19=1:8"]).matrix_ops}
    first, *others = found.values()
    assert (first.sparse, first.kept_dense) == (None, "first convolution")
    assert {str(op.sparse) for op in others[:-1]} == {"groups 1x16 (density 0.25, binomial, assumed)"}
    assert str(found["19"].sparse) == "groups 1x16 (density 0.125, binomial, assumed)"
    trained = weft.sparsify(weft.trace("resnet9", batch=1), "group-1x16", "2:8")
    assert all(op.sparse is None for op in trained.matrix_ops)

    second = weft.sparsify(used, "group-level", "2:8").matrix_ops[1]
    assert isinstance(second.sparse, Groups) and second.sparse.level == 9 * 64 // 16 // 4
    assert second.macs * 4 == second.gemm.macs
    last = weft.sparsify(used, "group-16x1", "2:8").matrix_ops[-1]
    assert (last.sparse, last.kept_dense) == (None, "10 outputs are no whole groups of 16x1")
