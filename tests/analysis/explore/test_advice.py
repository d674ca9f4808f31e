"""Advice on small sweeps against every step tried by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.explore import advice as module
from weft.analysis.explore.advice import advise
from weft.analysis.explore.levels import cells, ordered
from weft.workloads.errors import InputError

AXES = {"rows": (8, 16, 32), "cols": (16, 8), "scheme": ("dense", "bdwp", "srste")}
POINTS = list(product(*AXES.values()))
OBJECTIVES = {"cycles": "min", "rate": "max"}


def frame_of(rows):
    """Rows of (status, cycles, rate) for the space's points."""
    frame = pd.DataFrame(POINTS, columns=list(AXES)).assign(point=range(len(POINTS)))
    frame["status"], frame["cycles"], frame["rate"] = zip(*rows, strict=True)
    frame["reason"] = np.where(frame["status"] == "refused", "lut: 20 over 10 of tiny", "")
    return frame.assign(bound_cycles=frame["cycles"] // 2)


def steps(point):
    """Points one step away: the value beside on rows and cols, any other scheme."""
    for i, values in enumerate(AXES.values()):
        for k, value in enumerate(values):
            away = abs(k - values.index(point[i]))
            if away == 1 or (away and i == 2):
                yield i, (*point[:i], value, *point[i + 1 :])


ROW = st.tuples(st.sampled_from(("runs", "runs", "left out", "refused")), st.integers(1, 9), st.integers(1, 9))


@given(st.lists(ROW, min_size=18, max_size=18), st.sets(st.integers(0, 17)), st.booleans())
def test_the_best_step_for_each_objective(rows, gone, ask):
    frame = frame_of(rows)
    frame = frame[~frame["point"].isin(gone)].sample(frac=1, random_state=0)
    running = sorted(frame["point"][frame["status"] == "runs"])
    if not running:
        with pytest.raises(InputError, match="no point runs"):
            advise(frame, AXES, OBJECTIVES)
        return
    asked = []

    def evaluate(point):
        asked.append(tuple(point[name] for name in AXES))
        number = POINTS.index(asked[-1])
        return {"status": "runs", "cycles": rows[number][1], "rate": rows[number][2]}

    found = advise(frame, AXES, OBJECTIVES, running, evaluate if ask else None)

    assert [p.point for p in found.points] == running
    unknown = set()
    for p in found.points:
        here, near = rows[p.point], []
        count = 0
        for i, other in steps(POINTS[p.point]):
            number = POINTS.index(other)
            absent = number in gone
            if absent or rows[number][0] == "left out":
                unknown.add(other)
                count += not ask
            if (not absent and rows[number][0] == "runs") or (ask and other in unknown):
                near.append((i, other, rows[number]))
        assert p.unknown == count
        assert p.gap == (here[1] / (here[1] // 2) - 1 if here[1] > 1 else None)
        moves = {move.objective: move for move in p.moves}
        for name, column, best in (("cycles", 1, min), ("rate", 2, max)):
            value = best([row[column] for _, _, row in near], default=here[column])
            if best(value, here[column]) == here[column]:
                assert name not in moves
                continue
            move = moves[name]
            assert move.values[name] == (here[column], value)
            assert move.change == value / here[column] - 1
            i = list(AXES).index(move.axis)
            other = (*POINTS[p.point][:i], move.new, *POINTS[p.point][i + 1 :])
            assert move.old == POINTS[p.point][i]
            assert (i, other) in list(steps(POINTS[p.point]))
            assert (i, other, rows[POINTS.index(other)][:]) in near
            assert move.values == {
                "cycles": (here[1], rows[POINTS.index(other)][1]),
                "rate": (here[2], rows[POINTS.index(other)][2]),
            }
    if ask:
        assert sorted(asked) == sorted(unknown)


@given(st.lists(ROW, min_size=18, max_size=18))
def test_the_edges_of_the_space_and_values_that_never_win(rows):
    frame = frame_of(rows)
    if not any(status == "runs" for status, _, _ in rows):
        return
    found = advise(frame, AXES, OBJECTIVES)
    front = [POINTS[p.point] for p in found.points]

    counted = {(b.axis, b.value): b.points for b in found.borders}
    ends = {("rows", 8), ("rows", 32), ("cols", 16), ("cols", 8)}
    every = {(name, value): sum(p[i] == value for p in front) for i, name in enumerate(AXES) for value in AXES[name]}
    assert counted == {at: n for at, n in every.items() if n and at in ends}
    assert {b.of for b in found.borders} == {len(front)}
    assert {(axis, v) for axis, values in found.never.items() for v in values} == {
        at for at, n in every.items() if not n
    }


def line(*rows):
    """A space of one axis: (status, cycles, pes, bound, reason)."""
    frame = pd.DataFrame(rows, columns=["status", "cycles", "pes", "bound_cycles", "reason"])
    return frame.assign(point=range(10, 10 + len(rows)), rows=[2**i for i in range(len(rows))])


def advice_on_line(*rows):
    frame = line(*rows)
    return advise(frame, {"rows": frame["rows"].tolist()}, {"cycles": "min", "pes": "min"})


RUNS = [("runs", 100, 1, 90, ""), ("runs", 60, 2, 60, "")]


def test_a_constraint_in_the_way_by_what_is_known_of_it():
    known = advice_on_line(*RUNS, ("refused", 30, 4, 30, "lut: 12 over 10 of tiny")).relaxations
    assert [(r.constraint, r.rows, r.joins, r.point, r.objective, r.before, r.after, r.bound) for r in known] == [
        ("lut", 1, 1, 12, "cycles", 60, 30, False)
    ]
    (bound,) = advice_on_line(*RUNS, ("refused", 0, 4, 33, "lut: 12 over 10 of tiny")).relaxations
    assert (bound.joins, bound.objective, bound.after, bound.bound) == (1, "cycles", 33, True)
    (worse,) = advice_on_line(*RUNS, ("refused", 70, 4, 33, "lut: 12 over 10 of tiny")).relaxations
    assert (worse.rows, worse.joins, worse.objective) == (1, 0, None)
    (dark,) = advice_on_line(*RUNS, ("refused", 0, 4, 0, "lut: 12 over 10 of tiny")).relaxations
    assert (dark.joins, dark.objective) == (1, None)
    # Two constraints at once, another way of not running, and what is two steps away.
    assert advice_on_line(*RUNS, ("refused", 30, 4, 30, "lut: 12 over 10; dsp: 3 over 2")).relaxations == ()
    assert advice_on_line(*RUNS, ("no room", 0, 4, 30, "")).relaxations == ()
    assert advice_on_line(*RUNS, ("no room", 0, 4, 0, ""), ("refused", 30, 4, 30, "lut: 2 over 1")).relaxations == ()


def test_the_constraint_that_would_give_most_comes_first():
    axes = {"rows": (1, 2), "cols": (1, 2)}
    frame = pd.DataFrame(product(*axes.values()), columns=list(axes))
    frame = frame.assign(
        point=range(4),
        status=["runs", "refused", "refused", "runs"],
        reason=["", "lut: 12 over 10", "watts: 40 over 25 W", ""],
        cycles=[100, 80, 40, 200],
    )
    found = advise(frame, axes, {"cycles": "min"})

    assert [(r.constraint, r.after) for r in found.relaxations] == [("watts", 40), ("lut", 80)]


def test_words():
    found = advice_on_line(*RUNS, ("refused", 0, 4, 33, "lut: 12 over 10 of tiny"))

    assert found.words() == (
        "Point 10, rows 1 to 2: cycles 100 to 60; pes 1 to 2.",
        "Point 10 takes 11 % more cycles than its bound.",
        "Point 11, rows 2 to 1: pes 2 to 1; cycles 60 to 100.",
        "Point 11 takes 0 % more cycles than its bound.",
        "1 of 2 points of the front have rows at its end, 1: widen the axis.",
        "No point of the front has rows 4.",
        "lut alone keeps out 1 of the points a step from the front; 1 might join it: cycles from 60 to at best 33 at "
        "point 12 (lut: 12 over 10 of tiny).",
    )
    frame = line(*RUNS).assign(seconds=[1.0, 0.6], joules=[2.0, 1.5])
    twice = advise(frame, {"rows": [1, 2]}, {"seconds": "min", "joules": "min"}, [10])
    assert len(twice.points[0].moves) == 2
    assert twice.words()[0] == "Point 10, rows 1 to 2: seconds 1 to 0.6; joules 2 to 1.5."
    assert not twice.words()[1].startswith("Point 10, ")
    assert advice_on_line(RUNS[0]).words()[0] == "Point 10: no single step that is known improves an objective."


def test_whom_no_advice_is_for():
    frame = line(*RUNS, ("refused", 0, 4, 33, "lut: 12 over 10 of tiny"))
    axes = {"rows": [1, 2, 4]}
    with pytest.raises(InputError, match="point 12 does not run: choose one that runs"):
        advise(frame, axes, {"cycles": "min"}, [12])
    with pytest.raises(InputError, match="point 99 is in no row"):
        advise(frame, axes, {"cycles": "min"}, [99])
    with pytest.raises(InputError, match="'rows' holds 4, which is no value of its axis: 1, 2"):
        advise(frame, {"rows": [1, 2]}, {"cycles": "min"})


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=20), st.sampled_from((6, 40, 2**62)))
def test_equal_rows_have_equal_numbers_however_many_points_there_are(rows, most):
    from weft.analysis.explore import levels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "_MOST_CELLS", most)
        found = cells(np.array(rows), (5, 5, 5)).tolist()

    assert [[a == b for a in found] for b in found] == [[a == b for a in rows] for b in rows]
    if most == 2**62:
        assert found == [25 * a + 5 * b + c for a, b, c in rows]


def test_axes_with_an_order():
    assert all(ordered(values) for values in ((1, 2, 4), (4.0, 2, 1), (7,), ()))
    assert not any(ordered(values) for values in ((1, 3, 2), ("a", "b"), (True, False), (1, 1), (None, 1)))
    assert module._change(0.0, 1.0) == float("inf")
