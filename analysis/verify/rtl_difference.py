"""Where RTL and model first differ: tensor and index, both values, and the command and cycle that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.operand import FP32
from ...dataflow.program.commands import Command
from ...dataflow.program.isa import BEGIN, Unit
from ...dataflow.program.layout import Atom, Region
from ...dataflow.program.placement import Placement
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import WIDE, Form, Target
from ...dataflow.program.transfers import address_of, line_addresses, word_bytes
from ...hdl.drivers.accelerator import AcceleratorRun, UnitRun
from ...simulator.machine.chip import Chip
from ...simulator.machine.sequencer import Timeline
from ...simulator.operand import operand_types
from ...workloads.graph import Graph

__all__ = ["DifferenceError", "Executed", "first_wrong_write", "late_command", "require_cycles", "require_same"]

Bytes = npt.NDArray[np.uint8]


class DifferenceError(AssertionError):
    """The RTL and the model differ; the message names tensor and index, or command and cycle, and both values."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A program that ran on the RTL, and its memory before, uint8 [bytes]."""

    program: Program
    before: Bytes
    ran: AcceleratorRun


def require_same(what: str, found: Any, wanted: Any) -> None:
    """Refuse ``found``, of the RTL, if a bit of it is not that of ``wanted``, of the model: arrays of one shape."""
    bits = np.dtype(f"u{wanted.dtype.itemsize}")
    found, wanted = np.ascontiguousarray(found), np.ascontiguousarray(wanted)
    differs = wanted.view(bits) != found.view(bits)
    if differs.any():
        index = tuple(int(i) for i in np.argwhere(differs)[0])
        raise DifferenceError(
            f"{what}{list(index)} is {_said(found[index])} in the RTL, but {_said(wanted[index])} in the model; "
            f"{int(differs.sum())} differ"
        )


def first_wrong_write(graph: Graph, target: Target, executed: Sequence[Executed]) -> str:
    """The first word that the RTL wrote otherwise than the model of the chip does from the same memory; empty: none.

    ``executed``: the programs of a step of ``graph`` so far.
    """
    tensors = _Tensors(graph, target)
    for run in executed:
        witness = _Witness(run, target, tensors)
        try:
            witness.run(run.program.instructions)
        except _FoundError as found:
            return str(found)
    return ""


class _FoundError(Exception):
    """What was looked for."""


class _Witness(Chip):
    """The chip's model, which looks at what the RTL wrote store by store."""

    def __init__(self, run: Executed, target: Target, tensors: _Tensors) -> None:
        super().__init__(target, run.before.copy())
        self.found, self.writes, self.tensors = run.before.copy(), run.ran.writes, tensors
        self.stores: Iterator[UnitRun] = (command for command in run.ran.commands if command.unit == Unit.STORE)

    def store(self, c: Command) -> None:
        super().store(c)
        own = next(self.stores, None)
        if own is None:
            raise _FoundError(f"the RTL never ended the store of instruction {c.instruction}")
        beats = self.writes.between(own.took, own.last)
        beats.apply(self.found)
        size = word_bytes(Form(c.form), c.words, self.target)
        lines = (line_addresses(c)[:, None] + np.arange(size)).ravel()
        at = beats.address[:, None] + np.arange(beats.data.shape[1])
        touched = np.union1d(lines, at[beats.strobe])
        wrong = touched[self.found[touched] != self.memory[touched]]
        named = self.tensors.stored(address_of(c))
        if len(wrong):
            byte = int(wrong[0])
            when = beats.cycle[(beats.strobe & (at == byte)).any(axis=1)]
            cycle = f"in cycle {int(when[-1])}" if len(when) else "in no cycle"
            raise _FoundError(
                f"the first wrong word is {self._word(named, byte, c)}, of the store of instruction "
                f"{c.instruction}, which ran in cycles {own.took + BEGIN} to {own.last} and wrote it {cycle}"
            )

    def _word(self, named: tuple[str, Region] | None, byte: int, c: Command) -> str:
        """A word by its tensor and index, if it has one, and both values."""
        of = self.target.spec.pe.format
        kind = np.dtype(operand_types(of)[-1 if c.gradient else 0] if c.form == Form.OPERAND else np.float32)
        first, where = byte - byte % kind.itemsize, ""
        if named is not None:
            name, region = named
            index = np.argwhere(region.address + kind.itemsize * region.elements() == first)
            where = f"{[int(i) for i in index[0]]} of {name}" if len(index) else f"of {name}, outside of it,"
        values = [_said(memory[first : first + kind.itemsize].view(kind)[0]) for memory in (self.found, self.memory)]
        return f"{where or 'one'} at byte {first}: {values[0]} in the RTL, but {values[1]} in the model"


class _Tensors:
    """What stores write, told by their addresses: a step stores node after node, then parameter after parameter."""

    def __init__(self, graph: Graph, target: Target) -> None:
        place = Placement(graph, target)
        self.at, self.groups = 0, list[list[tuple[str, Region]]]()
        for node in graph.nodes:
            if place.is_view(node):
                continue
            what = f"{node.op} of {node.module!r}"
            own = [(f"what {what} makes, t{number}", place.region(number)) for number in node.makes]
            if words := place.scratch_bytes(node) // FP32.bytes:
                own.append((f"scratch of {what}", Region(place.scratch(node), ((Atom(words, 1),),), WIDE)))
            self.groups.append(own)
        for p in place.parameters:
            named = [("weight", p.master), ("operand copy of", p.weight)]
            named += [(f"{s.name} of", region) for s, region in zip(target.rule.state, p.state, strict=False)]
            self.groups.append([(f"{what} {p.name}", region) for what, region in named if region is not None])

    def stored(self, address: int) -> tuple[str, Region] | None:
        """What a store from ``address`` on writes: of nodes from the one that stored last, the first that has it."""
        for i in (*range(self.at, len(self.groups)), *range(self.at)):
            for name, region in self.groups[i]:
                if region.address <= address < region.address + region.bytes:
                    self.at = i
                    return name, region
        return None


def _said(value: Any) -> str:
    """A number and its bits."""
    return f"{value} ({value.view(np.dtype(f'u{value.dtype.itemsize}')):#x})"


def require_cycles(said: Timeline, ran: AcceleratorRun) -> None:
    """Every command taken, begun and ended in its cycle."""
    late = late_command(said, ran)
    if late is not None:
        raise DifferenceError(late)


def late_command(said: Timeline, ran: AcceleratorRun) -> str | None:
    """The first command that the RTL did not run in its cycles, in words; none if all did."""
    found = sorted((r.unit, r.took, r.last) for r in ran.commands)
    wanted = sorted((r.command.unit, r.took, r.last, r.command.instruction) for r in said.ran)
    late = [
        (min(own[1], theirs[1]), own, theirs)
        for own, theirs in zip(wanted, found, strict=False)
        if own[:3] != theirs and own[0] == theirs[0]
    ]
    if late:
        _, own, theirs = min(late)
        return (
            f"{own[0].name}: the command of instruction {own[3]} was to run in cycles {own[1] + BEGIN} to {own[2]}, "
            f"but in the RTL it ran in {theirs[1] + BEGIN} to {theirs[2]}"
        )
    if [own[:3] for own in wanted] == found and said.cycles == ran.cycles:
        return None
    counted = f"{len(found)} commands ended in {ran.cycles} cycles of the RTL"
    return f"{counted}, but {len(wanted)} in {said.cycles} were predicted"
