"""Schemes side by side, and where the distance between a scheme's promise and its step goes.

A scheme promises that every matrix op of a pass it thins out costs its share of the array: with 2:8 in FF and BP, a
quarter of two of three passes, hence 2.0x. The loss ledger books every cycle of the step, exactly, from there on:

- ideal: multiply-accumulates at peak, had every op of a thinned-out pass the pattern's density;
- kept dense: what the ops that stayed dense cost above that, by reason;
- short groups: the last group of a run keeps more than its share;
- ragged edges: issue slots of PEs without an output or an operand of their own;
- waits of matrix ops: by whom for, and what is bound by two at once (`waits.py`);
- the other causes that the simulator books: fill and drain, the weight update, vector work.

The same rows of the dense run stand beside them, so that what sparsity added can be told from what was there before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..simulator.result import SimResult
from ..simulator.shown import Shown
from ..workloads.errors import InputError
from ..workloads.gemm import GEMM_PASSES, Pass
from ..workloads.one_line import OneLine
from ..workloads.operand import Gathered
from ..workloads.schemes.annotate import asked_patterns
from ..workloads.schemes.scheme import SCHEMES
from ..workloads.step import MatrixOp, Workload
from ..workloads.words import named, seconds
from .bands import Joules, banded
from .declared import cycles_kind, losses_of
from .energy import energy
from .savings import Saving, saving
from .throughput import throughput
from .waits import BOTH, DRAM, INTERLEAVE, PORTS, SORE, waits
from .words import run_name

__all__ = [
    "IDEAL",
    "RAGGED",
    "SHORT_GROUPS",
    "Comparison",
    "ComparisonRow",
    "LossLedger",
    "LossRow",
    "compare",
    "ideal_macs",
    "loss_ledger",
    "losses",
    "run_labels",
]

_WAITS = {INTERLEAVE, PORTS, DRAM, SORE}
"""Those that `waits` books for ops that a mapping places on the array."""
IDEAL, SHORT_GROUPS, RAGGED = "ideal", "short groups", "ragged edges"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRow:
    """One item of the loss ledger: exact cycles of the sparse step and, for the same item, of the dense one."""

    item: str
    cycles: Fraction
    dense_cycles: Fraction


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LossLedger(OneLine):
    """Where the cycles of a sparse step go; both columns add up to the cycles of their step."""

    rows: tuple[LossRow, ...]
    speedup: float
    ideal_speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One scheme.

    ``mac_speedup``: dense over kept multiply-accumulates. ``ideal_speedup``: the same, had no layer been kept dense.
    """

    scheme: str
    pattern: str | None
    machine: str
    cycles: int
    seconds: float
    samples_per_s: float
    speedup: float
    mac_speedup: float
    ideal_speedup: float
    utilization: float
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    saving: Saving | None

    @property
    def energy(self) -> Joules:
        """Joules of the step with their band."""
        return Joules(self.energy_low_j, self.energy_j, self.energy_high_j)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Shown):
    """Runs of one model at one batch; speed-ups are in time, ``saving`` in energy, over ``baseline``."""

    results: tuple[SimResult, ...]
    baseline: SimResult
    rows: tuple[ComparisonRow, ...]

    def _said(self) -> str:
        runs = (
            f"{name} {seconds(row.seconds)}" + ("" if result is self.baseline else f" ({row.speedup:.2f}×)")
            for name, row, result in zip(run_labels(self), self.rows, self.results, strict=True)
        )
        work = self.baseline.workload
        return f"{named(work.model)}, batch {work.batch}, on {named(self.baseline.spec.name)}: {', '.join(runs)}"


def compare(results: Sequence[SimResult]) -> Comparison:
    """Put runs side by side; the first dense one is the baseline, or the first one if none is dense."""
    if not results:
        raise InputError("a comparison needs at least one result")
    for other in results[1:]:
        _require_same_step(results[0], other)
    baseline = next((r for r in results if r.workload.scheme == "dense"), results[0])
    return Comparison(
        results=tuple(results), baseline=baseline, rows=tuple(_row(result, baseline) for result in results)
    )


def run_labels(comparison: Comparison) -> list[str]:
    """Scheme and pattern of every run, with its machine where there are several."""
    several = len({row.machine for row in comparison.rows}) > 1
    return [
        run_name(result.workload) + (f" on {row.machine}" if several else "")
        for row, result in zip(comparison.rows, comparison.results, strict=True)
    ]


def _row(result: SimResult, base: SimResult) -> ComparisonRow:
    speed, work = throughput(result), result.workload
    return ComparisonRow(
        scheme=work.scheme,
        pattern=str(work.pattern) if work.pattern else None,
        machine=result.spec.name,
        cycles=result.cycles.total,
        seconds=speed.seconds,
        samples_per_s=speed.samples_per_s,
        speedup=throughput(base).seconds / speed.seconds,
        mac_speedup=_ratio(result.dense_macs, result.counts.macs),
        ideal_speedup=_ratio(result.dense_macs, ideal_macs(result)),
        utilization=speed.utilization,
        **banded(energy(result).band),
        saving=None if result is base else saving(result, base),
    )


