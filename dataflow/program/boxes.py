"""Iterations over several counts, cut into parts that one command can move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple

__all__ = ["Block", "Dim", "blocks_of", "boxes"]

Dim = tuple[int, tuple[int, ...]]
"""A count, and the step of each of what is iterated over."""


class Block(NamedTuple):
    """Part of an iteration over tensors: where it begins in each, how many words a line has, counts and steps of its
    lines, the last fastest."""

    at: tuple[int, ...]
    words: int
    counts: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """Lines."""
        return prod(self.counts)


def blocks_of(at: tuple[int, ...], words: int, outer: Sequence[Dim], room: int) -> Iterator[Block]:
    """Blocks of at most ``room`` lines: whole inner counts, a part of the next one, the others one by one."""
    whole = len(outer)
    while whole and prod(n for n, _ in outer[whole - 1 :]) <= room and len(outer) - whole < 3:
        whole -= 1
    inner = outer[whole:]
    counts, strides = tuple(n for n, _ in inner), tuple(s for _, s in inner)
    if not whole:
        yield Block(at, words, counts, strides)
        return
    (count, step), before = outer[whole - 1], outer[: whole - 1]
    part = max(1, room // prod(counts))
    for start in _starts(at, before):
        for begin in range(0, count, part):
            first = tuple(x + begin * s for x, s in zip(start, step, strict=True))
            yield Block(first, words, (min(part, count - begin), *counts), (step, *strides))


def _starts(at: tuple[int, ...], outer: Sequence[Dim]) -> Iterator[tuple[int, ...]]:
    if not outer:
        yield at
        return
    (count, step), rest = outer[0], outer[1:]
    for i in range(count):
        yield from _starts(tuple(x + i * s for x, s in zip(at, step, strict=True)), rest)


def boxes(
    lengths: Sequence[int], first: int, end: int, room: Callable[[int], int]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Cut places ``first`` to ``end`` of an iteration by ``lengths``, the last fastest, into boxes: begin and counts.

    Counts are those of as many of the last lengths. ``room``: places that a box may have, by how far it begins from
    ``first``.
    """
    units = [prod(lengths[i + 1 :]) for i in range(len(lengths))]
    at = first
    while at < end:
        most = min(end - at, room(at - first))
        level = next(i for i, unit in enumerate(units) if at % unit == 0 and unit <= most)
        unit, length = units[level], lengths[level]
        count = min(length - at // unit % length, most // unit)
        yield at, (count, *lengths[level + 1 :])
        at += count * unit
