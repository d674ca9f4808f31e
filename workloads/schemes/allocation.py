"""A candidate for every layer under a budget: the choice of the least sum of scores, exactly (a knapsack with choices).

Layers are taken one by one, and of the choices so far those are kept that no other beats in score and cost. A choice is
dropped, too, if even the Lagrangian bound of what the other layers add is above the best whole choice known: the sum of
the least score + price x cost of each, minus price x budget, at the price that makes it largest. Importing this must
not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt

from ..errors import InputError, require_int
from ..one_line import OneLine

__all__ = ["MOST_CHOICES", "Allocation", "allocate", "cheapest", "erk_densities"]

MOST_CHOICES = 2**20
"""Choices kept after a layer; more are cut down to those of the least bounds, and the gap says what that may cost."""

_MOST_COST = 2**62
_STEPS = 2**40
"""Steps in which a budget of scores is spent."""
_HALVINGS = 200
"""Of the interval that the price lies in: more than a float64 has bits."""

_Layer = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
"""Scores and costs of its candidates."""
_Table = Sequence[_Layer]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Allocation(OneLine):
    """``choice``: a candidate by layer; their sums of scores and costs. ``bound``: no choice within the budget scores
    less, which is ``score`` itself unless choices were cut down."""

    choice: dict[str, str]
    score: float
    cost: int
    budget: int
    bound: float

    @property
    def gap(self) -> float:
        """By how much the best choice may score less; 0 where it is known to be the best."""
        return self.score - self.bound

    def _said(self) -> str:
        return f"{len(self.choice)} layers: score {self.score:.4g}, cost {self.cost:,} of {self.budget:,}"


def allocate(
    scores: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Mapping[str, int]],
    budget: int,
    *,
    most: int = MOST_CHOICES,
) -> Allocation:
    """The candidate of each layer for which ``scores`` add up to the least while ``costs`` are at most ``budget``.

    Costs are whole numbers of any unit: weights, bytes, cycles. Of equal scores the cheaper choice is taken.
    """
    if not scores:
        raise InputError("there is no layer to choose for")
    layers = {name: tuple(found) for name, found in scores.items()}
    table = [_layer(name, scores[name], costs.get(name, {})) for name in layers]
    least = sum(int(c.min()) for _, c in table)
    require_int("sum of the largest costs", sum(int(c.max()) for _, c in table), 0, _MOST_COST)
    if least > budget:
        raise InputError(f"budget {budget:,} is below {least:,}, what the cheapest candidates of all layers cost")
    price, best, bound = _priced(table, budget)
    found, cut = _search(table, budget, price, best, most)
    whole = sum(float(s[i]) for (s, _), i in zip(table, found, strict=True))
    return Allocation(
        choice={name: layers[name][i] for name, i in zip(layers, found, strict=True)},
        score=whole,
        cost=sum(int(c[i]) for (_, c), i in zip(table, found, strict=True)),
        budget=budget,
        bound=min(bound, whole) if cut else whole,
    )


def cheapest(
    scores: Mapping[str, Mapping[str, float]], costs: Mapping[str, Mapping[str, int]], most: float
) -> dict[str, str]:
    """The candidate of each layer for which ``costs`` add up to the least while ``scores`` are at most ``most``.

    Each score is known to 2^-40 of what ``most`` leaves above the least sum that there is: by so much, a layer, the
    budget may be exceeded, so that a choice that just meets it is not lost to rounding.
    """
    lowest = {layer: min(of.values()) for layer, of in scores.items() if of}
    room = most - sum(lowest.values())
    if room < 0:
        raise InputError(f"budget {most:g} is below {most - room:g}, the least sum of scores that there is")
    steps = {layer: {c: _steps(score - lowest[layer], room) for c, score in of.items()} for layer, of in scores.items()}
    able = {layer: {c: float(costs[layer][c]) for c, n in of.items() if n <= _STEPS} for layer, of in steps.items()}
    return allocate(able, steps, _STEPS + len(steps)).choice


def _steps(above: float, room: float) -> int:
    """Rounded up; more than all where even alone it is too much."""
    if above <= room:
        return ceil(above / room * _STEPS) if above > 0.0 else 0
    return _STEPS + 1


def _layer(name: str, scores: Mapping[str, float], costs: Mapping[str, int]) -> _Layer:
    if not scores:
        raise InputError(f"layer {name!r} has no candidate")
    missing = next((text for text in scores if text not in costs), None)
    if missing is not None:
        raise InputError(f"layer {name!r} has a score for {missing}, but no cost")
    for text in scores:
        require_int(f"cost of {text} in layer {name!r}", costs[text], 0, _MOST_COST)
        if not abs(scores[text]) < float("inf"):
            raise InputError(f"score of {text} in layer {name!r} must be finite, not {scores[text]}")
    return np.array([*scores.values()], np.float64), np.array([costs[text] for text in scores], np.int64)


def _at(table: _Table, price: float) -> list[int]:
    """The candidates of least score + price x cost; of equals the cheapest, then the first."""
    return [int(np.lexsort((np.arange(len(s)), c, s + price * c))[0]) for s, c in table]


def _priced(table: _Table, budget: int) -> tuple[float, list[int], float]:
    """The price of the largest bound, the best choice met on the way to it, and the bound."""

    def cost(chosen: list[int]) -> int:
        return sum(int(c[i]) for (_, c), i in zip(table, chosen, strict=True))

    def bound(price: float) -> float:
        return sum(float((s + price * c).min()) for s, c in table) - price * budget

    low, high, best = 0.0, 1.0, _at(table, 0.0)
    if cost(best) <= budget:
        return 0.0, best, bound(0.0)
    while cost(best := _at(table, high)) > budget and high < 1e300:
        low, high = high, 2 * high
    if cost(best) > budget:
        best = [int(np.lexsort((s, c))[0]) for s, c in table]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        found = _at(table, middle)
        if cost(found) <= budget:
            high, best = middle, found
        else:
            low = middle
    return max((low, high), key=bound), best, max(bound(low), bound(high))


def _search(table: _Table, budget: int, price: float, best: list[int], most: int) -> tuple[list[int], bool]:
    """The best choice of all, and whether any was cut off that might have been better."""
    rest_cost = _rest(int(c.min()) for _, c in table)
    rest_priced = _rest(float((s + price * c).min()) for s, c in table)
    known = sum(float(s[i]) for (s, _), i in zip(table, best, strict=True))
    # What rounding may have done to sums of so many terms.
    slack = 1e-12 * (1.0 + sum(float(np.abs(s).max() + price * c.max()) for s, c in table))
    score, cost = np.zeros(1), np.zeros(1, np.int64)
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    cut = False
    for at, (s, c) in enumerate(table):
        scores, costs = (score[:, None] + s).ravel(), (cost[:, None] + c).ravel()
        bounds = scores + price * (costs - budget) + rest_priced[at + 1]
        able = np.flatnonzero((costs + rest_cost[at + 1] <= budget) & (bounds <= known + slack))
        if len(able) > most:
            cut = True
            able = np.sort(able[np.argsort(bounds[able], kind="stable")[:most]])
        able = able[np.lexsort((able, scores[able], costs[able]))]
        before = np.minimum.accumulate(scores[able])
        kept = np.ones(len(able), np.bool_)
        kept[1:] = scores[able][1:] < before[:-1]
        able = able[kept]
        score, cost = scores[able], costs[able]
        steps.append((able // len(s), able % len(s)))
    if not len(score) or score.min() > known:
        return best, cut
    where, found = int(score.argmin()), list[int]()
    for parents, chosen in reversed(steps):
        found.append(int(chosen[where]))
        where = int(parents[where])
    return found[::-1], cut


def _rest(of_layers: Iterable[float]) -> list[float]:
    """Sums over the layers from each one on."""
    sums = [0.0]
    for value in reversed([*of_layers]):
        sums.append(sums[-1] + value)
    return sums[::-1]


def erk_densities(shapes: Iterable[tuple[int, ...]], density: float) -> list[float]:
    """Erdos-Renyi-kernel densities of layers with weights of ``shapes`` (Evci et al., arXiv 1911.11134).

    d_l = eps sum(dimensions) / prod(dimensions), with eps such that sum d_l n_l = ``density`` sum n_l; a layer that
    would pass 1 is dense, and eps is found again for the rest.
    """
    dims = list(shapes)
    sizes = [prod(d) for d in dims]
    raw = [sum(d) / size for d, size in zip(dims, sizes, strict=True)]
    dense: set[int] = set()
    while len(dense) < len(dims):
        rest = [i for i in range(len(dims)) if i not in dense]
        left = density * sum(sizes) - sum(sizes[i] for i in dense)
        eps = left / sum(raw[i] * sizes[i] for i in rest)
        full = {i for i in rest if eps * raw[i] > 1.0 and raw[i] == max(raw[j] for j in rest)}
        if not full:
            return [1.0 if i in dense else eps * raw[i] for i in range(len(dims))]
        dense |= full
    return [1.0] * len(dims)
