"""The choice of a candidate by layer against all choices tried, and what a choice cut short says of itself."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.errors import InputError
from weft.workloads.schemes.allocation import Allocation, allocate, cheapest

Tables = tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]
small = st.lists(
    st.lists(st.tuples(st.integers(-20, 200), st.integers(0, 60)), min_size=1, max_size=4), min_size=1, max_size=5
)


def tables(drawn: list[list[tuple[int, int]]]) -> Tables:
    scores = {f"l{i}": {f"c{j}": float(s) for j, (s, _) in enumerate(layer)} for i, layer in enumerate(drawn)}
    costs = {f"l{i}": {f"c{j}": c for j, (_, c) in enumerate(layer)} for i, layer in enumerate(drawn)}
    return scores, costs


def best_by_trying(drawn: list[list[tuple[int, int]]], budget: int) -> tuple[int, int] | None:
    """The least score within the budget, and the least cost of that score."""
    sums = [(sum(s for s, _ in chosen), sum(c for _, c in chosen)) for chosen in product(*drawn)]
    return min((pair for pair in sums if pair[1] <= budget), default=None)


def of_choice(found: Allocation, scores: dict[str, dict[str, float]], costs: dict[str, dict[str, int]]) -> None:
    assert found.score == sum(scores[layer][c] for layer, c in found.choice.items())
    assert found.cost == sum(costs[layer][c] for layer, c in found.choice.items())
    assert found.cost <= found.budget
    assert found.choice.keys() == scores.keys()


@given(drawn=small, budget=st.integers(0, 200))
def test_no_choice_within_the_budget_is_better(drawn: list[list[tuple[int, int]]], budget: int) -> None:
    scores, costs = tables(drawn)
    best = best_by_trying(drawn, budget)
    if best is None:
        with pytest.raises(InputError, match=f"budget {budget:,} is below"):
            allocate(scores, costs, budget)
        return
    found = allocate(scores, costs, budget)
    of_choice(found, scores, costs)
    assert (found.score, found.cost) == best
    assert found.gap == 0


@given(drawn=small, budget=st.integers(0, 200))
def test_a_choice_cut_short_is_within_its_gap(drawn: list[list[tuple[int, int]]], budget: int) -> None:
    scores, costs = tables(drawn)
    best = best_by_trying(drawn, budget)
    if best is not None:
        found = allocate(scores, costs, budget, most=1)
        of_choice(found, scores, costs)
        assert found.bound <= best[0] + 1e-9
        assert found.score >= best[0]


def test_cutting_short_can_miss_the_best_and_says_so() -> None:
    """Of equal bounds those that lead to the best are not known before the end."""
    drawn = [[(9, 0), (4, 5), (0, 9)], [(9, 0), (5, 4), (0, 9)], [(10, 0), (7, 3), (0, 10)]]
    gaps = {}
    for budget in range(29):
        scores, costs = tables(drawn)
        found = allocate(scores, costs, budget, most=1)
        best = best_by_trying(drawn, budget)
        assert best is not None
        gaps[budget] = (found.score - best[0], found.gap)
    assert any(missed > 0 for missed, _ in gaps.values())
    assert all(missed <= gap + 1e-9 for missed, gap in gaps.values())


def test_many_layers_with_costs_of_many_digits() -> None:
    """The dual bound alone says that no choice is better than so much: the exact one must not be below it."""
    state, drawn = 1, []
    for _ in range(60):
        layer = []
        for keep in range(1, 6):
            state = state * 48271 % (2**31 - 1)
            layer.append((state % 10**6 // keep**2, state // 7 % 10**7 * keep))
        drawn.append(layer)
    scores, costs = tables(drawn)
    low = sum(min(costs[layer].values()) for layer in costs)
    high = sum(max(costs[layer].values()) for layer in costs)
    last = None
    for share in (0.0, 0.01, 0.1, 0.5, 1.0):
        found = allocate(scores, costs, low + round(share * (high - low)))
        of_choice(found, scores, costs)
        assert found.gap == 0
        assert last is None or found.score <= last
        last = found.score
    assert last == sum(min(layer.values()) for layer in scores.values())


@pytest.mark.parametrize(
    ("scores", "costs", "said"),
    [
        ({}, {}, "no layer to choose for"),
        ({"a": {}}, {"a": {}}, "layer 'a' has no candidate"),
        ({"a": {"2:8": 1.0}}, {"a": {"1:8": 1}}, "has a score for 2:8, but no cost"),
        ({"a": {"2:8": 1.0}}, {"a": {"2:8": -1}}, "cost of 2:8 in layer 'a'"),
        ({"a": {"2:8": float("nan")}}, {"a": {"2:8": 1}}, "must be finite, not nan"),
    ],
)
def test_bad_tables(scores: dict[str, dict[str, float]], costs: dict[str, dict[str, int]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        allocate(scores, costs, 10)


@given(drawn=small, most=st.integers(-60, 600))
def test_the_cheapest_within_a_budget_of_scores(drawn: list[list[tuple[int, int]]], most: int) -> None:
    """One that just meets the budget is not lost to rounding."""
    scores, costs = tables(drawn)
    sums = [(sum(c for _, c in chosen), sum(s for s, _ in chosen)) for chosen in product(*drawn)]
    best = min((cost for cost, score in sums if score <= most), default=None)
    if best is None:
        with pytest.raises(InputError, match="the least sum of scores that there is"):
            cheapest(scores, costs, float(most))
        return
    found = cheapest(scores, costs, float(most))
    assert found.keys() == scores.keys()
    assert sum(scores[layer][c] for layer, c in found.items()) <= most
    assert sum(costs[layer][c] for layer, c in found.items()) == best


def test_no_room_leaves_the_least_scores() -> None:
    scores, costs = tables([[(0, 9), (0, 8), (1, 0)], [(3, 5), (2, 7)]])
    assert cheapest(scores, costs, 2.0) == {"l0": "c1", "l1": "c1"}
