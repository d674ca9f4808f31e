"""Joules of a simulated step: counts of actions times a sourced table, so that re-costing never re-simulates.

Sums are of whole zeptojoules (1e-21 J): each price is rounded to them once, so every cut of a step adds up exactly.
What is counted, who pays for it and by which price is declared with the counts (`dataflow/actions.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Counts, Cycles, by_kind, declared_causes, declared_counts, values
from ..dataflow.actions import BEYOND, LEDGER, STANDING, Action, Component, Spends, Where
from ..dataflow.operand import BYTE
from ..simulator.result import OpResult, SimResult
from ..simulator.row_misses import Beyond
from ..simulator.system_result import SystemResult
from ..workloads.gemm import Pass
from ..workloads.one_line import OneLine
from ..workloads.update_rule import UpdateRule
from .bands import Joules
from .declared import counts_kind, cycles_kind
from .energy_table import Mark, Table, load_table
from .level import AnyResult, cycles_of, step_of
from .tariff import Price, Tariff, spends_of, tariff
from .words import apportion

__all__ = [
    "ZJ_PER_J",
    "EnergyReport",
    "LedgerRow",
    "amounts",
    "beyond_amounts",
    "energy",
    "ledger",
    "step_amounts",
    "step_tariff",
    "total_amounts",
]

_ZJ_PER_PJ, ZJ_PER_J = 10**9, 10**21


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One kind of action over a step: ``count`` x ``constant_pj`` x ``scaling``, in whole zeptojoules each.

    ``low_joules`` and ``high_joules`` by the band of its figure, whose origin is ``band_source`` and ``band_mark``.
    """

    component: str
    action: Action
    count: int
    unit: str
    constant_pj: float
    scaling: float
    pj_each: float
    zeptojoules: int
    joules: float
    source: str
    mark: Mark
    low_joules: float
    high_joules: float
    band_source: str
    band_mark: Mark

    @property
    def band(self) -> Joules:
        """Its joules with their band."""
        return Joules(self.low_joules, self.joules, self.high_joules)

    def document(self) -> dict[str, Any]:
        """Its fields by name, the action by its own."""
        return {**asdict(self), "action": self.action.name}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnergyReport(OneLine):
    """Joules of one training step, cut several ways, each adding up; ``by_op`` follows the order of the ops.

    ``op_parts``: zeptojoules of every op by part of the machine. ``macs``: multiply-accumulates that were issued.
    ``band``, ``part_bands``, ``pass_bands`` and ``op_bands``: the same sums with all figures at the ends of their
    bands.
    """

    table: Table
    zeptojoules: int
    joules: float
    by_component: dict[str, float]
    by_pass: dict[Pass, float]
    by_mark: dict[Mark, float]
    by_op: tuple[float, ...]
    op_zeptojoules: tuple[int, ...]
    op_parts: tuple[dict[str, int], ...]
    rows: tuple[LedgerRow, ...]
    macs: int
    band: Joules
    part_bands: dict[str, Joules]
    pass_bands: dict[Pass, Joules]
    op_bands: tuple[Joules, ...]


def amounts(
    result: OpResult, rule: UpdateRule, spec: AcceleratorSpec, table: Table, standing: int | None = None
) -> dict[Action, int]:
    """Operations, bits and cycles of one op on ``spec`` that ``table`` charges, without those that never happen.

    ``standing``: cycles of the step that the op answers for; those that it takes by itself if none.
    """
    found: dict[Action, int] = {}
    where = Where(result.op, rule, spec)
    if result.mapping is not None:
        where = where._replace(kind=result.mapping.array.kind, n2s=result.mapping.n2s)
    for account in (result.counts, result.cycles):
        for n, spends in zip(values(account), _plan(type(account), table), strict=True):
            if n:
                for action, times in spends.spent(n, account, where):
                    if times:
                        found[action] = found.get(action, 0) + times
    stood = result.cycles.total if standing is None else standing
    return found | dict.fromkeys(STANDING, stood) if stood else found


@by_kind
def _plan(kind: type[Counts] | type[Cycles], table: Table) -> tuple[Spends, ...]:
    declared = declared_counts(kind) if issubclass(kind, Counts) else declared_causes(kind)
    return tuple(spends_of(name, one, table) for name, one in declared.items())


def step_amounts(result: AnyResult, table: Table) -> list[dict[Action, int]]:
    """:func:`amounts` of every op; the standing cycles add up to those of the step. Where ops overlap, with what DRAM
    does beyond streams: without a figure for rows these are not charged."""
    step = step_of(result)
    whole, own = cycles_of(result), [r.cycles.total for r in step.ops]
    standing = own if whole == sum(own) else apportion(whole, own)
    found = [amounts(r, step.workload.rule, step.spec, table, n) for r, n in zip(step.ops, standing, strict=True)]
    if isinstance(result, SystemResult):
        for done, beyond in zip(found, result.beyond(), strict=True):
            done |= beyond_amounts(beyond, step.spec, table)
    return found


def beyond_amounts(beyond: Beyond, spec: AcceleratorSpec, table: Table) -> dict[Action, int]:
    """What DRAM does beyond streams, as far as ``table`` charges it."""
    opened = table.dram_of(spec.dram.kind).activate is not None
    done = (BYTE * beyond.read_bytes, BYTE * beyond.write_bytes, beyond.activates * opened)
    return {action: n for action, n in zip(BEYOND, done, strict=True) if n}


