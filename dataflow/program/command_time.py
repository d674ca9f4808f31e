"""How long any command takes, over a memory of a fixed latency: what its unit says of it."""

from __future__ import annotations

from typing import assert_never

from .binary_product import binary_cycles
from .commands import Command
from .isa import REGISTERS, Unit
from .product_time import product_cycles
from .spaces import Target
from .transfer_time import load_cycles, store_cycles
from .unit_time import update_cycles, vector_cycles

__all__ = ["command_cycles"]


def command_cycles(command: Command, target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which its unit takes the command to its last one.

    Of a memory that answers ``latency`` cycles after a burst is asked for, and from then on moves ``beat_bytes`` a
    cycle each way.
    """
    names = (r.name for r in REGISTERS[command.unit])
    registers = {name: value or 0 for name, value in zip(names, command.registers, strict=True)}
    match command.unit:
        case Unit.LOAD:
            return load_cycles(registers, target, beat_bytes, latency)
        case Unit.STORE:
            return store_cycles(registers, target, beat_bytes, latency)
        case Unit.PRODUCT:
            return product_cycles(registers, target)
        case Unit.VECTOR:
            return vector_cycles(registers, target)
        case Unit.UPDATE:
            return update_cycles(registers, target)
        case Unit.XNOR:
            return binary_cycles(registers, target)
        case _:
            assert_never(command.unit)
