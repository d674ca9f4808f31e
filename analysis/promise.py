"""What a scheme promises, what its step takes, and what was lost between the two, to the cycle.

A dense step of D cycles, promised to be I times as fast, would take D / I, and each item d of its loss ledger d / I.
What the sparse step spends on an item beyond that is lost to it, s - d / I; less is won. The items of both ledgers add
up to their steps, so D / I and the losses add up to the sparse step. As a speed-up a loss is I (s - d / I) / S: these
add up to I - D / S, in whatever order they are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from ..simulator.result import SimResult
from ..workloads.gemm import GEMM_PASSES, Pass
from ..workloads.words import seconds
from .compare import IDEAL, Comparison, ideal_macs, loss_ledger, run_labels
from .declared import cycles_kind, losses_of
from .level import AnyResult, cycles_of, step_of
from .waits import BOTH, TIES

__all__ = ["Loss", "Promise", "Stage", "loss_noun", "promise", "promise_words", "promises", "stage_words", "stages"]

_OVERLAP = "ops overlapped"
_OTHER_PEAKS = "engines of other peaks"
_SMALLER = "smaller losses and gains"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Cycles that an item takes beyond its share of the promise, negative where it takes less.

    ``cause``: the cause of cycles whose colour it has; ``times``: of the speed-up.
    """

    item: str
    cause: str
    cycles: Fraction
    times: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Cycles of the dense step, with every product under the pattern, as promised, and as measured.

    ``promised`` and all ``losses`` add up to ``measured``. ``pattern``: as asked; ``left_dense``: passes that the
    scheme does not thin out.
    """

    dense: int
    thinned: Fraction
    promised: Fraction
    measured: int
    pattern: str
    left_dense: tuple[Pass, ...]
    losses: tuple[Loss, ...]

    @property
    def ideal_speedup(self) -> Fraction:
        """Times as fast as dense that was promised."""
        return self.dense / self.promised

    @property
    def speedup(self) -> Fraction:
        """Times as fast as dense that it is."""
        return Fraction(self.dense, self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A bar of the waterfall, in cycles: a whole from 0, or a step from where the bar before it ended."""

    label: str
    cause: str
    start: Fraction
    end: Fraction
    whole: bool
    times: Fraction


def promise(sparse: AnyResult, dense: AnyResult) -> Promise | None:
    """What ``sparse`` keeps of what its scheme promises over ``dense``, each in its own time; None without a promise.

    Raises: `InputError` where the two are not of one step, or on arrays of another size or clock.
    """
    step, base = step_of(sparse), step_of(dense)
    ledger = loss_ledger(step, base)
    kept = ideal_macs(step)
    if not kept or kept == step.dense_macs:
        return None
    share = kept / step.dense_macs
    measured = cycles_of(sparse)
    causes = _causes(step, base)
    lost = {row.item: row.cycles - share * row.dense_cycles for row in ledger.rows}
    lost[_OTHER_PEAKS] = lost.pop(IDEAL, Fraction(0))
    lost[_OVERLAP] = (measured - step.cycles.total) - share * (cycles_of(dense) - base.cycles.total)
    return Promise(
        dense=cycles_of(dense),
        thinned=cycles_of(dense) * ideal_macs(step, every_pass=True) / step.dense_macs,
        promised=cycles_of(dense) * share,
        measured=measured,
        pattern="N:M by layer" if step.workload.layer_patterns else str(step.workload.pattern or "N:M"),
        left_dense=tuple(p for p in GEMM_PASSES if _is_left(step, p)),
        losses=tuple(
            Loss(item=item, cause=_cause(item, causes), cycles=cycles, times=cycles / share / measured)
            for item, cycles in sorted(lost.items(), key=lambda pair: -abs(pair[1]))
            if cycles
        ),
    )


def promises(comparison: Comparison) -> dict[str, Promise]:
    """By name, of the runs that promise anything; none without a dense run, or on arrays of another size or clock."""
    dense = comparison.baseline
    size = dense.spec.macs_per_cycle, dense.spec.clock_hz
    if dense.workload.scheme != "dense":
        return {}
    made = {
        name: promise(result, dense)
        for name, result in zip(run_labels(comparison), comparison.results, strict=True)
        if result is not dense and (result.spec.macs_per_cycle, result.spec.clock_hz) == size
    }
    return {name: one for name, one in made.items() if one is not None}


