"""The XNOR engine: products of operands with levels, on the array's closed forms over words of the contraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from ...workloads.errors import InputError
from ...workloads.levels import Levels
from ...workloads.operand import Operand
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec
from ..account import Counts
from ..problem import MemoryMachine, Packing, Problem, Slots, memory_machine, problem_as
from ..stce.array_engine import ArrayEngine
from ..stce.cost import Cost
from ..stce.dataflows import PACES
from ..stce.pace import ArrayMachine
from ..stce.search import Found
from ..stce.space import Limits
from .counts import XnorCounts
from .mapping import XnorMapping
from .spec import SUM_BITS, XnorSpec
from .time import xnor_machine
from .words import Words, require_exact, words_of

__all__ = ["Xnor", "result_bits"]

MOST_BIT_BEATS = 2**56
"""Slots times bits of a word over all outputs, so that cycles and bytes stay within 64 bits (`problem.py`)."""


@dataclass(frozen=True, slots=True)
class Xnor(ArrayEngine):
    """The engine ``own`` of the machine ``spec``; an `engine.Engine`."""

    spec: AcceleratorSpec
    own: XnorSpec

    @property
    def name(self) -> str:
        """As reports call it."""
        return "XNOR"

    def require(self, op: MatrixOp) -> None:
        """Products of two dense operands with levels, whose sums 32 bits hold."""
        where = f"{op.name!r} in {op.pass_} cannot run on the XNOR engine of {self.spec.name!r}"
        a, b = _levels(op, where)
        if op.sparse is not None:
            raise InputError(f"{where}: its operand {op.sparse.operand} is {op.sparse}, and words are dense")
        try:
            require_exact(op.gemm.k, a, b)
            result_bits(op.c, self.spec)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        g, slots = op.gemm, self._words(op).slots
        if (work := g.groups * g.m * g.n * slots * self.own.word_bits) > MOST_BIT_BEATS:
            raise InputError(f"{where}: {work} bits compared, padding included, are above the limit of 2^56")

    @property
    def machine(self) -> ArrayMachine:
        """The array as numbers."""
        return xnor_machine(self.own)

    @property
    def memory(self) -> MemoryMachine:
        """What is around it."""
        return memory_machine(self.spec)

    @property
    def limits(self) -> Limits:
        """Registers of an element; what stays in WS is bounded by its words alone."""
        own = self.own
        return Limits(own.accumulators, own.dense_words, own.weight_words, own.weight_words)

    def _words(self, op: MatrixOp) -> Words:
        a, b = _levels(op, op.name)
        return words_of(op.gemm, a, b, self.own.word_bits)

    def problem(self, op: MatrixOp, n2s: str) -> Problem:
        """``op`` word by word."""
        words, wide = self._words(op), self.own.word_bits
        a, b = (Packing(wide * levels.bits, op.gemm.run, words.run) for levels in _levels(op, op.name))
        out = Packing(result_bits(op.c, self.spec))
        return problem_as(op, n2s, self.spec, (a, b, out), Slots(words.slots, words.slots, words.beats))

    def mapped(self, found: Found) -> XnorMapping:
        """The engine's part of a mapping."""
        return XnorMapping(dataflow=PACES[found.dataflow].dataflow, interleave=found.interleave, group=found.group)

    def counted(self, op: MatrixOp, cost: Cost) -> Counts:
        """What ``op`` does at such a cost."""
        all_, g = cost.op.totals, op.gemm
        return XnorCounts(
            macs=op.macs,
            w2e_words=cost.moved.w2e_words,
            n2s_pairs=cost.moved.n2s_pairs,
            output_words=cost.moved.output_words,
            buffer_bytes=all_.read_bytes + all_.write_bytes,
            dram_read_bytes=all_.read_bytes,
            dram_write_bytes=all_.write_bytes,
            popcounts=g.groups * g.m * g.n * self._words(op).slots,
        )


def _levels(op: MatrixOp, where: str) -> tuple[Levels, Levels]:
    a, b = op.a.levels, op.b.levels
    if a is None or b is None:
        side, operand = ("a", op.a) if a is None else ("b", op.b)
        raise InputError(f"{where}: its operand {side} is {operand.dtype} without levels, and it counts bits")
    return a, b


def result_bits(c: Operand, spec: AcceleratorSpec) -> int:
    """Bits of a result in memory, by what the edge makes of a sum: a sign, itself, or a number of the machine."""
    match c.levels:
        case None:
            return SUM_BITS if c.dtype == "int32" else spec.pe.operand.bits
        case Levels.BINARY | Levels.SPIKE:
            return c.levels.bits
        case Levels():
            raise InputError(f"its result is {c.levels}, but a threshold makes one bit; give it two levels, or none")
        case _:
            assert_never(c.levels)
