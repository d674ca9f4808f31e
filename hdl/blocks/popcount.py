"""The number of ones among many bits: a tree of small counters and adders, with registers between its levels."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, assert_never

from amaranth import C, Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

__all__ = ["Popcount", "Tree", "registered_after"]


class Tree(StrEnum):
    """How the bits are counted; docs/results/xnor-rtl.md says what each takes."""

    SUM = "sum"
    """One bit after the other is added; what becomes of that is left to synthesis."""
    ADDERS = "adders"
    """Bits are added two by two, then the sums, and so on."""
    THREES = "threes"
    """Counts of three bits, then as ``adders``."""
    SIXES = "sixes"
    """Counts of six bits, a LUT of six inputs for each bit of a count, then as ``adders``."""
    COMPRESS3 = "compress3"
    """Three bits of a weight become two by full adders, until two numbers are left to add."""
    COMPRESS6 = "compress6"
    """Six bits of a weight become three, then as ``compress3``."""


Terms = list[tuple[int, Any]]
"""What is still to be added: values, and the power of two that each is worth."""
Level = Callable[[Terms], Terms]


class Popcount(wiring.Component):
    """``count`` of the ones in ``bits``, ``latency`` cycles later; 0 is in the same cycle.

    Registers stand as evenly between the levels as they go, one behind the last. With ``behind``, so many levels of
    another kind and a register follow: the others are then placed as if these were levels of the tree.
    """

    def __init__(self, width: int, *, latency: int = 0, behind: int = 0, tree: Tree = Tree.ADDERS) -> None:
        self.width = width
        self.latency = latency
        self.behind = behind
        self.tree = tree
        super().__init__({"bits": In(width), "count": Out(bits_for(width))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        terms: Terms = [(0, self.bits[i]) for i in range(self.width)]
        levels = _levels(self.tree, self.width)
        due = registered_after(levels=len(levels), latency=self.latency, behind=self.behind)
        for number, level in enumerate(levels, 1):
            terms = [
                (weight, self._named(m, value, f"level_{number}_{i}")) for i, (weight, value) in enumerate(level(terms))
            ]
            for _ in range(due.count(number)):
                terms = [(weight, self._register(m, value)) for weight, value in terms]
        ((_, count),) = terms
        m.d.comb += self.count.eq(count)
        return m

    def _named(self, m: Module, value: Any, name: str) -> Any:
        wire = Signal(len(value), name=name)
        m.d.comb += wire.eq(value)
        return wire

    def _register(self, m: Module, value: Any) -> Any:
        register = Signal(len(value), name=f"{value.name}_held", reset_less=True)
        m.d.sync += register.eq(value)
        return register


def registered_after(*, levels: int, latency: int, behind: int) -> list[int]:
    """The levels that a register follows, as often as one does; see `Popcount`."""
    stages, parts = latency + min(behind, 1), levels + behind
    return [min(-(-parts * (i + 1) // stages), levels) for i in range(latency)]


def _levels(tree: Tree, width: int) -> list[Level]:
    """What is done to the terms, level by level, until one is left: found by doing it to terms of the same widths."""
    levels: list[Level] = []
    terms: Terms = [(0, Signal()) for _ in range(width)]

    def then(level: Level) -> None:
        nonlocal terms
        levels.append(level)
        terms = level(terms)

    match tree:
        case Tree.SUM:
            then(_one_by_one)
        case Tree.ADDERS:
            pass
        case Tree.THREES | Tree.SIXES:
            then(lambda given: _in_counts(given, _INPUTS[tree]))
        case Tree.COMPRESS3 | Tree.COMPRESS6:
            while any(len(column) > 2 for column in _columns(terms).values()):
                then(lambda given: _compressed(given, _INPUTS[tree]))
            then(_rows)
        case _:
            assert_never(tree)
    while len(terms) > 1 or not levels:
        then(_in_twos)
    return levels


_INPUTS = {Tree.THREES: 3, Tree.SIXES: 6, Tree.COMPRESS3: 3, Tree.COMPRESS6: 6}
"""Bits that a counter takes."""


def _ones(bits: list[Any]) -> Any:
    """Their count, of six at most, in gates: a sum would become an adder, a table a memory."""
    if len(bits) <= 3:
        a, b, c = [*bits, C(0, 1), C(0, 1)][:3]
        return Cat(a ^ b ^ c, (a & b) | (c & (a ^ b)))[: bits_for(len(bits))]
    low, high = _ones(bits[:3]), Cat(_ones(bits[3:]), C(0, 1))
    carry = low[0] & high[0]
    between = low[1] ^ high[1]
    return Cat(low[0] ^ high[0], between ^ carry, (low[1] & high[1]) | (carry & between))


def _one_by_one(terms: Terms) -> Terms:
    total: Any = terms[0][1]
    for _, value in terms[1:]:
        total = total + value
    return [(0, total[: bits_for(len(terms))])]


def _in_counts(terms: Terms, inputs: int) -> Terms:
    bits = [value for _, value in terms]
    return [(0, _ones(bits[i : i + inputs])) for i in range(0, len(bits), inputs)]


def _in_twos(terms: Terms) -> Terms:
    pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
    return [(0, sum((value for _, value in pair[1:]), pair[0][1])) for pair in pairs]


def _columns(terms: Terms) -> dict[int, list[Any]]:
    """Bits by what they are worth, the least first."""
    columns: dict[int, list[Any]] = {}
    for weight, value in terms:
        for i in range(len(value)):
            columns.setdefault(weight + i, []).append(value[i])
    return dict(sorted(columns.items()))


def _compressed(terms: Terms, inputs: int) -> Terms:
    """Every column of more than two bits counted, ``inputs`` at a time."""
    made: Terms = []
    for weight, bits in _columns(terms).items():
        while len(bits) > 2:
            made.append((weight, _ones(bits[:inputs])))
            bits = bits[inputs:]
        made += [(weight, bit) for bit in bits]
    return made


def _rows(terms: Terms) -> Terms:
    """The sum of what has no more than two bits of any worth."""
    columns = _columns(terms)
    rows = [Cat(*(columns.get(i, [])[row : row + 1] or [C(0, 1)] for i in range(max(columns) + 1))) for row in (0, 1)]
    return [(0, rows[0] + rows[1])]
