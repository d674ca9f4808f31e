"""The cycles of a program on its machine: the program level, beside step and system level, which know no commands."""

from __future__ import annotations

from ...dataflow.program.command_time import command_cycles
from ...dataflow.program.commands import Command
from ...dataflow.program.isa import REGISTERS, Unit, register
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...dataflow.program.transfers import address_of
from .sequencer import Timeline, timeline

__all__ = ["LATENCY", "bus_bytes", "program_time"]

LATENCY = 16
"""Cycles until memory answers (assumed: the most for which the times of transfers are exact, `transfer_time.py`)."""

_ADDRESSES = [register(Unit.LOAD, name).number for name in ("address", "address1")]
assert [register(Unit.STORE, name).number for name in ("address", "address1")] == _ADDRESSES
_HALVES = {unit: [r.number for r in registers if r.name.endswith("half")] for unit, registers in REGISTERS.items()}


def bus_bytes(target: Target) -> int:
    """Bytes a cycle of the bus to memory: the power of two at or below what DRAM gives at its peak, 4 at least."""
    spec = target.spec
    return max(4, 1 << (spec.dram.bytes_per_second // spec.clock_hz).bit_length() - 1)


def program_time(program: Program, target: Target, beat_bytes: int | None = None, latency: int = LATENCY) -> Timeline:
    """When each command runs, of a program that `check` lets pass; ``beat_bytes`` a cycle, `bus_bytes` if none."""
    width = bus_bytes(target) if beat_bytes is None else beat_bytes
    known: dict[tuple[Unit, tuple[int | None, ...]], int] = {}

    def cycles(command: Command) -> int:
        # all commands of a loop that differ in halves and in whole beats of their address take as long
        registers = list(command.registers)
        if command.unit in (Unit.LOAD, Unit.STORE):
            for number in _ADDRESSES:
                registers[number] = address_of(command) % width
        for number in _HALVES[command.unit]:
            registers[number] = 0
        key = command.unit, tuple(registers)
        if key not in known:
            known[key] = command_cycles(command, target, width, latency)
        return known[key]

    return timeline(program.instructions, cycles, latency)
