"""Tensors that stay in memory on chip between ops, and so never cross DRAM: chosen for a schedule, by what each saves.

A tensor is held whole or not at all, from the op that makes it to the last that reads it; weights and optimizer state
across steps. Mappings stay as they were chosen without, so no op moves more bytes or takes longer than it did. The
memory is taken to fill a buffer as fast as an engine asks (assumed: a port as wide as the buffers').
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from ..workloads.gemm import Pass
from ..workloads.operand import Operand, Role
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .accelerator import AcceleratorSpec
from .allocation import Lifetime, keep
from .beside import copy_bytes, update_bytes
from .engines import placed_on
from .operand_bytes import operand_bytes
from .placement import Placement
from .prices import Pricing, unpriced

__all__ = ["Kept", "Kind", "Residency", "Use", "resident"]

Kind = Literal["weight", "gradient", "optimizer state"]
Part = Literal["a", "b", "c", "weight", "gradient", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """DRAM bytes that op number ``op`` moves of a tensor that is not held: as operand ``part`` of a product, or as that
    tensor of an update."""

    op: int
    part: Part
    read: int = 0
    write: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A tensor of ``size`` bytes, held from op ``first`` to op ``last``, and who uses it."""

    name: str
    kind: Kind
    size: int
    first: int
    last: int
    uses: tuple[Use, ...]

    @property
    def read(self) -> int:
        """Bytes that DRAM does not read where it is held."""
        return sum(use.read for use in self.uses)

    @property
    def write(self) -> int:
        """Bytes that DRAM does not write where it is held."""
        return sum(use.write for use in self.uses)

    @property
    def saved(self) -> int:
        """Bytes that DRAM does not move where it is held."""
        return self.read + self.write

    def __str__(self) -> str:
        return f"{self.kind} of {self.name}: {self.write:,} bytes not written, {self.read:,} not read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """What stays in ``capacity`` bytes, the most saved first, and where (``offsets``); ``candidates``: what could."""

    capacity: int
    kept: tuple[Kept, ...]
    offsets: tuple[int, ...]
    candidates: tuple[Kept, ...]

    @property
    def saved(self) -> int:
        """DRAM bytes that the step moves no more."""
        return sum(one.saved for one in self.kept)

    @property
    def peak(self) -> int:
        """The most bytes in use."""
        return max((offset + one.size for offset, one in zip(self.offsets, self.kept, strict=True)), default=0)

    def turns(self) -> dict[int, set[int]]:
        """By op that is the first to use a tensor, the ops that use what lay in its place before: where ops overlap,
        it waits for them."""
        found: dict[int, set[int]] = defaultdict(set)
        placed = sorted(zip(self.kept, self.offsets, strict=True), key=lambda pair: pair[0].first)
        for i, (one, at) in enumerate(placed):
            for other, where in placed[:i]:
                if other.last < one.first and at < where + other.size and where < at + one.size:
                    found[min(use.op for use in one.uses)].update(use.op for use in other.uses)
        return found


def resident(
    workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec, pricing: Pricing = unpriced
) -> tuple[Workload, tuple[Placement | None, ...], Residency]:
    """What stays in ``buffers.resident_bytes`` of ``spec``, and the step as it then runs: ops and placements."""
    candidates = tuple(one for one in (*_trained(workload, placements, spec), *_frozen(workload, placements, spec)))
    lives = [Lifetime(name=str(i), size=c.size, first=c.first, last=c.last) for i, c in enumerate(candidates)]
    offsets = keep(lives, [c.saved for c in candidates], spec.buffers.resident_bytes)
    chosen = sorted(offsets, key=lambda i: -candidates[int(i)].saved)
    found = Residency(
        capacity=spec.buffers.resident_bytes,
        kept=tuple(candidates[int(i)] for i in chosen),
        offsets=tuple(offsets[i] for i in chosen),
        candidates=candidates,
    )
    ops, placed = list(workload.ops), list(placements)
    uses: dict[int, list[Use]] = defaultdict(list)
    for one in found.kept:
        for use in one.uses:
            uses[use.op].append(use)
    for i, of in uses.items():
        ops[i], placed[i] = _held(ops[i], placed[i], of, spec, pricing)
    return replace(workload, ops=tuple(ops)), tuple(placed), found


def _held(
    op: Op, placement: Placement | None, uses: Sequence[Use], spec: AcceleratorSpec, pricing: Pricing
) -> tuple[Op, Placement | None]:
    """An op, and its placement, with these uses of tensors on chip."""
    parts = {use.part for use in uses}
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            sides = tuple(side for side in ("a", "b", "c") if side in parts)
            mapping = replace(placement.mapping, on_chip=sides)
            found = placed_on(placement, spec).evaluate(op, mapping, pricing)
            return op, replace(found, constrained=placement.constrained, energy_pj=placement.energy_pj)
        case UpdateOp():
            return replace(op, on_chip=tuple(part for part in ("weight", "gradient", "state") if part in parts)), None
        case VectorOp():
            raise AssertionError("no vector work uses a tensor of a parameter that is held")
        case _:
            assert_never(op)


@dataclass(frozen=True, slots=True)
class _Loads:
    """The products that read weights, by parameter; ``None`` of one that somebody reads whose bytes nobody knows."""

    uses: dict[str, list[Use]]
    sizes: dict[str, dict[object, int]]
    """Bytes of every form that is read."""
    unknown: set[str]


def _loads(workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> _Loads:
    loads = _Loads(defaultdict(list), defaultdict(dict), set())
    for i, (op, placement) in enumerate(zip(workload.ops, placements, strict=True)):
        if not isinstance(op, MatrixOp) or op.parameter is None or op.pass_ is Pass.WU:
            continue
        side = next((side for side, x in _sides(op) if x.role is Role.WEIGHT), None)
        if side is None:
            continue
        read = _moved(op, placement, side, spec)
        if read is None:
            loads.unknown.add(op.parameter)
            continue
        copy = op.copy if spec.wuve.pregenerate else None
        operand = dict(_sides(op))[side]
        size = spec.pe.operand.size(operand.elements) if copy is None else copy_bytes(copy, spec.pe.operand)
        loads.uses[op.parameter].append(Use(op=i, part=side, read=read[0]))
        loads.sizes[op.parameter][copy] = size
    return loads


def _sides(op: MatrixOp) -> Sequence[tuple[Literal["a", "b"], Operand]]:
    return (("a", op.a), ("b", op.b))


def _trained(workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> list[Kept]:
    """Weights with their copies and optimizer state, across steps; gradients from product to update."""
    loads, end, found = _loads(workload, placements, spec), len(workload.ops) - 1, list[Kept]()
    made: dict[str, list[int]] = defaultdict(list)
    for i, op in enumerate(workload.ops):
        if isinstance(op, MatrixOp) and op.parameter is not None and op.pass_ is Pass.WU:
            made[op.parameter].append(i)
    for i, op in enumerate(workload.ops):
        if not isinstance(op, UpdateOp):
            continue
        b = update_bytes(op, spec, workload.rule)
        state = Use(op=i, part="state", read=b.held, write=b.held)
        found.append(Kept(name=op.name, kind="optimizer state", size=b.held, first=0, last=end, uses=(state,)))
        copies = b.dense + b.copies
        if copies and op.name not in loads.unknown:
            # Vector work may load it as well: that is not counted, so the saving is at least this.
            uses = (*loads.uses[op.name], Use(op=i, part="weight", write=copies))
            found.append(Kept(name=op.name, kind="weight", size=copies, first=0, last=end, uses=uses))
        found += _gradient(workload, placements, spec, made[op.name], i)
    return [one for one in found if one.size]


def _gradient(
    workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec, made: Sequence[int], update: int
) -> list[Kept]:
    """The gradient of a weight that one product makes: several add up where it lies, by work of its own."""
    op = workload.ops[update]
    product = workload.ops[made[0]] if len(made) == 1 else None
    if not isinstance(op, UpdateOp) or not isinstance(product, MatrixOp) or product.c.elements != op.elements:
        return []
    moved, size = _moved(product, placements[made[0]], "c", spec), update_bytes(op, spec, workload.rule).gradient
    if moved is None:
        return []
    uses = (Use(op=made[0], part="c", read=moved[0], write=moved[1]), Use(op=update, part="gradient", read=size))
    return [Kept(name=op.name, kind="gradient", size=size, first=made[0], last=update, uses=uses)]


def _frozen(workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> list[Kept]:
    """Weights that the step reads and does not train, in every form that products read: across steps."""
    loads, end = _loads(workload, placements, spec), len(workload.ops) - 1
    trained = {op.name for op in workload.ops if isinstance(op, UpdateOp)}
    return [
        Kept(name=name, kind="weight", size=sum(loads.sizes[name].values()), first=0, last=end, uses=tuple(uses))
        for name, uses in loads.uses.items()
        # One that is made of several (``a+b``) is a result of the step.
        if name not in trained | loads.unknown and "+" not in name
    ]


def _moved(
    op: MatrixOp, placement: Placement | None, side: Literal["a", "b", "c"], spec: AcceleratorSpec
) -> tuple[int, int] | None:
    """Bytes of operand ``side`` that a product reads and writes under its mapping; None on an engine of others.

    Of an operand whose compact form is kept in DRAM between its uses only the first load: the copies stay there.
    """
    assert placement is not None, "a schedule places every matrix op"
    if placement.mapping.array.kind == "outside":
        return None
    b = operand_bytes(placed_on(placement, spec).tiled(op, placement.mapping), spec)
    if side == "c":
        return b.sum_read, b.results
    return b.north if side == placement.mapping.n2s else b.west, 0
