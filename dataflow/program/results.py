"""Results of a product on their way out: a macro-tile of C from OUTPUT to where it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .boxes import boxes
from .isa import Unit
from .matrix import Matrix, distance, in_few
from .spaces import Space
from .work import Level, Work

__all__ = ["store_results"]


def store_results(
    work: Work,
    made: Matrix,
    rows: tuple[int, int],
    columns: tuple[int, int],
    half: int,
    *,
    room: Callable[[int], int],
    at: Callable[[int], int],
    inner: Sequence[Level],
    outer: Sequence[Level],
    bias: int | None,
    watch: int,
) -> None:
    """Rows and columns of C, first and last, exclusive, from ``half``, with the half of BIAS that is added.

    Of a number of rows before, ``at`` is the place in OUTPUT and ``room`` how many more lie as ``outer`` says.
    """
    lines, (column,) = in_few(made.lines), in_few(made.slots)
    assert column.stride == 1 or column.length == 1, "columns of what is made are side by side"
    (m0, m1), (n0, n1) = rows, columns
    for start, counts in boxes([a.length for a in lines], m0, m1, room):
        work.move(
            Unit.STORE,
            Space.OUTPUT,
            half,
            form=made.element,
            address=made.address + made.each * (distance(lines, start) + n0),
            words=n1 - n0,
            lines=[(n, made.each * a.stride) for n, a in zip(counts, lines[len(lines) - len(counts) :], strict=True)],
            at=at(start - m0),
            inner=inner,
            outer=outer,
            bias=int(bias is not None),
            bias_half=bias or 0,
            watch=watch,
        )
