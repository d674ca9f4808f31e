"""What is refused, counted row by row; what kills a space and what comes nearest, by trying everything."""

from __future__ import annotations

from itertools import chain, combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.explore.infeasible import MACHINE, broken, infeasible
from weft.workloads.errors import InputError

AXES = {"rows": (8, 16, 32), "cols": (4, 8), "scheme": ("dense", "bdwp")}
POINTS = list(product(*AXES.values()))
LIMITS = {"lut": 1000, "dsp": 64, "watts": 25}


def frame_of(rows):
    """Rows of status and amounts over the limits, by constraint, one for each of the space's points."""
    frame = pd.DataFrame(POINTS, columns=list(AXES))[: len(rows)]
    reasons = ["; ".join(f"{n}: {a:,} over {LIMITS[n]:,} of vu9p" for n, a in over.items()) for _, over in rows]
    return frame.assign(point=np.arange(len(rows)), status=[status for status, _ in rows], reason=reasons)


@st.composite
def sweeps(draw, *, runs: bool):
    """A space; without runs every row breaks something."""
    breaks = st.dictionaries(st.sampled_from(list(LIMITS)), st.integers(1001, 4000), min_size=1).map(
        lambda over: ("refused", over)
    )
    fine = st.sampled_from((("runs", {}), ("left out", {}), ("refused", {"lut": 1500})))
    return draw(st.lists(st.one_of(breaks, fine) if runs else breaks, min_size=1, max_size=len(POINTS)))


def test_a_reason_names_constraints_and_amounts():
    found = broken(
        "refused", "lut: 1,402,113 over 1,182,240 of xcvu9p; watts: 31.25 over 25 W; accuracy: 0.6 under 0.75"
    )

    assert [b.constraint for b in found] == ["lut", "watts", "accuracy"]
    assert [b.excess for b in found] == pytest.approx([1402113 / 1182240 - 1, 0.25, 0.2])
    assert found[1].reason == "watts: 31.25 over 25 W"
    assert broken("runs", "") == broken("left out", "") == ()
    # A message of the machine's own has semicolons, and may come beside a constraint.
    (one,) = broken("refused", "array.rows must be an integer from 1 to 1024, not 0; the nearest valid value is 1")
    assert (one.constraint, one.excess) == (MACHINE, None)
    assert [b.constraint for b in broken("refused", "pe is odd; so be it; clock: closes at 90 MHz")] == [
        MACHINE,
        "clock",
    ]
    assert broken("no room", "")[0].constraint == "no room"


def test_of_two_limits_the_excess_is_of_the_lower():
    found = broken("refused", "lut: 90,000, over 60,000 of LFE5U-85F and over 30,000; dsp: 3, over 2 of LFE5U-85F")

    assert [(b.constraint, b.excess) for b in found] == [("lut", 2.0), ("dsp", 0.5)]


@given(sweeps(runs=True))
def test_refusals_are_counted_by_constraint(rows):
    found = infeasible(frame_of(rows), AXES)

    for refusal in found.refusals:
        name = refusal.constraint
        own = [i for i, (_, over) in enumerate(rows) if name in over]
        alone = [i for i in own if len(rows[i][1]) == 1]
        assert (refusal.rows, refusal.alone) == (len(own), len(alone))
        assert refusal.share == len(own) / len(rows)
        assert refusal.point == min(alone or own, key=lambda i: rows[i][1][name])
        assert refusal.reason == f"{name}: {rows[refusal.point][1][name]:,} over {LIMITS[name]:,} of vu9p"
    assert {r.constraint for r in found.refusals} == set(chain.from_iterable(over for _, over in rows))
    assert found.statuses == {s: n for s in ("runs", "left out", "refused") if (n := [r[0] for r in rows].count(s))}
    if any(status != "refused" for status, _ in rows):
        assert found.kills == ()


@given(sweeps(runs=False), st.booleans(), st.sampled_from(POINTS))
def test_what_kills_a_space_and_what_comes_nearest(rows, asked, near):
    found = infeasible(frame_of(rows), AXES, dict(zip(AXES, near, strict=True)) if asked else None)

    sets = [s for size in (1, 2, 3) for s in combinations(sorted(LIMITS), size)]
    killing = [s for s in sets if all(set(s) & set(over) for _, over in rows)]
    assert set(found.kills) == {s for s in killing if len(s) == len(killing[0])}

    def badness(i):
        over = rows[i][1]
        away = [
            abs(list(v).index(a) - list(v).index(b)) for v, a, b in zip(AXES.values(), POINTS[i], near, strict=True)
        ]
        excess = sum((amount - LIMITS[name]) / LIMITS[name] for name, amount in over.items())
        return len(over), excess, *((sum(map(bool, away)), sum(away)) if asked else ()), i

    best = min(range(len(rows)), key=badness)
    assert found.nearest.point == best
    assert tuple(found.nearest.values.values()) == POINTS[best]
    assert sorted(b.constraint for b in found.nearest.breaks) == sorted(rows[best][1])


@given(sweeps(runs=True), st.sampled_from(POINTS))
def test_the_nearest_that_runs_changes_the_fewest_axes(rows, near):
    found = infeasible(frame_of(rows), AXES, dict(zip(AXES, near, strict=True))).nearest
    far = {}
    for i, (status, _) in enumerate(rows):
        if status == "runs":
            steps = [
                abs(list(v).index(a) - list(v).index(b)) for v, a, b in zip(AXES.values(), POINTS[i], near, strict=True)
            ]
            far[i] = (sum(step > 0 for step in steps), sum(steps), i)

    if far:
        assert (found.changed, found.steps, found.point) == min(far.values())
        assert found.breaks == ()
    elif all(status == "left out" for status, _ in rows):
        assert found is None
    else:
        assert found.breaks


def test_words():
    rows = [("refused", {"lut": 1190, "dsp": 65}), ("refused", {"lut": 1200}), ("refused", {"dsp": 80})]
    assert infeasible(frame_of(rows), AXES).words() == (
        "Of 3 points 0 run and 3 cannot be built.",
        "dsp refuses 2 (67 %), 1 of them alone; the least at point 2: dsp: 80 over 64 of vu9p.",
        "lut refuses 2 (67 %), 1 of them alone; the least at point 1: lut: 1,200 over 1,000 of vu9p.",
        "dsp and lut refuse every point between them.",
        "None runs; point 1 comes nearest and misses lut by 20 %: rows 8, cols 4, scheme bdwp.",
    )
    near = {"rows": 8, "cols": 4, "scheme": "dense"}
    assert infeasible(frame_of([*rows, ("runs", {})]), AXES, near).words()[-1] == (
        "The nearest that runs is point 3 (axes changed: 2, steps: 2): rows 8, cols 8, scheme bdwp."
    )
    assert "dsp refuses every point: nothing runs until it gives way." in infeasible(frame_of(rows[2:]), AXES).words()
    assert infeasible(frame_of([]), AXES).words() == ("Of 0 points 0 run and 0 cannot be built.",)


def test_bad_input():
    frame = frame_of([("runs", {})])
    with pytest.raises(InputError, match="no value of scheme"):
        infeasible(frame, AXES, {"rows": 8, "cols": 4})
    with pytest.raises(InputError, match="'rows' holds 9, which is no value of its axis: 8, 16, 32"):
        infeasible(frame, AXES, {"rows": 9, "cols": 4, "scheme": "dense"})
    with pytest.raises(InputError, match="each once, not 8, 8"):
        infeasible(frame, {"rows": (8, 8)}, {"rows": 8})
    with pytest.raises(InputError, match="no column 'reason'"):
        infeasible(frame.drop(columns="reason"), AXES)
