"""The machine: array, PE, ports, engines, buffers, memory, clock. Only independent choices are stored."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from ..workloads.errors import InputError
from ..workloads.sparsity import NMPattern
from .gather.spec import GatherSpec
from .ranges import Range, require_ranges
from .stce.spec import ArraySpec, PESpec, StceSpec
from .tree_spec import TreeSpec
from .xnor.spec import XnorSpec

__all__ = [
    "AcceleratorSpec",
    "ArrayKind",
    "BufferSpec",
    "DramSpec",
    "EngineKind",
    "EngineSpec",
    "SoreSpec",
    "VectorSpec",
    "WuveSpec",
]

EngineKind = Literal["stce", "xnor", "gather", "outside"]
ArrayKind = StceSpec | XnorSpec
"""Systolic arrays."""
EngineSpec = ArrayKind | GatherSpec
"""The kinds of engine that a machine may have; each names itself by ``kind``."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferSpec:
    """On-chip buffers; each is split in two halves, one in use while the other is filled or emptied.

    ``resident_bytes``: one more memory, for whole tensors between ops (`residency.py`).
    """

    __pydantic_config__ = _STRICT
    w2e_bytes: Annotated[int, Range(64, 2**40, "bytes")]
    n2s_bytes: Annotated[int, Range(64, 2**40, "bytes")]
    output_bytes: Annotated[int, Range(64, 2**40, "bytes")]
    resident_bytes: Annotated[int, Range(0, 2**40, "bytes"), Field(exclude_if=lambda size: not size)] = 0

    def __post_init__(self) -> None:
        require_ranges(self, "buffers")


@dataclass(frozen=True, slots=True, kw_only=True)
class SoreSpec:
    """Sparse online reduction engine: ``serial`` takes a value a cycle a lane, ``network`` a group a cycle a lane."""

    __pydantic_config__ = _STRICT
    lanes: Annotated[int, Range(1, 4096, "lanes")] = 32
    kind: Literal["serial", "network"] = "serial"

    def __post_init__(self) -> None:
        require_ranges(self, "sore")


@dataclass(frozen=True, slots=True, kw_only=True)
class WuveSpec:
    """Weight-update vector engine: one parameter a cycle a lane; ``pregenerate`` puts SORE right behind it."""

    __pydantic_config__ = _STRICT
    lanes: Annotated[int, Range(1, 4096, "lanes")] = 32
    pregenerate: bool = True

    def __post_init__(self) -> None:
        require_ranges(self, "wuve")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """Unit for element-wise, normalisation and softmax work: one element a cycle a lane."""

    __pydantic_config__ = _STRICT
    lanes: Annotated[int, Range(1, 65536, "lanes")] = 64

    def __post_init__(self) -> None:
        require_ranges(self, "vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class DramSpec:
    """Off-chip memory as a rate: peak bytes a second of all channels, and the share a training mix reaches.

    ``capacity_bytes``: what a step may keep there; not checked where it is not given.
    """

    __pydantic_config__ = _STRICT
    kind: str
    bytes_per_second: Annotated[int, Range(1_000_000, 10**15, "bytes a second")]
    efficiency_percent: Annotated[int, Range(1, 100, "%")] = 100
    capacity_bytes: Annotated[int, Range(1, 2**60, "bytes")] | None = None

    def __post_init__(self) -> None:
        require_ranges(self, "dram")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorSpec:
    """A SAT-class N:M sparse training accelerator; hashable, so it is its own cache key. See docs/design/machine.md."""

    __pydantic_config__ = _STRICT
    name: str
    description: str = ""
    clock_hz: Annotated[int, Range(1_000, 10**11, "Hz")]
    technology: str
    array: ArraySpec
    pe: PESpec
    buffers: BufferSpec
    sore: SoreSpec
    wuve: WuveSpec
    vector: VectorSpec
    dram: DramSpec
    xnor: Annotated[XnorSpec | None, Field(exclude_if=lambda own: own is None)] = None
    gather: Annotated[GatherSpec | None, Field(exclude_if=lambda own: own is None)] = None
    tree: Annotated[TreeSpec | None, Field(exclude_if=lambda own: own is None)] = None

    def __post_init__(self) -> None:
        require_ranges(self, "")

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        """What works on products."""
        stce = StceSpec(array=self.array, pe=self.pe)
        return (stce, *(own for own in (self.xnor, self.gather) if own is not None))

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates a cycle, of all engines."""
        return sum(engine.peak for engine in self.engines)

    @property
    def dram_bytes_per_cycle(self) -> Fraction:
        """Achievable DRAM bytes in one clock cycle, exact."""
        return Fraction(self.dram.bytes_per_second * self.dram.efficiency_percent, 100 * self.clock_hz)

    @property
    def mac_latency(self) -> int:
        """Cycles from the issue of a multiply to its sum in the accumulator."""
        return self.pe.multiply_latency + self.pe.add_latency

    def check_pattern(self, pattern: NMPattern) -> None:
        """Refuse a pattern whose group the PEs cannot hold."""
        if pattern.group > self.pe.max_group:
            raise InputError(
                f"pattern {pattern} has groups of {pattern.group}, but pe.max_group of {self.name!r} is "
                f"{self.pe.max_group}; use a group of at most {self.pe.max_group} or a machine with a larger one"
            )
