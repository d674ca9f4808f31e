"""Kneedle against the figure of its paper, against the distance from the chord, and where there is no knee."""

from __future__ import annotations

from math import exp, hypot, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.knee import knee


def test_the_curve_of_the_paper():
    """Its figure 2, -1 / (x + 0.1) + 5 at ten points from 0 to 1, has the knee at 0.22, as `kneed` finds it; ours falls
    and has logarithms taken."""
    xs = [i / 9 for i in range(10)]
    assert knee([(exp(x), exp(1 / (x + 0.1) - 5)) for x in xs]) == 2


@pytest.mark.parametrize("corner", [3, 10, 40])
def test_of_a_roofline_it_is_the_corner(corner):
    assert knee([(v, max(1 / v, 1 / corner)) for v in range(1, 100)]) == corner - 1


curves = st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=3, max_size=30).map(
    lambda points: list(zip(sorted({x for x, _ in points}), sorted((y for _, y in points), reverse=True), strict=False))
)


@given(curves)
def test_it_is_the_point_furthest_below_the_chord(curve):
    at = knee(curve)
    if len(curve) < 3 or curve[0][1] == curve[-1][1]:
        assert at is None
        return
    (x0, y0), (x1, y1) = ((log(x), log(y)) for x, y in (curve[0], curve[-1]))
    unit = [((log(x) - x0) / (x1 - x0), (log(y) - y1) / (y0 - y1)) for x, y in curve]
    below = [(1 - u - v) / hypot(1, 1) for u, v in unit]
    if at is None:
        assert max(below) < 1e-8
    else:
        assert below[at] == pytest.approx(max(below), abs=1e-9)
        assert below[at] > 0


def test_straight_and_short_ones_have_none():
    assert knee([]) is None
    assert knee([(1, 9), (2, 1)]) is None
    assert knee([(2**n, 2 ** (20 - n)) for n in range(10)]) is None
    assert knee([(n, 7) for n in range(1, 9)]) is None
