"""Transfers between memory and spaces as commands; halves of spaces take turns."""

from __future__ import annotations

from collections.abc import Sequence

from .emitter import Emitter
from .isa import COUNTS, Unit
from .spaces import PLACE_ADDRESS_BITS, Element, Form, Space

__all__ = ["BANK", "Level", "Moves"]

BANK = 1 << PLACE_ADDRESS_BITS
"""From a bank to the next one, as a step of places."""
ENDLESS = 65535
"""Turns of a count that no transfer reaches."""
Level = tuple[int, int]
"""A count and a step, of bytes or of places."""


class Moves:
    """Transfers that ``emitter`` writes."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self._halves: dict[Space, int] = {}

    def half(self, space: Space) -> int:
        """The half of a space that its next user takes: they take turns."""
        self._halves[space] = 1 - self._halves.get(space, 1)
        return self._halves[space]

    def move(
        self,
        unit: Unit,
        space: Space,
        half: int,
        *,
        form: Form | Element,
        address: int = 0,
        which: int = 0,
        words: int,
        lines: Sequence[Level] = (),
        at: int = 0,
        inner: Sequence[Level],
        outer: Sequence[Level] = (),
        **more: int,
    ) -> None:
        """A load or store of ``lines`` in memory, counts and byte steps, the last fastest.

        ``which`` of the two registers has the address: of tensors that are moved in turns each goes on by steps of its
        own. ``inner`` and ``outer``: counts and steps of places in a line and from line to line, the last fastest, the
        first of them without an end. ``form``: of a word, or of an element of a tensor.
        """
        lines = [level for level in lines if level[0] > 1]
        assert len(lines) <= COUNTS and 1 <= len(inner) <= 3 and len(outer) <= 3
        own = COUNTS - len(lines)
        registers = {f"count{own + i}": count for i, (count, _) in enumerate(lines)}
        registers |= {f"step{own + i}": step for i, (_, step) in enumerate(lines)}
        registers |= _nest("inner", inner) | _nest("outer", outer)
        command = {"space": space, "half": half, "words": words, "place": at, "which": which}
        command |= form.registers if isinstance(form, Element) else {"form": form}
        command["address1" if which else "address"] = address
        self.emitter.command(unit, **command, **registers, **more)


def _nest(name: str, levels: Sequence[Level]) -> dict[str, int]:
    """Registers of up to three counts with a step each, the last the fastest, the first without an end."""
    registers: dict[str, int] = {}
    for i, (count, step) in enumerate(reversed(levels)):
        number = 2 - i
        registers[f"{name}{number}_step"] = step
        if number:
            registers[f"{name}{number}"] = ENDLESS if i == len(levels) - 1 else count
    return registers
