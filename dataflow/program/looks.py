"""What commands touch, each looked at once: those of a loop differ in little but the address."""

from __future__ import annotations

from .accesses import Access, accesses
from .commands import Command
from .isa import Unit, register
from .legal import check_command
from .spaces import Form, Target
from .transfers import Lines, lines_of

__all__ = ["Looks"]

_ADDRESS = register(Unit.LOAD, "address").number
assert register(Unit.STORE, "address").number == _ADDRESS
_TRANSFERS = (Unit.LOAD, Unit.STORE)


class Looks:
    """At commands for ``target`` in a window of ``window`` bytes."""

    def __init__(self, target: Target, window: int) -> None:
        self._target, self._window = target, window
        self._seen: dict[tuple[Unit, tuple[int | None, ...]], tuple[list[Access], Lines | None]] = {}

    def at(self, command: Command) -> tuple[list[Access], Lines | None]:
        """What a command touches on chip and in memory; one that is not legal is a `ProgramError`."""
        unit, registers = command.unit, command.registers
        moves = unit in _TRANSFERS
        key = (unit, (*registers[:_ADDRESS], *registers[_ADDRESS + 1 :]) if moves else registers)
        before = self._seen.get(key)
        if before is not None:
            touched, lines = before
            if lines is None:
                return touched, None
            lines = lines._replace(address=command.address)
            if lines.address % 4 == 0 and lines.first >= 0 and lines.last <= self._window:
                return touched, lines
        check_command(command, self._target, self._window)
        lines = lines_of(command, self._target) if moves and command.form != Form.BLANK else None
        touched = accesses(command, self._target)
        self._seen[key] = (touched, lines)
        return touched, lines
