"""The places of a transfer as rectangles, each all pairs of some banks and some addresses in them.

What a program's transfers touch has to be compared again and again; by its places one by one that would take as long
as there are words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .commands import Command
from .spaces import BANKS, PLACE_ADDRESS_BITS, Target
from .transfers import Places, banks_and_addresses, line_places, words_on_chip

__all__ = ["Rectangle", "meet", "rectangles_of"]

_Level = tuple[int, int]
_Steps = tuple[int, int, int, int, int]
_ADDRESSES = 1 << PLACE_ADDRESS_BITS


class Rectangle(NamedTuple):
    """Every address in every bank, each int64 [...], sorted."""

    banks: Places
    addresses: Places

    def meets(self, other: Rectangle) -> bool:
        """Whether a place is in both."""
        return _meet(self.addresses, other.addresses) and _meet(self.banks, other.banks)


def meet(a: Sequence[Rectangle], b: Sequence[Rectangle]) -> bool:
    """Whether a place is in one of either."""
    return any(mine.meets(its) for mine in a for its in b)


def rectangles_of(command: Command, target: Target) -> tuple[Rectangle, ...]:
    """Every place of a load or a store."""
    words, lines = words_on_chip(command, target)
    c = command
    inner = (c.inner0_step, c.inner1, c.inner1_step, c.inner2, c.inner2_step)
    outer = (c.outer0_step, c.outer1, c.outer1_step, c.outer2, c.outer2_step)
    found = _rectangles(c.place, words, inner, lines, outer)
    return _by_bank(line_places(command, target)) if found is None else found


@lru_cache(maxsize=4096)
def _rectangles(place: int, words: int, inner: _Steps, lines: int, outer: _Steps) -> tuple[Rectangle, ...] | None:
    """None: a step goes from bank to bank and from address to address at once, or beyond the last of either."""
    found = []
    for first, levels in _boxes(words, inner):
        for second, others in _boxes(lines, outer):
            base, steps = (place + first + second) % (BANKS * _ADDRESSES), [*levels, *others]
            parted = [(count, *_parted(step)) for count, step in steps]
            if any(bank and address for _, bank, address in parted):
                return None
            addresses = _sums(base % _ADDRESSES, [(count, address) for count, _, address in parted])
            banks = _sums(base // _ADDRESSES, [(count, bank) for count, bank, _ in parted])
            if addresses[0] < 0 or addresses[-1] >= _ADDRESSES or banks[0] < 0 or banks[-1] >= BANKS:
                return None
            found.append(Rectangle(banks, addresses))
    return tuple(found)


def _boxes(count: int, steps: _Steps) -> Iterator[tuple[int, list[_Level]]]:
    """``count`` turns of nested counts as whole nests: where each begins, its counts and steps."""
    step0, count1, step1, count2, step2 = steps
    whole, rest = divmod(count, count1 * count2)
    middle, last = divmod(rest, count2)
    if whole:
        yield 0, [(whole, step0), (count1, step1), (count2, step2)]
    if middle:
        yield whole * step0, [(middle, step1), (count2, step2)]
    if last:
        yield whole * step0 + middle * step1, [(last, step2)]


def _parted(step: int) -> tuple[int, int]:
    """Banks and addresses that a step goes on by, either of any sign."""
    address = (step + _ADDRESSES // 2) % _ADDRESSES - _ADDRESSES // 2
    return (step - address) // _ADDRESSES, address


def _sums(base: int, levels: Sequence[_Level]) -> Places:
    """All sums of steps, once, in order."""
    at = np.array([base], np.int64)
    for count, step in levels:
        if step and count > 1:
            at = (at[:, None] + np.arange(count, dtype=np.int64) * step).ravel()
    return np.unique(at)


def _by_bank(places: Places) -> tuple[Rectangle, ...]:
    """Any places, a rectangle a bank."""
    banks, addresses = banks_and_addresses(np.unique(places))
    return tuple(Rectangle(np.array([bank]), addresses[banks == bank]) for bank in np.unique(banks))


def _meet(a: Places, b: Places) -> bool:
    if a[-1] < b[0] or b[-1] < a[0]:
        return False
    return bool(np.isin(a, b, assume_unique=True).any())
