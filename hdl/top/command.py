"""What a unit is told: a copy of its registers, as the instruction set has them; and how every unit takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from ...dataflow.program.isa import Register, Unit, registers_of
from ...dataflow.program.spaces import Target

__all__ = ["command_layout", "take_command", "unit_ports"]


def command_layout(registers: Sequence[Register]) -> data.StructLayout:
    """The registers of a unit by name."""
    return data.StructLayout({r.name: signed(r.bits) if r.signed else r.bits for r in registers})


def unit_ports(unit: Unit, target: Target) -> dict[str, Any]:
    """Members of every unit: ``command`` is taken when it is free; ``done`` is up in the last cycle of one; ``error``
    and ``value`` stand from the first error on."""
    return {
        "command": In(stream.Signature(command_layout(registers_of(unit, target)))),
        "done": Out(1),
        "busy": Out(1),
        "error": Out(4),
        "value": Out(32),
    }


def take_command(m: Module, component: Any, unit: Unit) -> tuple[Any, Any, Any]:
    """Let ``component`` take a command when it runs none: its registers, whether it begins, a cycle later, and whether
    it runs, which the unit ends. The address of a transfer is that of the two that it asks for."""
    command = Signal(component.command.payload.shape(), name="c", reset_less=True)
    begins = Signal()
    runs = Signal()
    m.d.comb += [component.command.ready.eq(~begins & ~runs & (component.error == 0)), component.busy.eq(begins | runs)]
    with m.If(component.command.valid & component.command.ready):
        payload = component.command.payload
        m.d.sync += [command.eq(payload), begins.eq(1)]
        if unit in (Unit.LOAD, Unit.STORE):
            m.d.sync += command.address.eq(Mux(payload.which, payload.address1, payload.address))
    with m.If(begins):
        m.d.sync += [begins.eq(0), runs.eq(1)]
    return command, begins, runs
