"""What a step saves over another, with its band, and by every table that ships: counts times table."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataflow.actions import Action
from ..workloads.errors import InputError
from .bands import Spent, ratio_range
from .energy import step_tariff, total_amounts
from .energy_table import Table, load_table, table_names
from .level import AnyResult, step_of

__all__ = ["Saving", "range_words", "saving", "saving_words", "share_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Shares of the energy of the other step that are not spent; negative where more is.

    ``low`` and ``high``: over all figures of the machine's table within their bands, the same on both sides
    (`bands.py`). ``tables``: the likely share by each table that ships and can charge both machines, and by their own.
    """

    share: float
    low: float
    high: float
    tables: dict[str, float]


def saving(result: AnyResult, base: AnyResult) -> Saving:
    """What ``result`` saves over ``base``."""
    own, other = (step_of(r).spec.technology for r in (result, base))
    counts = _Counts(result), _Counts(base)

    def share(one: Table, another: Table) -> float:
        return _share(sum(s.energy for s in counts[0].spent(one)), sum(s.energy for s in counts[1].spent(another)))

    shares = {}
    for name in table_names():
        try:
            shares[name] = share(load_table(name), load_table(name))
        except InputError:  # no energy of this format or memory in it, or LUTs that nobody has counted
            continue
    mine, theirs = load_table(own), load_table(other)
    found = share(mine, theirs)
    shares |= {own: found} if own == other else {f"{own}, {other}": found}
    after, before = counts[0].spent(mine), counts[1].spent(theirs)
    low, high = (found, found) if not (after and before) else _shares(*ratio_range(after, before))
    return Saving(share=found, low=low, high=high, tables=shares)


class _Counts:
    """Actions of a step, counted once for all chips and once for all FPGAs."""

    def __init__(self, result: AnyResult) -> None:
        self._result = result
        self._found: dict[bool, dict[Action, int]] = {}

    def spent(self, table: Table) -> list[Spent]:
        """Zeptojoules by figure of the table."""
        charged = step_tariff(step_of(self._result), table)
        if table.fabric not in self._found:
            self._found[table.fabric] = total_amounts(self._result, table)
        counts = self._found[table.fabric]
        return [
            Spent(price.figure, price.band, price.common, counts[action] * price.zeptojoules)
            for action, price in charged.items()
            if counts.get(action)
        ]


def _share(spent: float, before: float) -> float:
    return 1 - spent / before if before else 0.0


def _shares(least: float, most: float) -> tuple[float, float]:
    return 1 - most, 1 - least


def saving_words(found: Saving) -> str:
    """As ``5.7 % less energy (3.9-11 %; by other tables 3.1-42 %)``: the share, its band, how far tables differ."""
    others = _range(min(found.tables.values()), max(found.tables.values()))
    return f"{share_words(found)} energy ({_less(range_words(found))}; by other tables {_less(others)})"


def share_words(found: Saving) -> str:
    """As ``5.7 % less``."""
    return f"{abs(100 * found.share):.1f} % {'less' if found.share >= 0 else 'more'}"


def _less(words: str) -> str:
    return f"{words} %{' less' if ' to ' in words else ''}"


def range_words(found: Saving) -> str:
    """The least to the most by the bands of the machine's table, in percent."""
    return _range(found.low, found.high)


def _range(least: float, most: float) -> str:
    low, high = (f"{100 * share:.1f}" for share in (least, most))
    return f"{low}{'-' if least >= 0 else ' to '}{high}"