def _ratio(dense: int, other: int | Fraction) -> float:
    return float(dense / other) if other else 1.0


def _require_same_step(one: SimResult, other: SimResult) -> None:
    a, b = one.workload, other.workload
    if (a.model, a.batch, a.input) != (b.model, b.batch, b.input) or a.dense_macs != b.dense_macs:
        raise InputError(f"only runs of one model at one batch can be compared, not {_named(a)} with {_named(b)}")


def _named(work: Workload) -> str:
    return f"{work.model!r} at batch {work.batch} ({work.input or 'input not named'})"


def _density(work: Workload, every_pass: bool = False) -> Callable[[MatrixOp], Fraction]:
    """Share of the multiply-accumulates of an op that the scheme promises to keep: in a pass that it thins out, that of
    the pattern asked for, whether the op can be sparse or not; one that was asked to be dense promises nothing."""
    # A saved run may name a scheme in a file, which only its user runs: what is thinned stands in the ops, too.
    ours, asked = SCHEMES.get(work.scheme), asked_patterns(work)
    thinned: Collection[Pass] = {op.pass_ for op in work.matrix_ops if op.sparse}
    if ours and (work.phase.trains or not ours.unstructured):
        thinned = ours.sparse
    thinned = GEMM_PASSES if every_pass else thinned

    def density(op: MatrixOp) -> Fraction:
        if isinstance(op.sparse, Gathered):
            return Fraction(op.macs, op.gemm.macs)  # a mask has no short groups
        pattern = asked(op) if op.pass_ in thinned else None
        return Fraction(1) if pattern is None else Fraction(pattern.keep, pattern.group)

    return density


def ideal_macs(result: SimResult, of: Collection[Pass] = GEMM_PASSES, *, every_pass: bool = False) -> Fraction:
    """Multiply-accumulates that the scheme promises to keep ``of`` some passes; ``every_pass``: did it thin out all."""
    density = _density(result.workload, every_pass)
    return sum((density(op) * op.gemm.macs for op in result.workload.matrix_ops if op.pass_ in of), Fraction(0))


def loss_ledger(sparse: SimResult, dense: SimResult) -> LossLedger:
    """Book every cycle of ``sparse`` between its scheme's promise and what it took, beside the same of ``dense``."""
    _require_same_step(dense, sparse)
    if sparse.spec.macs_per_cycle != dense.spec.macs_per_cycle or sparse.spec.clock_hz != dense.spec.clock_hz:
        raise InputError(
            f"a loss ledger needs arrays of one size and clock, but {sparse.spec.name!r} and {dense.spec.name!r} differ"
        )
    items, base = _items(sparse), _items(dense)
    fixed = list(dict.fromkeys(item for step in (sparse, dense) for item in losses_of(cycles_kind(step.ops)).values()))
    names = sorted({*items, *base}, key=lambda item: _order(item, fixed))
    zero = Fraction(0)
    return LossLedger(
        rows=tuple(LossRow(item=n, cycles=items.get(n, zero), dense_cycles=base.get(n, zero)) for n in names),
        speedup=dense.cycles.total / sparse.cycles.total,
        ideal_speedup=_ratio(sparse.dense_macs, ideal_macs(sparse)),
    )


def _items(result: SimResult) -> dict[str, Fraction]:
    """Cycles by item, in exact fractions; they add up to the cycles of the step."""
    density = _density(result.workload)
    items: dict[str, Fraction] = defaultdict(Fraction)
    for r in result.ops:
        if isinstance(r.op, MatrixOp):
            peak = result.peak(r)
            items[IDEAL] += density(r.op) * r.dense_macs / peak
            above = (r.counts.macs - density(r.op) * r.dense_macs) / peak
            if above:
                items[f"kept dense: {_reason(r.op)}" if r.op.sparse is None else SHORT_GROUPS] += above
            items[RAGGED] += r.cycles.compute - Fraction(r.counts.macs, peak)
    for item, cycles in losses(result).items():
        items[item] += cycles
    return items


def losses(result: SimResult) -> dict[str, int]:
    """Cycles in which the array does not compute, by whom they are waited for or what they are spent on."""
    found: dict[str, int] = dict.fromkeys(losses_of(cycles_kind(result.ops)).values(), 0)
    for r in result.ops:
        placed = r.mapping is not None
        for item, cycles in waits(r, result.spec).items() if placed else ():
            found[item] = found.get(item, 0) + cycles
        for cause, item in losses_of(type(r.cycles)).items():
            if not placed or item not in _WAITS:
                found[item] += getattr(r.cycles, cause)
    return found


def _reason(op: MatrixOp) -> str:
    """Why an op is dense; run lengths differ from layer to layer and would make a row each."""
    if op.kept_dense.startswith("contraction runs"):
        return "short contraction runs"
    return op.kept_dense.partition(": dense on ")[0] or "other"


def _order(item: str, lost: Sequence[str]) -> tuple[int, str]:
    fixed = [IDEAL, "kept dense", SHORT_GROUPS, RAGGED, *lost, BOTH]
    return fixed.index(item.partition(":")[0]), item
