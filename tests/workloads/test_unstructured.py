"""Operands without a pattern: counts by line, bytes by hand, files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.step import UpdateOp, Workload
from weft.workloads.unstructured import Counted, Drawn, Kept, Unstructured, counted_mask, counted_runs

from ..dataflow.problems import make_op
from ..examples_drawn import examples

GEMM = Gemm(m=5, k=300, n=4)
MASK = Counted(lines=((0, 1), (3, 2), (300, 1)))
"""Four lines, of which one is empty and one full: 306 kept elements."""


def operand(kept: Kept = MASK, stored: Any = "bitmap", online: bool = False) -> Unstructured:
    return Unstructured(operand="b", kept=kept, stored=stored, online=online)


def test_bytes_with_indices_by_hand() -> None:
    # Values: 306 of 16 bits. A bitmap line is 300 bits in 38 bytes; a place in it takes 9 bits, so 2 bytes.
    assert operand().bytes(GEMM, 16) == 306 * 2 + 4 * 38
    assert operand(stored="csr").bytes(GEMM, 16) == 306 * 2 + 306 * 2 + 5 * 4
    assert operand(stored="csr").bytes(GEMM, 8) == 306 + 306 * 2 + 5 * 4
    # Read with a value: its two bytes of place, or of four bitmaps of 304 bits a 306th, four bits at most.
    assert (operand(stored="csr").index_bits(GEMM), operand().index_bits(GEMM)) == (16, 4)
    short = Unstructured(operand="a", kept=Counted(lines=((2, 5),)), stored="csr")
    assert short.bytes(Gemm(m=5, k=256, n=9), 16) == 10 * 2 + 10 * 1 + 6 * 4


def in_runs(kept: Kept, runs: int, side: Any = "b") -> Unstructured:
    return Unstructured(operand=side, kept=kept, stored="runs", runs=runs)


def test_bytes_of_runs_by_hand() -> None:
    # The full line has one, lines of three elements have up to three: a place and a length of 2 bytes each.
    assert in_runs(MASK, 4).bytes(GEMM, 16) == 306 * 2 + 4 * (2 + 2) + 5 * 4
    assert in_runs(MASK, 7).bytes(GEMM, 8) == 306 + 7 * (2 + 2) + 5 * 4
    # Read with each of 306 values: a 306th of 7 times 32 bits, rounded up.
    assert in_runs(MASK, 7).index_bits(GEMM) == 1
    assert in_runs(Counted(lines=((2, 5),)), 10, "a").index_bits(Gemm(m=5, k=256, n=9)) == 16


def test_runs_that_no_mask_of_these_counts_has_are_refused() -> None:
    for runs in (3, 7):
        make_op(GEMM, sparse=in_runs(MASK, runs))
    for runs in (2, 8):
        with pytest.raises(InputError, match=f"a mask of these counts has from 3 to 7 runs, not {runs}"):
            make_op(GEMM, sparse=in_runs(MASK, runs))
    # Four of six elements leave two gaps, and so three runs at most.
    with pytest.raises(InputError, match="from 1 to 3 runs, not 4"):
        in_runs(Counted(lines=((4, 1),)), 4).check(Gemm(m=1, k=6, n=1))
    with pytest.raises(InputError, match="stored as 'runs' has 0 runs: say how many"):
        operand(stored="runs")
    with pytest.raises(InputError, match="stored as 'csr' has 4 runs"):
        Unstructured(operand="b", kept=MASK, stored="csr", runs=4)


@settings(deadline=None, max_examples=examples(50))
@given(st.integers(1, 2**18 - 1))
def test_runs_of_a_mask_are_those_of_its_lines(bits: int) -> None:
    lines = [f"{bits:018b}"[i : i + 6] for i in (0, 6, 12)]
    mask = np.array([[bit == "1" for bit in line] for line in lines])
    by_hand = sum(len(line.replace("0", " ").split()) for line in lines)

    assert counted_runs(mask, "a") == counted_runs(np.ascontiguousarray(mask.T), "b") == by_hand
    in_runs(counted_mask(mask, "a"), by_hand, "a").check(Gemm(m=3, k=6, n=2))


def test_macs_are_those_of_kept_elements() -> None:
    assert operand().macs(GEMM) == 306 * 5
    assert make_op(GEMM, sparse=operand()).macs == 306 * 5
    # Lines are those of all groups.
    two = Gemm(m=5, k=300, n=2, groups=2)
    assert operand().macs(two) == 306 * 5


@settings(deadline=None, max_examples=examples(50))
@given(st.data())
def test_counts_of_a_mask_are_those_of_its_lines(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols))).reshape(rows, cols)
    mask[0, 0] = True
    by_hand: dict[int, int] = {}
    for line in mask.tolist():
        by_hand[sum(line)] = by_hand.get(sum(line), 0) + 1

    assert dict(counted_mask(mask, "a").lines) == by_hand
    assert counted_mask(mask, "a") == counted_mask(np.ascontiguousarray(mask.T), "b")


def test_a_balanced_density_differs_by_one_element_at_most() -> None:
    found = Drawn(density=0.3, distribution="balanced").of(7, 11)

    assert found.total == round(0.3 * 77)
    assert dict(zip(found.kept.tolist(), found.lines.tolist(), strict=True)) == {3: 5, 4: 2}


@pytest.mark.parametrize(("k", "density"), [(1, 0.5), (9, 0.25), (40, 0.9)])
def test_a_binomial_density_has_the_quantiles_of_the_binomial(k: int, density: float) -> None:
    lines = 101
    found = Drawn(density=density, distribution="binomial").of(lines, k)
    below, quantiles, count = [], list[int](), 0
    for c in range(k + 1):
        below.append(sum(comb(k, i) * density**i * (1 - density) ** (k - i) for i in range(c + 1)))
    for i in range(lines):
        while below[count] < (2 * i + 1) / (2 * lines) - 1e-12:
            count += 1
        quantiles.append(count)

    assert np.repeat(found.kept, found.lines).tolist() == quantiles


@settings(deadline=None, max_examples=examples(50))
@given(
    st.floats(1e-9, 1, exclude_min=False),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from(["balanced", "binomial"]),
)
def test_drawn_lines_are_as_many_and_none_is_longer(density: float, lines: int, k: int, how: Any) -> None:
    found = Drawn(density=density, distribution=how).of(lines, k)

    assert found.lines.sum() == lines
    assert (found.lines > 0).all() and (np.diff(found.kept) > 0).all()
    assert found.kept[0] >= 0 and 1 <= found.kept[-1] <= k


@pytest.mark.parametrize("kept", [MASK, Drawn(density=0.25, distribution="binomial")])
@pytest.mark.parametrize("online", [False, True])
def test_files_keep_it(kept: Kept, online: bool) -> None:
    op = make_op(GEMM, sparse=operand(kept, "csr", online))
    workload = Workload(model="one", batch=1, ops=(op, replace(op, sparse=in_runs(MASK, 5))))

    assert loads_workload(dumps_workload(workload)) == workload


def test_a_file_with_a_bad_mask_is_refused_with_the_place() -> None:
    op = make_op(GEMM, sparse=operand(Drawn(density=0.25, distribution="binomial")))
    text = dumps_workload(Workload(model="one", batch=1, ops=(op,))).decode()

    with pytest.raises(InputError, match=r"density of a mask must be above 0 to 1, not 1\.5"):
        loads_workload(text.replace("0.25", "1.5"))
    with pytest.raises(InputError, match="uniform"):
        loads_workload(text.replace("binomial", "uniform"))


@pytest.mark.parametrize("density", [0, -0.1, 1.01, float("nan"), True])
def test_densities_outside_of_0_to_1_are_refused(density: float) -> None:
    with pytest.raises(InputError, match="density of a mask must be above 0 to 1"):
        Drawn(density=density, distribution="balanced")


def test_masks_of_another_operand_are_refused() -> None:
    with pytest.raises(InputError, match="counts of 4 lines, but its operand has 5"):
        make_op(replace(GEMM, n=5), sparse=operand())
    with pytest.raises(InputError, match="keeps 300 elements of a line, but a line of its operand has 299"):
        make_op(replace(GEMM, k=299, run=0), sparse=operand())
    with pytest.raises(InputError, match="must keep one element at least"):
        Counted(lines=((0, 4),))
    with pytest.raises(InputError, match="kept elements of a line must be an integer from 4"):
        Counted(lines=((3, 2), (3, 1)))
    with pytest.raises(InputError, match="must be a bool matrix"):
        counted_mask(np.zeros((3, 3)), "a")


def test_a_step_that_trains_the_weight_is_refused() -> None:
    op = make_op(GEMM, sparse=operand())
    update = UpdateOp(name="layer.weight", elements=1200)

    with pytest.raises(InputError, match="a step that trains it writes no such copy"):
        Workload(model="one", batch=1, ops=(op, update))
    Workload(model="one", batch=1, ops=(make_op(GEMM, sparse=operand(online=True)), update))
