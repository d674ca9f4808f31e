"""The array on real operands: bit-exact results and exact cycles of one product (docs/design/machine.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Cycles
from ..dataflow.stce.mapping import ArrayMapping, Dataflow
from ..workloads.errors import InputError
from ..workloads.one_line import OneLine
from .compact import Compact, compress, require_matrix
from .kernels.stce import Array, Operands, OsGroups, Results, Spent, WsGroups, run_os, run_ws
from .operand import Half, operand_types, sum_type
from .stalls import Bools, clocked, require_stalls

__all__ = ["CANONICAL_NAN", "ArrayRun", "canonical", "check_operands", "run_array"]

CANONICAL_NAN = 0x7FC00000
"""The one NaN that leaves the machine."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ArrayRun(OneLine):
    """Result and time of one product on the array.

    Of the causes, ``compute``: PE (0, 0) issues a pair, bubbles of ragged edges included; ``interleave_stall``: it
    waits for its adder; ``port_stall``: it waits for dense words, for weights or for the drain chain, the first part
    of a run aside; ``fill_drain``: everything else.
    """

    result: npt.NDArray[Any]
    """float32 [m, n], or int32 of INT8."""
    left: npt.NDArray[np.int64]
    """Cycle in which each result leaves the south edge, that is, in which it is taken there; int64 [m, n]."""
    cycles: Cycles
    """Array cycles."""
    stalled: int
    """Cycles in which the array stood still, because a word that had left it was not taken or it was held."""

    @property
    def length(self) -> int:
        """Clock cycles of the run."""
        return self.cycles.total + self.stalled


def run_array(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: Half,
    b: Half | Compact,
    *,
    run: int = 0,
    ready: Bools | None = None,
    hold: Bools | None = None,
) -> ArrayRun:
    """Step C[m, n] = A[m, k] B[k, n] through the array of ``spec``.

    ``a`` flows W2E, ``b`` N2S, each of an operand type of ``spec``, which FP8 has two of; a plain ``b`` is compressed
    to the pattern of ``mapping`` first. ``run`` is the length of the contraction runs that groups do not cross, 0 for
    that of a compact ``b`` or for ``k``. Tiles follow each other with the columns of C inside its rows (OS) or inside
    the contraction (WS). ``ready``, bool [cycles, array columns], says whether a word at the south edge of a column is
    taken; by default, and after its last cycle, it always is. ``hold``, bool [cycles], says whether the array must
    stand still in the cycle after; by default, and after its last cycle, it need not.
    """
    pairs = check_operands(spec, mapping, a, b, run)
    require_stalls(spec.array.cols, ready, hold)
    m, n = a.shape[0], pairs.n
    results = Results(
        np.empty((m, n), sum_type(spec.pe.format)),
        np.empty((m, n), np.int64),
        np.empty(_words_of_a_column(spec, mapping, pairs, m), np.int64),
    )
    result, left, leaves = results
    counts = _stepped(spec, mapping, a, pairs, results)
    total, compute, stall, port = (int(count) for count in counts)
    stalled = clocked(left, leaves, total, spec.array.cols, ready, hold)
    return ArrayRun(
        result=canonical(result),
        left=left,
        cycles=Cycles(
            compute=compute, interleave_stall=stall, port_stall=port, fill_drain=total - compute - stall - port
        ),
        stalled=stalled,
    )


def _stepped(spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, pairs: Compact, results: Results) -> Spent:
    """The run of the mapping's dataflow, which fills ``results``."""
    cut, pe = pairs.cut, spec.pe
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here
        values, dense = pairs.values.astype(results.out.dtype), a.astype(results.out.dtype)
    operands = Operands(np.ascontiguousarray(dense.T), values, np.ascontiguousarray(pairs.indices))
    array = Array(
        rows=spec.array.rows,
        cols=spec.array.cols,
        interleave=mapping.interleave,
        add_latency=pe.add_latency,
        mac_latency=spec.mac_latency,
        port_words=spec.array.w2e_words,
        read_latency=spec.array.read_latency,
    )
    match mapping.dataflow:
        case Dataflow.OS | Dataflow.OS1:
            groups, single = OsGroups(cut.slot_base, cut.length, cut.kept), mapping.dataflow is Dataflow.OS1
            counts: Spent = run_os(operands, groups, array, single, results)
        case Dataflow.WS:
            keep, group = mapping.pattern.keep, mapping.pattern.group
            skew = (keep - 1) * max(mapping.interleave, pe.add_latency) + pe.add_latency
            held = WsGroups(cut.start, cut.first_slot, cut.kept, keep, mapping.interleave * group)
            transposed = np.empty((pairs.n, a.shape[0]), results.out.dtype)
            counts = run_ws(operands, held, skew, array, results._replace(out=transposed))
            results.out[:] = transposed.T
        case _:
            assert_never(mapping.dataflow)
    return counts


def _words_of_a_column(spec: AcceleratorSpec, mapping: ArrayMapping, pairs: Compact, m: int) -> int:
    """Words that leave each column: those of whole tiles, with ragged edges and partial sums."""
    rows, cols, contexts = spec.array.rows, spec.array.cols, mapping.interleave
    match mapping.dataflow:
        case Dataflow.OS | Dataflow.OS1:
            return -(-m // rows) * -(-pairs.n // (cols * contexts)) * min(rows, m) * contexts
        case Dataflow.WS:
            return -(-len(pairs.cut.start) // rows) * -(-pairs.n // cols) * -(-m // contexts) * contexts
        case _:
            assert_never(mapping.dataflow)


def canonical(result: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``result``, float32 or int32 of any shape, with every NaN made ``CANONICAL_NAN``, in place."""
    if result.dtype == np.float32:
        result.view(np.uint32)[np.isnan(result)] = CANONICAL_NAN
    return result


def check_operands(spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, b: Half | Compact, run: int) -> Compact:
    """The N2S operand as pairs of the executed pattern, once it is sure that the machine can run the product.

    ``a`` [m, k] and a plain ``b`` [k, n] are of an operand type of ``spec`` each.
    """
    mapping.check(spec)
    operands = operand_types(spec.pe.format)
    require_matrix("a", a, *operands)
    if isinstance(b, Compact):
        if b.pattern != mapping.pattern:
            raise InputError(
                f"b holds pairs of {b.pattern}, but the mapping executes {mapping.pattern}; they must be equal"
            )
        if run not in (0, b.run):
            raise InputError(f"run is {run}, but b was compressed in runs of {b.run}; they must be equal, or run 0")
    pairs = b if isinstance(b, Compact) else compress(b, mapping.pattern, run)
    if pairs.values.dtype.type not in operands:
        raise InputError(f"b holds {pairs.values.dtype}, but pe.format of {spec.name!r} is {spec.pe.format!r}")
    if pairs.k != a.shape[1]:
        raise InputError(f"a is {a.shape[0]} x {a.shape[1]}, but b has a contraction of {pairs.k}; they must be equal")
    return pairs
