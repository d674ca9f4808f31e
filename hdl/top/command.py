"""What a unit is told: a copy of its registers, as the instruction set has them."""

from __future__ import annotations

from amaranth import signed
from amaranth.lib import data

from ...dataflow.program.isa import REGISTERS, Unit

__all__ = ["command_layout"]


def command_layout(unit: Unit) -> data.StructLayout:
    """The registers of ``unit`` by name."""
    return data.StructLayout({r.name: signed(r.bits) if r.signed else r.bits for r in REGISTERS[unit]})
