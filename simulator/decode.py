"""What decoding takes: a stream of steps, each by itself, without running those between the first and the last.

What does not grow is priced once. What grows is the attention of a layer, alike in all layers of a model, so one of a
kind is priced behind every context, and counts as often as it is there. The sum is that of all steps, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import joined_lanes, joined_products
from ..dataflow.engines import place
from ..dataflow.objective import Objective
from ..dataflow.prices import Pricing, unpriced
from ..dataflow.schedule import Schedule, schedule
from ..workloads.errors import InputError
from ..workloads.growth import Growth, moved
from ..workloads.one_line import OneLine
from ..workloads.step import MatrixOp, Op, VectorOp
from .memory import require_capacity
from .result import OpResult, SimResult
from .step import op_result, simulate

__all__ = ["Decoded", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decoded(OneLine):
    """Decoding on one machine. ``first``: its first step. ``parts``: what is done in all steps, with how often.
    ``by_step``: cycles of every step.
    """

    growth: Growth
    first: SimResult
    parts: tuple[tuple[OpResult, int], ...]
    by_step: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Those that are made, of all samples."""
        return self.growth.steps * self.growth.first.batch

    @property
    def cycles(self) -> int:
        """Of all steps."""
        return sum(self.by_step)

    @property
    def dram_bytes(self) -> int:
        """Read and written in all steps."""
        return sum(r.counts.dram_bytes * times for r, times in self.parts)

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.cycles / self.first.spec.clock_hz

    def _said(self) -> str:
        return f"{self.first.workload.title}: {self.tokens:,} tokens in {self.cycles:,} cycles"


_Key = tuple[tuple[Op, tuple[tuple[tuple[str, ...], int | Literal["bits"]], ...]], ...]


def decode(
    growth: Growth,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    prices: Pricing | None = None,
    chosen: Schedule | None = None,
) -> Decoded:
    """All steps of ``growth`` on ``spec``, op after op; ``chosen`` is the schedule of the first, if it is known.

    Refused where DRAM cannot hold the last of them, and where what grows is run otherwise than it was asked for.
    """
    require_capacity(growth.last, spec)
    if spec.buffers.resident_bytes:
        raise InputError(
            f"{spec.name!r} keeps tensors on chip (buffers.resident_bytes {spec.buffers.resident_bytes:,}), and which "
            "stay while the context grows is not known: ask for single steps, or 0 bytes"
        )
    found = chosen or schedule(growth.first, spec, objective, prices)
    first = simulate(found)
    for i in growth.rates:
        if found.as_run.ops[i] != growth.first.ops[i]:
            raise InputError(
                f"{growth.first.ops[i].name!r} grows with the context, and {growth.first.scheme} runs it by its size: "
                "what a stream takes is not known; ask for single steps"
            )
    groups = _groups(found.as_run.ops, set(growth.rates))
    grown = {i for group in groups for i in group}
    kinds: dict[_Key, list[tuple[int, ...]]] = {}
    for group in groups:
        kinds.setdefault(_key(growth, group), []).append(group)
    parts = [(r, growth.steps) for i, r in enumerate(first.ops) if i not in grown]
    by_step = [sum(r.cycles.total for r, _ in parts)] * growth.steps
    for key, alike in kinds.items():
        for step, made in enumerate(_stepped(key, growth, found, prices or unpriced)):
            by_step[step] += len(alike) * sum(r.cycles.total for r in made)
            parts += [(r, len(alike)) for r in made]
    return Decoded(growth=growth, first=first, parts=tuple(parts), by_step=tuple(by_step))


def _groups(ops: Sequence[Op], grows: set[int]) -> list[tuple[int, ...]]:
    """Ops that are priced together, with at least one that grows: a product and what is joined to it, or one alone."""
    behind = joined_products(ops)
    groups: dict[int, list[int]] = {}
    for i in range(len(ops)):
        groups.setdefault(behind[i].product if i in behind else i, []).append(i)
    return [tuple(group) for group in groups.values() if not grows.isdisjoint(group)]


def _key(growth: Growth, group: Sequence[int]) -> _Key:
    """What groups that cost the same have in common: all but where they are."""
    return tuple((_nameless(growth.first.ops[i]), tuple(growth.rates.get(i, {}).items())) for i in group)


def _nameless(op: Op) -> Op:
    if isinstance(op, VectorOp) and op.joined is not None:
        return replace(op, name="", joined=replace(op.joined, name=""))
    return replace(op, name="")


def _stepped(key: _Key, growth: Growth, chosen: Schedule, prices: Pricing) -> list[list[OpResult]]:
    """The ops of one kind of group, in every step."""
    spec, rule = chosen.spec, chosen.workload.rule
    found = []
    for step in range(growth.steps):
        ops = [moved(op, dict(rates), step) for op, rates in key]
        placements = [place(op, spec, chosen.objective, prices) if isinstance(op, MatrixOp) else None for op in ops]
        lanes = joined_lanes(ops, placements, spec)
        found.append(
            [
                op_result(op, at, spec, rule, lanes.get(i))
                for i, (op, at) in enumerate(zip(ops, placements, strict=True))
            ]
        )
    return found
