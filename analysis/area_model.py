"""Counts of modules in machines that nobody synthesised, from those of machines that somebody did.

A module that was counted with the same numbers (`area_rules.py`) is the same RTL and takes what it took then. In
another one every factor takes as much more as it does beside the machine that all variants were measured beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .area_rules import NUMBERS, RULES, Factor, Numbers, Rule
from .synthesised import AreaTarget, known_blocks
from .variants import variants

__all__ = ["COUNTS", "Columns", "ModuleCounts", "counts_of"]

COUNTS = ("lut_sites", "ff", "dsp", "bram", "uram")

Columns = Mapping[str, NDArray[Any]]
"""Fields of machines by path, and ``mhz``: one value a machine, or one for all."""
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_RADIX = 1 << 13
"""Above any number that a class of machines is told by."""
_LUT_RAM: dict[AreaTarget, int] = {"ecp5": 16, "xcup": 32}
"""Words of the smallest memory of LUTs: TRELLIS_DPR16X4, RAM32M."""
_SINGLE = 100.0
"""Weight of a variant that differs from the reference in one field, where those are to be met."""


@dataclass(frozen=True, slots=True)
class ModuleCounts:
    """A module in each of some machines: ``times`` int64 [machines] it is there, ``each`` int64 [machines, 5] as
    `COUNTS`, bool ``measured`` [machines] or inferred."""

    times: Ints
    each: Ints
    measured: NDArray[np.bool_]


def counts_of(block: str, target: AreaTarget, fields: Columns, machines: int) -> tuple[dict[str, ModuleCounts], Any]:
    """Modules of ``block`` in each of ``machines``; and why one is not known, "" where it is, object [machines]."""
    numbers = _numbers(block, target, fields)
    reason: NDArray[np.object_] = np.full(machines, "", object)
    found = {}
    for name, rule in RULES[block].items():
        model, seen = _model(block, target, name), _seen(block, target, name)
        each, refused = model.infer(numbers, machines)
        same = seen.find(tuple(numbers), numbers, machines)
        same = np.where(same >= 0, same, seen.find(rule.key, numbers, machines))
        measured = same >= 0
        each[measured] = seen.counts[same[measured]]
        for number, factor in enumerate(rule.factors, 1):
            where = (refused == number) & ~measured & (reason == "")
            if where.any():
                reason[where] = _why(factor, fields, where, model.of)
        found[name] = ModuleCounts(np.broadcast_to(numbers[rule.times], machines), each, measured)
    return found, reason


class _Seen:
    """What was counted of a module, in machines with ``numbers`` [rows]."""

    def __init__(self, numbers: Numbers, counts: Ints) -> None:
        self.numbers, self.counts = numbers, counts

    def find(self, names: Sequence[str], numbers: Numbers, machines: int) -> Ints:
        """The first row with the same ``names`` as each machine, or -1."""
        own, asked = self._hash(names, self.numbers, len(self.counts)), self._hash(names, numbers, machines)
        order = np.argsort(own, kind="stable")
        place = np.minimum(np.searchsorted(own[order], asked), len(own) - 1)
        row = order[place]
        same = own[row] == asked
        for name in names:
            same &= np.broadcast_to(self.numbers[name], len(own))[row] == numbers[name]
        return np.where(same, row, -1)

    @staticmethod
    def _hash(names: Sequence[str], numbers: Numbers, length: int) -> NDArray[np.uint64]:
        made = np.zeros(length, np.uint64)
        for name in names:
            made = (made ^ numbers[name].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            made ^= made >> np.uint64(29)
        return made


@dataclass(frozen=True, slots=True)
class _Levels:
    """What a factor takes in a class of machines, at measured places ``along`` [places]: ``more`` [places, 5]."""

    along: Ints
    more: Floats


class _Model:
    """Counts of a module as sums over factors, by least squares over its variants, the reference first."""

    def __init__(self, rule: Rule, numbers: Numbers, counts: Ints, of: Sequence[Mapping[str, Any]]) -> None:
        self.rule, self.of = rule, of
        rows = len(counts)
        every = {name: np.broadcast_to(value, rows) for name, value in numbers.items()}
        columns = [np.ones(rows), *(every[name].astype(float) for name in rule.linear)]
        levels = [self._levels(factor, every) for factor in rule.factors]
        for factor, classes in zip(rule.factors, levels, strict=True):
            if not factor.bound:
                columns += [row for places in classes.values() for row in places.values()]
        apart = np.array([sum(row[name] != of[0][name] for name in row) for row in of])
        weight = np.where(rule.singles & (apart <= 1), _SINGLE, 1.0)[:, None]
        solved = np.linalg.lstsq(weight * np.stack(columns, axis=1), weight * counts, rcond=None)[0]
        self.start, self.linear = solved[0], solved[1 : 1 + len(rule.linear)]
        rest = iter(solved[1 + len(rule.linear) :])
        nothing = np.zeros(len(COUNTS))
        self.factors = [
            {
                code: _Levels(
                    np.array([*places], np.int64), np.array([nothing if factor.bound else next(rest) for _ in places])
                )
                for code, places in classes.items()
            }
            for factor, classes in zip(rule.factors, levels, strict=True)
        ]
        self.reference = [
            (int(_code(factor, every)[0]), int(every[factor.along][0]) if factor.along else 0)
            for factor in rule.factors
        ]

    def _levels(self, factor: Factor, numbers: Numbers) -> dict[int, dict[int, Floats]]:
        """Of each class, by its place along the factor, which rows are there; the reference itself takes no more."""
        code = _code(factor, numbers)
        along = numbers[factor.along] if factor.along else np.zeros(len(code), np.int64)
        found: dict[int, dict[int, Floats]] = {}
        for one, place in dict.fromkeys(zip(code.tolist(), along.tolist(), strict=True)):
            if one != code[0] or (not self._elsewhere(factor) and place != along[0]):
                found.setdefault(one, {})[place] = ((code == one) & (along == place)).astype(float)
        return {one: dict(sorted(places.items())) for one, places in found.items()}

    def _elsewhere(self, factor: Factor) -> bool:
        """Whether what the reference's class takes along a number is told by a factor of all classes."""
        return any(one is not factor and not one.numbers and one.along == factor.along for one in self.rule.factors)

    def infer(self, numbers: Numbers, machines: int) -> tuple[Ints, Ints]:
        """Counts [machines, 5]; and 1 + the number of a factor that nothing is known of there, else 0 [machines]."""
        each = np.tile(self.start, (machines, 1))
        for name, more in zip(self.rule.linear, self.linear, strict=True):
            each += np.broadcast_to(numbers[name], machines)[:, None] * more
        refused = np.zeros(machines, np.int64)
        for number, (factor, classes, reference) in enumerate(
            zip(self.rule.factors, self.factors, self.reference, strict=True), 1
        ):
            code = np.broadcast_to(_code(factor, numbers), machines)
            along = np.broadcast_to(numbers[factor.along], machines) if factor.along else np.zeros(machines, np.int64)
            known = (code == reference[0]) & self._elsewhere(factor)
            for one in dict.fromkeys((reference[0], *classes)):
                there = (code == one) & ~known
                if there.any():
                    more, inside = _between(factor, classes.get(one), reference, one, along[there])
                    each[there] += more
                    known[there] = inside
            refused[~known & (refused == 0)] = number
        return np.maximum(0, np.rint(each)).astype(np.int64), refused


