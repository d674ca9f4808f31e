"""The gather engine on a real mask: exact cycles, bank conflicts and all, and bit-exact results (docs/gather.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Cycles
from ..dataflow.gather.mapping import require_gather
from ..dataflow.gather.spec import GatherSpec, line_order
from ..dataflow.gather.time import gather_cycles, ramp
from ..workloads.errors import InputError, require_int
from ..workloads.one_line import OneLine
from .kernels.gather import Lanes, Lines, Stepped, kept_rows, step_lines
from .machine.product import product
from .operand import Half, operand_types

__all__ = ["GatherRun", "run_gather", "step_mask"]

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class GatherRun(OneLine):
    """Result and time of one product, memory unlimited."""

    result: npt.NDArray[Any]
    """float32 [m, n], or int32 of INT8."""
    left: Int64
    """Cycle in which the sums of each line are there; int64 [n]."""
    cycles: Cycles
    """Of the engine; that lanes wait for banks or have no line any more is in ``compute``."""
    waited: int
    """Slots in which lanes waited for a bank, of all lanes together."""

    @property
    def length(self) -> int:
        """Clock cycles of the run."""
        return self.cycles.total


def step_mask(own: GatherSpec, kept: Bools, interleave: int = 1) -> tuple[Stepped, Int64]:
    """Slots of a mask, bool [k, n], whose lines are its columns, of which a lane holds ``interleave``; int64 [n], the
    slot that ends each line."""
    require_int("interleave", interleave, 1, own.interleave)
    if kept.ndim != 2 or kept.dtype != np.bool_ or not kept.size:
        raise InputError(f"a mask must be a bool matrix [k, n], not {kept.dtype} {list(kept.shape)}")
    lines = np.ascontiguousarray(kept.T)
    counts = np.count_nonzero(lines, axis=1).astype(np.int64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # Without banks nobody asks where an element stands.
    row, bank = np.zeros(0, np.int32), np.zeros(0, np.uint16)
    if own.banks:
        row, bank = np.empty(start[-1] + 1, np.int32), (np.arange(lines.shape[1]) % own.banks).astype(np.uint16)
        kept_rows(lines, row)
    done = np.empty(len(lines), np.int64)
    lanes = Lanes(own.lanes, own.banks, int(own.balance == "stealing"), interleave)
    stepped = step_lines(Lines(start, row, bank, line_order(own, counts)), lanes, done)
    return Stepped(*(int(count) for count in stepped)), done


def run_gather(spec: AcceleratorSpec, a: Half, b: Half, kept: Bools | None = None, *, interleave: int = 1) -> GatherRun:
    """Step C[m, n] = A[m, k] B[k, n] through the gather engine of ``spec``: the lines of B are gathered, A is dense.

    Operands have an operand type of ``spec``. ``kept``: what of ``b`` is kept, bool [k, n]; what is not zero if None.
    ``interleave``: lines that a lane holds. Sums are FP32 in the order of k, from -0.0, of what is kept alone.
    """
    own = require_gather(spec)
    for name, matrix in (("a", a), ("b", b)):
        if matrix.ndim != 2 or matrix.dtype.type not in operand_types(spec.pe.format):
            raise InputError(
                f"{name} must be a matrix of {spec.pe.format}, as pe.format of {spec.name!r} is, not {matrix.dtype} "
                f"{list(matrix.shape)}"
            )
    mask = b != 0 if kept is None else kept
    result = product(a, b, kept_b=mask)
    stepped, done = step_mask(own, mask, interleave)
    cycles = gather_cycles(spec, stepped.slots, len(a), interleave)
    each = (cycles.compute + cycles.interleave_stall) // stepped.slots
    return GatherRun(result=result, left=ramp(spec) + (done + 1) * each, cycles=cycles, waited=stepped.waited)
