"""What the vector unit does: one trip over a block of its operands an operation, all in FP32.

A block is ``rows`` x ``terms`` x ``beats`` beats of the lanes, in this order in each bank; result and columns have no
terms. ``A``, ``B``, ``C`` are elements of the operands, a slot's name the number of their column. Sums are in order of
rows or of terms from -0.0; with ``first`` 0 a slot goes on from what it holds. Every operation is rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["OPERATIONS", "Slot", "VectorOperation", "VectorOpcode"]


class Slot(IntEnum):
    """A number of each column, by its place in `Space.COLUMNS`."""

    SUM = 0
    DOT = 1
    MEAN = 2
    DEVIATION = 3
    """1 / sqrt(variance + epsilon)."""
    WEIGHT = 4
    BIAS = 5
    RUNNING_MEAN = 6
    RUNNING_VARIANCE = 7


class VectorOpcode(IntEnum):
    """The register ``operation``."""

    COPY = 0
    RELU = 1
    MASK = 2
    ADD = 3
    SCALE = 4
    GATHER = 5
    MAXIMUM = 6
    POSITION = 7
    SELECT = 8
    SUM = 9
    SQUARES = 10
    PRODUCTS = 11
    NORMALISE = 12
    NORMALISE_BACKWARD = 13
    MEAN = 14
    DEVIATION = 15
    RUNNING_MEAN = 16
    RUNNING_VARIANCE = 17
    MEANS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOperation:
    """An operation: ``operands`` it reads, from A on; slots read and written; ``result``: whether it makes one.

    ``columns``: it looks at slots alone, a trip of ``beats`` beats. ``of_terms``: whether ``terms`` may be above 1.
    """

    opcode: VectorOpcode
    what: str
    use: str
    operands: int = 0
    reads: tuple[Slot, ...] = ()
    writes: tuple[Slot, ...] = ()
    result: bool = False
    of_terms: bool = False

    @property
    def columns(self) -> bool:
        """Whether it looks at slots alone."""
        return self.operands == 0

    @property
    def accumulates(self) -> bool:
        """Whether its slots go on from what they hold where ``first`` is 0."""
        return bool(self.operands and self.writes)


_S, _O = Slot, VectorOpcode

OPERATIONS = {
    operation.opcode: operation
    for operation in (
        VectorOperation(opcode=_O.COPY, what="A", use="widen, narrow, move", operands=1, result=True),
        VectorOperation(opcode=_O.RELU, what="A if A > 0 or NaN, else +0.0", use="ReLU", operands=1, result=True),
        VectorOperation(
            opcode=_O.MASK, what="A if B > 0, else +0.0", use="backward of ReLU: gradient, y", operands=2, result=True
        ),
        VectorOperation(opcode=_O.ADD, what="A + B", use="residual; gradients that meet", operands=2, result=True),
        VectorOperation(
            opcode=_O.SCALE, what="A factor", use="mean of a row of sums, and its backward", operands=1, result=True
        ),
        VectorOperation(
            opcode=_O.GATHER,
            what="sum of A over terms",
            use="mean over a window; taps that meet at a position, by (kh, kw)",
            operands=1,
            result=True,
            of_terms=True,
        ),
        VectorOperation(
            opcode=_O.MAXIMUM,
            what="largest A over terms, the first of equals, NaN above all",
            use="max-pool",
            operands=1,
            result=True,
            of_terms=True,
        ),
        VectorOperation(
            opcode=_O.POSITION,
            what="number of the term that MAXIMUM takes",
            use="max-pool, for its backward",
            operands=1,
            result=True,
            of_terms=True,
        ),
        VectorOperation(
            opcode=_O.SELECT,
            what="C + A if B = factor, else C; with first 1 C is -0.0 and not read",
            use="backward of max-pool: gradient, position, sum of the windows before",
            operands=3,
            result=True,
        ),
        VectorOperation(
            opcode=_O.SUM,
            what="SUM: sum of A",
            use="gradient of a bias; mean, first trip",
            operands=1,
            writes=(_S.SUM,),
        ),
        VectorOperation(
            opcode=_O.SQUARES,
            what="SUM: sum of (A - MEAN)^2",
            use="variance, second trip",
            operands=1,
            reads=(_S.MEAN,),
            writes=(_S.SUM,),
        ),
        VectorOperation(
            opcode=_O.PRODUCTS,
            what="SUM: sum of A; DOT: sum of A ((B - MEAN) DEVIATION)",
            use="backward of a norm: gradient, x; the gradients of its bias and its scale",
            operands=2,
            reads=(_S.MEAN, _S.DEVIATION),
            writes=(_S.SUM, _S.DOT),
        ),
        VectorOperation(
            opcode=_O.NORMALISE,
            what="((A - MEAN) DEVIATION) WEIGHT + BIAS",
            use="norm, last trip",
            operands=1,
            reads=(_S.MEAN, _S.DEVIATION, _S.WEIGHT, _S.BIAS),
            result=True,
        ),
        VectorOperation(
            opcode=_O.NORMALISE_BACKWARD,
            what="(WEIGHT DEVIATION) ((A - SUM) - ((B - MEAN) DEVIATION) DOT)",
            use="backward of a norm, last trip, after MEANS: gradient, x",
            operands=2,
            reads=(_S.SUM, _S.DOT, _S.MEAN, _S.DEVIATION, _S.WEIGHT),
            result=True,
        ),
        VectorOperation(
            opcode=_O.MEAN, what="MEAN: SUM factor", use="behind SUM; factor 1 / n", reads=(_S.SUM,), writes=(_S.MEAN,)
        ),
        VectorOperation(
            opcode=_O.DEVIATION,
            what="SUM: SUM factor = v; DEVIATION: 1 / sqrt(v + epsilon), both correctly rounded",
            use="behind SQUARES; factor 1 / n",
            reads=(_S.SUM,),
            writes=(_S.SUM, _S.DEVIATION),
        ),
        VectorOperation(
            opcode=_O.RUNNING_MEAN,
            what="RUNNING_MEAN: rest RUNNING_MEAN + momentum MEAN",
            use="running statistics; rest 1 - momentum",
            reads=(_S.RUNNING_MEAN, _S.MEAN),
            writes=(_S.RUNNING_MEAN,),
        ),
        VectorOperation(
            opcode=_O.RUNNING_VARIANCE,
            what="RUNNING_VARIANCE: rest RUNNING_VARIANCE + momentum (SUM factor)",
            use="behind DEVIATION; factor n / (n - 1)",
            reads=(_S.RUNNING_VARIANCE, _S.SUM),
            writes=(_S.RUNNING_VARIANCE,),
        ),
        VectorOperation(
            opcode=_O.MEANS,
            what="SUM: SUM factor; DOT: DOT factor",
            use="between PRODUCTS and NORMALISE_BACKWARD; factor 1 / n",
            reads=(_S.SUM, _S.DOT),
            writes=(_S.SUM, _S.DOT),
        ),
    )
}
"""Every operation of the vector unit by its opcode."""
