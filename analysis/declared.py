"""What the engines of a step declare that they count and spend cycles on, as pages, frames and records list it."""

from __future__ import annotations

from collections.abc import Iterable

from ..dataflow.account import Counts, Cycles, declared_causes, declared_counts, kind_of
from ..dataflow.actions import Cause
from ..simulator.result import OpResult

__all__ = ["columns", "counts_kind", "cycles_kind", "figure_words", "in_figures", "losses_of"]


def cycles_kind(ops: Iterable[OpResult]) -> type[Cycles]:
    """A kind with the causes of all ``ops``."""
    return kind_of(Cycles, dict.fromkeys(type(r.cycles) for r in ops))


def counts_kind(ops: Iterable[OpResult]) -> type[Counts]:
    """A kind with the counts of all ``ops``."""
    return kind_of(Counts, dict.fromkeys(type(r.counts) for r in ops))


def in_figures(kind: type[Cycles]) -> dict[str, Cause]:
    """Causes in the order of the figures."""
    return dict(sorted(declared_causes(kind).items(), key=lambda item: item[1].place))


def figure_words(kind: type[Cycles]) -> dict[str, str]:
    """Causes in the order and the words of the figures."""
    return {name: cause.figure for name, cause in in_figures(kind).items()}


def losses_of(kind: type[Cycles]) -> dict[str, str]:
    """What each cause in which no engine works is called where losses are told, in the order of the figures."""
    return {name: cause.loss for name, cause in in_figures(kind).items() if cause.loss is not None}


def columns(kind: type[Counts]) -> tuple[str, ...]:
    """Counts that the record of every op has."""
    return tuple(name for name, declared in declared_counts(kind).items() if declared.column)
