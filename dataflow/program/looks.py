"""What commands touch, each looked at once: those of a loop differ in little but the address."""

from __future__ import annotations

from .accesses import Access, accesses
from .commands import Command
from .isa import Unit, register
from .legal import check_command
from .spaces import Form, Target
from .transfers import Lines, address_of, lines_of

__all__ = ["Looks"]

_ADDRESSES = tuple(register(Unit.LOAD, name).number for name in ("address", "address1"))
assert tuple(register(Unit.STORE, name).number for name in ("address", "address1")) == _ADDRESSES
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
        first, second = _ADDRESSES
        others = (*registers[:first], *registers[first + 1 : second], *registers[second + 1 :]) if moves else registers
        key = (unit, others)
        before = self._seen.get(key)
        if before is not None:
            touched, lines = before
            if lines is None:
                return touched, None
            lines = lines._replace(address=address_of(command))
            if lines.address % 4 == 0 and lines.first >= 0 and lines.last <= self._window:
                return touched, lines
        check_command(command, self._target, self._window)
        lines = lines_of(command, self._target) if moves and command.form != Form.BLANK else None
        touched = accesses(command, self._target)
        self._seen[key] = (touched, lines)
        return touched, lines