def total_amounts(result: AnyResult, table: Table) -> dict[Action, int]:
    """:func:`amounts` of all ops together."""
    sums: dict[Action, int] = {}
    for found in step_amounts(result, table):
        for action, n in found.items():
            sums[action] = sums.get(action, 0) + n
    return sums


def step_tariff(step: SimResult, table: Table) -> Tariff:
    """Prices of all that the engines of a step count."""
    return tariff(table, step.spec, counts_kind(step.ops), cycles_kind(step.ops))


def energy(result: AnyResult, table: Table | None = None, of: Callable[[OpResult], bool] | None = None) -> EnergyReport:
    """Joules of a step by ``table``, else by the table that the machine's ``technology`` names; of all ops or of some.

    Clock and leakage last as long as the step does: where ops overlap, each answers for its share of that time.
    """
    step = step_of(result)
    used = table or load_table(step.spec.technology)
    charged = step_tariff(step, used)
    each = {action: price.zeptojoules for action, price in charged.items()}
    edges = {action: price.ends for action, price in charged.items()}
    counts: Counter[Action] = Counter()
    parts, ops, ends, macs = [], [], [], 0
    for r, found in zip(step.ops, step_amounts(result, used), strict=True):
        if of is not None and not of(r):
            continue
        macs += r.counts.macs
        spent: dict[str, int] = {}
        low = high = 0
        for action, n in found.items():
            if action not in each:
                assert action in STANDING, action  # every other has a price, or the tariff would have been refused
                continue
            counts[action] += n
            spent[action.component] = spent.get(action.component, 0) + n * each[action]
            least, most = edges[action]
            low, high = low + n * least, high + n * most
        parts.append(spent)
        ops.append(Pass(r.op.pass_))
        ends.append((low, sum(spent.values()), high))
    rows = tuple(_row(action, counts[action], charged[action]) for action in _in_order(counts))
    by_pass = {p: _sums(end for at, end in zip(ops, ends, strict=True) if at is p) for p in Pass}
    whole, by_op = _sums(ends), tuple(likely for _, likely, _ in ends)
    components: dict[str, None] = dict.fromkeys([*Component, *(row.component for row in rows)])
    return EnergyReport(
        table=used,
        zeptojoules=whole[1],
        joules=whole[1] / ZJ_PER_J,
        by_component={c: _joules(row.zeptojoules for row in rows if row.component == c) for c in components},
        by_pass={p: likely / ZJ_PER_J for p, (_, likely, _) in by_pass.items()},
        by_mark={m: _joules(row.zeptojoules for row in rows if row.mark == m) for m in Mark},
        by_op=tuple(spent / ZJ_PER_J for spent in by_op),
        op_zeptojoules=by_op,
        op_parts=tuple(parts),
        rows=rows,
        macs=macs,
        band=_band(whole),
        part_bands={c: _of_rows(row for row in rows if row.component == c) for c in components},
        pass_bands={p: _band(spent) for p, spent in by_pass.items()},
        op_bands=tuple(_band(end) for end in ends),
    )


_Ends = tuple[int, int, int]
"""Least, likely and most zeptojoules."""


def _sums(parts: Iterable[_Ends]) -> _Ends:
    low = likely = high = 0
    for one, other, third in parts:
        low, likely, high = low + one, likely + other, high + third
    return low, likely, high


def _band(spent: _Ends) -> Joules:
    low, likely, high = spent
    return Joules(low / ZJ_PER_J, likely / ZJ_PER_J, high / ZJ_PER_J)


def _of_rows(rows: Iterable[LedgerRow]) -> Joules:
    found = list(rows)
    likely = sum(row.zeptojoules for row in found) / ZJ_PER_J
    return Joules(sum(row.low_joules for row in found), likely, sum(row.high_joules for row in found))


def _in_order(counts: Counter[Action]) -> list[Action]:
    """As a ledger has them: those of the machine that ships, then others as they were met."""
    return [*(action for action in LEDGER if counts[action]), *(action for action in counts if action not in LEDGER)]


def _joules(parts: Iterable[int]) -> float:
    return sum(parts) / ZJ_PER_J


def _row(action: Action, count: int, price: Price) -> LedgerRow:
    spent, (low, high) = count * price.zeptojoules, price.ends
    bands = [price.band] if price.common is None else [price.band, price.common]
    return LedgerRow(
        component=action.component,
        action=action,
        count=count,
        unit=action.unit,
        constant_pj=price.constant_pj,
        scaling=price.scaling,
        pj_each=price.zeptojoules / _ZJ_PER_PJ,
        zeptojoules=spent,
        joules=spent / ZJ_PER_J,
        source=price.source,
        mark=price.mark,
        low_joules=count * low / ZJ_PER_J,
        high_joules=count * high / ZJ_PER_J,
        band_source="; ".join(band.source for band in bands),
        band_mark=max((band.mark for band in bands), key=list(Mark).index),
    )


def ledger(result: AnyResult, table: Table | None = None) -> tuple[LedgerRow, ...]:
    """Every joule of a step as count x constant x scaling; the rows add up to the report's total, to the zeptojoule."""
    return energy(result, table).rows
