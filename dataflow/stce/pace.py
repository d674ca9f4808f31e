"""What a dataflow is to the cost model: closed forms over the numbers of an array, one object a dataflow.

docs/design/machine.md derives the forms; `simulator/array.py` steps the same contract, the tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ...workloads.sparsity import NMPattern
from ..accelerator import AcceleratorSpec
from ..operand import INDEX_BITS
from ..problem import Problem
from .mapping import Dataflow, Registers

__all__ = ["ArrayMachine", "Executed", "Pace", "Tiling", "Words", "array_machine"]


class ArrayMachine(NamedTuple):
    """The numbers of an `AcceleratorSpec` that bound the array: size, W2E words a cycle, latencies, widths."""

    R: int
    C: int
    w: int
    Lm: int
    La: int
    word_bits: int
    """Of an operand."""
    sum_bits: int
    """Of a partial sum."""
    index_bits: int
    """Room for the index of a pair that streams through the N2S buffer."""
    Lr: int
    """Cycles from an ask to the answer of a bank."""


class Tiling(NamedTuple):
    """How one dataflow cuts and paces a product of k; constant over an op."""

    dataflow: int
    """Its place in `dataflows.PACES`."""
    keep: int
    group: int
    interleave: int
    J: int
    """Cycles of one pair for all interleaved outputs."""
    slots: int
    """OS: pairs of one output. WS: k-tiles."""
    L: int
    """OS: issue time of a tile. WS: distance of batches B."""
    bare: int
    """OS: L without the wait for the next tile's operands. WS: skew of a row s."""
    first: int
    """Load that nothing hides."""
    P: int
    """OS: distance of tiles. WS: 0, it depends on the rows that stream (`distance`)."""
    drain: int
    """OS: words a column drains from a tile."""


class Executed(Protocol):
    """Of a mapping: what the closed forms go by."""

    @property
    def dataflow(self) -> Dataflow: ...
    @property
    def pattern(self) -> NMPattern: ...
    @property
    def interleave(self) -> int: ...


class Words(NamedTuple):
    """Buffer accesses of the array."""

    w2e_words: int
    n2s_pairs: int
    output_words: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pace:
    """Closed forms of one dataflow, all of them compiled kernels; R rows x C columns of PEs."""

    dataflow: Dataflow
    registers: Callable[[int, int, int], Registers]
    """(keep, group, interleave): what a PE holds."""
    widest: Callable[[int, int], int]
    """(most pairs, largest group): the most words of a dense operand that are taken as one group."""
    unit: Callable[[ArrayMachine, int], tuple[int, int]]
    """(array, interleave): rows and columns of an array tile."""
    tiling: Callable[[ArrayMachine, int, int, int, int, int, int, int], Tiling]
    """(array, number of this dataflow, keep, group, interleave, rows, k, run): the pace of a product."""
    row_work: Callable[[ArrayMachine, Tiling, int], int]
    """What so many rows mean to the array."""
    col_work: Callable[[ArrayMachine, Tiling, int], int]
    """What so many columns mean to it."""
    issue: Callable[[ArrayMachine, Tiling, int, int], int]
    """(row work, column work): steady-state time of a block, the distance to whatever the array does next."""
    ramp: Callable[[ArrayMachine, Tiling, int, int], int]
    """(rows, columns) of the last macro-tile: what a whole run takes beyond its issue cycles."""
    port: Callable[[ArrayMachine, Tiling, int, int, int], int]
    """(rows, columns, groups): of a product without memory limits, the cycles in which the array waits for its edges
    between its first multiply and its last."""
    pairs: Callable[[Tiling], int]
    """Pairs that a PE multiplies for one array tile."""
    words: Callable[[Problem, ArrayMachine, Tiling, int], Words]
    """(problem, array, pace, rows of a macro-tile): buffer accesses."""
    chunk: Callable[[ArrayMachine, Tiling], int]
    """Words of k that a streamed operand is brought in at a time."""
    searched: bool
    """A search takes it unasked."""
    stays: bool
    """Partial sums stay in the PEs: a streamed contraction serves one array tile at a time. Otherwise they go to and
    from the output buffer."""


def array_machine(spec: AcceleratorSpec) -> ArrayMachine:
    """The spec's array as numbers."""
    word = spec.pe.operand
    return ArrayMachine(
        spec.array.rows,
        spec.array.cols,
        spec.array.w2e_words,
        spec.pe.multiply_latency,
        spec.pe.add_latency,
        word.bits,
        word.accumulator.bits,
        INDEX_BITS,
        spec.array.read_latency,
    )
