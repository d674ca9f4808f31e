"""Runs of one step beside each other: the same model, batch, dense work and level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...workloads.errors import InputError
from ..compare import Comparison, LossLedger, compare, loss_ledger
from ..promise import Promise, promise
from ..savings import Saving, saving
from .folder import Run

__all__ = ["Group", "group_runs", "kept_promises"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``runs`` can be compared, each in its own time."""

    runs: tuple[Run, ...]
    comparison: Comparison
    overlapped: bool

    @property
    def baseline(self) -> Run:
        """The dense run, or the first one."""
        return next(run for run in self.runs if run.result is self.comparison.baseline)

    @property
    def fastest(self) -> Run:
        return min(self.runs, key=lambda run: run.seconds)

    def speedup(self, run: Run) -> float | None:
        """Over the baseline; None where there is nothing beside the run."""
        return self.baseline.seconds / run.seconds if len(self.runs) > 1 else None

    def saving(self, run: Run) -> Saving | None:
        """Energy less than that of the baseline; None of the baseline itself."""
        return None if run is self.baseline else saving(run.timed, self.baseline.timed)

    def promised(self, run: Run) -> float:
        """Speed-up, had every layer kept the promise of the scheme."""
        return self.comparison.rows[self.runs.index(run)].ideal_speedup

    def promised_seconds(self, run: Run) -> float | None:
        """Time op after op, had every layer kept the promise; None without a promise or a dense run to keep it to."""
        if not self._like_dense(run) or self.promised(run) <= 1:
            return None
        dense = self.comparison.baseline
        return dense.cycles.total / dense.spec.clock_hz / self.promised(run)

    def _like_dense(self, run: Run) -> bool:
        """Whether the baseline is a dense run on an array of the same size and clock."""
        dense, spec = self.comparison.baseline, run.result.spec
        same = (dense.spec.macs_per_cycle, dense.spec.clock_hz) == (spec.macs_per_cycle, spec.clock_hz)
        return dense.workload.scheme == "dense" and same

    def ledger(self, run: Run) -> LossLedger | None:
        """Against the dense run, where there is one on an array of the same size and clock."""
        dense = self.comparison.baseline
        if run.result is dense or not self._like_dense(run):
            return None
        return loss_ledger(run.result, dense)

    def promise(self, run: Run) -> Promise | None:
        """From its promise to its time, where there is a promise and a dense run to keep it to."""
        return None if run is self.baseline or not self._like_dense(run) else promise(run.timed, self.baseline.timed)


def group_runs(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Every run in the first group that it can be compared with; runs of two levels never are."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if (group[0].system is None) != (run.system is None):
                continue
            try:
                compare([group[0].result, run.result])
            except InputError:
                continue
            group.append(run)
            break
        else:
            groups.append([run])
    return tuple(
        Group(
            runs=tuple(group), comparison=compare([run.result for run in group]), overlapped=group[0].system is not None
        )
        for group in groups
    )


def kept_promises(groups: Sequence[Group]) -> list[tuple[Group, Run, Promise]]:
    """Every run with a promise, in the order of the page."""
    return [(group, run, found) for group in groups for run in group.runs if (found := group.promise(run)) is not None]
