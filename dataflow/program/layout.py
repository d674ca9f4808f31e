"""How the tensors of a graph lie in memory, and the views of them: what each index adds to an address.

An axis is a list of *atoms*, each a length and a stride in elements, the last fastest: so one that merges others, as
a flattened image does, is a view too. Images lie channels-last, kernels with their input channels last, all else row
by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from ...workloads.errors import InputError

__all__ = ["Atom", "View", "merged", "stored_order"]


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
    def whole(cls, root: int, shape: Sequence[int]) -> View:
        """A tensor as it lies."""
        strides, stride = [0] * len(shape), 1
        for axis in reversed(stored_order(len(shape))):
            strides[axis], stride = stride, stride * shape[axis]
        return cls(root, 0, tuple((Atom(n, s),) for n, s in zip(shape, strides, strict=True)))

    def permuted(self, dims: Sequence[int]) -> View:
        """With its axes in another order."""
        return View(self.root, self.offset, tuple(self.axes[d] for d in dims))

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


def stored_order(rank: int) -> list[int]:
    """Axes of a tensor as it lies, the slowest first: images and kernels have their channels last."""
    return [0, 2, 3, 1] if rank == 4 else list(range(rank))


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
