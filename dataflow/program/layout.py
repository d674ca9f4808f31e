"""How the tensors of a graph lie in memory, and the views of them: what each index adds to an address.

An axis is a list of *atoms*, each a length and a stride in elements, the last fastest: so one that merges others, as
a flattened image does, is a view too. Images lie channels-last, kernels with their input channels last, all else row
by row. An image that a padded convolution reads lies with its padding, a *halo* of zeros, so that windows are views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ...workloads.graph import Node
from .spaces import Element

__all__ = ["Atom", "Axis", "Halo", "Region", "View", "merged", "refined", "stored_order"]

Halo = tuple[int, int]
"""Rows of zeros above and below an image, columns at both of its sides."""


class Atom(NamedTuple):
    """``length`` places, ``stride`` elements from one to the next."""

    length: int
    stride: int


Axis = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Elements of the tensor ``root`` from ``offset`` on, one axis for each side of the view's shape."""

    root: int
    offset: int
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(atom.length for atom in axis) for axis in self.axes)

    @classmethod
    def whole(cls, root: int, shape: Sequence[int], halo: Halo = (0, 0)) -> View:
        """A tensor as it lies, an image with its halo around it."""
        sides, strides, stride = list(shape), [0] * len(shape), 1
        if len(shape) == 4:
            sides[2:] = (n + 2 * more for n, more in zip(shape[2:], halo, strict=True))
        for axis in reversed(stored_order(len(shape))):
            strides[axis], stride = stride, stride * sides[axis]
        offset = sum(more * step for more, step in zip(halo, strides[2:], strict=True)) if len(shape) == 4 else 0
        return cls(root, offset, tuple((Atom(n, s),) for n, s in zip(shape, strides, strict=True)))

    def permuted(self, dims: Sequence[int]) -> View:
        """With its axes in another order."""
        return View(self.root, self.offset, tuple(self.axes[d] for d in dims))

    def sliced(self, dim: int, start: int, end: int, node: Node) -> View:
        """Places ``start`` to ``end`` of a side; where that lies in pieces, ``node`` is refused."""
        axis = self.axes[dim]
        if len(axis) != 1:
            raise InputError(
                f"{node.op} of {node.module!r} takes a part of a side that lies in pieces, which is not compiled yet"
            )
        ((_, stride),) = axis
        axes = (*self.axes[:dim], (Atom(end - start, stride),), *self.axes[dim + 1 :])
        return View(self.root, self.offset + start * stride, axes)

    def expanded(self, shape: Sequence[int]) -> View:
        """With sides of 1 repeated, or sides put in front."""
        missing = len(shape) - len(self.axes)
        axes: list[Axis] = []
        for i, n in enumerate(shape):
            own = self.axes[i - missing] if i >= missing else (Atom(1, 0),)
            axes.append(own if prod(a.length for a in own) == n else (Atom(n, 0),))
        return View(self.root, self.offset, tuple(axes))

    def reshaped(self, shape: Sequence[int], where: str) -> View:
        """With its elements, in order, in another shape; an axis that no atoms make up is refused, ``where`` named."""
        atoms = [atom for axis in self.axes for atom in axis if atom.length != 1]
        axes: list[Axis] = []
        for n in shape:
            own: list[Atom] = []
            left = n
            while left > 1:
                count, stride = atoms.pop(0)
                if left % count == 0:
                    own.append(Atom(count, stride))
                    left //= count
                elif count % left == 0:
                    inner = count // left
                    own.append(Atom(left, stride * inner))
                    atoms.insert(0, Atom(inner, stride))
                    left = 1
                else:
                    raise InputError(
                        f"{where}: a view of {list(self.shape)} as {list(shape)} takes elements apart that lie "
                        f"{count} by {count}; the compiler moves whole sides only"
                    )
            axes.append(tuple(own) or (Atom(1, 0),))
        return View(self.root, self.offset, tuple(axes))


@dataclass(frozen=True, slots=True)
class Region:
    """Where an array lies in memory: its first element's byte ``address``, its axes in elements, what an element is."""

    address: int
    axes: tuple[Axis, ...]
    element: Element

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(atom.length for atom in axis) for axis in self.axes)

    @property
    def bytes(self) -> int:
        """From the first element to the end of the last one, with what lies between."""
        last = sum((atom.length - 1) * atom.stride for axis in self.axes for atom in axis)
        return self.element.bytes * (1 + last)

    def elements(self) -> npt.NDArray[np.int64]:
        """How far each element is from the first, in elements: int64 of any shape, its own."""
        at = np.zeros((), np.int64)
        for axis in self.axes:
            own = np.zeros(1, np.int64)
            for length, stride in axis:
                own = (own[:, None] + np.arange(length, dtype=np.int64) * stride).ravel()
            at = at[..., None] + own
        return at


def stored_order(rank: int) -> list[int]:
    """Axes of a tensor as it lies, the slowest first: images and kernels have their channels last."""
    return [0, 2, 3, 1] if rank == 4 else list(range(rank))


def refined(axes: Sequence[Sequence[Atom]]) -> list[list[Atom]] | None:
    """Atoms of several views cut so that their lengths are the same place by place; None: they cannot be."""
    left = [[atom for atom in reversed(atoms) if atom.length > 1] for atoms in axes]
    found: list[list[Atom]] = [[] for _ in axes]
    while any(left):
        if not all(left):
            return None
        inner = min(atoms[0].length for atoms in left)
        if any(atoms[0].length % inner for atoms in left):
            return None
        for atoms, own in zip(left, found, strict=True):
            count, stride = atoms[0]
            own.insert(0, Atom(inner, stride))
            if count == inner:
                del atoms[0]
            else:
                atoms[0] = Atom(count // inner, stride * inner)
    return [own or [Atom(1, 1)] for own in found]


def merged(axes: Sequence[Sequence[Atom]]) -> list[tuple[int, tuple[int, ...]]]:
    """Atoms of several views, place by place of the same counts, as few (count, strides) as there can be."""
    found: list[tuple[int, tuple[int, ...]]] = []
    for atoms in zip(*axes, strict=True):
        count = atoms[0].length
        assert all(atom.length == count for atom in atoms), atoms
        strides = tuple(atom.stride for atom in atoms)
        if count == 1 and found:
            continue
        if found and all(outer == count * inner for outer, inner in zip(found[-1][1], strides, strict=True)):
            found[-1] = (found[-1][0] * count, strides)
        elif found and found[-1][0] == 1:
            found[-1] = (count, strides)
        else:
            found.append((count, strides))
    return found
