"""What a program consists of, counted, and where a step's tensors lie, as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .commands import Begun, execution
from .compiler import CompiledStep
from .isa import Unit, units_of
from .layout import Region
from .program import Program
from .spaces import Form, Target
from .transfers import lines_of

__all__ = ["Summary", "memory_map", "summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of a program: its instructions, the commands of each unit, bytes of the file, bytes that its transfers move."""

    instructions: int
    commands: Mapping[Unit, int]
    size: int
    read: int
    written: int


def summary(program: Program, target: Target) -> Summary:
    """Count a program for ``target``, loops executed."""
    commands: Counter[Unit] = Counter()
    moved = {Unit.LOAD: 0, Unit.STORE: 0}
    for step in execution(program.instructions):
        if not isinstance(step, Begun):
            continue
        commands[step.command.unit] += 1
        if step.command.unit in moved and step.command.form != Form.BLANK:
            lines = lines_of(step.command, target)
            moved[step.command.unit] += lines.bytes * prod(lines.counts)
    return Summary(
        instructions=len(program.instructions),
        commands={unit: commands[unit] for unit in units_of(target)},
        size=len(program.to_bytes()),
        read=moved[Unit.LOAD],
        written=moved[Unit.STORE],
    )


def memory_map(step: CompiledStep) -> dict[str, Any]:
    """Where tensors lie, by what they are. Of each side of its shape an array has [length, stride in elements], the
    last fastest; all are from the address of the first element."""
    return {
        "machine": step.target.hash,
        "window": step.window,
        "peak": step.allocation.peak,
        "input": _region(step.input),
        "output": _region(step.output),
        "gradient": _region(step.gradient),
        "host": [
            {
                "behind": name,
                "op": then.op,
                "settings": dict(then.settings),
                "reads": [_region(region) for region in then.reads],
                "makes": [_region(region) for region in then.makes],
            }
            for name, part in zip(step.programs, step.parts, strict=True)
            for then in part.then
        ],
        "carried": None if step.carried is None else _region(step.carried),
        "constants": {"names": list(step.target.rule.constants), **_region(step.constants)},
        "parameters": {
            p.name: {
                "master": None if p.master is None else _region(p.master),
                "weight": None if p.weight is None else _region(p.weight),
                "state": {
                    held.name: _region(at) for held, at in zip(step.target.rule.state, p.state, strict=bool(p.state))
                },
            }
            for p in step.parameters
        },
        "buffers": {name: _region(at) for name, at in step.buffers.items()},
    }


def _region(region: Region) -> dict[str, Any]:
    return {
        "address": region.address,
        "form": region.element.form.name,
        "number": region.element.number.name,
        "shape": list(region.shape),
        "axes": [[list(atom) for atom in axis] for axis in region.axes],
    }
