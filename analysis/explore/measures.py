"""What points are measured by: names, units, which way is better, and what it takes to know them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ...dataflow.ranges import Range
from ...workloads.errors import InputError, nearest
from .axes import machine_fields

__all__ = ["MEASURES", "Known", "Measure", "measure", "sign"]

Direction = Literal["min", "max"]


class Known(Enum):
    """When a measure of a point is known."""

    MACHINE = "without a schedule"
    AREA = "from the synthesis of the machine's modules"
    CYCLES = "from cycles and bytes"
    ENERGY = "from what the step does, priced"
    STUDY = "from trainings"


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the table of points."""

    name: str
    direction: Direction
    unit: str
    known: Known
    timed: bool = False
    """Whether it is cycles times a number that machine and work have, or one over it."""
    per: str = ""
    """The measure, known early, by which one that is timed is divided."""

    @property
    def early(self) -> bool:
        """Whether it is known before anything is scheduled."""
        return self.known in (Known.MACHINE, Known.AREA) or self.name == "accuracy"


MEASURES = {
    m.name: m
    for m in (
        Measure("cycles", "min", "cycles", Known.CYCLES, timed=True),
        Measure("seconds", "min", "s", Known.CYCLES, timed=True),
        Measure("samples_per_second", "max", "samples/s", Known.CYCLES, timed=True),
        Measure("dram_bytes", "min", "B", Known.CYCLES),
        Measure("joules", "min", "J", Known.ENERGY),
        Measure("watts", "min", "W", Known.ENERGY),
        Measure("edp", "min", "J s", Known.ENERGY),
        Measure("samples_per_joule", "max", "samples/s/W", Known.ENERGY),
        Measure("pes", "min", "PEs", Known.MACHINE),
        Measure("buffer_bytes", "min", "B", Known.MACHINE),
        Measure("lut", "min", "LUT sites", Known.AREA),
        Measure("ff", "min", "registers", Known.AREA),
        Measure("dsp", "min", "DSPs", Known.AREA),
        Measure("bram", "min", "block RAMs", Known.AREA),
        Measure("uram", "min", "UltraRAMs", Known.AREA),
        Measure("samples_per_second_per_lut", "max", "samples/s/LUT", Known.CYCLES, per="lut"),
        Measure("accuracy", "max", "share", Known.STUDY),
        Measure("seconds_to_target", "min", "s", Known.STUDY),
    )
}


def measure(name: str, where: str) -> Measure:
    """That of ``name``; any integer field of the machine is one too, the less the better."""
    if name in MEASURES:
        return MEASURES[name]
    rule = machine_fields().get(name)
    if rule is not None and isinstance(rule.allowed, Range):
        return Measure(name, "min", rule.unit, Known.MACHINE)
    raise InputError(f"{where} has {name!r}, which is no measure; {nearest(name, _names())}")


def _names() -> Iterable[str]:
    return [*MEASURES, *(name for name, rule in machine_fields().items() if isinstance(rule.allowed, Range))]


def sign(m: Measure) -> int:
    """What a measure is multiplied with so that less is better."""
    return 1 if m.direction == "min" else -1