def _is_left(step: SimResult, p: Pass) -> bool:
    """Whether the scheme leaves a pass dense that the pattern could thin out."""
    return ideal_macs(step, (p,)) > ideal_macs(step, (p,), every_pass=True)


def _causes(step: SimResult, base: SimResult) -> dict[str, str]:
    """The cause behind each item of a ledger that is a loss of its own."""
    found = {item: cause for one in (base, step) for cause, item in losses_of(cycles_kind(one.ops)).items()}
    ties = {name: next(found[item] for item in found if item in pair) for pair, name in TIES.items()}
    return {**found, **ties, _OVERLAP: "muted"}


def _cause(item: str, causes: dict[str, str]) -> str:
    """While an op is dense, or ends in short groups and ragged edges, the array computes."""
    return causes.get(item, "compute")


def stages(found: Promise, least: float = 0.002) -> tuple[Stage, ...]:
    """Bars from the dense step to the promise and on to the measured step, each from where the one before it ended.

    Losses and gains below ``least`` of the dense step are one bar.
    """
    small = [loss for loss in found.losses if abs(loss.cycles) < least * found.dense]
    named = [loss for loss in found.losses if loss not in small]
    if small:
        rest = sum((loss.cycles for loss in small), Fraction(0)), sum((loss.times for loss in small), Fraction(0))
        named.append(Loss(item=_SMALLER, cause="muted", cycles=rest[0], times=rest[1]))
    left = f"{', '.join(map(str, found.left_dense))} left dense" if found.left_dense else "ops left dense"
    steps = [(f"every product {found.pattern}", "compute", found.thinned - found.dense, Fraction(0))]
    if found.promised != found.thinned:
        steps.append((left, "compute", found.promised - found.thinned, Fraction(0)))
    dense, measured, zero = Fraction(found.dense), Fraction(found.measured), Fraction(0)
    return (
        Stage(label="dense", cause="muted", start=zero, end=dense, whole=True, times=zero),
        *_chained(steps, dense),
        Stage(label="promised", cause="muted", start=zero, end=found.promised, whole=True, times=zero),
        *_chained([(loss.item, loss.cause, loss.cycles, loss.times) for loss in named], found.promised),
        Stage(label="measured", cause="muted", start=zero, end=measured, whole=True, times=zero),
    )


def _chained(steps: list[tuple[str, str, Fraction, Fraction]], at: Fraction) -> Iterator[Stage]:
    for label, cause, cycles, times in steps:
        yield Stage(label=label, cause=cause, start=at, end=at + cycles, whole=False, times=times)
        at += cycles


def stage_words(stage: Stage, found: Promise, clock_hz: int) -> str:
    """What a bar says: the time and speed-up of a whole, that of all so far on the way to the promise, else its own."""
    if stage.whole:
        return f"{seconds(float(stage.end) / clock_hz)}, {float(found.dense / stage.end):.2f}×"
    if not stage.times:
        return f"{float(found.dense / stage.end):.2f}×"
    return f"{-float(stage.times):+.2f}×"


def promise_words(found: Promise, most: int = 3) -> str:
    """As ``promised 1.98×, got 1.71×: lost 0.14× to vector work, ...; won ...``; as printed the parts add up.

    Named are up to ``most`` losses and the largest gain.
    """
    promised, got = (round(100 * float(n)) for n in (found.ideal_speedup, found.speedup))
    parts = [(loss.item, round(100 * float(loss.times))) for loss in found.losses]
    parts = [*_largest(parts, 1, most), *_largest(parts, -1, 1)]
    rest = promised - got - sum(n for _, n in parts)
    parts += [("all else", rest)] if rest else []
    said = [
        f"{word} {', '.join(f'{abs(n) / 100:.2f}× {to} {loss_noun(item)}' for item, n in parts if n * sign > 0)}"
        for word, to, sign in (("lost", "to", 1), ("won", "by", -1))
        if any(n * sign > 0 for _, n in parts)
    ]
    return f"promised {promised / 100:.2f}×, got {got / 100:.2f}×" + (f": {'; '.join(said)}" if said else "")


def _largest(parts: list[tuple[str, int]], sign: int, most: int) -> list[tuple[str, int]]:
    return sorted((part for part in parts if part[1] * sign > 0), key=lambda part: -abs(part[1]))[:most]


def loss_noun(item: str) -> str:
    """An item of the loss ledger as a sentence says what is lost to."""
    kind, _, what = item.partition(": ")
    return f"waits for {what} together" if kind == BOTH else f"what is {kind} ({what})" if what else item
