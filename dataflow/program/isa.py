"""The units of the accelerator and their registers: what `set` and `add` name, and what a `go` copies.

One table, which assembler, checker, models, RTL and docs/isa.md read. Register numbers count from 0 in each unit. What
a register holds is that many bits; `set` gives a value of so many, `add` wraps. The range is asked at `go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ...workloads.sparsity import MAX_GROUP
from ..stce.spec import MAX_ACCUMULATORS
from .spaces import BIT_SPACES, LOADED, STORED, VECTOR_DEPTH, Form, Target
from .vector_operations import VectorOpcode

__all__ = [
    "BEAT_BYTES",
    "ENCODINGS",
    "LATENCY",
    "BEGIN",
    "COUNTS",
    "ENTER",
    "EVENTS",
    "EVENT_LIMIT",
    "JUMP",
    "LOOPS",
    "QUEUE",
    "REGISTERS",
    "START",
    "TELL",
    "VERSION",
    "Register",
    "Unit",
    "most_of",
    "register",
    "registers_of",
    "units_of",
]

VERSION = 1
"""Of the instruction set; a machine runs programs of its own alone."""
EVENTS = 16
"""Counters on which commands wait."""
EVENT_LIMIT = 255
"""Most that an event counts."""
LOOPS = 8
"""Loops inside one another."""
QUEUE = 2
"""Commands of a unit that wait behind the one that runs."""
START = 2
"""Cycles, besides the latency of memory, from that of `start` to that in which the first instruction is executed."""
JUMP = 1
"""Cycles, besides the latency of memory, in which nothing is executed after a `next` that goes back."""
ENTER = 1
"""Cycles from that of a `go` to the first one in which its unit sees the command."""
BEGIN = 1
"""Cycles from that in which a unit takes events, and the command from its queue, to the first one of the command."""
TELL = 1
"""Cycles from the last one of a command to the first in which its events can be taken and its unit is free."""

BEAT_BYTES = 8
"""Of the data bus on boards and in co-simulation: as many operands as `tiny` has lanes."""
LATENCY = 4
"""Of the memories there, which answer so many cycles after they are asked: programs take as long on both."""

COUNTS = 4
"""Of the lines of a transfer in memory, the last fastest."""


class Unit(IntEnum):
    """What executes commands, each its own in order, one at a time. SORE has none: it stands in the way into N2S and
    behind WUVE."""

    LOAD = 0
    """Memory to chip."""
    STORE = 1
    """Chip to memory."""
    PRODUCT = 2
    """STCE."""
    VECTOR = 3
    UPDATE = 4
    """WUVE, and SORE behind it."""
    XNOR = 5
    """The XNOR engine, in a machine that has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A register of a unit: ``least`` to ``most`` at `go`, in ``measure``.

    ``reset``: what it holds at the start of a program; None: it must be set before it is used.
    """

    unit: Unit
    number: int
    name: str
    bits: int
    measure: str
    meaning: str
    least: int
    most: int
    reset: int | None
    signed: bool = False


_Row = tuple[str, int, str, str, int, int, int | None]
_ANY = 2**32 - 1
_MOST_PLANES = 8


def _half(name: str, what: str) -> _Row:
    return (name, 1, "", f"half of {what}", 0, 1, 0)


def _encoding(name: str, what: str) -> _Row:
    return (name, 1, "", f"FP8: 1: {what}; 0: E4M3", 0, 1, 0)


def _signed(name: str, measure: str, meaning: str) -> _Row:
    return (name, 32, measure, meaning, -(2**31), 2**31 - 1, 0)


def _lines(space: str, spaces: tuple[int, ...], forms: tuple[Form, ...]) -> tuple[_Row, ...]:
    """What both ends of DMA have: lines in memory, places on chip."""
    return (
        ("space", 4, "", f"{space}; a number of the table of spaces", min(spaces), max(spaces), None),
        _half("half", "the space"),
        ("form", 2, "", "what a word is in memory; a number of the table of forms", min(forms), max(forms), None),
        ("words", 24, "words", "a line", 1, 2**24 - 1, None),
        ("address", 32, "bytes", "first line, from the window's base", 0, _ANY, None),
        *((f"count{i}", 16, "", f"lines, count {i}; count{COUNTS - 1} fastest", 1, 65535, 1) for i in range(COUNTS)),
        *(_signed(f"step{i}", "bytes", f"from line to line along count {i}") for i in range(COUNTS)),
        ("place", 32, "place", "first word of the first line", 0, _ANY, 0),
        _signed("inner0_step", "place", "in a line, when inner1 has gone round"),
        ("inner1", 16, "", "in a line, turns of inner2 before inner0 goes on a step", 1, 65535, 1),
        _signed("inner1_step", "place", "in a line, when inner2 has gone round"),
        ("inner2", 16, "words", "in a line, words before inner1 goes on a step", 1, 65535, 1),
        _signed("inner2_step", "place", "in a line, from word to word"),
        _signed("outer0_step", "place", "from line to line, when outer1 has gone round"),
        ("outer1", 16, "", "turns of outer2 before outer0 goes on a step", 1, 65535, 1),
        _signed("outer1_step", "place", "from line to line, when outer2 has gone round"),
        ("outer2", 16, "lines", "lines before outer1 goes on a step", 1, 65535, 1),
        _signed("outer2_step", "place", "from line to line"),
        ("address1", 32, "bytes", "first line where which is 1: two tensors go on by steps of their own", 0, _ANY, 0),
        ("which", 1, "", "0: the first line is at address, 1: at address1", 0, 1, 0),
    )


_ROWS: dict[Unit, tuple[_Row, ...]] = {
    Unit.LOAD: (
        *_lines("target", LOADED, tuple(Form)),
        (
            "group",
            6,
            "words",
            "N2S, form operand: elements of a group, by which words get their index",
            1,
            MAX_GROUP,
            1,
        ),
        ("run", 24, "words", "N2S, form operand: elements from cut to cut of the grouping", 1, 2**24 - 1, 2**24 - 1),
        ("across", 1, "", "N2S, form operand: 0 groups along a line, 1 groups across lines, word by word", 0, 1, 0),
        ("reduce", 1, "", "N2S, form operand: 1 through SORE, groups of the machine's pattern", 0, 1, 0),
        _encoding("gradient", "form operand: words are E5M2, to be widened as such"),
    ),
    Unit.STORE: (
        *_lines("source", STORED, (Form.OPERAND, Form.FP32, Form.PAIR)),
        (
            "bias",
            1,
            "",
            "OUTPUT: 1 adds to word i of a line word bias_place + i of BIAS, before it is narrowed",
            0,
            1,
            0,
        ),
        _half("bias_half", "BIAS"),
        ("bias_place", 16, "place", "BIAS: word of the first word of a line", 0, 65535, 0),
        ("relu", 1, "", "OUTPUT: 1 stores +0.0 for what is neither above 0 nor NaN, after the bias", 0, 1, 0),
        (
            "watch",
            1,
            "",
            "1: an Inf or NaN among the stored words raises `nonfinite`, and updates leave all as it is",
            0,
            1,
            0,
        ),
        _encoding("gradient", "form operand: words become E5M2"),
    ),
    Unit.PRODUCT: (
        ("stationary", 1, "", "0: OS, 1: WS", 0, 1, None),
        ("keep", 6, "pairs", "of a group", 1, MAX_GROUP, None),
        ("group", 6, "words", "elements of a group; 1 in a dense OS product", 1, MAX_GROUP, None),
        ("rest", 6, "words", "elements of the last group of a run", 1, MAX_GROUP, None),
        ("interleave", 7, "", "contexts of a PE", 1, MAX_ACCUMULATORS, None),
        ("rows", 11, "rows", "of the array that are in use: min(R, m); WS: R", 1, 1024, None),
        ("parts", 16, "parts", "OS: groups of a run; WS: batches of rows", 1, 65535, None),
        ("runs", 16, "runs", "of the contraction; WS: 1", 1, 65535, None),
        ("across", 16, "tiles", "along n", 1, 65535, None),
        ("down", 16, "tiles", "OS: along m; WS: along k", 1, 65535, None),
        ("resume", 1, "", "WS: 1 begins with the sums in the half of OUTPUT instead of -0.0", 0, 1, 0),
        _half("w2e_half", "W2E"),
        _half("n2s_half", "N2S"),
        _half("output_half", "OUTPUT"),
        _encoding("w2e_gradient", "W2E holds E5M2"),
        _encoding("n2s_gradient", "N2S holds E5M2"),
    ),
    Unit.VECTOR: (
        ("operation", 5, "", "a number of the table of vector operations", 0, max(VectorOpcode), None),
        ("rows", 16, "rows", "of the block", 1, VECTOR_DEPTH, 1),
        ("terms", 16, "terms", "of a row of the result", 1, VECTOR_DEPTH, 1),
        ("beats", 10, "beats", "of the lanes: columns of the block / lanes, rounded up", 1, VECTOR_DEPTH, None),
        ("first", 1, "", "1 starts from -0.0, 0 from what is there", 0, 1, 1),
        _half("operands_half", "OPERANDS"),
        _half("columns_half", "COLUMNS"),
        _half("results_half", "RESULTS"),
        ("factor", 32, "FP32", "constant of the operation", 0, _ANY, 0),
        ("epsilon", 32, "FP32", "constant of the operation", 0, _ANY, 0),
        ("momentum", 32, "FP32", "constant of the operation", 0, _ANY, 0),
        ("rest", 32, "FP32", "constant of the operation, 1 - momentum", 0, _ANY, 0),
    ),
    Unit.UPDATE: (
        ("tiles", 16, "tiles", "blocks of parameters, one behind the other", 1, VECTOR_DEPTH, 1),
        (
            "beats",
            10,
            "beats",
            "of the lanes, a tile; with copies the machine's own (machine.md, WUVE to SORE)",
            1,
            VECTOR_DEPTH,
            None,
        ),
        ("copies", 2, "", "0: none, 1: PAIRS gets one compact copy, 2: two, along inputs and along outputs", 0, 2, 0),
        _half("weights_half", "WEIGHTS"),
        _half("constants_half", "CONSTANTS"),
        _half("updated_half", "UPDATED"),
        _half("pairs_half", "PAIRS"),
    ),
    Unit.XNOR: (
        ("words", 16, "words", "of the engine, along the contraction", 1, 65535, None),
        *(
            row
            for x, space in (("a", "XNOR_W2E"), ("b", "XNOR_N2S"))
            for row in (
                (f"planes_{x}", 4, "planes", f"{space}: of a word", 1, _MOST_PLANES, 1),
                (f"signs_{x}", 1, "", f"{space}: 1: bits are signs, 0 for +1; 0: masks", 0, 1, 1),
                (f"negative_{x}", 1, "", f"{space}: 1: the last plane of masks is worth less than nothing", 0, 1, 0),
            )
        ),
        ("length", 31, "bits", "both of signs: k of 2 P - k, the contraction without padding", 0, 2**31 - 1, 0),
        ("interleave", 7, "", "contexts of an element", 1, MAX_ACCUMULATORS, None),
        ("rows", 11, "rows", "of the engine that are in use: min(R, m)", 1, 1024, None),
        ("across", 16, "tiles", "along n", 1, 65535, None),
        ("down", 16, "tiles", "along m", 1, 65535, None),
        ("threshold", 1, "", "1: SIGNS gets bits, 0: SUMS gets sums", 0, 1, None),
        ("combine", 1, "", "1: a strip becomes its AND with what lies there, the largest of a pool", 0, 1, 0),
        _half("w2e_half", "XNOR_W2E"),
        _half("n2s_half", "XNOR_N2S"),
        _half("levels_half", "LEVELS"),
        _half("output_half", "SUMS or SIGNS"),
    ),
}

REGISTERS = {
    unit: tuple(
        Register(
            unit=unit,
            number=number,
            name=name,
            bits=bits,
            measure=measure,
            meaning=meaning,
            least=least,
            most=most,
            reset=reset,
            signed=least < 0,
        )
        for number, (name, bits, measure, meaning, least, most, reset) in enumerate(rows)
    )
    for unit, rows in _ROWS.items()
}
"""Registers of every unit, by their number."""

ENCODINGS = ("gradient", "w2e_gradient", "n2s_gradient")
"""Registers of machines alone whose operands have two encodings; the last ones of their units."""
_BY_NAME = {unit: {r.name: r for r in registers} for unit, registers in REGISTERS.items()}
assert all(r.most < 1 << r.bits for registers in REGISTERS.values() for r in registers)


def units_of(target: Target) -> tuple[Unit, ...]:
    """Those that the machine has."""
    return tuple(unit for unit in Unit if target.spec.xnor is not None or unit is not Unit.XNOR)


def registers_of(unit: Unit, target: Target) -> tuple[Register, ...]:
    """Those of a unit that the machine has: none that tell encodings where its operands have but one."""
    if target.spec.pe.operand.gradient is not None:
        return REGISTERS[unit]
    return tuple(r for r in REGISTERS[unit] if r.name not in ENCODINGS)


def most_of(r: Register, units: Sequence[Unit]) -> int:
    """What a register may hold at most in a machine of these units."""
    if r.name != "space" or Unit.XNOR in units:
        return r.most
    return max(s for s in (LOADED if r.unit is Unit.LOAD else STORED) if s not in BIT_SPACES)


def register(unit: Unit, name: str) -> Register:
    """The register of that name."""
    return _BY_NAME[unit][name]
