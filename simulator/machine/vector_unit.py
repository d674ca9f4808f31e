"""Values of the vector unit's operations on a block of its spaces (dataflow/program/vector_operations.py)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...dataflow.program.commands import Command
from ...dataflow.program.spaces import COLUMN_BEATS
from ...dataflow.program.vector_operations import OPERATIONS, Slot, VectorOpcode
from ..array import canonical

__all__ = ["VectorTrip"]

Single = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint32]
MINUS_ZERO = np.float32(-0.0)


class VectorTrip:
    """One command: ``operands`` and ``columns`` uint32 [banks, words] of a half, of a unit with so many ``lanes``.

    `run` gives what goes to RESULTS, float32 [rows, beats, lanes], or None, and writes slots into ``columns``.
    """

    def __init__(self, command: Command, lanes: int, operands: Bits, columns: Bits) -> None:
        c = self._command = command
        words = c.rows * c.terms * c.beats

        def operand(number: int) -> Single:
            block = operands[number * lanes : (number + 1) * lanes, :words].view(np.float32)
            shaped: Single = block.T.reshape(c.rows, c.terms, c.beats, lanes)
            return shaped

        self._a, self._b, self._c = operand(0), operand(1), operand(2)
        wide = columns.view(np.float32)
        self._slot = {s: wide[:, COLUMN_BEATS * s : COLUMN_BEATS * s + c.beats].T for s in Slot}

    @np.errstate(all="ignore")
    def run(self) -> Single | None:
        """The operation of the command."""
        operation = OPERATIONS[VectorOpcode(self._command.operation)]
        if operation.result:
            return canonical(np.ascontiguousarray(self._result(operation.opcode)))
        if operation.columns:
            self._columns(operation.opcode)
        else:
            self._sums(operation.opcode)
        return None

    def _constant(self, name: str) -> np.float32:
        value: np.float32 = np.array([getattr(self._command, name)], np.uint32).view(np.float32)[0]
        return value

    def _xhat(self, x: Single) -> Single:
        normed: Single = (x - self._slot[Slot.MEAN]) * self._slot[Slot.DEVIATION]
        return normed

    def _result(self, opcode: VectorOpcode) -> Single:
        a, b, slot, zero = self._a, self._b, self._slot, np.float32(0)
        match opcode:
            case VectorOpcode.COPY:
                made = a
            case VectorOpcode.RELU:
                made = np.where((a > 0) | np.isnan(a), a, zero)
            case VectorOpcode.MASK:
                made = np.where(b > 0, a, zero)
            case VectorOpcode.ADD:
                made = a + b
            case VectorOpcode.SCALE:
                made = a * self._constant("factor")
            case VectorOpcode.SELECT:
                before = np.full(a.shape, MINUS_ZERO) if self._command.first else self._c
                made = np.where(b == self._constant("factor"), before + a, before)
            case VectorOpcode.NORMALISE:
                made = self._xhat(a) * slot[Slot.WEIGHT] + slot[Slot.BIAS]
            case VectorOpcode.NORMALISE_BACKWARD:
                scale = slot[Slot.WEIGHT] * slot[Slot.DEVIATION]
                made = scale * ((a - slot[Slot.SUM]) - self._xhat(b) * slot[Slot.DOT])
            case _:
                return self._of_terms(opcode)
        return made[:, 0]

    def _of_terms(self, opcode: VectorOpcode) -> Single:
        a = self._a
        found, where = a[:, 0].copy(), np.zeros(a[:, 0].shape, np.float32)
        if opcode == VectorOpcode.GATHER:
            found = np.full(found.shape, MINUS_ZERO)
            for term in range(a.shape[1]):
                found = found + a[:, term]
            return found
        for term in range(1, a.shape[1]):
            takes = ~np.isnan(found) & ((a[:, term] > found) | np.isnan(a[:, term]))
            found, where = np.where(takes, a[:, term], found), np.where(takes, np.float32(term), where)
        match opcode:
            case VectorOpcode.MAXIMUM:
                return found
            case VectorOpcode.POSITION:
                return where
        raise AssertionError(f"{opcode.name} makes no result")

    def _sums(self, opcode: VectorOpcode) -> None:
        a = self._a
        match opcode:
            case VectorOpcode.SUM:
                self._add_up(Slot.SUM, a)
            case VectorOpcode.SQUARES:
                apart = a - self._slot[Slot.MEAN]
                self._add_up(Slot.SUM, apart * apart)
            case VectorOpcode.PRODUCTS:
                met = a * self._xhat(self._b)
                self._add_up(Slot.SUM, a)
                self._add_up(Slot.DOT, met)
            case _:
                raise AssertionError(f"{opcode.name} adds nothing up")

    def _add_up(self, name: Slot, terms: Single) -> None:
        held = self._slot[name]
        total = np.full(held.shape, MINUS_ZERO) if self._command.first else held.copy()
        for row in terms.reshape(-1, *terms.shape[2:]):
            total = total + row
        held[...] = canonical(total)

    def _columns(self, opcode: VectorOpcode) -> None:
        slot, factor = self._slot, self._constant("factor")
        momentum, rest = self._constant("momentum"), self._constant("rest")
        match opcode:
            case VectorOpcode.MEAN:
                slot[Slot.MEAN][...] = canonical(slot[Slot.SUM] * factor)
            case VectorOpcode.DEVIATION:
                variance = canonical(slot[Slot.SUM] * factor)
                slot[Slot.SUM][...] = variance
                slot[Slot.DEVIATION][...] = canonical(np.float32(1) / np.sqrt(variance + self._constant("epsilon")))
            case VectorOpcode.RUNNING_MEAN:
                held = rest * slot[Slot.RUNNING_MEAN]
                slot[Slot.RUNNING_MEAN][...] = canonical(held + momentum * slot[Slot.MEAN])
            case VectorOpcode.RUNNING_VARIANCE:
                held = rest * slot[Slot.RUNNING_VARIANCE]
                slot[Slot.RUNNING_VARIANCE][...] = canonical(held + momentum * (slot[Slot.SUM] * factor))
            case VectorOpcode.MEANS:
                for name in (Slot.SUM, Slot.DOT):
                    slot[name][...] = canonical(slot[name] * factor)
            case _:
                raise AssertionError(f"{opcode.name} looks at more than columns")
