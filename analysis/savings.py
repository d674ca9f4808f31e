"""What a step saves over another, by the table of its machine and by every table that ships: counts times table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..workloads.errors import InputError
from .energy import Action, step_amounts, tariff
from .energy_table import Table, load_table, table_names
from .level import AnyResult, step_of

__all__ = ["Saving", "range_words", "saving", "saving_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Shares of the energy of the other step that are not spent; negative where more is.

    ``low`` and ``high`` over ``tables``: those that ship and can charge both machines, and the machine's own.
    """

    share: float
    low: float
    high: float
    tables: tuple[str, ...]


def saving(result: AnyResult, base: AnyResult) -> Saving:
    """What ``result`` saves over ``base``."""
    spent, before = _totals(result), _totals(base)
    own, other = (step_of(r).spec.technology for r in (result, base))
    share = _share(_cost(result, spent, load_table(own)), _cost(base, before, load_table(other)))
    shares = {}
    for name in table_names():
        try:
            table = load_table(name)
            shares[name] = _share(_cost(result, spent, table), _cost(base, before, table))
        except InputError:  # no energy of this format or memory in it, or LUTs that nobody has counted
            continue
    shares |= {own: share} if own == other else {f"{own}, {other}": share}
    return Saving(share=share, low=min(shares.values()), high=max(shares.values()), tables=tuple(shares))


def _totals(result: AnyResult) -> Counter[Action]:
    counts: Counter[Action] = Counter()
    for found in step_amounts(result):
        counts.update(found)
    return counts


def _cost(result: AnyResult, counts: Counter[Action], table: Table) -> int:
    """Zeptojoules."""
    return sum(counts[action] * price.zeptojoules for action, price in tariff(table, step_of(result).spec).items())


def _share(spent: int, before: int) -> float:
    return 1 - spent / before if before else 0.0


def saving_words(found: Saving) -> str:
    """As ``5.7 % less energy (tables: 3.1-42.2 %)``: the share, and how far the tables differ."""
    share = f"{abs(100 * found.share):.1f} % {'less' if found.share >= 0 else 'more'} energy"
    return f"{share} (tables: {range_words(found)} %{' less' if found.low < 0 else ''})"


def range_words(found: Saving) -> str:
    """From the least to the most that a table has, in percent."""
    low, high = (f"{100 * share:.1f}" for share in (found.low, found.high))
    return f"{low}{'-' if found.low >= 0 else ' to '}{high}"
