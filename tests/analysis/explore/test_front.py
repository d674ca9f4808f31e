"""Fronts against the definition, pair by pair; hypervolumes against counted unit cells."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.explore import front as module
from weft.analysis.explore.front import front_of, hypervolume, knee, merge, pareto
from weft.workloads.errors import InputError

DIRECTIONS = st.sampled_from(("min", "max"))


@st.composite
def tables(draw, most: int = 40):
    """Rows with many ties, and a direction each column."""
    columns = draw(st.integers(1, 5))
    high = draw(st.sampled_from((2, 5, 1000)))
    rows = draw(st.lists(st.tuples(*[st.integers(-high, high)] * columns), min_size=1, max_size=most))
    return rows, draw(st.tuples(*[DIRECTIONS] * columns))


def dominates(a, b, directions) -> bool:
    better = [x < y if d == "min" else x > y for x, y, d in zip(a, b, directions, strict=True)]
    worse = [x > y if d == "min" else x < y for x, y, d in zip(a, b, directions, strict=True)]
    return any(better) and not any(worse)


def by_definition(rows, directions, *, ties=False):
    return [
        i
        for i, row in enumerate(rows)
        if not any(dominates(other, row, directions) for other in rows) and (ties or row not in rows[:i])
    ]


@given(tables(), st.booleans(), st.sampled_from((1, 2, 512)))
def test_a_front_is_what_no_row_dominates(table, ties, few):
    rows, directions = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)  # halves and quarters down to single rows
        patch.setattr(module, "_SIEVE", few // 2)
        assert pareto(rows, directions, ties=ties).tolist() == by_definition(rows, directions, ties=ties)
        assert pareto(np.array(rows) / 7, directions, ties=ties).tolist() == by_definition(rows, directions, ties=ties)


@pytest.mark.parametrize("columns, inner", [(3, 0.97), (4, 0.9), (6, 0.6)])
def test_a_front_of_most_rows(columns, inner):
    """On a shell no row is far from the front, so the recursion does the work and not the sieve."""
    rows = np.abs(np.random.default_rng(columns).normal(size=(1500, columns)))
    rows = 1 - rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.linspace(inner, 1, 1500)[:, None]
    beaten = np.array([((rows <= row).all(1) & (rows < row).any(1)).any() for row in rows])

    found = pareto(rows)

    assert 300 < len(found) < 1500
    assert found.tolist() == np.flatnonzero(~beaten).tolist()


def frame_of(rows, first=0):
    frame = pd.DataFrame(rows, columns=[f"cost{i}" for i in range(len(rows[0]))])
    return frame.assign(point=np.arange(first, first + len(rows)), status="runs")


@given(tables(), tables(), st.data())
def test_the_front_of_all_is_the_front_of_fronts(one, other, data):
    rows, directions = one
    more = [(*row, *row, *row, *row, *row)[: len(directions)] for row in other[0]]
    objectives = {f"cost{i}": direction for i, direction in enumerate(directions)}
    frame = frame_of([*rows, *more])
    cut = data.draw(st.lists(st.integers(0, 2), min_size=len(frame), max_size=len(frame)))
    parts = [front_of(frame[np.array(cut) == i], objectives) for i in range(3)]

    whole = front_of(frame, objectives)

    assert whole["point"].tolist() == by_definition([*rows, *more], directions)
    pd.testing.assert_frame_equal(merge(parts, objectives), whole)
    if len(parts[1]) + len(parts[2]):
        pd.testing.assert_frame_equal(merge([merge(parts[:0:-1], objectives), parts[0]], objectives), whole)


def test_only_what_runs_is_on_a_front_and_large_integers_differ():
    frame = frame_of([(2**60 + 1, 1), (2**60, 1), (0, 0)]).assign(status=["runs", "runs", "left out"])

    assert front_of(frame, {"cost0": "min", "cost1": "min"})["point"].tolist() == [1]
    assert len(front_of(frame[:0], {"cost0": "min"})) == 0


def test_what_has_no_front():
    frame = frame_of([(1.0, 2.0), (float("nan"), 1.0)])
    with pytest.raises(InputError, match="'cost0' is unknown for point 1"):
        front_of(frame, {"cost0": "min"})
    with pytest.raises(InputError, match="did you mean 'cost1' or 'cost0'"):
        front_of(frame, {"costs1": "min"})
    with pytest.raises(InputError, match="'min' or 'max', not 'least'"):
        pareto([(1, 2)], ("min", "least"))
    with pytest.raises(InputError, match="one of 2 objectives each, not 1"):
        pareto([(1, 2)], ("min",))
    with pytest.raises(InputError, match=r"\[rows, objectives\]"):
        pareto([1, 2])
    with pytest.raises(InputError, match="no row"):
        merge([], {"cost0": "min"})


@given(st.integers(2, 3), st.data())
def test_a_hypervolume_is_the_cells_that_a_row_dominates(columns, data):
    number = st.integers(0, 6)
    rows = data.draw(st.lists(st.tuples(*[number] * columns), max_size=8))
    reference = data.draw(st.tuples(*[number] * columns))
    directions = data.draw(st.tuples(*[DIRECTIONS] * columns))
    signs = [1 if d == "min" else -1 for d in directions]
    # A cell, named by its least corner after the signs, counts if a row covers it and the reference bounds it.
    cells = sum(
        all(c < s * r for c, s, r in zip(cell, signs, reference, strict=True))
        and any(all(s * v <= c for c, s, v in zip(cell, signs, row, strict=True)) for row in rows)
        for cell in product(range(-7, 7), repeat=columns)
    )

    assert hypervolume(rows, reference, directions) == cells


@given(tables(most=12))
def test_a_row_of_the_front_adds_to_the_hypervolume_and_no_other_does(table):
    rows, directions = table
    if len(directions) not in (2, 3):
        rows, directions = [(row * 2)[:2] for row in rows], (directions * 2)[:2]
    far = [1001 if d == "min" else -1001 for d in directions]
    whole, front = hypervolume(rows, far, directions), by_definition(rows, directions)

    assert hypervolume([rows[i] for i in front], far, directions) == whole
    for i in front:
        assert hypervolume([rows[j] for j in front if j != i] or [far], far, directions) < whole


def test_hypervolumes_of_other_than_two_or_three_objectives_are_refused():
    with pytest.raises(InputError, match="2 or 3 objectives, not 4"):
        hypervolume([(1, 2, 3, 4)], (9, 9, 9, 9))
    with pytest.raises(InputError, match="reference must be 2 numbers"):
        hypervolume([(1, 2)], (9,))


def test_the_knee_is_where_the_front_bends():
    bent = [(1, 10.0), (2, 3.0), (3, 2.5), (10, 1.0), (2, 11)]

    assert knee(bent) == 1
    assert knee([(x, -y) for x, y in bent], ("min", "max")) == 1
    assert knee([(5, 5), (5, 5)]) == 0
    # Furthest below the line through the ends, in units of the ranges, by its formula.
    front = np.array(bent[:4])
    scaled = (front - front.min(0)) / np.ptp(front, axis=0)
    assert int(np.argmax((1 - scaled.sum(1)) / np.sqrt(2))) == 1
    with pytest.raises(InputError, match="no row"):
        knee(np.zeros((0, 2)))
