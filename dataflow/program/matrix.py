"""Operands and results of a product as they lie in memory: lines of words, an axis of atoms for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product as every

from .layout import Atom, merged
from .spaces import Element

__all__ = ["FAR", "Matrix", "distance", "distances", "encodings", "in_few"]

FAR = 1 << 40
"""As many places as you like."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Of a product: ``lines`` are rows of A and of C, or columns of B, ``slots`` what lies along one of them.

    ``address``: byte of the first element.
    """

    address: int
    element: Element
    lines: Sequence[Atom]
    slots: Sequence[Atom]

    @property
    def each(self) -> int:
        """Bytes of an element."""
        return self.element.bytes


def encodings(left: Matrix, right: Matrix) -> dict[str, int]:
    """Registers of a product that say how its operands are encoded."""
    sides = (("w2e_gradient", left), ("n2s_gradient", right))
    return {name: 1 for name, matrix in sides if matrix.element.gradient}


def in_few(axis: Sequence[Atom]) -> list[Atom]:
    """An axis in as few atoms as there can be."""
    return [Atom(count, stride) for count, (stride,) in merged([axis])]


def distance(atoms: Sequence[Atom], index: int) -> int:
    """Elements from the first place of an axis to that of ``index``."""
    found = 0
    for length, stride in reversed(atoms):
        index, own = divmod(index, length)
        found += own * stride
    return found


def distances(atoms: Sequence[Atom]) -> Iterator[int]:
    """Elements from the first place to each, in order."""
    for at in every(*(range(a.length) for a in atoms)):
        yield sum(i * a.stride for i, a in zip(at, atoms, strict=True))
