"""GEMM shapes and N:M patterns: what is valid, and how many pairs a contraction keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern


def test_macs_count_every_group():
    assert Gemm(m=2, k=3, n=5, groups=7).macs == 210


def test_transposing_twice_gives_the_product_back():
    gemm = Gemm(m=2, k=12, n=5, groups=7, run=4)

    assert gemm.transposed == Gemm(m=5, k=12, n=2, groups=7, run=4)
    assert gemm.transposed.transposed == gemm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"m": 0, "k": 1, "n": 1}, "m of a GEMM must be an integer from 1 to .*, not 0; the nearest valid value is 1"),
        ({"m": 1, "k": -4, "n": 1}, "k of a GEMM must be an integer .*, not -4"),
        ({"m": 1, "k": 1, "n": 2.0}, r"n of a GEMM must be an integer .*, not 2\.0"),
        ({"m": 1, "k": 1, "n": True}, "n of a GEMM must be an integer .*, not True"),
        ({"m": 1, "k": 10, "n": 1, "run": 4}, "run of a GEMM must divide k, but k = 10 and run = 4"),
        ({"m": 2**30, "k": 2**20, "n": 2**10}, "above the limit of 2\\^53"),
    ],
)
def test_bad_shapes_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Gemm(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3:2", "3:2 keeps 3 of 2: keep must be an integer from 1 to the group; the nearest is 2:2"),
        ("0:4", "keep must be an integer from 1 to the group; the nearest is 1:4"),
        ("2:64", "group of an N:M pattern must be an integer from 1 to 32, not 64; the nearest valid value is 32"),
        ("2-8", "'2-8' is not of the form keep:group, for example 2:8"),
        ("", "is not of the form keep:group"),
        ("2:8:1", "is not of the form keep:group"),
        ("-2:8", "is not of the form keep:group"),
    ],
)
def test_bad_patterns_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        NMPattern.parse(text)


@given(st.integers(1, 32), st.data())
def test_patterns_round_trip_through_text(group, data):
    pattern = NMPattern(keep=data.draw(st.integers(1, group)), group=group)

    assert NMPattern.parse(str(pattern)) == pattern


@given(st.integers(1, 32), st.integers(1, 100), st.integers(1, 5), st.data())
def test_kept_counts_each_group_of_each_run(group, run, runs, data):
    pattern = NMPattern(keep=data.draw(st.integers(1, group)), group=group)
    lengths = [min(group, run - start) for start in range(0, run, group)] * runs

    assert pattern.kept(run * runs, run) == sum(min(pattern.keep, length) for length in lengths)


@pytest.mark.parametrize(("group", "bits"), [(1, 0), (2, 1), (4, 2), (5, 3), (8, 3), (9, 4), (16, 4), (32, 5)])
def test_index_bits(group, bits):
    assert NMPattern(keep=1, group=group).index_bits == bits
