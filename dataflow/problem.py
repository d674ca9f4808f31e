"""One op as an engine sees it, and the machine's memory around it, as numbers for the kernels of the cost model.

64 bits: a GEMM has at most 2^53 multiply-accumulates, so its cycles, bytes and groups stay below 2^61, whatever the
mapping. Only times, in 1/rate cycles, can leave 64 bits; `macro_tiles.op_totals` bounds them by `LONGEST`.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from ..workloads.errors import InputError
from ..workloads.groups import Groups
from ..workloads.operand import NMOperand, Operand
from ..workloads.step import MatrixOp
from ..workloads.unstructured import Unstructured
from .accelerator import AcceleratorSpec
from .integers import ceil_div, whole_bytes
from .jit import kernel
from .operand import BYTE, OperandFormat

__all__ = [
    "COLS",
    "CONTRACTION",
    "LONGEST",
    "NORTH",
    "NO_WINDOW",
    "OUT",
    "RATE",
    "ROWS",
    "WEST",
    "MemoryMachine",
    "Packing",
    "Problem",
    "Share",
    "Slots",
    "bound_cycles",
    "memory_machine",
    "element_bits",
    "pairs",
    "problem_as",
    "problem_of",
    "share",
    "too_long",
]

RATE = 256
"""The DRAM rate is rounded down to 1/256 byte a cycle; time is then an integer number of 1/rate cycles."""

NO_WINDOW, ROWS, CONTRACTION, COLS = 0, 1, 2, 3
"""Axis along which im2col repeats a stored tensor, as the array sees the product."""

WEST, NORTH, OUT = 1, 2, 4
"""Operands that stay on chip between ops (`residency.py`), as bits: DRAM moves none of their bytes."""

LONGEST = 2**62
"""Bound of an op's time in 1/rate cycles."""


class MemoryMachine(NamedTuple):
    """The numbers of an `AcceleratorSpec` that bound data movement; bytes of one buffer half."""

    west_half: int
    north_half: int
    out_half: int
    rate: int
    """DRAM bytes in `RATE` cycles."""
    sore_lanes: int
    sore_network: int


class Problem(NamedTuple):
    """One op as the array sees it: rows x k (W2E) times k x cols (N2S). Bytes are totals over the groups.

    ``k`` counts slots, what a PE takes one after the other: elements, or pairs of words times their ``beats``.
    """

    rows: int
    k: int
    cols: int
    groups: int
    run: int
    keep: int
    """0: dense."""
    group: int
    online: int
    west_tensor: int
    west_expanded: int
    west_window: int
    north_tensor: int
    north_expanded: int
    north_window: int
    out_tensor: int
    out_expanded: int
    out_window: int
    beats: int
    """Slots of a word; 1 where words are elements."""
    west_bits: int
    """Of one word of the W2E operand, as memory and buffer have it."""
    north_bits: int
    """Of one word of the N2S operand."""
    out_bits: int
    """Of one result in memory."""
    on_chip: int
    """Operands that stay on chip, `WEST`, `NORTH` and `OUT` added up."""


class Share(NamedTuple):
    """Bytes of one row or column of a problem; ``_cut`` where im2col must repeat it, because its window axis is cut."""

    row: int
    row_cut: int
    col: int
    """One N2S column as it comes from memory."""
    col_cut: int
    held_col: int
    """One N2S column as the buffer holds it."""
    held_col_cut: int
    out_line: int
    """Stored results of a whole row or column, where they are not one by one: col2im adds up or leaves gaps."""
    out_each: int
    """One result where lines are cut, with its part of the gaps; where it takes less than a byte, its bits alone."""
    sore_groups: int
    """N:M groups of one column that SORE reduces on the way in; 0 where it has nothing to do."""


def memory_machine(spec: AcceleratorSpec) -> MemoryMachine:
    """The spec's buffers, DRAM and SORE as numbers."""
    rate = int(spec.dram_bytes_per_cycle * RATE)
    if rate < 1:
        given = float(spec.dram_bytes_per_cycle)
        raise InputError(f"dram of {spec.name!r} gives {given:.2g} bytes a cycle, but at least 1/{RATE} is needed")
    half = spec.buffers
    return MemoryMachine(
        half.w2e_bytes // 2,
        half.n2s_bytes // 2,
        half.output_bytes // 2,
        rate,
        spec.sore.lanes,
        int(spec.sore.kind == "network"),
    )


class Packing(NamedTuple):
    """How an operand lies in memory: each ``run`` of its elements takes ``words`` words of ``bits``."""

    bits: int
    run: int = 1
    words: int = 1

    def size(self, elements: int) -> int:
        """Bytes of so many elements, whole ones."""
        return whole_bytes(ceil_div(elements, self.run) * self.words * self.bits)


class Slots(NamedTuple):
    """The contraction as the array sees it: how long it is, in runs of how much, and slots of a word."""

    k: int
    run: int
    beats: int


def element_bits(operand: Operand, word: OperandFormat) -> int:
    """Bits of an element of ``operand`` in memory: those of its levels, else of the machine's format."""
    return word.bits if operand.levels is None else operand.levels.bits


