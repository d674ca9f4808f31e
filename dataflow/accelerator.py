"""The machine: array, PE, ports, engines, buffers, memory, clock. Only independent choices are stored."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..workloads.errors import InputError, require_int
from ..workloads.sparsity import MAX_GROUP, NMPattern
from .operand import OPERAND_FORMATS, FormatName, OperandFormat

__all__ = [
    "ACCUMULATOR_BYTES", "INDEX_BYTES", "MAX_ACCUMULATORS", "OPERAND_BYTES", "AcceleratorSpec", "ArraySpec",
    "BufferSpec", "DramSpec", "PESpec", "SoreSpec", "VectorSpec", "WuveSpec",
]  # fmt: skip

OPERAND_BYTES = 2
"""Operands of either format: one word of the W2E and N2S buffers."""
INDEX_BYTES = 1
"""Room for the index of a pair in the N2S buffer."""
ACCUMULATOR_BYTES = 4
"""FP32 partial sums."""
MAX_ACCUMULATORS = 64
"""Partial sums of a PE, and so its interleave."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """``rows`` x ``cols`` PEs; each row receives ``w2e_words`` dense words a cycle at its western edge."""

    __pydantic_config__ = _STRICT
    rows: int
    cols: int
    w2e_words: int = 1

    def __post_init__(self) -> None:
        require_int("array.rows", self.rows, 1, 1024)
        require_int("array.cols", self.cols, 1, 1024)
        require_int("array.w2e_words", self.w2e_words, 1, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PESpec:
    """One multiplier, one adder, and the registers around them; latencies in cycles.

    ``accumulators`` bounds the interleave; ``dense_words`` the resident part of the dense operand (a group in OS,
    interleave x group in WS; the prefetched next part is held beside it); ``weight_pairs`` what WS holds stationary;
    ``format`` is that of the operands, sums are FP32.
    """

    __pydantic_config__ = _STRICT
    max_group: int = 16
    accumulators: int = 8
    dense_words: int = 32
    weight_pairs: int = 4
    multiply_latency: int = 2
    add_latency: int = 4
    format: FormatName = "fp16"

    def __post_init__(self) -> None:
        require_int("pe.max_group", self.max_group, 1, MAX_GROUP)
        require_int("pe.accumulators", self.accumulators, 1, MAX_ACCUMULATORS)
        require_int("pe.dense_words", self.dense_words, self.max_group, 4096)
        require_int("pe.weight_pairs", self.weight_pairs, 1, MAX_GROUP)
        require_int("pe.multiply_latency", self.multiply_latency, 1, 32)
        require_int("pe.add_latency", self.add_latency, 1, 32)
        if self.format not in OPERAND_FORMATS:
            raise InputError(f"pe.format must be 'fp16' or 'bf16', not {self.format!r}")

    @property
    def operand(self) -> OperandFormat:
        """Layout of an operand."""
        return OPERAND_FORMATS[self.format]


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferSpec:
    """On-chip buffers; each is split in two halves, one in use while the other is filled or emptied."""

    __pydantic_config__ = _STRICT
    w2e_bytes: int
    n2s_bytes: int
    output_bytes: int

    def __post_init__(self) -> None:
        for name in ("w2e_bytes", "n2s_bytes", "output_bytes"):
            require_int(f"buffers.{name}", getattr(self, name), 64, 2**40)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoreSpec:
    """Sparse online reduction engine: ``serial`` takes a value a cycle a lane, ``network`` a group a cycle a lane."""

    __pydantic_config__ = _STRICT
    lanes: int = 32
    kind: Literal["serial", "network"] = "serial"

    def __post_init__(self) -> None:
        require_int("sore.lanes", self.lanes, 1, 4096)
        if self.kind not in ("serial", "network"):
            raise InputError(f"sore.kind must be 'serial' or 'network', not {self.kind!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WuveSpec:
    """Weight-update vector engine: one parameter a cycle a lane; ``pregenerate`` puts SORE right behind it."""

    __pydantic_config__ = _STRICT
    lanes: int = 32
    pregenerate: bool = True

    def __post_init__(self) -> None:
        require_int("wuve.lanes", self.lanes, 1, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """Unit for element-wise, normalisation and softmax work: one element a cycle a lane."""

    __pydantic_config__ = _STRICT
    lanes: int = 64

    def __post_init__(self) -> None:
        require_int("vector.lanes", self.lanes, 1, 65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class DramSpec:
    """Off-chip memory as a rate: peak bytes a second of all channels, and the share a training mix reaches.

    ``capacity_bytes``: what a step may keep there; not checked where it is not given.
    """

    __pydantic_config__ = _STRICT
    kind: str
    bytes_per_second: int
    efficiency_percent: int = 100
    capacity_bytes: int | None = None

    def __post_init__(self) -> None:
        require_int("dram.bytes_per_second", self.bytes_per_second, 1_000_000, 10**15)
        require_int("dram.efficiency_percent", self.efficiency_percent, 1, 100)
        if self.capacity_bytes is not None:
            require_int("dram.capacity_bytes", self.capacity_bytes, 1, 2**60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorSpec:
    """A SAT-class N:M sparse training accelerator; hashable, so it is its own cache key. See docs/design/machine.md."""

    __pydantic_config__ = _STRICT
    name: str
    description: str = ""
    clock_hz: int
    technology: str
    array: ArraySpec
    pe: PESpec
    buffers: BufferSpec
    sore: SoreSpec
    wuve: WuveSpec
    vector: VectorSpec
    dram: DramSpec

    def __post_init__(self) -> None:
        require_int("clock_hz", self.clock_hz, 1_000, 10**11)

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates a cycle."""
        return self.array.rows * self.array.cols

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
