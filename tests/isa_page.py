"""docs/isa.md, made of the tables in `dataflow/program/`: `python -m weft.tests.isa_page` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path

from weft.dataflow.config_io import load_spec
from weft.dataflow.program import isa
from weft.dataflow.program.assembly import SYMBOLS
from weft.dataflow.program.control import CONTROL, MachineError
from weft.dataflow.program.isa import EVENT_LIMIT, EVENTS, LOOPS, QUEUE, REGISTERS, VERSION, Unit
from weft.dataflow.program.program import HEADER_FIELDS
from weft.dataflow.program.spaces import LOADED, STORED, Form, Space, Target
from weft.dataflow.program.vector_operations import OPERATIONS, Slot
from weft.workloads.update_rule import UPDATE_RULES

PAGE = Path(__file__).parents[1] / "docs" / "isa.md"
SHOWN = ("tiny", "sat-ecp5", "sat-vcu1525", "bnn-ecp5")
"""Machines whose sizes the page has."""

HEAD = f"""# The instruction set, version {VERSION}

Every number and name of the accelerator's programs; what they mean together is in
[design/accelerator.md](design/accelerator.md), which also has the instructions themselves. There are {EVENTS} events,
each up to {EVENT_LIMIT}, loops up to {LOOPS} deep, and {QUEUE} commands wait in the queue of a unit. Unit `xnor`, its
counters, and the spaces from XNOR_W2E on are those of an XNOR engine: a machine without one refuses them; so does one
of FP16 or BF16 refuse the registers `gradient`, `w2e_gradient` and `n2s_gradient`, which it has not. A whole program,
as text, checked, run and timed, is `examples/one_program.py`.

`python -m weft.tests.isa_page` makes this page of `dataflow/program/`, and a test compares."""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def said(kind: type[IntEnum]) -> dict[str, str]:
    """What a source says below each member."""
    pairs = re.findall(r'^    ([A-Z0-9_]+) = \d+\n    """(.*?)"""', inspect.getsource(kind), re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in pairs}


def number(value: int | None) -> str:
    if value is None:
        return "must be set"
    for power in range(16, 33):
        for by in (0, -1):
            if abs(value) == 2**power + by:
                return f"{'-' if value < 0 else ''}2^{power}{' - 1' if by else ''}"
    return str(value)


def registers(unit: Unit) -> Iterator[list[object]]:
    for r in REGISTERS[unit]:
        legal = f"{number(r.least)} to {number(r.most)}"
        names = " (by name)" if r.name in SYMBOLS else ""
        yield [r.number, f"`{r.name}`", r.bits, r.measure, r.meaning + names, legal, number(r.reset)]


def spaces() -> Iterator[list[object]]:
    what = said(Space)
    targets = [Target(spec=load_spec(name), rule=UPDATE_RULES["sgd"]) for name in SHOWN]
    for space in Space:
        ends = [name for name, of in (("load", LOADED), ("store", STORED)) if space in of]
        sizes = [sized(target, space) for target in targets]
        yield [int(space), f"`{space.name}`", what[space.name], ", ".join(ends), *sizes]


def sized(target: Target, space: Space) -> str:
    """Banks and words, where the machine has the space."""
    if space not in target.spaces:
        return ""
    size = target.size(space)
    return f"{size.banks} x {size.depth}"


def operations() -> Iterator[list[object]]:
    for o in OPERATIONS.values():
        reads, writes = (" ".join(slot.name for slot in slots) for slots in (o.reads, o.writes))
        yield [int(o.opcode), f"`{o.opcode.name}`", "ABC"[: o.operands], reads, writes, o.what, o.use]


def page() -> str:
    """The whole page."""
    forms, errors = said(Form), said(MachineError)
    parts = [HEAD, "## Registers of the units"]
    head = ("", "register", "bits", "in", "meaning", "legal at go", "at the start")
    for unit in Unit:
        parts += [f"### {int(unit)}: `{unit.name.lower()}`", table(head, registers(unit))]
    parts += [
        "## Spaces",
        "Banks and words of a half, for machines that ship; of every space there are two halves.",
        table(("", "space", "what lies there", "moved by", *SHOWN), spaces()),
        "## Forms of a word in memory",
        table(("", "form", ""), ([int(f), f"`{f.name}`", forms.get(f.name, "32 bits")] for f in Form)),
        "## Vector operations",
        "Each is one trip over its block; what needs several trips is several operations: a batch norm `SUM` and "
        "`MEAN`,\n`SQUARES` and `DEVIATION`, `NORMALISE`, and the two of the running statistics; its backward "
        "`PRODUCTS` and `MEANS`,\n`NORMALISE_BACKWARD`.",
        table(("", "operation", "operands", "slots read", "slots written", "what", "used for"), operations()),
        "Slots: " + ", ".join(f"{int(slot)} `{slot.name}`" for slot in Slot) + ".",
        "## Constants of the update rules",
        "By their place in CONSTANTS; FP32.",
        table(("rule", "constants"), ([r.name, constants(r.constants)] for r in UPDATE_RULES.values())),
        "## A program file",
        table(("field", "bytes", ""), ([f"`{name}`", size, what] for name, size, what in HEADER_FIELDS)),
        "Instructions of 8 bytes follow.",
        "## What the host sees",
        "Registers of 32 bits on AXI4-Lite; a write to what can only be read changes nothing, another address "
        "answers with an error.",
        table(
            ("address", "register", "", "at reset", "meaning"),
            (
                [
                    f"{r.address:#05x}",
                    f"`{r.name}`",
                    r.access.name.lower(),
                    "the machine's" if r.reset is None else number(r.reset),
                    r.meaning,
                ]
                for r in CONTROL
            ),
        ),
        "## Timing of control, in cycles",
        table(("", "cycles", ""), ([f"`{name}`", getattr(isa, name), what] for name, what in timings())),
        "## Errors",
        table(("", "error", ""), ([int(e), f"`{e.name}`", errors.get(e.name, "none")] for e in MachineError)),
    ]
    return "\n\n".join(parts) + "\n"


def timings() -> Iterator[tuple[str, str]]:
    """Constants of the sequencer with what their source says below them."""
    said = re.findall(r'^([A-Z]+) = \d+\n"""(Cycles .*?)"""', inspect.getsource(isa), re.MULTILINE | re.DOTALL)
    return ((name, " ".join(what.split())) for name, what in said)


def constants(names: tuple[str, ...]) -> str:
    return ", ".join(f"{i} `{name}`" for i, name in enumerate(names))


if __name__ == "__main__":
    PAGE.write_text(page())
