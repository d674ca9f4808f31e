"""The array on real operands: bit-exact results and exact cycles of one product (docs/design/machine.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Cycles
from ..dataflow.mapping import ArrayMapping, Dataflow
from ..workloads.errors import InputError
from .compact import Compact, compress, require_matrix
from .kernels.stce import run_os, run_ws

__all__ = ["CANONICAL_NAN", "ArrayRun", "canonical", "check_operands", "run_array"]

CANONICAL_NAN = 0x7FC00000
"""The one NaN that leaves the machine."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayRun:
    """Result and time of one product on the array.

    Of the causes, ``compute``: PE (0, 0) issues a pair, bubbles of ragged edges included; ``interleave_stall``: it
    waits for its adder; ``port_stall``: it waits for dense words, for weights or for the drain chain, the first part
    of a run aside; ``fill_drain``: everything else.
    """

    result: npt.NDArray[np.float32]
    """float32 [m, n]."""
    left: npt.NDArray[np.int64]
    """Cycle in which each result leaves the south edge; int64 [m, n]."""
    cycles: Cycles


def run_array(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: npt.NDArray[np.float16],
    b: npt.NDArray[np.float16] | Compact,
    *,
    run: int = 0,
) -> ArrayRun:
    """Step C[m, n] = A[m, k] B[k, n] through the array of ``spec``.

    ``a`` flows W2E, ``b`` N2S; a plain ``b`` is compressed to the pattern of ``mapping`` first. ``run`` is the length
    of the contraction runs that groups do not cross, 0 for that of a compact ``b`` or for ``k``. Tiles follow each
    other with the columns of C inside its rows (OS) or inside the contraction (WS).
    """
    pairs = check_operands(spec, mapping, a, b, run)
    m, n = a.shape[0], pairs.n
    result = np.empty((m, n), np.float32)
    left = np.empty((m, n), np.int64)
    cut, pe = pairs.cut, spec.pe
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here
        values, dense = pairs.values.astype(np.float32), a.astype(np.float32)
    machine = (
        spec.array.rows, spec.array.cols, mapping.interleave, pe.add_latency, spec.mac_latency, spec.array.w2e_words,
    )  # fmt: skip
    indices = np.ascontiguousarray(pairs.indices)
    if mapping.dataflow == Dataflow.OS:
        counts = run_os(
            np.ascontiguousarray(dense.T), values, indices, cut.slot_base, cut.length, cut.kept, *machine, result, left
        )
    else:
        keep, group = mapping.pattern.keep, mapping.pattern.group
        skew = (keep - 1) * max(mapping.interleave, pe.add_latency) + pe.add_latency
        counts = run_ws(
            dense, values, indices, cut.start, cut.first_slot, cut.kept, keep, mapping.interleave * group, skew,
            *machine, result, left,
        )  # fmt: skip
    total, compute, stall, port = (int(count) for count in counts)
    return ArrayRun(
        result=canonical(result),
        left=left,
        cycles=Cycles(
            compute=compute,
            interleave_stall=stall,
            port_stall=port,
            fill_drain=total - compute - stall - port,
        ),
    )


def canonical(result: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``result`` with every NaN made ``CANONICAL_NAN``, in place."""
    result.view(np.uint32)[np.isnan(result)] = CANONICAL_NAN
    return result


def check_operands(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: npt.NDArray[np.float16],
    b: npt.NDArray[np.float16] | Compact,
    run: int,
) -> Compact:
    """The N2S operand as pairs of the executed pattern, once it is sure that the machine can run the product."""
    mapping.check(spec)
    require_matrix("a", a, np.float16)
    if isinstance(b, Compact):
        if b.pattern != mapping.pattern:
            raise InputError(
                f"b holds pairs of {b.pattern}, but the mapping executes {mapping.pattern}; they must be equal"
            )
        if run not in (0, b.run):
            raise InputError(f"run is {run}, but b was compressed in runs of {b.run}; they must be equal, or run 0")
    pairs = b if isinstance(b, Compact) else compress(b, mapping.pattern, run)
    if pairs.k != a.shape[1]:
        raise InputError(f"a is {a.shape[0]} x {a.shape[1]}, but b has a contraction of {pairs.k}; they must be equal")
    return pairs
