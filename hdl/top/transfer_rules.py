"""What load and store ask of a transfer alike: where its lines may begin, and that no word leaves its space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.utils import exact_log2

from ...dataflow.operand import FP32
from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import COUNTS
from ...dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space, Target

__all__ = ["is_misaligned", "is_outside", "stop_at_first", "units_of"]


def units_of(target: Target, form: Any, words: Any) -> Any:
    """Of an operand's bits, in memory, a line of so many words; ``form`` may be that of no memory."""
    operand = target.spec.pe.operand
    bits = 0 if target.pattern is None else target.pattern.index_bits
    indices = sum((words << i for i in range(bits.bit_length()) if bits >> i & 1), start=words & 0)
    pairs = words + ((indices + (operand.bits - 1)) >> exact_log2(operand.bits))
    wide = words << exact_log2(FP32.bytes // operand.bytes)
    return Mux(form == Form.FP32, wide, Mux(form == Form.PAIR, pairs, words))


def is_misaligned(target: Target, command: Any) -> Any:
    """Whether a line would begin inside of a word: of two bytes at an odd one, of FP32 at none that 4 divides."""

    def bit(i: int) -> Any:
        return command.address[i] | Cat(*[command[f"step{n}"][i] for n in range(COUNTS)]).any()

    wide = command.form == Form.FP32
    return bit(0) | (wide & bit(1)) if target.spec.pe.operand.bytes == 2 else wide & (bit(0) | bit(1))


def is_outside(m: Module, target: Target, space: Any, spaces: Iterable[Space], place: Any) -> Any:
    """Whether ``place`` is none of ``space``, one of ``spaces``."""
    outside = Signal()
    with m.Switch(space):
        for each in spaces:
            size = target.size(each)
            with m.Case(each):
                m.d.comb += outside.eq(
                    (place[PLACE_ADDRESS_BITS:] >= size.banks) | (place[:PLACE_ADDRESS_BITS] >= size.depth)
                )
    return outside


def stop_at_first(m: Module, unit: Any, *errors: tuple[Any, MachineError, Any]) -> None:
    """The first of ``errors`` that holds, each with its value, becomes that of ``unit``, which has none yet."""
    with m.If(unit.error == 0):
        for i, (holds, error, value) in enumerate(errors):
            with m.If(holds) if i == 0 else m.Elif(holds):
                m.d.sync += [unit.error.eq(error), unit.value.eq(value)]
