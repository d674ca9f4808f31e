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
from ..dataflow.actions import LEDGER, STANDING, Action, Component, Spends, Where
from ..simulator.result import OpResult, SimResult
from ..workloads.gemm import Pass
from ..workloads.one_line import OneLine
from ..workloads.update_rule import UpdateRule
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
    "energy",
    "ledger",
    "step_amounts",
    "step_tariff",
    "total_amounts",
]

_ZJ_PER_PJ, ZJ_PER_J = 10**9, 10**21


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One kind of action over a step: ``count`` x ``constant_pj`` x ``scaling``, in whole zeptojoules each."""

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

    def document(self) -> dict[str, Any]:
        """Its fields by name, the action by its own."""
        return {**asdict(self), "action": self.action.name}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnergyReport(OneLine):
    """Joules of one training step, cut several ways, each adding up; ``by_op`` follows the order of the ops.

    ``op_parts``: zeptojoules of every op by part of the machine. ``macs``: multiply-accumulates that were issued.
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
    """:func:`amounts` of every op; the standing cycles add up to those of the step."""
    step = step_of(result)
    whole, own = cycles_of(result), [r.cycles.total for r in step.ops]
    standing = own if whole == sum(own) else apportion(whole, own)
    return [amounts(r, step.workload.rule, step.spec, table, n) for r, n in zip(step.ops, standing, strict=True)]


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
    counts: Counter[Action] = Counter()
    parts, by_pass, macs = [], dict.fromkeys(Pass, 0), 0
    for r, found in zip(step.ops, step_amounts(result, used), strict=True):
        if of is not None and not of(r):
            continue
        macs += r.counts.macs
        spent: dict[str, int] = {}
        for action, n in found.items():
            if action not in each:
                assert action in STANDING, action  # every other has a price, or the tariff would have been refused
                continue
            counts[action] += n
            spent[action.component] = spent.get(action.component, 0) + n * each[action]
        parts.append(spent)
        by_pass[Pass(r.op.pass_)] += sum(spent.values())
    rows = tuple(_row(action, counts[action], charged[action]) for action in _in_order(counts))
    total, by_op = sum(row.zeptojoules for row in rows), tuple(sum(part.values()) for part in parts)
    components: dict[str, None] = dict.fromkeys([*Component, *(row.component for row in rows)])
    return EnergyReport(
        table=used,
        zeptojoules=total,
        joules=total / ZJ_PER_J,
        by_component={c: _joules(row.zeptojoules for row in rows if row.component == c) for c in components},
        by_pass={p: spent / ZJ_PER_J for p, spent in by_pass.items()},
        by_mark={m: _joules(row.zeptojoules for row in rows if row.mark == m) for m in Mark},
        by_op=tuple(spent / ZJ_PER_J for spent in by_op),
        op_zeptojoules=by_op,
        op_parts=tuple(parts),
        rows=rows,
        macs=macs,
    )


def _in_order(counts: Counter[Action]) -> list[Action]:
    """As a ledger has them: those of the machine that ships, then others as they were met."""
    return [*(action for action in LEDGER if counts[action]), *(action for action in counts if action not in LEDGER)]


def _joules(parts: Iterable[int]) -> float:
    return sum(parts) / ZJ_PER_J


def _row(action: Action, count: int, price: Price) -> LedgerRow:
    spent = count * price.zeptojoules
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
    )


def ledger(result: AnyResult, table: Table | None = None) -> tuple[LedgerRow, ...]:
    """Every joule of a step as count x constant x scaling; the rows add up to the report's total, to the zeptojoule."""
    return energy(result, table).rows
