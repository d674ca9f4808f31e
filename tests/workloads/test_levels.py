"""Levels of an operand: which values, how many bits, and that files without any say nothing of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import weft
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.levels import Levels


@pytest.mark.parametrize("levels", Levels)
def test_values_fit_the_bits_and_one_bit_less_does_not_hold_them(levels: Levels) -> None:
    assert 2 ** (levels.bits - 1) < len(levels.values) <= 2**levels.bits


def test_the_values_are_those_of_the_literature() -> None:
    assert tuple(Levels.BINARY.values) == (-1, 1)
    assert tuple(Levels.SPIKE.values) == (0, 1)
    assert tuple(Levels.TERNARY.values) == (-1, 0, 1)
    assert (min(Levels.INT8.values), max(Levels.INT8.values), Levels.INT8.bits) == (-128, 127, 8)


def test_a_file_names_levels_where_there_are_any() -> None:
    step = weft.trace("resnet9", batch=2)
    op = step.matrix_ops[0]
    binary = replace(op, a=replace(op.a, levels=Levels.BINARY))
    other = replace(step, ops=tuple(binary if o is op else o for o in step.ops))

    assert b"levels" not in dumps_workload(step)
    assert dumps_workload(other).count(b'"levels":"binary"') == 1
    assert loads_workload(dumps_workload(other)) == other
