"""What load and store ask of a transfer alike: where its lines may begin, and that no word leaves its space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth import Cat, Module, Signal

from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import COUNTS
from ...dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space, Target

__all__ = ["is_misaligned", "is_outside", "stop_at_first"]


def is_misaligned(command: Any) -> Any:
    """Whether a line would begin inside of a word: at an odd byte, of FP32 at one that 4 does not divide."""

    def bit(i: int) -> Any:
        return command.address[i] | Cat(*[command[f"step{n}"][i] for n in range(COUNTS)]).any()

    return bit(0) | ((command.form == Form.FP32) & bit(1))


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
