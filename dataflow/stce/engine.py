"""The STCE, a systolic array of N:M sparse PEs, as an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from ...workloads.errors import InputError
from ...workloads.groups import Groups
from ...workloads.levels import needs_no_multiplier
from ...workloads.operand import Gathered, NMOperand, whole
from ...workloads.sparsity import NMPattern
from ...workloads.step import MatrixOp
from ...workloads.unstructured import Unstructured
from ..accelerator import AcceleratorSpec
from ..account import Counts, items
from ..engine_time import compares_per_group
from ..integers import ceil_div
from ..problem import NO_WINDOW, MemoryMachine, Problem, memory_machine, problem_of
from .array_engine import ArrayEngine
from .cost import Cost
from .counts import StceCounts
from .dataflows import PACES
from .mapping import ArrayMapping
from .pace import ArrayMachine, array_machine
from .search import Found
from .space import Limits
from .spec import StceSpec

__all__ = ["Stce"]


@dataclass(frozen=True, slots=True)
class Stce(ArrayEngine):
    """The array ``own`` in the machine ``spec``; an `engine.Engine`."""

    spec: AcceleratorSpec
    own: StceSpec

    @property
    def name(self) -> str:
        """As reports call it."""
        return "STCE"

    def require(self, op: MatrixOp) -> None:
        """Any product whose pattern the PEs hold."""
        match op.sparse:
            case None | Groups(expanded=True):
                pass
            case NMOperand(pattern=pattern):
                self.spec.check_pattern(pattern)
            case Unstructured() | Groups():
                raise InputError(f"operand {op.sparse.operand} of {op.name!r} is {op.sparse}; the STCE skips N:M alone")
            case _:
                assert_never(op.sparse)

    def takes(self, op: MatrixOp) -> bool:
        """Any product but one without a pattern; of one whose pattern is too long, placing it says what is wrong."""
        return whole(op.sparse) or not isinstance(op.sparse, Gathered)

    @property
    def machine(self) -> ArrayMachine:
        """The array as numbers."""
        return array_machine(self.spec)

    @property
    def memory(self) -> MemoryMachine:
        """What is around it."""
        return memory_machine(self.spec)

    @property
    def limits(self) -> Limits:
        """Registers of a PE."""
        pe = self.own.pe
        return Limits(pe.accumulators, pe.dense_words, pe.weight_pairs, pe.max_group)

    def problem(self, op: MatrixOp, n2s: str) -> Problem:
        """``op`` element by element."""
        p = problem_of(op, n2s, self.spec)
        if not isinstance(op.sparse, Groups):
            return p
        stored = op.sparse.bytes(op.gemm, self.spec.pe.operand.bits)
        bits = ceil_div(8 * stored, op.sparse.lines(op.gemm) * op.gemm.k)
        if n2s == op.sparse.operand:
            return p._replace(north_tensor=stored, north_expanded=stored, north_window=NO_WINDOW, north_bits=bits)
        return p._replace(west_tensor=stored, west_expanded=stored, west_window=NO_WINDOW, west_bits=bits)

    def mapped(self, found: Found) -> ArrayMapping:
        """The array's part of a mapping."""
        return ArrayMapping(
            dataflow=PACES[found.dataflow].dataflow,
            pattern=NMPattern(keep=found.keep, group=found.group),
            interleave=found.interleave,
        )

    def counted(self, op: MatrixOp, cost: Cost) -> Counts:
        """What ``op`` does at such a cost; where an operand is but a sign, the multiplier has nothing to do."""
        all_, sparse = cost.op.totals, op.sparse if isinstance(op.sparse, NMOperand) else None
        counts = Counts(
            macs=op.macs,
            selects=op.macs if sparse else 0,
            w2e_words=cost.moved.w2e_words,
            n2s_pairs=cost.moved.n2s_pairs,
            output_words=cost.moved.output_words,
            buffer_bytes=all_.read_bytes + all_.write_bytes,
            dram_read_bytes=all_.read_bytes,
            dram_write_bytes=all_.write_bytes,
            sore_compares=all_.sore_groups * compares_per_group(sparse.pattern, self.spec) if sparse else 0,
        )
        if not (needs_no_multiplier(op.a.levels) or needs_no_multiplier(op.b.levels)):
            return counts
        return StceCounts(**items(counts), sign_flips=op.macs)