def _between(
    factor: Factor, levels: _Levels | None, reference: tuple[int, int], code: int, along: Ints
) -> tuple[Floats, NDArray[np.bool_]]:
    """What a factor takes at places ``along``, and whether that is within what was measured.

    For a slower clock than any measured Yosys saves no less: it counts as the slowest.
    """
    places = levels.along if levels else np.zeros(0, np.int64)
    more = levels.more if levels else np.zeros((0, len(COUNTS)))
    if code == reference[0]:
        places, more = np.append(places, reference[1]), np.vstack([more, np.zeros(len(COUNTS))])
    order = np.argsort(places)
    places, more = places[order], more[order]
    inside = (along <= places[-1]) & ((along >= places[0]) | (factor.along == "mhz"))
    return np.stack([np.interp(along, places, one) for one in more.T], axis=1), inside


def _code(factor: Factor, numbers: Numbers) -> Any:
    """One number for the class of each machine."""
    made: Any = np.zeros_like(next(iter(numbers.values())))
    for name in factor.numbers:
        made = made * _RADIX + numbers[name]
    return made


def _why(factor: Factor, fields: Columns, where: NDArray[np.bool_], of: Sequence[Mapping[str, Any]]) -> Any:
    """In words, of the machines ``where``: what of them was not measured, and what is nearest to it that was."""
    names = ["mhz" if name == "clock_hz" else name for name in factor.fields]
    values = [np.broadcast_to(fields[name], len(where))[where] for name in names]
    asked = list(zip(*(one.tolist() for one in values), strict=True))
    measured = list(dict.fromkeys(tuple(row[name] for name in names) for row in of))
    said = {}
    for one in dict.fromkeys(asked):
        nearest = min(measured, key=lambda other: sum(map(_apart, one, other)))
        said[one] = (
            f"nothing near {_named(names, one)} was synthesised, the nearest with {_named(names, nearest)}; "
            "`weft area` counts this machine itself"
        )
    return np.array([said[one] for one in asked], object)


def _apart(one: Any, other: Any) -> float:
    if isinstance(one, str):
        return 100.0 * (one != other)
    ratio: float = one / other
    return abs(log2(ratio))


def _named(names: Sequence[str], values: Sequence[Any]) -> str:
    return " and ".join(
        f"{value} MHz" if name == "mhz" else f"{name} = {value}" for name, value in zip(names, values, strict=True)
    )


def _numbers(block: str, target: AreaTarget, fields: Columns) -> Numbers:
    return NUMBERS[block]({**fields, "lut_ram": np.array([_LUT_RAM[target]])})


def _columns(of: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.array([row[name] for row in of]) for name in of[0]}


@cache
def _model(block: str, target: AreaTarget, module: str) -> _Model:
    rows = [row for row in variants(block, target) if module in row.modules]
    of = [row.of for row in rows]
    counts = np.array([row.modules[module] for row in rows], np.int64)
    return _Model(RULES[block][module], _numbers(block, target, _columns(of)), counts, of)


def _seen(block: str, target: AreaTarget, module: str) -> _Seen:
    """What is known of a module; of machines that were counted whole first."""
    rows = list[tuple[Mapping[str, Any], tuple[int, ...]]]()
    for of, made in known_blocks(block, target):
        # A part that takes nothing is left out, and what has no part that is counted apart is all edges.
        parts = {"edges" if part.name == block else part.name: part for part in made.modules}
        rows.append((of, tuple(getattr(parts[module], name) if module in parts else 0 for name in COUNTS)))
    rows += [(row.of, row.modules[module]) for row in variants(block, target) if module in row.modules]
    numbers = _numbers(block, target, _columns([of for of, _ in rows]))
    return _Seen(numbers, np.array([counts for _, counts in rows], np.int64))
