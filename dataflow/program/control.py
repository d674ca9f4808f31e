"""What a host sees of the machine: registers on AXI4-Lite, and the errors that stop a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .isa import Unit

__all__ = ["CONTROL", "MAGIC", "Access", "ControlRegister", "MachineError", "control", "control_of"]

MAGIC = int.from_bytes(b"WEFT", "little")
"""Of a machine, in its first register, and of a program file."""


class MachineError(IntEnum):
    """The register ``error``: why a program was stopped. The first error counts; of one cycle, that of the lowest
    instruction."""

    NONE = 0
    INSTRUCTION = 1
    """Opcode or unused bits."""
    UNIT = 2
    """A unit that is not there."""
    REGISTER = 3
    """A register that is not there, or a value of more than its bits."""
    LOOP = 4
    """A ninth loop inside another, a loop of 0 turns, or a next without a loop."""
    COMMAND = 5
    """A go with a register outside of its range, or with registers that contradict each other."""
    PLACE = 6
    """A word outside of its space."""
    WINDOW = 7
    """A word of memory outside of the window."""
    ALIGNMENT = 8
    """A line that does not begin on its word: 2 bytes, FP32 4."""
    READ = 9
    """The bus answered a read of data with an error."""
    WRITE = 10
    """The bus answered a write with an error."""
    FETCH = 11
    """The bus answered a fetch with an error, or the program went on past its length."""
    EVENT = 12
    """An event would have counted past 255."""
    WATCHDOG = 13
    """Nothing ended for as long as ``watchdog`` says."""
    SORE = 14
    """A load and an update wanted SORE at once."""
    STOPPED = 15
    """The host asked for it."""


class Access(IntEnum):
    """What the host may do with a register."""

    READ = 0
    WRITE = 1
    """Reads as 0."""
    BOTH = 2
    CLEAR = 3
    """Reads; a 1 that is written clears its bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRegister:
    """32 bits at a byte ``address``; bits that are not said read as 0."""

    address: int
    name: str
    access: Access
    meaning: str
    reset: int | None = 0
    """None: it is the machine's."""


_OF_UNITS: tuple[Callable[[Unit], tuple[str, str]], ...] = (
    lambda u: (f"{u.name.lower()}_queue_stalls", f"cycles in which a go waited for room in {u.name.lower()}"),
    lambda u: (f"{u.name.lower()}_busy", f"cycles in which {u.name.lower()} ran a command"),
    lambda u: (f"{u.name.lower()}_event_stalls", f"cycles in which {u.name.lower()} waited for an event"),
)
_COUNTED = (
    ("cycles", "cycles from start to done"),
    ("fetch_stalls", "cycles in which the sequencer waited for an instruction"),
    *(counted for kind in _OF_UNITS for u in Unit if u is not Unit.XNOR for counted in (kind(u),)),
    ("load_memory_stalls", "cycles in which load had nothing to write, for memory had not answered"),
    ("store_memory_stalls", "cycles in which store had words that memory did not take"),
    ("read_beats", "beats of data that were read, fetches not among them"),
    ("write_beats", "beats of data that were written"),
    *(kind(Unit.XNOR) for kind in _OF_UNITS),
)

_FIRST = (
    ("identity", Access.READ, "WEFT in ASCII, low byte first", None),
    ("version", Access.READ, "of the instruction set", None),
    ("machine_low", Access.READ, "hash of the machine, `Target.hash`, 12 hexadecimal digits: the low eight", None),
    ("machine_high", Access.READ, "the upper four", None),
    ("pattern", Access.READ, "of SORE: keep (7..0), group (15..8); 0: there is none", None),
    ("control", Access.WRITE, "bit 0: start, if not busy; bit 1: stop, with error STOPPED", 0),
    (
        *("status", Access.READ),
        "bit 0: busy; 1: done; 2: error; 3: nonfinite, which a start clears; 4: drained: no burst is under way or will "
        "be before a start, so a reset breaks none off",
        1 << 4,
    ),
    ("error", Access.READ, "why the program was stopped", 0),
    ("error_instruction", Access.READ, "number of the instruction, from 0; of a command, of its go", 0),
    ("error_value", Access.READ, "place, byte offset in the window, event or register that was wrong; else 0", 0),
    ("program_low", Access.BOTH, "address of the first instruction, a multiple of 8", 0),
    ("program_high", Access.BOTH, "its upper half", 0),
    ("program_length", Access.BOTH, "instructions", 0),
    ("window_low", Access.BOTH, "base of the memory that loads and stores may touch, a multiple of 4096", 0),
    ("window_high", Access.BOTH, "its upper half", 0),
    ("window_bytes", Access.BOTH, "size of the window, a multiple of 4; 0: closed", 0),
    ("watchdog", Access.BOTH, "cycles in which nothing ends until the program is stopped; 0 is taken as 2^32", 1 << 24),
    ("interrupt_enable", Access.BOTH, "bit 0: done; 1: error", 0),
    ("interrupt", Access.CLEAR, "bit 0: done; 1: error; the line is high while an enabled bit is", 0),
    ("instruction", Access.READ, "number of the instruction that is executed next", 0),
)
_COUNTERS = 0x80

CONTROL = (
    *(
        ControlRegister(address=4 * i, name=name, access=access, meaning=meaning, reset=reset)
        for i, (name, access, meaning, reset) in enumerate(_FIRST)
    ),
    *(
        ControlRegister(
            address=_COUNTERS + 8 * i + 4 * high,
            name=f"{name}_{'high' if high else 'low'}",
            access=Access.READ,
            meaning="upper half, as it was when the lower one was read" if high else meaning,
        )
        for i, (name, meaning) in enumerate(_COUNTED)
        for high in (0, 1)
    ),
)
"""The machine's registers; a counter is cleared by a start and stands still from done or error on."""

_BY_NAME = {r.name: r for r in CONTROL}


def control_of(units: Sequence[Unit]) -> tuple[ControlRegister, ...]:
    """The registers of a machine of these units: without the XNOR engine its counters, the last ones, are not there."""
    return CONTROL if Unit.XNOR in units else tuple(r for r in CONTROL if not r.name.startswith("xnor_"))


def control(name: str) -> ControlRegister:
    """The register of that name."""
    return _BY_NAME[name]
