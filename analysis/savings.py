"""What a step saves over another, by the table of its machine and by every table that ships: counts times table."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataflow.actions import Action
from ..workloads.errors import InputError
from .energy import step_tariff, total_amounts
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
    own, other = (step_of(r).spec.technology for r in (result, base))
    counts = _Counts(result), _Counts(base)

    def share(one: Table, another: Table) -> float:
        return _share(counts[0].cost(one), counts[1].cost(another))

    shares = {}
    for name in table_names():
        try:
            shares[name] = share(load_table(name), load_table(name))
        except InputError:  # no energy of this format or memory in it, or LUTs that nobody has counted
            continue
    mine = share(load_table(own), load_table(other))
    shares |= {own: mine} if own == other else {f"{own}, {other}": mine}
    return Saving(share=mine, low=min(shares.values()), high=max(shares.values()), tables=tuple(shares))


class _Counts:
    """Actions of a step, counted once for all chips and once for all FPGAs."""

    def __init__(self, result: AnyResult) -> None:
        self._result = result
        self._found: dict[bool, dict[Action, int]] = {}

    def cost(self, table: Table) -> int:
        """Zeptojoules."""
        charged = step_tariff(step_of(self._result), table)
        if table.fabric not in self._found:
            self._found[table.fabric] = total_amounts(self._result, table)
        counts = self._found[table.fabric]
        return sum(counts.get(action, 0) * price.zeptojoules for action, price in charged.items())


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
