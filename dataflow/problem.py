"""One op as an engine sees it, and the machine's memory around it, as numbers for the kernels of the cost model.

64 bits: a GEMM has at most 2^53 multiply-accumulates, so its cycles, bytes and groups stay below 2^61, whatever the
mapping. Only times, in 1/rate cycles, can leave 64 bits; `macro_tiles.op_totals` bounds them by `LONGEST`.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from ..workloads.errors import InputError
from ..workloads.operand import NMOperand, Operand
from ..workloads.step import MatrixOp
from .accelerator import AcceleratorSpec
from .integers import ceil_div, whole_bytes
from .jit import kernel
from .operand import INDEX_BITS, OperandFormat

__all__ = [
    "COLS",
    "CONTRACTION",
    "LONGEST",
    "NO_WINDOW",
    "RATE",
    "ROWS",
    "MemoryMachine",
    "Problem",
    "Share",
    "bound_cycles",
    "memory_machine",
    "pairs",
    "problem_of",
    "share",
    "too_long",
]

RATE = 256
"""The DRAM rate is rounded down to 1/256 byte a cycle; time is then an integer number of 1/rate cycles."""

NO_WINDOW, ROWS, CONTRACTION, COLS = 0, 1, 2, 3
"""Axis along which im2col repeats a stored tensor, as the array sees the product."""

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
    index_bits: int
    """Room for the index of a pair that streams through the N2S buffer."""


class Problem(NamedTuple):
    """One op as the array sees it: rows x k (W2E) times k x cols (N2S). Bytes are totals over the groups."""

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
    word_bits: int
    """Of one operand, which is what all three are made of in memory."""


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
    """One result where lines are cut, with its part of the gaps."""
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
        INDEX_BITS,
    )


def problem_of(op: MatrixOp, n2s: str, spec: AcceleratorSpec) -> Problem:
    """``op`` on ``spec``, with operand ``n2s`` ("a" or "b") flowing north to south.

    im2col repeats A along k, and B and C along n (workloads/trace.py); transposed, rows and columns change places.
    """
    g, word = op.gemm, spec.pe.operand
    swap = n2s == "a"
    rows, cols = (g.n, g.m) if swap else (g.m, g.n)
    a = _windowed(op.a, word, g.groups * g.m * g.k, CONTRACTION)
    b = _windowed(op.b, word, g.groups * g.k * g.n, ROWS if swap else COLS)
    c = _windowed(op.c, word, g.groups * g.m * g.n, ROWS if swap else COLS, whole=True)
    west, north = (b, a) if swap else (a, b)
    match op.sparse:
        case None:
            keep, group, online = 0, 1, 0
        case NMOperand(pattern=pattern):
            keep, group, online = pattern.keep, pattern.group, int(op.sparse.online or not spec.wuve.pregenerate)
        case _:
            assert_never(op.sparse)
    return Problem(rows, g.k, cols, g.groups, g.run, keep, group, online, *west, *north, *c, word.bits)


def too_long(p: Problem) -> InputError:
    """Of an op that no mapping can time within `LONGEST`."""
    return InputError(
        f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} is too large to be timed exactly on this machine; "
        "use a smaller batch or a lower ratio of dram.bytes_per_second to clock_hz"
    )


def _windowed(
    operand: Operand, word: OperandFormat, elements: int, axis: int, *, whole: bool = False
) -> tuple[int, int, int]:
    """Stored bytes in the machine's format, bytes after im2col, and the axis along which im2col repeats.

    ``whole``: a stored tensor larger than what the product makes is zero elsewhere and written all the same, as whoever
    reads it reads all of it; of one that the product reads only what it needs is loaded.
    """
    tensor, expanded = word.size(operand.elements), word.size(elements)
    repeated = tensor < expanded or (whole and tensor > expanded)
    return (tensor, expanded, axis) if repeated else (expanded, expanded, NO_WINDOW)


@kernel
def pairs(k: int, run: int, keep: int, group: int) -> int:
    """Pairs of one column, as `NMPattern.kept`."""
    return (k // run) * ((run // group) * keep + min(keep, run % group))


@kernel
def _compact_column(p: Problem) -> int:
    """Bytes of one compact N2S column: operands and their indices."""
    bits, last = p.word_bits, p.group - 1
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
    each = ceil_div(max(p.out_tensor, p.out_expanded), rows * p.cols)
    return Share(row, row_cut, col, col_cut, held, held_cut, line, each, groups)


@kernel
def bound_cycles(p: Problem, peak: int, y: MemoryMachine) -> int:
    """No mapping can be faster: ``peak`` kept products a cycle, or every operand moved once at full rate."""
    kept = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    ideal = ceil_div(p.groups * p.rows * p.cols * kept, peak)
    north = p.groups * p.cols * _compact_column(p) if p.keep and not p.online else p.north_tensor
    return max(ideal, ceil_div((p.west_tensor + north + p.out_tensor) * RATE, y.rate))
