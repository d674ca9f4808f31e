"""The front of a million points, and the shares of variance on a grid of a million, within seconds of CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest

from weft.analysis.explore.front import hypervolume, pareto
from weft.analysis.explore.importance import grid_anova

T = TypeVar("T")
POINTS, CHECKED = 1_000_000, 20


def by_cpu(benchmark, work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` gives, and the CPU seconds that it takes."""
    spent = []

    def timed() -> T:
        start = time.process_time()
        found = work()
        spent.append(time.process_time() - start)
        return found

    return benchmark.pedantic(timed, rounds=1, iterations=1), min(spent)


@pytest.mark.parametrize(
    "objectives, shell, seconds", [(2, None, 2), (3, None, 4), (6, None, 8), (3, 0.001, 15), (4, 0.2, 20)]
)
def test_front_of_a_million(benchmark, objectives, shell, seconds):
    """Of independent costs, and of costs on a shell, where the front is most of the points or a tenth of them."""
    draw = np.random.default_rng(objectives)
    costs = draw.random((POINTS, objectives))
    if shell is not None:
        outward = np.abs(draw.normal(size=(POINTS, objectives)))
        costs = 1 - outward / np.linalg.norm(outward, axis=1, keepdims=True) * (1 - shell * draw.random((POINTS, 1)))

    front, spent = by_cpu(benchmark, lambda: pareto(costs))

    benchmark.extra_info["front"] = len(front)
    kept = np.zeros(POINTS, bool)
    kept[front] = True
    for row in [*draw.integers(0, POINTS, CHECKED), *draw.choice(front, CHECKED)]:
        beaten = ((costs <= costs[row]).all(1) & (costs < costs[row]).any(1)).any()
        assert kept[row] != beaten
    assert spent < seconds


def test_hypervolume_of_a_large_front(benchmark):
    """Under an eighth of a sphere, whose volume is known."""
    draw = np.random.default_rng(0)
    outward = np.abs(draw.normal(size=(100_000, 3)))
    costs = 1 - outward / np.linalg.norm(outward, axis=1, keepdims=True)

    found, spent = by_cpu(benchmark, lambda: hypervolume(costs, (1, 1, 1)))

    assert found == pytest.approx(np.pi / 6, rel=0.01)
    assert found < np.pi / 6
    assert spent < 5


def test_shares_on_a_grid_of_a_million(benchmark):
    axes = [f"axis{i}" for i in range(10)]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*[np.arange(4)] * 10, indexing="ij")], axis=1)
    weights = np.arange(10)
    frame = pd.DataFrame(grid, columns=axes).assign(status="runs", seconds=np.exp(grid @ weights))

    found, spent = by_cpu(benchmark, lambda: grid_anova(frame, axes, "seconds"))

    shares = {effect.axes: effect.share for effect in found.effects}
    for axis, weight in zip(axes, weights, strict=True):
        assert shares[axis,] == pytest.approx(weight**2 / (weights**2).sum())
    assert spent < 5