def problem_of(op: MatrixOp, n2s: str, spec: AcceleratorSpec) -> Problem:
    """``op`` element by element on ``spec``, with operand ``n2s`` ("a" or "b") flowing north to south."""
    word, g = spec.pe.operand, op.gemm
    a, b, c = (Packing(element_bits(operand, word)) for operand in (op.a, op.b, op.c))
    return problem_as(op, n2s, spec, (a, b, c), Slots(g.k, g.run, 1))


def problem_as(
    op: MatrixOp, n2s: str, spec: AcceleratorSpec, packed: tuple[Packing, Packing, Packing], slots: Slots
) -> Problem:
    """``op`` with A, B and C ``packed``, and its contraction in ``slots``.

    im2col repeats A along k, and B and C along n (workloads/trace.py); transposed, rows and columns change places. An
    operand without a pattern is packed by the engine that gathers it.
    """
    g, swap = op.gemm, n2s == "a"
    rows, cols = (g.n, g.m) if swap else (g.m, g.n)
    of_a, of_b, of_c = packed
    a = _windowed(op.a, of_a, g.groups * g.m * g.k, CONTRACTION)
    b = _windowed(op.b, of_b, g.groups * g.k * g.n, ROWS if swap else COLS)
    c = _windowed(op.c, of_c, g.groups * g.m * g.n, ROWS if swap else COLS, whole=True)
    west, north = (b, a) if swap else (a, b)
    west_bits, north_bits = (of_b.bits, of_a.bits) if swap else (of_a.bits, of_b.bits)
    match op.sparse:
        case None | Unstructured() | Groups():
            keep, group, online = 0, 1, 0
        case NMOperand(pattern=pattern):
            keep, group, online = pattern.keep, pattern.group, int(op.sparse.online or not spec.wuve.pregenerate)
        case _:
            assert_never(op.sparse)
    k, run, beats = slots
    sizes = (*west, *north, *c, beats, west_bits, north_bits, of_c.bits, 0)
    return Problem(rows, k, cols, g.groups, run, keep, group, online, *sizes)


def too_long(p: Problem) -> InputError:
    """Of an op that no mapping can time within `LONGEST`."""
    return InputError(
        f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} is too large to be timed exactly on this machine; "
        "use a smaller batch or a lower ratio of dram.bytes_per_second to clock_hz"
    )


def _windowed(
    operand: Operand, packed: Packing, elements: int, axis: int, *, whole: bool = False
) -> tuple[int, int, int]:
    """Stored bytes on the machine, bytes after im2col, and the axis along which im2col repeats.

    ``whole``: a stored tensor larger than what the product makes is zero elsewhere and written all the same, as whoever
    reads it reads all of it; of one that the product reads only what it needs is loaded.
    """
    tensor, expanded = packed.size(operand.elements), packed.size(elements)
    repeated = operand.elements < elements or (whole and operand.elements > elements)
    return (tensor, expanded, axis) if repeated else (expanded, expanded, NO_WINDOW)


@kernel
def pairs(k: int, run: int, keep: int, group: int) -> int:
    """Pairs of one column, as `NMPattern.kept`."""
    return (k // run) * ((run // group) * keep + min(keep, run % group))


@kernel
def _compact_column(p: Problem) -> int:
    """Bytes of one compact N2S column: operands and their indices."""
    bits, last = p.north_bits, p.group - 1
    while last:
        bits, last = bits + 1, last >> 1
    return whole_bytes(pairs(p.k, p.run, p.keep, p.group) * bits)


@kernel
def share(p: Problem) -> Share:
    """What one row or column of a problem weighs; parts of a byte are rounded up."""
    rows, cols = p.groups * p.rows, p.groups * p.cols
    col, col_cut = ceil_div(p.north_tensor, cols), ceil_div(p.north_expanded, cols)
    held, held_cut = col, col_cut
    if p.keep:
        held = held_cut = _compact_column(p)
        if not p.online:
            col = col_cut = held
    line = 0
    if p.out_window != NO_WINDOW:
        line = ceil_div(p.out_tensor, rows if p.out_window == COLS else cols)
    groups = (p.k // p.run) * ceil_div(p.run, p.group) if p.online else 0
    row, row_cut = ceil_div(p.west_tensor, rows), ceil_div(p.west_expanded, rows)
    each = p.out_bits
    if each >= BYTE:
        each = ceil_div(max(p.out_tensor, p.out_expanded), rows * p.cols)
    return Share(row, row_cut, col, col_cut, held, held_cut, line, each, groups)


@kernel
def bound_cycles(p: Problem, peak: int, y: MemoryMachine) -> int:
    """No mapping can be faster: ``peak`` kept products a cycle, or every operand moved once at full rate."""
    kept = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    ideal = ceil_div(p.groups * p.rows * p.cols * kept, peak)
    north = p.groups * p.cols * _compact_column(p) if p.keep and not p.online else p.north_tensor
    west = 0 if p.on_chip & WEST else p.west_tensor
    moved = west + (0 if p.on_chip & NORTH else north) + (0 if p.on_chip & OUT else p.out_tensor)
    return max(ideal, ceil_div(moved * RATE, y.rate))
