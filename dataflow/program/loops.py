"""Commands as instructions, with the loops that are found in them: nested, each of commands that come again and again.

What repeats is a stretch of commands with the same units and events, whose registers go on by a constant from turn to
turn, modulo their bits, so that a half that takes turns goes on by 1. An `add` a turn makes that of a register, if all
commands of the stretch that are of one unit go on by the same amount; a stretch where they do not stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .instruction import Add, Go, Instruction, Loop, Next, Set
from .isa import LOOPS, REGISTERS, Unit

__all__ = ["Issue", "instructions_of"]

_LONGEST = 96
"""Items of a body that are looked for; an item may be a loop."""
_LEAST = 3
"""Commands that a loop must save: it costs two instructions, and a jump each turn."""
_MANY = 1 << 40
_WIDEST = max(len(registers) for registers in REGISTERS.values())
_BITS = np.array([[r.bits for r in REGISTERS[u]] + [1] * (_WIDEST - len(REGISTERS[u])) for u in Unit])
_random = np.random.default_rng(0)
_FACTORS = _random.integers(0, 2**64, (len(Unit), _WIDEST), np.uint64) | np.uint64(1)
_MASKS = _random.integers(0, 2**64, (len(Unit), _WIDEST), np.uint64)

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Issue(NamedTuple):
    """A command as it is given: the registers of its unit, and its events."""

    unit: Unit
    registers: tuple[int | None, ...]
    wait: int
    notify: int


@dataclass(frozen=True, slots=True)
class _Item:
    """One command, by its number, or ``turns`` of ``body``, whose first command has number ``first``.

    ``sites``: of each unit in it the first command. ``kind``: what two must have in common to be the same but for what
    is in the registers of their sites. ``depth``: loops inside one another.
    """

    first: int
    commands: int
    sites: tuple[int, ...]
    kind: int
    turns: int = 1
    body: tuple[_Item, ...] = ()
    depth: int = 0


def instructions_of(issues: Sequence[Issue]) -> list[Instruction]:
    """Instructions that give these commands, in this order, from registers as the machine resets them."""
    if not issues:
        return []
    found = _Search(issues)
    items = found.rolled([found.leaf(i) for i in range(len(issues))])
    return list(_Writer(found).written(items))


class _Search:
    """For loops, in numbers: ``held`` int64 [commands, registers], what none has as 0.

    Whether all registers of two pairs of commands are as far apart is asked of sums of them by random factors; those
    of one bit, of which differences are modulo 2, of random words that are added up without carries.
    """

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = issues
        self.units = np.array([issue.unit for issue in issues], np.int64)
        self.held = np.zeros((len(issues), _WIDEST), np.int64)
        for unit in Unit:
            own = np.flatnonzero(self.units == unit)
            if len(own):
                rows = [[value or 0 for value in issues[i].registers] for i in own.tolist()]
                self.held[own, : len(REGISTERS[unit])] = rows
        bits = _BITS[self.units] == 1
        unsigned = self.held.astype(np.uint64)
        self.sums = np.where(bits, np.uint64(0), unsigned * _FACTORS[self.units]).sum(axis=1, dtype=np.uint64)
        self.flips: Words = np.bitwise_xor.reduce(np.where(bits & (self.held == 1), _MASKS[self.units], 0), axis=1)
        self._kinds: dict[object, int] = {}

    def leaf(self, number: int) -> _Item:
        """A command as an item."""
        issue = self.issues[number]
        never = tuple(i for i, value in enumerate(issue.registers) if value is None)
        return _Item(number, 1, (number,), self._kind((issue.unit, issue.wait, issue.notify, never)))

    def rolled(self, items: list[_Item]) -> list[_Item]:
        """With loops, and loops of those, until there are no more."""
        while len(items) > 1:
            found = self._once(items)
            if len(found) == len(items):
                return found
            items = found
        return items

    def steps(self, loop: _Item) -> dict[Unit, Ints]:
        """By how much registers of a unit go on from turn to turn."""
        length = sum(item.commands for item in loop.body)
        found = {}
        for site in loop.sites:
            unit = Unit(int(self.units[site]))
            found[unit] = _modulo(self.held[site + length] - self.held[site], unit)
        return found

    def _kind(self, key: object) -> int:
        return self._kinds.setdefault(key, len(self._kinds))

    def _once(self, items: list[_Item]) -> list[_Item]:
        """With the loops that save most, from the beginning on."""
        saved, periods, most = self._candidates(items)
        made: list[_Item] = []
        at = 0
        while at < len(items):
            loop, period, turns = None, int(periods[at]), int(most[at])
            if period:
                # a better one that begins meanwhile is not cut
                better = np.flatnonzero(saved[at : at + period * turns] > saved[at])
                turns = min(turns, int(better[0]) // period) if len(better) else turns
            if period and turns > 1:
                loop = self._loop(items[at : at + period], turns)
            made.append(items[at] if loop is None else loop)
            at += 1 if loop is None else period * turns
        return made

    def _candidates(self, items: Sequence[_Item]) -> tuple[Ints, Ints, Ints]:
        """By where it begins, of the loop that saves most commands how many, its period and turns; 0: none."""
        count = len(items)
        kinds = np.array([item.kind for item in items], np.int64)
        before = np.cumsum([0, *(item.commands for item in items)])
        each = np.array([len(item.sites) for item in items], np.int64)
        offset = np.cumsum(each) - each
        sites = np.array([site for item in items for site in item.sites], np.int64)
        of = np.repeat(np.arange(count), each)
        within = np.arange(len(sites)) - offset[of]
        sums, flips, units = self.sums[sites], self.flips[sites], self.units[sites]
        later = _next_of_same(units)
        later_item = np.append(of, _MANY)[later]
        best, period, turns = (np.zeros(count, np.int64) for _ in range(3))
        for p in range(1, min(_LONGEST, count // 2) + 1):
            same = np.zeros(count, np.bool_)
            same[:-p] = kinds[:-p] == kinds[p:]
            if not same.any():
                continue
            partner = np.append(offset, 0)[np.minimum(of + p, count)] + within
            partner = np.where(same[of], partner, 0)
            step, flip = sums[partner] - sums, flips[partner] ^ flips
            there = np.minimum(later, len(sites) - 1)
            unlike = ~same[of] | ((step != step[there]) | (flip != flip[there])) & (later < len(sites))
            # up to where all is the same, and of a unit goes on by the same
            bad = np.where(same[of], np.where(unlike, later_item, _MANY), of)
            end = np.minimum.accumulate(bad[::-1])[::-1][offset]
            end = np.minimum(end, _ends(same))
            taken = np.maximum(end - np.arange(count), 0) // p + 1
            one, all_ = (before[np.minimum(np.arange(count) + p * n, count)] for n in (1, taken))
            saved = np.where(taken > 1, all_ - one, 0)
            better = saved > best
            best = np.where(better, saved, best)
            period, turns = np.where(better, p, period), np.where(better, taken, turns)
        period[best < _LEAST] = 0
        return best, period, turns

    def _loop(self, items: Sequence[_Item], turns: int) -> _Item | None:
        """A loop of items, in which there may be others; None: not all goes on as it seemed to, or too deep."""
        first, length = items[0].first, sum(item.commands for item in items)
        inner = self.rolled(list(items)) if len(items) > 1 else list(items)
        depth = 1 + max(item.depth for item in inner)
        if depth > LOOPS:
            return None
        units = self.units[first : first + length]
        turn = self.held[first : first + turns * length].reshape(turns, length, _WIDEST)
        sites: list[int] = []
        steps: list[tuple[int, ...]] = []
        relative: list[bytes] = []
        for unit in Unit:
            own = np.flatnonzero(units == unit)
            if not len(own):
                continue
            step = _modulo(turn[1, own[0]] - turn[0, own[0]], unit)
            wanted = turn[0, own] + np.arange(turns)[:, None, None] * step
            if _modulo(turn[:, own] - wanted, unit).any():
                return None
            sites.append(first + int(own[0]))
            steps.append(tuple(step.tolist()))
            relative.append(_modulo(turn[0, own] - turn[0, own[0]], unit).tobytes())
        key = (turns, tuple(item.kind for item in inner), tuple(steps), tuple(relative))
        return _Item(first, turns * length, tuple(sites), self._kind(key), turns, tuple(inner), depth)


def _modulo(values: Ints, unit: Unit) -> Ints:
    """Modulo the bits of each register, from minus a half on but for those of one bit."""
    bits = _BITS[unit]
    half = np.where(bits > 1, 1 << (bits - 1), 0)
    found: Ints = (values + half) % (1 << bits) - half
    return found


def _ends(holds: npt.NDArray[np.bool_]) -> Ints:
    """From each place on, where it does not hold."""
    ends = np.append(np.flatnonzero(~holds), len(holds))
    found: Ints = ends[np.searchsorted(ends, np.arange(len(holds)))]
    return found


def _next_of_same(values: Ints) -> Ints:
    """Where each value comes again; the number of all if nowhere."""
    order = np.argsort(values, kind="stable")
    found = np.full(len(values), len(values), np.int64)
    again = values[order[:-1]] == values[order[1:]]
    found[order[:-1][again]] = order[1:][again]
    return found


_Register = tuple[Unit, int]


class _Body:
    """Of a loop: registers by their number, at its first command, at its last one, and by how much they go on."""

    def __init__(self, search: _Search, loop: _Item) -> None:
        self._search, self._loop = search, loop
        self.steps = {unit: values.tolist() for unit, values in search.steps(loop).items()}

    @cached_property
    def values(self) -> dict[_Register, list[int]]:
        """Of the commands of a turn, the first one, one after the other."""
        first, length = self._loop.first, sum(item.commands for item in self._loop.body)
        units, held = self._search.units[first : first + length], self._search.held[first : first + length]
        found = {}
        for site in self._loop.sites:
            issue = self._search.issues[site]
            own = held[units == issue.unit]
            for number, value in enumerate(issue.registers):
                if value is not None:
                    found[issue.unit, number] = own[:, number].tolist()
        return found


class _Writer:
    """Of instructions: ``state`` is what registers hold, in a loop at its first turn; None: nobody knows.

    In a loop whose register goes on nothing but `add` changes it.
    """

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._state: dict[_Register, int | None] = {
            (unit, r.number): r.reset for unit, registers in REGISTERS.items() for r in registers
        }
        self._moving: list[dict[_Register, int]] = []

    def written(self, items: Sequence[_Item]) -> Iterator[Instruction]:
        for item in items:
            yield from self._loop(item) if item.body else self._command(item.first)

    def _command(self, number: int) -> Iterator[Instruction]:
        issue = self._search.issues[number]
        for r, value in zip(REGISTERS[issue.unit], issue.registers, strict=True):
            if value is not None:
                yield from self._hold((issue.unit, r.number), value)
        yield Go(issue.unit, issue.wait, issue.notify)

    def _loop(self, loop: _Item) -> Iterator[Instruction]:
        body = _Body(self._search, loop)
        moving: dict[_Register, int] = {}
        for register, values in body.values.items():
            unit, number = register
            step = body.steps[unit][number]
            if step:
                moving[register] = step
            if step or self._moves(register) or len(set(values)) == 1:
                # so that at the end of a turn it is what it was at the beginning of the next one
                yield from self._hold(register, values[-1] - step)
            else:
                self._state[register] = None
        yield Loop(loop.turns)
        self._moving.append(moving)
        yield from self.written(loop.body)
        self._moving.pop()
        yield Next()
        for register, step in moving.items():
            held = self._state[register]
            assert held is not None
            self._state[register] = held + (loop.turns - 1) * step

    def _moves(self, register: _Register) -> bool:
        return any(register in moving for moving in self._moving)

    def _hold(self, register: _Register, value: int) -> Iterator[Instruction]:
        """What brings a register to a value."""
        unit, number = register
        r, held = REGISTERS[unit][number], self._state[register]
        modulus = 1 << r.bits
        if held is not None and (held - value) % modulus == 0:
            return
        if self._moves(register):
            assert held is not None, "a register that goes on is known"
            yield Add(unit, number, (value - held + (1 << 31)) % (1 << 32) - (1 << 31))
        else:
            least = -(modulus // 2) if r.signed else 0
            value = (value - least) % modulus + least
            yield Set(unit, number, value)
        self._state[register] = value
