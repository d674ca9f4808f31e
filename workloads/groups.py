"""Zeros in whole groups: which rows of groups of an operand keep how many, and how they are stored.

A line is what one sum contracts, as in `unstructured.py`; a row of groups is some lines side by side, which keep the
same. A group has one index. What gathers takes its elements one by one, so a product costs by lines as one without any
pattern does; what groups spare are indices, and banks that lanes wait for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import Field

from .errors import InputError, require_choice, require_int
from .gemm import MAX_DIM, Gemm
from .unstructured import POINTER_BYTES, Cell, Counted, Drawn, Histogram, Kept

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KERNEL", "SCALE_BITS", "GroupShape", "Groups", "OptionalGroupShape", "grouped_mask"]

_STRICT = {"extra": "forbid"}
_BYTE = 8
KERNEL = "kernel"
SCALE_BITS = 16
"""Of a group whose values have fewer bits than the machine's: one FP16 number (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShape:
    """``lines`` side by side by ``places`` side by side of the contraction; ``places`` None: all taps of a channel."""

    __pydantic_config__ = _STRICT

    lines: int
    places: int | None

    def __post_init__(self) -> None:
        require_int("lines of a group", self.lines, 1, MAX_DIM)
        if self.places is not None:
            require_int("places of a group", self.places, 1, MAX_DIM)

    @classmethod
    def parse(cls, text: str) -> GroupShape:
        """Read ``"1x16"``, ``"16x1"``, ``"4x4"``, ``"kernel"`` or ``"4xkernel"``."""
        asked = text.strip().lower()
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6}|kernel)", "1xkernel" if asked == KERNEL else asked, re.ASCII)
        if match is None:
            raise InputError(f"groups {text!r} are not lines x places, for example 1x16, 4x4, or {KERNEL}")
        return cls(lines=int(match[1]), places=None if match[2] == KERNEL else int(match[2]))

    def misfit(self, lines: int, run: int) -> str:
        """Why ``lines`` whose contraction is made of runs of ``run`` have no whole groups; "" where they have."""
        if lines % self.lines:
            return f"{lines} outputs are no whole groups of {self}"
        if self.places is not None and run % self.places:
            return f"contraction runs of {run} are no whole groups of {self}"
        return ""

    def __str__(self) -> str:
        return f"{self.lines}x{KERNEL}" if self.places is None else f"{self.lines}x{self.places}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """An operand that was stored in advance in groups of ``shape``, of which ``kept`` counts those of each row.

    ``level``: each row has room for so many groups and no more, filled up with zeros, and needs no pointer; 0: rows
    are as long as they are. ``bits``: of a value, with a scale of `SCALE_BITS` for each group; 0: those of the machine.
    ``expanded``: whoever reads it puts the zeros back and multiplies all of it, so that it spares bytes alone.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["groups"] = "groups"
    operand: Literal["a", "b"]
    shape: GroupShape
    kept: Kept
    level: Annotated[int, Field(exclude_if=lambda level: not level)] = 0
    bits: Annotated[int, Field(exclude_if=lambda bits: not bits)] = 0
    expanded: Annotated[bool, Field(exclude_if=lambda expanded: not expanded)] = False

    def __post_init__(self) -> None:
        require_choice("operand of groups", self.operand, ("a", "b"))
        require_int("level of groups", self.level, 0, MAX_DIM)
        require_int("bits of a value of groups", self.bits, 0, 64)

    @property
    def online(self) -> bool:
        """Whether its zeros are known in this very step only: never."""
        return False

    def check(self, gemm: Gemm) -> None:
        """Refuse an operand that has no whole groups, counts of another one, or rows of more groups than ``level``."""
        misfit = self.misfit(gemm)
        if misfit:
            raise InputError(f"operand {self.operand} of {gemm} cannot be in groups: {misfit}")
        most = int(self.rows(gemm).kept[-1])
        if self.level and most > self.level:
            raise InputError(f"a row keeps {most} groups, but level {self.level} is the most that a row may keep")
        if self.level > self.columns(gemm):
            raise InputError(f"level of groups must be at most {self.columns(gemm)}, all of a row, not {self.level}")

    def misfit(self, gemm: Gemm) -> str:
        """Why it has no whole groups; "" where it has."""
        return self.shape.misfit(gemm.n if self.operand == "b" else gemm.m, gemm.run)

    def columns(self, gemm: Gemm) -> int:
        """Groups of a row, kept or not."""
        return gemm.k // self.places(gemm)

    def places(self, gemm: Gemm) -> int:
        """Elements of a line in a group."""
        return gemm.k // gemm.run if self.shape.places is None else self.shape.places

    def rows(self, gemm: Gemm) -> Histogram:
        """Kept groups by row, of all groups of the product."""
        return self.kept.of(self.lines(gemm) // self.shape.lines, self.columns(gemm))

    def lines(self, gemm: Gemm) -> int:
        """How many there are."""
        return gemm.groups * (gemm.n if self.operand == "b" else gemm.m)

    def histogram(self, gemm: Gemm) -> Histogram:
        """Elements that are taken of each line; those that fill up a row to its level are among them."""
        rows, places = self.rows(gemm), self.places(gemm)
        if self.level:
            rows = Histogram(rows.kept[:1] * 0 + self.level, rows.lines.sum(keepdims=True))
        return Histogram(rows.kept * places, rows.lines * self.shape.lines)

    def cell(self, gemm: Gemm) -> Cell:
        """A group; the taps of a channel lie apart."""
        alone = self.shape.places is None and gemm.run < gemm.k
        return Cell(self.shape.lines, 1 if alone else self.places(gemm))

    def stored(self, gemm: Gemm) -> int:
        """Groups in memory."""
        return int(self.rows(gemm).lines.sum()) * self.level if self.level else self.rows(gemm).total

    def macs(self, gemm: Gemm) -> int:
        """Multiply-accumulates of the elements that are taken."""
        if self.expanded:
            return gemm.macs
        return self.histogram(gemm).total * (gemm.m if self.operand == "b" else gemm.n)

    def index_bits(self, gemm: Gemm) -> int:
        """Read with an element: its share of the group's place and scale, rounded up."""
        each = _BYTE * _place_bytes(self.columns(gemm)) + (SCALE_BITS if self.bits else 0)
        return -(-each // (self.shape.lines * self.places(gemm)))

    def bytes(self, gemm: Gemm, value_bits: int) -> int:
        """Of memory: values packed; a place of whole bytes a group, and its scale; a pointer a row, without a level."""
        groups, rows = self.stored(gemm), self.lines(gemm) // self.shape.lines
        values = groups * self.shape.lines * self.places(gemm) * (self.bits or value_bits)
        scales = groups * SCALE_BITS // _BYTE if self.bits else 0
        pointers = 0 if self.level else POINTER_BYTES * (rows + 1)
        return -(-values // _BYTE) + scales + groups * _place_bytes(self.columns(gemm)) + pointers

    def __str__(self) -> str:
        match self.kept:
            case Counted(lines=rows):
                known = f"{sum(kept * many for kept, many in rows)} kept of {sum(many for _, many in rows)} rows"
            case Drawn():
                known = str(self.kept)
            case _:
                assert_never(self.kept)
        expanded = ", expanded" if self.expanded else ""
        level = f", at most {self.level} a row" if self.level else ""
        return f"groups {self.shape} ({known}{level}{f', {self.bits} bits' if self.bits else ''}{expanded})"


OptionalGroupShape = Annotated[GroupShape | None, Field(exclude_if=lambda shape: shape is None)]


def grouped_mask(mask: npt.NDArray[Any], shape: GroupShape, run: int) -> Counted:
    """Kept groups by row of a ``mask``, bool [lines, length], whose contraction is made of runs of ``run``.

    A mask that keeps a part of a group is refused.
    """
    import numpy as np

    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise InputError(f"a mask must be a bool matrix, not {mask.dtype} {list(mask.shape)}")
    lines, length = mask.shape
    misfit = shape.misfit(lines, run) or ("" if length % run == 0 else f"{length} elements are no whole runs of {run}")
    if misfit:
        raise InputError(f"a mask of {lines} x {length} cannot be in groups: {misfit}")
    taps = length // run
    # [rows, lines, columns, places]
    if shape.places is None:
        cells = mask.reshape(lines // shape.lines, shape.lines, taps, run).swapaxes(2, 3)
    else:
        cells = mask.reshape(lines // shape.lines, shape.lines, length // shape.places, shape.places)
    found = cells.sum(axis=(1, 3))
    size = shape.lines * cells.shape[3]
    parts = np.argwhere((found > 0) & (found < size))
    if len(parts):
        row, column = parts[0].tolist()
        raise InputError(
            f"a mask keeps {found[row, column]} of the {size} elements of group {column} of row {row}, but groups of "
            f"{shape} are kept whole or not at all"
        )
    many = np.bincount(np.count_nonzero(found, axis=1))
    return Counted(lines=tuple((int(kept), int(many[kept])) for kept in np.flatnonzero(many)))


def _place_bytes(columns: int) -> int:
    return -(-(columns - 1).bit_length() // _BYTE)
