"""What of a machine can be grown by itself: DRAM bandwidth, buffers, the array. How, and how far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import assert_never

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.ranges import Range, field_rules
from ..workloads.errors import require_choice

__all__ = ["SPLITS", "Resource", "Scale", "Setting", "own_scale", "shapes", "splits"]

Setting = tuple[int, ...]
"""The fields of a resource: bytes a second; bytes of W2E, N2S and output buffer; rows and columns."""
SPLITS = 16
"""Parts that a total of buffers is split by."""


class Resource(StrEnum):
    """A resource, by the name that it is asked for."""

    DRAM = "dram"
    BUFFERS = "buffers"
    ARRAY = "array"

    @classmethod
    def named(cls, text: Resource | str) -> Resource:
        """The one of that name; refuses any other."""
        return cls(require_choice("resource", text, tuple(cls)))

    @property
    def paths(self) -> tuple[str, ...]:
        """Its fields of the machine."""
        match self:
            case Resource.DRAM:
                return ("dram.bytes_per_second",)
            case Resource.BUFFERS:
                return ("buffers.w2e_bytes", "buffers.n2s_bytes", "buffers.output_bytes")
            case Resource.ARRAY:
                return ("array.rows", "array.cols")
            case _:
                assert_never(self)

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        match self:
            case Resource.DRAM:
                return "DRAM"
            case Resource.BUFFERS:
                return "buffers"
            case Resource.ARRAY:
                return "array"
            case _:
                assert_never(self)

    @property
    def unit(self) -> str:
        """Of its size."""
        match self:
            case Resource.DRAM:
                return "B/s"
            case Resource.BUFFERS:
                return "B"
            case Resource.ARRAY:
                return "PEs"
            case _:
                assert_never(self)

    def amount(self, size: int) -> str:
        """A size with its unit, four digits of a long one."""
        match self:
            case Resource.DRAM:
                return _prefixed(size, 1000, self.unit, ("", "k", "M", "G", "T", "P"))
            case Resource.BUFFERS:
                return _prefixed(size, 1024, self.unit, ("", "Ki", "Mi", "Gi", "Ti"))
            case Resource.ARRAY:
                return f"{size:,} {self.unit}"
            case _:
                assert_never(self)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What its fields may be."""
        allowed = {rule.path: rule.allowed for rule in field_rules(AcceleratorSpec)}
        found = tuple(allowed[path] for path in self.paths)
        return tuple(each for each in found if isinstance(each, Range))

    def size(self, setting: Setting) -> int:
        """How much of it that is, in its unit."""
        return prod(setting) if self is Resource.ARRAY else sum(setting)

    def of(self, spec: AcceleratorSpec) -> Setting:
        """What ``spec`` has."""
        match self:
            case Resource.DRAM:
                return (spec.dram.bytes_per_second,)
            case Resource.BUFFERS:
                return (spec.buffers.w2e_bytes, spec.buffers.n2s_bytes, spec.buffers.output_bytes)
            case Resource.ARRAY:
                return (spec.array.rows, spec.array.cols)
            case _:
                assert_never(self)

    def machine(self, spec: AcceleratorSpec, setting: Setting) -> AcceleratorSpec:
        """``spec`` with that much of it, everything else as it is."""
        match self:
            case Resource.DRAM:
                return replace(spec, dram=replace(spec.dram, bytes_per_second=setting[0]))
            case Resource.BUFFERS:
                w2e, n2s, output = setting
                return replace(spec, buffers=replace(spec.buffers, w2e_bytes=w2e, n2s_bytes=n2s, output_bytes=output))
            case Resource.ARRAY:
                return replace(spec, array=replace(spec.array, rows=setting[0], cols=setting[1]))
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A total shared out by ``parts``, each rounded down, so that no field shrinks as the total grows."""

    parts: tuple[int, ...]
    ranges: tuple[Range, ...]

    def at(self, total: int) -> Setting:
        """The fields at a total."""
        return tuple(total * part // sum(self.parts) for part in self.parts)

    @property
    def least(self) -> int:
        """The smallest total of which every field may be."""
        whole = sum(self.parts)
        return max(-(-field.least * whole // part) for part, field in zip(self.parts, self.ranges, strict=True))

    @property
    def most(self) -> int:
        """The largest."""
        whole = sum(self.parts)
        return min(((field.most + 1) * whole - 1) // part for part, field in zip(self.parts, self.ranges, strict=True))


def _prefixed(size: int, base: int, unit: str, prefixes: tuple[str, ...]) -> str:
    power = next((n for n, _ in enumerate(prefixes) if size < base ** (n + 1)), len(prefixes) - 1)
    return f"{size / base**power:.4g} {prefixes[power]}{unit}"


def own_scale(resource: Resource, spec: AcceleratorSpec) -> Scale:
    """Growing in the proportions that ``spec`` has."""
    return Scale(parts=resource.of(spec), ranges=resource.ranges)


def splits(spec: AcceleratorSpec) -> tuple[Scale, ...]:
    """The buffers' total by whole sixteenths, every one of `SPLITS` given to some buffer and none without; and as
    ``spec`` has it."""
    ranges = Resource.BUFFERS.ranges
    parts = [(w, n, SPLITS - w - n) for w in range(1, SPLITS - 1) for n in range(1, SPLITS - w)]
    return (own_scale(Resource.BUFFERS, spec), *(Scale(parts=each, ranges=ranges) for each in parts))


def shapes() -> tuple[tuple[Setting, ...], tuple[Setting, ...]]:
    """Arrays that are tried: all squares, and all with powers of two for rows and columns."""
    rows, cols = Resource.ARRAY.ranges
    squares = tuple((n, n) for n in range(max(rows.least, cols.least), min(rows.most, cols.most) + 1))
    return squares, tuple((r, c) for r in _powers(rows) for c in _powers(cols))


def _powers(within: Range) -> Iterator[int]:
    return (1 << n for n in range(within.most.bit_length()) if within.least <= 1 << n <= within.most)
