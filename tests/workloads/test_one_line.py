"""What holds arrays or many parts says what it is in one line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest

from weft.workloads.gemm import Gemm
from weft.workloads.one_line import LONGEST, OneLine
from weft.workloads.step import Workload

from ..analysis.conftest import step


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Held(OneLine):
    name: str
    sums: object
    size: int = 0
    rows: tuple[object, ...] = ()
    secret: str = field(default="", repr=False)
    absent: object = None


def test_fields_of_its_own_are_named_without_what_is_in_them():
    held = Held(
        name="a", sums=np.zeros((1000, 300), np.int32), size=1234567, rows=(Gemm(m=1, k=2, n=3),) * 1000, secret="x"
    )

    assert repr(held) == "<Held: name a, sums int32 [1000, 300], size 1,234,567, rows of 1000>"


def test_what_is_short_is_written_out():
    assert repr(Held(name="b", sums=(1, 2), rows=(True,))) == "<Held: name b, sums (1, 2), size 0, rows (True,)>"


@pytest.mark.parametrize("name", ["n" * 10**6, "two\nlines\x1b[31m", "\u202egnol"])
def test_a_name_of_others_makes_it_neither_long_nor_many_lines(name):
    for held in (Held(name=name, sums=(name,) * 3), replace(step(), model=name, input=name)):
        assert len(repr(held)) <= LONGEST
        assert repr(held).isprintable()


def test_a_workload_says_its_model_batch_scheme_and_size():
    work = step()
    macs = sum(op.gemm.macs for op in work.matrix_ops)

    assert (
        repr(work) == f"<Workload: toy, batch 10, dense: {len(work.ops)} ops, {macs / 1e3:.0f} k multiply-accumulates>"
    )


def test_no_class_was_given_the_usual_line_of_a_dataclass():
    """``repr=False`` left out makes a dataclass write all its fields again."""

    def below(kind: type) -> list[type]:
        return [each for sub in kind.__subclasses__() for each in (sub, *below(sub))]

    kinds = below(OneLine)

    assert {Held, Workload} <= set(kinds)
    assert [kind.__name__ for kind in kinds if kind.__repr__ is not OneLine.__repr__] == []
    assert all(fields(kind) for kind in kinds if kind.__subclasses__() == [])
