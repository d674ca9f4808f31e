"""Which knob mattered: the variance of an objective over the points of a space, by axis and pair of axes.

- On a complete grid by functional analysis of variance (Sobol 1993, Hooker 2007): exact, by means over groups.
- On other samples the same of a random forest that learnt them (fANOVA; Hutter, Hoos and Leyton-Brown 2014): as good as
  the forest, whose R^2 on points that a tree has not seen is stated.
- Around one point, an axis at a time: exact, and blind to everything that is not in line with the point.

Rows stand for themselves alone: what did not run, or was left out, has no objective. It is counted by status and no
more, so a result speaks of the rows that ran. `bound_cycles` is known for rows that were left out too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...workloads.errors import InputError, require_int
from ..words import percent
from .levels import axes_of, cells, codes, number, require_columns, runs

__all__ = ["Effect", "Importance", "forest_anova", "grid_anova", "importance", "is_grid", "one_at_a_time"]

LEAST_ROWS = 10
"""Rows an axis that a forest stands on at least. Source: the rule of ten runs an input for computer experiments of
Loeppky, Sacks and Welch 2009; that it holds for a forest is assumed, which is why R^2 is stated."""
MOST_ROWS = 20_000
"""Rows that a forest learns; of more a sample. Assumed: shares move by less than their R^2 leaves open."""
TREES = 64
"""As Optuna's evaluator has it."""
_ROUNDING = 1e-24
"""Shares of less are none: means are good to some 1e-15, and a share is of squares."""
_WEAK = 0.5
"""R^2 below which words call a forest weak. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one axis does alone, or two do together beyond what each does alone.

    ``share``: of the variance of the objective, from 0 to 1. ``curve``: of one axis, each value and the mean of the
    objective there, geometric where importance is of the logarithm.
    """

    axes: tuple[str, ...]
    share: float
    curve: tuple[tuple[Any, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Effects on an objective, those of one axis first, each kind by descending share.

    ``method``: in words. ``rows``: how many it stands on. ``unused``: rows without the objective, by status.
    ``rest``: share of the variance that no effect has, such as of three axes together; 0 around a point, where shares
    are of the sum. ``r2``: of a forest, on rows that its trees have not seen.
    """

    method: str
    objective: str
    log: bool
    rows: int
    unused: dict[str, int]
    effects: tuple[Effect, ...]
    rest: float
    r2: float | None = None

    def frame(self) -> pd.DataFrame:
        """A row an effect: ``axes``, ``order`` (how many axes), ``share``."""
        rows = [(" x ".join(e.axes), len(e.axes), e.share) for e in self.effects]
        return pd.DataFrame(rows, columns=["axes", "order", "share"])

    def words(self, most: int = 5) -> tuple[str, ...]:
        """What was done to how many rows, and the ``most`` largest effects, a sentence each."""
        scale = f"the logarithm of {self.objective}" if self.log else self.objective
        said = [f"{self.method} of {scale} on {self.rows:,} rows."]
        if self.unused:
            known = ", ".join(f"{n:,} {status}" for status, n in self.unused.items())
            said.append(f"Rows without {self.objective}, of which it says nothing: {known}.")
        if self.r2 is not None:
            weak = ": a weak forest, whose ranks are hints" if self.r2 < _WEAK else ""
            said.append(f"On rows that it has not seen the forest has an R^2 of {self.r2:.3f}{weak}.")
        largest = sorted(self.effects, key=lambda e: -e.share)[:most]
        said += [self._said(effect) for effect in largest if effect.share > 0]
        if not any(effect.share > 0 for effect in self.effects):
            said.append(f"No axis moves {self.objective}.")
        return tuple(said)

    def _said(self, effect: Effect) -> str:
        share = f"{percent(effect.share)} of the variance"
        if len(effect.axes) > 1:
            return f"{' and '.join(effect.axes)} together, beyond each alone: {share}."
        (least, low), (most, high) = (f(effect.curve, key=lambda at: at[1]) for f in (min, max))
        return f"{effect.axes[0]}: {share}; {self.objective} from {number(low)} at {least} to {number(high)} at {most}."


def importance(frame: pd.DataFrame, axes: Sequence[str], objective: str, *, log: bool = True) -> Importance:
    """By `grid_anova` where the rows with the objective are a complete grid of ``axes``, otherwise by `forest_anova`;
    ``method`` of the result says which."""
    make = grid_anova if is_grid(frame, axes, objective) else forest_anova
    return make(frame, axes, objective, log=log)


def is_grid(frame: pd.DataFrame, axes: Sequence[str], objective: str) -> bool:
    """Whether all values of ``axes`` that rows with the objective have meet equally often in each combination."""
    _, positions, sizes, _ = _table(frame, axes, objective, log=False)
    return _balanced(positions, sizes)


def grid_anova(frame: pd.DataFrame, axes: Sequence[str], objective: str, *, log: bool = True) -> Importance:
    """Exact shares on a complete grid of ``axes``: every combination of values that have the objective equally often.

    ``log``: of the logarithm of the objective, in which what multiplies it adds up.
    """
    values, positions, sizes, y = _table(frame, axes, objective, log=log)
    if not _balanced(positions, sizes):
        cell = len(np.unique(cells(positions, sizes)))
        raise InputError(
            f"no complete grid: {len(y):,} rows with {objective!r} have {cell:,} of the {_product(sizes):,} "
            "combinations of the axes, or some more often than others; a forest takes any rows"
        )
    order = np.argsort(cells(positions, sizes), kind="stable")
    grid = y[order].reshape(*sizes, -1).mean(-1)
    found = _Shares(float(((y - y.mean()) ** 2).mean()) if np.ptp(y) else 0.0)
    mains = [_mean_over_others(grid, i) - grid.mean() for i in range(len(sizes))]
    found.main = [found.of((main**2).mean()) for main in mains]
    for i, j in combinations(range(len(sizes)), 2):
        both = _mean_over_others(grid, i, j) - grid.mean() - mains[i][:, None] - mains[j][None, :]
        found.pair[i, j] = found.of((both**2).mean())
    curves = [main + grid.mean() for main in mains]
    return _result("functional ANOVA of the complete grid", frame, objective, log, values, found, curves, len(y))


def forest_anova(
    frame: pd.DataFrame, axes: Sequence[str], objective: str, *, log: bool = True, seed: int = 0
) -> Importance:
    """Shares in a random forest that learnt the rows with the objective; means over its trees, in each of which they
    are exact on all combinations of values that these rows have.

    ``seed``: of the trees, and of the sample where there are more than `MOST_ROWS` rows. Refuses less than
    `LEAST_ROWS` rows an axis that moves.
    """
    from sklearn.ensemble import RandomForestRegressor

    require_int("seed", seed, 0, 2**32 - 1)
    values, positions, sizes, y = _table(frame, axes, objective, log=log)
    least = LEAST_ROWS * max(1, sum(size > 1 for size in sizes))
    if len(y) < least:
        raise InputError(
            f"a forest over {len(sizes)} axes takes at least {least} rows with {objective!r}, not {len(y)}"
        )
    rows = len(y)
    if rows > MOST_ROWS:
        some = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
        positions, y = positions[some], y[some]
    positions, values = _by_mean(positions, values, y)
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=seed).fit(positions, y)
    trees = [_of_tree(tree.tree_, sizes) for tree in forest.estimators_]
    moving = [found for found, _ in trees if found.variance > 0]
    mean = _Shares(1.0 if moving else 0.0)
    mean.main = [float(np.mean([t.main[i] for t in moving])) if moving else 0.0 for i in range(len(sizes))]
    for pair in combinations(range(len(sizes)), 2):
        mean.pair[pair] = float(np.mean([t.pair[pair] for t in moving])) if moving else 0.0
    curves = [np.mean([curve[i] for _, curve in trees], axis=0) for i in range(len(sizes))]
    of = f" by a sample of {MOST_ROWS:,} of {rows:,} rows," if rows > MOST_ROWS else ""
    method = f"fANOVA of a random forest of {TREES} trees,{of} seed {seed},"
    r2 = float(forest.oob_score_) if moving else 1.0
    return _result(method, frame, objective, log, values, mean, curves, len(y), r2)


def one_at_a_time(
    frame: pd.DataFrame, axes: Sequence[str], objective: str, point: int, *, log: bool = True
) -> Importance:
    """How the objective moves along each axis while all others stay as they are at ``point``, in rows that exist.

    A share is that of the variance along an axis in the sum over the axes. ``rows``: how many are in line with the
    point, itself among them.
    """
    known = frame[_known(frame, objective)]
    require_columns(frame, ("point",))
    values, positions, sizes, y = _table(frame, axes, objective, log=log)
    at = np.flatnonzero(known["point"].to_numpy() == point)
    if not len(at):
        raise InputError(f"point {point} has no {objective!r}: choose one that runs")
    differs = positions != positions[at[0]]
    curves, variances, lines = [], [], 1
    for i, size in enumerate(sizes):
        line = np.flatnonzero(~np.delete(differs, i, axis=1).any(1))
        curve = np.full(size, np.nan)
        curve[positions[line[::-1], i]] = y[line[::-1]]  # of rows that are the same point the first
        curve[positions[at[0], i]] = y[at[0]]
        there = curve[~np.isnan(curve)]
        lines += len(there) - 1
        curves.append(curve)
        variances.append(float(there.var()) if np.ptp(there) else 0.0)
    if lines == 1:
        raise InputError(f"no row has all but one of the values of point {point}: it says nothing one at a time")
    found = _Shares(sum(variances))
    found.main = [found.of(variance) for variance in variances]
    method = f"one axis at a time around point {point} (shares of the sum of the variances along each)"
    return _result(method, frame, objective, log, values, found, curves, lines)


class _Shares:
    """Shares of a variance: of axis number i in ``main``, of two axes in ``pair``."""

    def __init__(self, variance: float) -> None:
        self.variance = variance
        self.main: list[float] = []
        self.pair: dict[tuple[int, int], float] = {}

    def of(self, variance: Any) -> float:
        share = float(variance) / self.variance if self.variance > 0 else 0.0
        return share if share > _ROUNDING else 0.0

    @property
    def rest(self) -> float:
        return max(0.0, 1.0 - sum(self.main) - sum(self.pair.values())) if self.variance > 0 else 0.0


def _known(frame: pd.DataFrame, objective: str) -> NDArray[np.bool_]:
    """Rows that have the objective: those that run, and where a bound is asked for all that have one."""
    require_columns(frame, (objective,))
    if objective == "bound_cycles":
        return np.asarray(frame[objective] > 0, bool)
    return runs(frame)


def _table(
    frame: pd.DataFrame, axes: Sequence[str], objective: str, *, log: bool
) -> tuple[dict[str, list[Any]], NDArray[np.int64], list[int], NDArray[np.float64]]:
    """Values of the axes, their positions in the rows that have the objective, how many there are, the objective."""
    if not axes:
        raise InputError("importance is of axes, and none is named")
    known = frame[_known(frame, objective)]
    if not len(known):
        raise InputError(f"no row has {objective!r}: nothing ran")
    y = known[objective].to_numpy(np.float64)
    if not np.isfinite(y).all():
        raise InputError(f"{objective!r} is no finite number for point {known['point'].to_numpy()[~np.isfinite(y)][0]}")
    if log and not (y > 0).all():
        raise InputError(f"{objective!r} is {y.min():g} somewhere, which has no logarithm: ask with log=False")
    values = axes_of(known, list(axes))
    return values, codes(known, values), [len(each) for each in values.values()], np.log(y) if log else y


def _balanced(positions: NDArray[np.int64], sizes: Sequence[int]) -> bool:
    if len(positions) % _product(sizes):
        return False
    counts = np.unique(cells(positions, sizes), return_counts=True)[1]
    return len(counts) == _product(sizes) and bool((counts == counts[0]).all())


def _product(sizes: Sequence[int]) -> int:
    found = 1
    for size in sizes:
        found *= size
    return found


def _mean_over_others(grid: NDArray[np.float64], *kept: int) -> NDArray[np.float64]:
    return np.asarray(grid.mean(axis=tuple(i for i in range(grid.ndim) if i not in kept)))


def _result(
    method: str,
    frame: pd.DataFrame,
    objective: str,
    log: bool,
    values: dict[str, list[Any]],
    found: _Shares,
    curves: Sequence[NDArray[np.float64]],
    rows: int,
    r2: float | None = None,
) -> Importance:
    names = list(values)
    mains = [
        Effect(
            axes=(name,),
            share=share,
            curve=tuple(
                (value, float(np.exp(mean) if log else mean))
                for value, mean in zip(values[name], curve, strict=True)
                if not np.isnan(mean)
            ),
        )
        for name, share, curve in zip(names, found.main, curves, strict=True)
    ]
    pairs = [Effect(axes=(names[i], names[j]), share=share) for (i, j), share in found.pair.items()]
    other = frame["status"][~_known(frame, objective)].value_counts()
    return Importance(
        method=method,
        objective=objective,
        log=log,
        rows=rows,
        unused={str(status): int(n) for status, n in other.items()},
        effects=(*sorted(mains, key=lambda e: -e.share), *sorted(pairs, key=lambda e: -e.share)),
        rest=found.rest if found.pair else 0.0,
        r2=r2,
    )


def _by_mean(
    positions: NDArray[np.int64], values: dict[str, list[Any]], y: NDArray[np.float64]
) -> tuple[NDArray[np.int64], dict[str, list[Any]]]:
    """Values that are no numbers in the order of their mean, in which a tree's best split is of neighbours (Breiman et
    al. 1984)."""
    positions, sorted_values = positions.copy(), dict(values)
    for i, (name, own) in enumerate(values.items()):
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in own):
            counts = np.bincount(positions[:, i], minlength=len(own))
            sums = np.bincount(positions[:, i], weights=y, minlength=len(own))
            order = np.argsort(sums / np.maximum(counts, 1), kind="stable")
            positions[:, i] = np.argsort(order)[positions[:, i]]
            sorted_values[name] = [own[k] for k in order]
    return positions, sorted_values


def _of_tree(tree: Any, sizes: Sequence[int]) -> tuple[_Shares, list[NDArray[np.float64]]]:
    """Shares in a regression tree on all combinations of positions, and its mean along each axis: a leaf is a box."""
    low, high, leaf = _boxes(tree, sizes)
    value = tree.value[leaf, 0, 0]
    widths = (high - low) / np.asarray(sizes)
    whole = widths.prod(1)
    mean = float((value * whole).sum())
    spread = value - mean
    found = _Shares(float((spread**2 * whole).sum()) if np.ptp(value) else 0.0)
    curves = []
    for i, size in enumerate(sizes):
        edges = np.zeros(size + 1)
        np.add.at(edges, low[:, i], spread * whole / widths[:, i])
        np.add.at(edges, high[:, i], -spread * whole / widths[:, i])
        curves.append(np.cumsum(edges)[:-1])
        found.main.append(found.of((curves[-1] ** 2).mean()))
    for i, j in combinations(range(len(sizes)), 2):
        weight = spread * whole / (widths[:, i] * widths[:, j])
        corners = np.zeros((sizes[i] + 1, sizes[j] + 1))
        for at_i, at_j, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
            np.add.at(corners, (at_i[:, i], at_j[:, j]), sign * weight)
        both = corners.cumsum(0).cumsum(1)[:-1, :-1] - curves[i][:, None] - curves[j][None, :]
        found.pair[i, j] = found.of((both**2).mean())
    return found, [curve + mean for curve in curves]


def _boxes(tree: Any, sizes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First position and the one past the last that each leaf takes of every axis, and the leaves' nodes."""
    low = np.zeros((tree.node_count, len(sizes)), np.int64)
    high = np.broadcast_to(np.asarray(sizes, np.int64), low.shape).copy()
    inner = np.array([0]) if tree.children_left[0] >= 0 else np.zeros(0, int)
    while len(inner):
        left, right, axis = tree.children_left[inner], tree.children_right[inner], tree.feature[inner]
        for child in (left, right):
            low[child], high[child] = low[inner], high[inner]
        first_right = np.floor(tree.threshold[inner]).astype(np.int64) + 1  # whatever is at most the threshold is left
        high[left, axis] = first_right
        low[right, axis] = first_right
        children = np.concatenate([left, right])
        inner = children[tree.children_left[children] >= 0]
    leaf = np.flatnonzero(tree.children_left < 0)
    return low[leaf], high[leaf], leaf
