"""Which actions the counts of a step stand for, as numbers: what `dataflow/account.py` declares, as a matrix a class.

Ops of a class do the same of one count: products whose words weigh the same, updates by one rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from ...workloads.levels import needs_no_multiplier
from ...workloads.step import MatrixOp
from ..account import Counts, Cycles, declared_causes, declared_counts
from ..actions import LEDGER, NOTHING, STANDING, Action, Cause, Counted, Each, Either, Where
from ..stce.counts import StceCounts
from ..xnor.counts import XnorCounts

__all__ = ["ACTIONS", "COUNTED", "KINDS", "Weights", "actions_of", "amounts_of", "weights_of"]

_DECLARED: dict[str, Counted | Cause] = {**declared_counts(Counts), **declared_causes(Cycles)}
_FIRST = {"output_words": "written_words", "buffer_bytes": "filled_bytes"}
"""Counts of which a part is another action than the rest, and what that part is called here."""

COUNTED = {
    name: number
    for number, name in enumerate(
        (*(n for n, x in _DECLARED.items() if (x.chip, x.fabric) != (NOTHING, NOTHING)), *_FIRST.values())
    )
}
"""Columns of what is counted: all that stands for an action."""

_AS_OFTEN = {"sign_flips": "macs", "popcounts": "macs"}
"""Counts of one engine, and the count that is the same number wherever they are counted: in batch, of the XNOR engine,
``macs`` are pairs of words, which its macs cost nothing beside."""
_OWN: dict[type[Counts], dict[str, Counted]] = {
    kind: {name: one for name, one in declared_counts(kind).items() if name not in declared_counts(Counts)}
    for kind in (StceCounts, XnorCounts)
}
if any(own.keys() - _AS_OFTEN.keys() for own in _OWN.values()):
    raise TypeError(f"engines count {_OWN}, of which a batch knows {list(_AS_OFTEN)}")

KINDS = {
    kind: tuple(
        dict.fromkeys(
            action
            for one in own.values()
            for spends in (one.chip, one.fabric)
            if isinstance(spends, Each)
            for action in spends.actions
        )
    )
    for kind, own in _OWN.items()
}
"""Actions that only ops with such counts do, each at least once."""
ACTIONS = (*LEDGER, *(action for actions in KINDS.values() for action in actions))
"""All that an op in a batch may do."""

Weights = tuple[tuple[int, int, int], ...]
"""Column of `COUNTED`, place of an action in `ACTIONS`, and how often one count is that action."""

_ACTION = {action: number for number, action in enumerate(ACTIONS)}
_MOST = 2.0**62


def weights_of(where: Where) -> Weights:
    """What the counts of an op stand for, on a chip and on an FPGA."""
    found: dict[tuple[int, int], int] = {}
    own = _OWN.get(_kind_of(where), {})
    declarations = {name: _DECLARED[name] for name in COUNTED.keys() & _DECLARED.keys()} | own
    for name, declared in declarations.items():
        column = COUNTED[_AS_OFTEN.get(name, name)]
        for spends in (declared.chip, declared.fabric):
            match spends:
                case None:
                    continue
                case Each():
                    found |= {(column, _ACTION[action]): n for action, n in spends.each(where)}
                case Either():
                    (one, n), (other, m) = spends.each(where)
                    first = COUNTED[_FIRST[name]]
                    found |= {(first, _ACTION[one]): n, (column, _ACTION[other]): m, (first, _ACTION[other]): -m}
                case _:
                    assert_never(spends)
    return tuple(sorted((*place, n) for place, n in found.items() if n))


def actions_of(totals: Sequence[int], where: Where) -> dict[Action, int]:
    """What ``totals`` of one op stand for, columns as `COUNTED`; none of what it does standing."""
    found: dict[Action, int] = {}
    for column, action, times in weights_of(where):
        found[ACTIONS[action]] = found.get(ACTIONS[action], 0) + times * totals[column]
    return found


def _kind_of(where: Where) -> type[Counts]:
    """What counts the op is booked in."""
    op = where.op
    if not isinstance(op, MatrixOp):
        return Counts
    match where.kind:
        case "stce":
            signs = needs_no_multiplier(op.a.levels) or needs_no_multiplier(op.b.levels)
            return StceCounts if signs else Counts
        case "xnor":
            return XnorCounts
        case "gather" | "outside":
            raise AssertionError("machines with such engines are in no batch")
        case _:
            assert_never(where.kind)


def amounts_of(
    totals: NDArray[np.int64], cycles: NDArray[np.int64], classes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Amounts by action, int64 [points, actions], of counts, int64 [points, classes, counted], and cycles of the step,
    int64 [points]; ``classes``: int64 [weights, 4], class and `Weights`. Beside them whether 64 bits hold all of a
    point's, bool [points].
    """
    points, kinds, counted = totals.shape
    weights = np.zeros((kinds, counted, len(ACTIONS)), np.int64)
    weights[classes[:, 0], classes[:, 1], classes[:, 2]] = classes[:, 3]
    flat, of_one = totals.reshape(points, -1), weights.reshape(-1, len(ACTIONS))
    amounts = flat @ of_one
    amounts[:, [_ACTION[action] for action in STANDING]] = cycles[:, None]
    held = (flat.astype(float) @ np.abs(of_one).astype(float)).max(axis=1, initial=0.0) < _MOST
    return amounts, held
