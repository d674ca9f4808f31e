"""What of a step's parameters would stay in on-chip memory beside the buffers, and the DRAM bytes that this saves.

A question about a simulated step, not a machine: mappings, and so cycles, stay what they were, which no residency can
make longer. Each tensor stays whole or not at all; what a product moves of it is read off its mapping, with reloads.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.allocation import Lifetime, keep
from ..dataflow.beside import update_bytes
from ..dataflow.engines import tiled
from ..dataflow.operand_bytes import operand_bytes
from ..simulator.result import OpResult, SimResult
from ..workloads.errors import InputError, require_int
from ..workloads.gemm import Pass
from ..workloads.operand import MAX_BYTES, Role
from ..workloads.step import MatrixOp, UpdateOp

__all__ = ["Kept", "Residency", "residency"]

Kind = Literal["weight", "gradient", "optimizer state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A parameter's tensor: its bytes on the machine, the ops from which to which it is held, what it moves of DRAM."""

    parameter: str
    kind: Kind
    size: int
    first: int
    last: int
    read: int
    write: int

    @property
    def saved(self) -> int:
        """Bytes that DRAM does not move where it is held."""
        return self.read + self.write

    def __str__(self) -> str:
        return f"{self.kind} of {self.parameter}: {self.write:,} bytes not written, {self.read:,} not read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """What stays in ``capacity`` bytes, the most saved first; ``peak``: the most bytes in use.

    ``candidates``: all that could stay. ``dram_bytes``: what the step then moves.
    """

    capacity: int
    kept: tuple[Kept, ...]
    candidates: tuple[Kept, ...]
    peak: int
    dram_bytes: int

    @property
    def saved(self) -> int:
        """DRAM bytes that the step moves no more."""
        return sum(one.saved for one in self.kept)


def residency(result: SimResult, capacity: int) -> Residency:
    """What of weights, their gradients and optimizer state stays on chip in ``capacity`` bytes beside the buffers.

    Weights, with their compact and packed copies, and optimizer state are held across steps; gradients from the product
    that makes them to their update.
    """
    require_int("bytes of on-chip memory for whole tensors", capacity, 0, MAX_BYTES)
    if capacity and not any(isinstance(one.op, UpdateOp) for one in result.ops):
        raise InputError(
            f"workload {result.workload.model!r} trains no parameter, so none can stay on chip: take a step with an "
            "optimizer, or 0 bytes"
        )
    candidates = _candidates(result)
    lives = [Lifetime(name=str(i), size=c.size, first=c.first, last=c.last) for i, c in enumerate(candidates)]
    offsets = keep(lives, [c.saved for c in candidates], capacity)
    kept = [candidates[int(i)] for i in offsets]
    return Residency(
        capacity=capacity,
        kept=tuple(sorted(kept, key=lambda one: -one.saved)),
        candidates=candidates,
        peak=max((offset + candidates[int(i)].size for i, offset in offsets.items()), default=0),
        dram_bytes=sum(one.counts.dram_bytes for one in result.ops) - sum(one.saved for one in kept),
    )


def _candidates(result: SimResult) -> tuple[Kept, ...]:
    spec, rule, end = result.spec, result.workload.rule, len(result.ops) - 1
    loaded: dict[str, int] = defaultdict(int)
    grads: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for i, one in enumerate(result.ops):
        if not isinstance(one.op, MatrixOp) or one.op.parameter is None:
            continue
        if one.op.pass_ is Pass.WU:
            grads[one.op.parameter].append((i, one.op.c.elements, _moved(one, "c", spec)[1]))
        else:
            side = next((side for side, x in (("a", one.op.a), ("b", one.op.b)) if x.role is Role.WEIGHT), None)
            loaded[one.op.parameter] += _moved(one, side, spec)[0] if side else 0
    found = []
    for i, one in enumerate(result.ops):
        op = one.op
        if not isinstance(op, UpdateOp):
            continue
        b = update_bytes(op, spec, rule)
        found.append(
            Kept(parameter=op.name, kind="optimizer state", size=b.held, first=0, last=end, read=b.held, write=b.held)
        )
        copies = b.dense + b.copies
        if copies:
            read = loaded[op.name]
            # Vector work may load it as well: that is not counted, so the saving is at least this.
            found.append(
                Kept(parameter=op.name, kind="weight", size=copies, first=0, last=end, read=read, write=copies)
            )
        made = grads.get(op.name, [])
        # Several products add up where the gradient lies, by work of its own: such a one is not held.
        if len(made) == 1 and made[0][1] == op.elements:
            first, _, stored = made[0]
            read = b.operand + _moved(result.ops[first], "c", spec)[0]
            found.append(
                Kept(parameter=op.name, kind="gradient", size=b.operand, first=first, last=i, read=read, write=stored)
            )
    return tuple(one for one in found if one.size)


def _moved(one: OpResult, side: str, spec: AcceleratorSpec) -> tuple[int, int]:
    """Bytes of operand ``side`` that a product reads and writes under its mapping.

    Of an operand whose compact form is kept in DRAM between its uses only the first load: the copies stay there.
    """
    assert isinstance(one.op, MatrixOp) and one.mapping is not None, "a simulated product has a mapping"
    b = operand_bytes(tiled(one.op, spec, one.mapping), spec)
    if side == "c":
        return b.sum_read, b.results
    return b.north if side == one.mapping.n2s else b.west, 0
