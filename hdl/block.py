"""A block of a machine: a unit that is built, counted, emitted and driven by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import UpdateRule

__all__ = ["Bench", "Block", "Make", "usual_pattern"]

Make = Callable[[AcceleratorSpec, NMPattern, UpdateRule], Any]
"""Something of a machine, of the pattern that its SORE keeps and the rule that its WUVE updates by."""
Bench = Callable[[Any, Sequence[Any], str], Mapping[str, str]]
"""Files of a test bench, by name, of a component, the vectors that it runs, and the name of its top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``make`` gives the component, ``bench`` and ``drive`` what runs it as Verilog and in co-simulation, if any does.

    ``apart``: modules within it that synthesis counts apart besides its parts. ``in_machine``: a whole machine has it,
    and not only within another block. ``present``: whether a machine has it; ``absent`` why not, ``{}`` for its name.
    ``inside``: what a machine has of it, where that is another: an engine without the streams around it.
    ``multipliers``: of its PEs, one each. ``depends``: parts (``array``) and fields (``pe.format``) of a machine that
    its RTL depends on, of the usual pattern and under SGD; any other may change and it is the same.
    """

    name: str
    title: str
    make: Make
    inside: Make | None = None
    bench: Bench | None = None
    drive: Make | None = None
    apart: tuple[str, ...] = ()
    in_machine: bool = True
    present: Callable[[AcceleratorSpec], bool] = lambda _: True
    absent: str = ""
    multipliers: Callable[[AcceleratorSpec], int] = lambda _: 0
    depends: tuple[str, ...] = ("array", "pe", "sore", "wuve")

    @property
    def within(self) -> Block:
        """As a machine has it."""
        return self if self.inside is None else replace(self, make=self.inside, inside=None)


def usual_pattern(spec: AcceleratorSpec) -> NMPattern:
    """2:8, or the nearest that the PEs hold."""
    group = min(8, spec.pe.max_group)
    return NMPattern(keep=max(1, group // 4), group=group)
