"""Where the words of a load or a store lie: the lines in memory, and the places on chip."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...workloads.sparsity import NMPattern
from ..operand import FP32
from .commands import Command
from .isa import COUNTS, Unit
from .spaces import PLACE_ADDRESS_BITS, Form, Space, Target

__all__ = [
    "Lines",
    "Places",
    "address_of",
    "banks_and_addresses",
    "indices_of",
    "line_addresses",
    "line_places",
    "lines_of",
    "reduces",
    "word_bytes",
    "words_on_chip",
]

Places = npt.NDArray[np.int64]


class Lines(NamedTuple):
    """Lines of ``bytes`` bytes in memory from ``address`` on, by counts and steps; ``on_chip`` lines of ``words`` words
    are what they become in N2S, all others as they are."""

    address: int
    bytes: int
    counts: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def first(self) -> int:
        """Lowest byte, which may be below 0."""
        return self.address + sum(min(0, (c - 1) * s) for c, s in zip(self.counts, self.steps, strict=True))

    @property
    def last(self) -> int:
        """Highest byte, and one."""
        most = sum(max(0, (c - 1) * s) for c, s in zip(self.counts, self.steps, strict=True))
        return self.address + most + self.bytes

    def meets(self, other: Lines) -> bool:
        """Whether a byte belongs to both."""
        if self.last <= other.first or other.last <= self.first:
            return False
        mine, its = _starts(self.counts, self.steps), _starts(other.counts, other.steps)
        low = mine + (self.address - other.address - other.bytes)  # a line of the other that begins after this ...
        after = np.searchsorted(its, low, side="right")
        found = np.append(its, np.iinfo(np.int64).max)[after]
        return bool((found < low + other.bytes + self.bytes).any())  # ... and before that ends in ours


@lru_cache(maxsize=4096)
def _starts(counts: tuple[int, ...], steps: tuple[int, ...]) -> Places:
    """Where lines begin, sorted."""
    at = np.zeros(1, np.int64)
    for count, step in zip(counts, steps, strict=True):
        at = (at[:, None] + np.arange(count, dtype=np.int64) * step).ravel()
    return np.unique(at)


def reduces(command: Command) -> bool:
    """Whether a command is a load through SORE."""
    if command.unit != Unit.LOAD or not command.reduce:
        return False
    return command.space == Space.N2S and command.form == Form.OPERAND


def word_bytes(form: Form, words: int, target: Target) -> int:
    """Bytes of ``words`` words of a line in memory."""
    operand = target.spec.pe.operand
    match form:
        case Form.OPERAND:
            return operand.bytes * words
        case Form.FP32:
            return FP32.bytes * words
        case Form.PAIR:
            assert target.pattern is not None
            return -(-words * (operand.bits + target.pattern.index_bits) // operand.bits) * operand.bytes
        case Form.BLANK:
            return 0


def address_of(command: Command) -> int:
    """Where the first line of a load or a store begins in memory."""
    return command.address1 if command.which else command.address


def lines_of(command: Command, target: Target) -> Lines:
    """The lines in memory of a load or a store."""
    return Lines(
        address_of(command),
        word_bytes(Form(command.form), command.words, target),
        tuple(getattr(command, f"count{i}") for i in range(COUNTS)),
        tuple(getattr(command, f"step{i}") for i in range(COUNTS)),
    )


def line_addresses(command: Command) -> Places:
    """First byte of each line in memory, int64 [lines], in the order in which they are moved."""
    at = np.array([address_of(command)], np.int64)
    for i in range(COUNTS):
        count, step = getattr(command, f"count{i}"), getattr(command, f"step{i}")
        at = (at[:, None] + np.arange(count, dtype=np.int64) * step).ravel()
    return at


def line_places(command: Command, target: Target) -> Places:
    """Place of each word, int64 [lines, words], in the order in which they are moved; through SORE of what leaves it.

    The array is shared, and not to be written to.
    """
    words, lines = words_on_chip(command, target)
    c = command
    inner = (c.inner0_step, c.inner1, c.inner1_step, c.inner2, c.inner2_step)
    outer = (c.outer0_step, c.outer1, c.outer1_step, c.outer2, c.outer2_step)
    return _places(c.place, words, inner, lines, outer)


def indices_of(command: Command) -> Places:
    """Index in its group of each word of a load of operands into N2S, int64 [lines, words]."""
    words, lines = np.arange(command.words, dtype=np.int64), np.arange(_lines(command), dtype=np.int64)
    counted = lines[:, None] if command.across else words[None, :]
    return np.broadcast_to(counted % command.run % command.group, (len(lines), len(words)))


def _lines(command: Command) -> int:
    return math.prod(getattr(command, f"count{i}") for i in range(COUNTS))


def words_on_chip(command: Command, target: Target) -> tuple[int, int]:
    """Words of a line, and lines, as they lie on chip."""
    words, lines = command.words, _lines(command)
    if not reduces(command):
        return words, lines
    assert target.pattern is not None
    if command.across:
        return words, _kept(target.pattern, lines, command.run)
    return _kept(target.pattern, words, command.run), lines


def _kept(pattern: NMPattern, length: int, run: int) -> int:
    """Pairs of ``length`` elements that are cut every ``run``."""
    runs, rest = divmod(length, run)
    return runs * pattern.kept(run, run) + (pattern.kept(rest, rest) if rest else 0)


@lru_cache(maxsize=64)
def _places(place: int, words: int, inner: tuple[int, ...], lines: int, outer: tuple[int, ...]) -> Places:
    at: Places = (place + _counted(lines, outer)[:, None] + _counted(words, inner)) & 0xFFFF_FFFF
    at.flags.writeable = False
    return at


def _counted(count: int, steps: tuple[int, ...]) -> Places:
    """Sums of steps at each of ``count`` counts: two counts with a step each, and one that has no end."""
    step0, count1, step1, count2, step2 = steps
    i = np.arange(count, dtype=np.int64)
    return i // (count1 * count2) * step0 + i // count2 % count1 * step1 + i % count2 * step2


def banks_and_addresses(places: Places) -> tuple[Places, Places]:
    """What places are made of, int64 of any shape."""
    return places >> PLACE_ADDRESS_BITS, places & (1 << PLACE_ADDRESS_BITS) - 1
