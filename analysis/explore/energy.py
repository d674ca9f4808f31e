"""Joules of a step on many machines: what `dataflow/batch` counts there, by the tariff of each.

The same whole zeptojoules as `energy(simulate(schedule(workload, machine)))`, machine by machine.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.account import Counts, kind_of
from ...dataflow.batch.amounts import ACTIONS, KINDS
from ...dataflow.batch.evaluate import Evaluated, Status
from ...workloads.errors import InputError
from ..energy import ZJ_PER_J
from ..energy_table import Table, load_table
from ..tariff import tariff, tariff_key

__all__ = ["Priced", "joules"]


class Priced(NamedTuple):
    """``joules``: float64 [points], NaN where a step does not run or its machine has no tariff; ``reasons``: [points],
    why it has none, empty where it has."""

    joules: NDArray[np.float64]
    reasons: tuple[str, ...]


def joules(found: Evaluated, specs: Sequence[AcceleratorSpec], table: Table | None = None) -> Priced:
    """Joules of a step that `evaluate` has with its amounts, on the machines ``specs``, by ``table``, else each by the
    table that its ``technology`` names.

    A machine that cannot be priced, such as one on an FPGA whose parts nobody has counted, has a reason.
    """
    if found.amounts is None or len(specs) != len(found.amounts):
        has = "none" if found.amounts is None else f"those of {len(found.amounts)}"
        raise InputError(f"{len(specs)} machines need their amounts, evaluate(..., amounts=True): {has}")
    spent, reasons = np.full(len(specs), np.nan), [""] * len(specs)
    counts = _kinds(found.amounts)
    alike: dict[tuple[type[Counts], Hashable], list[int]] = {}
    for i, spec in enumerate(specs):
        try:
            key = tariff_key(table or load_table(spec.technology), spec)
        except InputError as refused:
            reasons[i] = str(refused)
        else:
            alike.setdefault((counts[i], key), []).append(i)
    for (kind, _), own in alike.items():
        first = specs[own[0]]
        try:
            charged = tariff(table or load_table(first.technology), first, kind)
        except InputError as refused:
            for i in own:
                reasons[i] = str(refused)
            continue
        runs = np.array([i for i in own if found.status[i] == Status.RUNS], np.int64)
        # A joule has 1e21 zeptojoules, more than 64 bits hold: numbers of Python have no end.
        columns = np.array([n for n, action in enumerate(ACTIONS) if action in charged], np.int64)
        prices = np.array([charged[ACTIONS[n]].zeptojoules for n in columns], object)
        spent[runs] = [int(zj) / ZJ_PER_J for zj in found.amounts[np.ix_(runs, columns)].astype(object) @ prices]
    return Priced(spent, tuple(reasons))


def _kinds(amounts: NDArray[np.int64]) -> list[type[Counts]]:
    """The kind of counts of every step, by the actions that only ops with such counts do."""
    did = np.array([ACTIONS.index(actions[0]) for actions in KINDS.values()], np.int64)
    return [
        kind_of(Counts, [kind for kind, n in zip(KINDS, row, strict=True) if n]) for row in amounts[:, did].tolist()
    ]
