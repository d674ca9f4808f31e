"""Where the tensors of a step lie in DRAM: a region each, placed first fit while they are needed.

An assumption, since nothing of a training framework's allocator is known here:

- A parameter has a region for each form that the step has of it: FP32 master weight and optimizer state; gradient,
  copy and compact copies in operands, packed copies and scales. They, what FF makes and what no op makes are there for
  the whole step. Scales and moments of the rows of a layer have one region, however often it is used.
- The result of any other op is there from that op to the last one that reads it.
- An operand is where the op before it that it waits for (``Workload.after``) put a result of its size, in FF for an
  activation and in BP for a gradient; what none of them made lies in a region of its own.
- Regions begin at multiples of `PAGE`; those of the whole step come first, in the order of their use.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import assert_never

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import Behind, copies_made, copy_bytes, dense_bytes, joined_products, machine_bytes, vector_work
from ..dataflow.engines import tiled
from ..dataflow.integers import whole_bytes
from ..dataflow.operand import FP32, OperandFormat
from ..dataflow.packing import packed_operand
from ..dataflow.schedule import Schedule
from ..workloads.copies import CompactCopy, PackedCopy
from ..workloads.gemm import Pass
from ..workloads.groups import Groups
from ..workloads.operand import Gathered, NMOperand, Operand, Role
from ..workloads.schemes.annotate import copy_key
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp
from ..workloads.unstructured import Unstructured

__all__ = ["PAGE", "OpRegions", "Region", "compact_bytes", "lay_out"]

PAGE = 4096


@dataclass(slots=True, eq=False)
class Region:
    """``size`` bytes from ``address`` on, needed from op ``first`` to op ``last`` of the step."""

    name: str
    size: int
    first: int
    last: int
    address: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRegions:
    """What one op touches: operands and result of a product, with the compact copy that it makes and reads again; of
    other work the bytes that it reads and writes, region by region."""

    a: Region | None = None
    b: Region | None = None
    c: Region | None = None
    compact: Region | None = None
    reads: tuple[tuple[Region, int], ...] = ()
    writes: tuple[tuple[Region, int], ...] = ()


@dataclass
class _Plan:
    schedule: Schedule
    regions: list[Region] = field(default_factory=list)
    named: dict[tuple[object, ...], Region] = field(default_factory=dict)
    results: dict[int, Region] = field(default_factory=dict)
    read_copies: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    packed: dict[tuple[int, tuple[object, ...]], Region] = field(default_factory=dict)
    """By op that packed a tensor of the step, and by form."""

    @property
    def end(self) -> int:
        return len(self.schedule.as_run.ops) - 1

    @property
    def word(self) -> OperandFormat:
        return self.schedule.spec.pe.operand

    def new(self, name: str, size: int, first: int, last: int) -> Region:
        region = Region(name, max(size, 1), first, last)
        self.regions.append(region)
        return region

    def kept(self, key: tuple[object, ...], name: str, size: int) -> Region:
        """The region of ``key``, there for the whole step."""
        if key not in self.named:
            self.named[key] = self.new(name, size, 0, self.end)
        self.named[key].size = max(self.named[key].size, size)
        return self.named[key]

    def made(self, i: int, name: str, size: int, pass_: Pass) -> Region:
        """The result of op ``i``."""
        first, last = (0, self.end) if pass_ is Pass.FF else (i, i)
        self.results[i] = self.new(f"{name} {pass_} result", size, first, last)
        return self.results[i]

    def read(self, region: Region, i: int) -> Region:
        region.last = max(region.last, i)
        return region

    def sources(self, i: int) -> Iterable[int]:
        """Ops before that op ``i`` waits for, the latest first."""
        after = self.schedule.workload.after
        return reversed(after[i]) if after else ()

    def operand(self, i: int, op: MatrixOp, side: str, taken: Region | None) -> Region:
        operand: Operand = getattr(op, side)
        size = self.word.size(operand.elements)
        if operand.levels is not None and not (op.sparse is not None and op.sparse.operand == side):
            return self.packed_of(i, op, operand)
        if operand.role is Role.WEIGHT and op.parameter is not None:
            if isinstance(op.sparse, Gathered) and not op.sparse.online:
                return self.compact_of(op.parameter, op)
            copy = op.copy if self.schedule.spec.wuve.pregenerate else None
            return self.copy_of(op.parameter, size) if copy is None else self.compact_of(op.parameter, op)
        wanted = Pass.BP if operand.role is Role.GRADIENT else Pass.FF
        for j in self.sources(i):
            found = self.results.get(j)
            if found is None or found is taken or found.size != size:
                continue
            # A scheme scales dY of WU in WU itself.
            if self.pass_of(j) is wanted or (operand.role is Role.GRADIENT and self.added(j)):
                return self.read(found, i)
        key = (op.name, op.parameter, operand.role, size, None if taken is None else side)
        return self.kept(key, f"{op.name} {operand.role}", size)

    def packed_of(self, i: int, op: MatrixOp, operand: Operand) -> Region:
        """Where the packed operand of op ``i`` lies: what packed it in this step knows, else its update did."""
        placement = self.schedule.placements[i]
        assert placement is not None, "a schedule places every matrix op"
        copy = packed_operand(op, operand.role, placement, self.schedule.spec)
        assert copy is not None, "it has levels"
        for j in self.sources(i):
            if (j, copy.form) in self.packed:
                return self.packed[j, copy.form]
            found = self.results.get(j)
            if found is not None and found.size == copy.bytes and self.pass_of(j) is Pass.FF:
                return self.read(found, i)
        return self.copy_packed(op.parameter or op.name, copy)

    def copy_packed(self, of: str, copy: PackedCopy) -> Region:
        name = f"{of} {copy.role} {copy.levels}" + (f" for {copy.pass_}" if copy.word_bits else "")
        return self.kept((of, copy.form), name, copy.bytes)

    def added(self, i: int) -> bool:
        """Whether op ``i`` is vector work of a scheme."""
        op = self.schedule.as_run.ops[i]
        return isinstance(op, VectorOp) and op.parameter is not None

    def pass_of(self, i: int) -> Pass:
        return Pass(self.schedule.as_run.ops[i].pass_)

    def copy_of(self, parameter: str, size: int) -> Region:
        return self.kept((parameter, "copy"), f"{parameter} in {self.word.bits} bits", size)

    def master_of(self, parameter: str, size: int) -> Region:
        return self.kept((parameter, "master"), f"{parameter} in {FP32.bits} bits", size)

    def scales_of(self, update: UpdateOp) -> Region:
        return self.kept((update.name, "scales"), f"{update.name} scales", FP32.size(update.scales))

    @cached_property
    def joined(self) -> dict[int, Behind]:
        """By op, the product that vector work is joined to."""
        return joined_products(self.schedule.as_run.ops)

    @cached_property
    def updates(self) -> dict[str, UpdateOp]:
        """By parameter."""
        return {op.name: op for op in self.schedule.as_run.ops if isinstance(op, UpdateOp)}

    def compact_of(self, parameter: str, op: MatrixOp) -> Region:
        # In the order in which they are first read, as the update lists those that it makes.
        order = self.read_copies.setdefault(parameter, [])
        if copy_key(op) not in order:
            order.append(copy_key(op))
        return self.copy_made(parameter, order.index(copy_key(op)), compact_bytes(op, self.word))

    def copy_made(self, parameter: str, number: int, size: int) -> Region:
        return self.kept((parameter, "compact", number), f"{parameter} compact copy {number}", size)


def compact_bytes(op: MatrixOp, word: OperandFormat) -> int:
    """Bytes of the sparse operand of ``op`` as its engine reads it: columns of values and indices, in whole bytes."""
    g = op.gemm
    match op.sparse:
        case NMOperand(pattern=pattern):
            column = word.compact_size(pattern.kept(g.k, g.run), pattern.index_bits)
            return g.groups * (g.n if op.sparse.operand == "b" else g.m) * column
        case Unstructured() | Groups():
            # Lines are read in equal shares, whole bytes.
            lines = op.sparse.lines(g)
            return lines * -(-op.sparse.bytes(g, word.bits) // lines)
        case None:
            raise AssertionError("a dense operand has no compact form")
        case _:
            assert_never(op.sparse)


def lay_out(schedule: Schedule) -> tuple[list[OpRegions], list[Region]]:
    """The regions of every op, and all of them with their addresses."""
    plan = _Plan(schedule)
    found = [_regions_of(i, op, plan) for i, op in enumerate(schedule.as_run.ops)]
    _place(plan.regions, plan.end)
    return found, plan.regions


def _regions_of(i: int, op: Op, plan: _Plan) -> OpRegions:
    spec = plan.schedule.spec
    match op:
        case MatrixOp():
            a = plan.operand(i, op, "a", None)
            b = plan.operand(i, op, "b", a)
            placement = plan.schedule.placements[i]
            assert placement is not None, "a schedule places every matrix op"
            bits = tiled(op, spec, placement.mapping).problem.out_bits
            size = whole_bytes(op.c.elements * bits)
            gradient = op.pass_ is Pass.WU and op.parameter is not None
            # The gradients of all that share a weight are added up where they lie.
            c = (
                plan.kept((op.parameter, "gradient"), f"{op.parameter} gradient", size)
                if gradient
                else plan.made(i, op.name, size, op.pass_)
            )
            kept = placement.mapping.compact == "memory"
            compact = plan.new(f"{op.name} {op.pass_} compact", compact_bytes(op, plan.word), i, i) if kept else None
            return OpRegions(a=a, b=b, c=c, compact=compact)
        case VectorOp():
            of_step = op.parameter is None and not op.packs
            return _vector_regions(i, op, plan) if of_step else _added_regions(i, op, plan)
        case UpdateOp():
            return _update_regions(op, plan, spec)


def _vector_regions(i: int, op: VectorOp, plan: _Plan) -> OpRegions:
    """It reads what the ops made that it waits for, once round, and what is left from a region of its own."""
    work = vector_work(op, plan.schedule.spec)
    reads, left = list[tuple[Region, int]](), work.read
    for j in plan.sources(i):
        found = plan.results.get(j)
        if found is not None and left:
            reads.append((plan.read(found, i), min(left, found.size)))
            left -= reads[-1][1]
    if left:
        reads.append((plan.kept((op.name, op.op, "operands"), f"{op.name} operands", left), left))
    writes = ((plan.made(i, op.name, work.write, op.pass_), work.write),) if work.write else ()
    if op.joined is not None and not work.write and i in plan.joined:
        # What the product writes is then the work's result.
        plan.results[i] = plan.results[plan.joined[i].product]
    return OpRegions(reads=tuple(reads), writes=writes)


def _added_regions(i: int, op: VectorOp, plan: _Plan) -> OpRegions:
    """Vector work of a scheme: it goes over tensors of one size, made by those that it waits for, and may do so again;
    then over what is in FP32."""
    of, word = op.parameter or "", plan.word
    read, write = (machine_bytes(op.dtype, size, word) for size in (op.read_bytes, op.write_bytes))
    weight_gradient = op.pass_ is Pass.WU and op.op == "estimator gradient"
    reads, writes = list[tuple[Region, int]](), list[tuple[Region, int]]()
    if weight_gradient:
        gradient = plan.kept((of, "gradient"), f"{of} gradient", write)
        reads.append((gradient, read))
        writes.append((gradient, write))
    elif read:
        reads += _tensors(i, op, plan, read)
        writes += [(plan.made(i, f"{op.name} {op.op}", write, op.pass_), write)] if write else []
    elif op.edge and i - 1 in plan.results:
        plan.results[i] = plan.results[i - 1]  # the edge of the engine has scaled it
    for copy in op.packs:
        region = plan.new(f"{op.name} {copy.role} {copy.levels} {copy.pass_}", copy.bytes, 0, plan.end)
        plan.packed[i, copy.form] = region
        writes.append((region, copy.bytes))
    if op.wide_read:
        reads += _wide(op, plan, op.wide_read, weight_gradient)
    if op.wide_write:
        writes += _wide(op, plan, op.wide_write, False)
    return OpRegions(reads=tuple(reads), writes=tuple(writes))


def _tensors(i: int, op: VectorOp, plan: _Plan, read: int) -> Iterable[tuple[Region, int]]:
    """``read`` bytes of the tensors that vector work of a scheme goes over, all of one size."""
    trips = 2 if op.op in ("estimator gradient", "norm backward") else 1
    size = machine_bytes(op.dtype, op.write_bytes, plan.word) or plan.word.size(max(c.elements for c in op.packs))
    found = [plan.results[j] for j in plan.sources(i) if j in plan.results and plan.results[j].size == size]
    found = [plan.read(region, i) for region in dict.fromkeys(found[:trips])]
    while len(found) < trips:
        found.append(plan.kept((op.name, op.parameter, op.op, len(found)), f"{op.name} {op.op} operand", size))
    return [(region, read // trips) for region in found]


def _wide(op: VectorOp, plan: _Plan, size: int, weight_gradient: bool) -> Iterable[tuple[Region, int]]:
    """``size`` bytes of FP32: master weights, scales of weights, then scales or moments of rows."""
    of, left = op.parameter or "", size
    update = plan.updates.get(of)
    if weight_gradient and update is not None:
        own = left // FP32.size(update.elements) * FP32.size(update.elements)
        left -= own
        yield plan.master_of(of, FP32.size(update.elements)), own
    of_weights = op.op in ("scale", "estimator gradient") or (op.op == "scale gradient" and op.pass_ is Pass.BP)
    if left and of_weights and update is not None and update.scales:
        own = min(left, FP32.size(update.scales))
        left -= own
        yield plan.scales_of(update), own
    if left:
        what = "moments" if op.op in ("norm", "norm backward") else "scales"
        yield plan.kept((op.name, of, what), f"{op.name} {what} of rows", left), left


def _update_regions(op: UpdateOp, plan: _Plan, spec: AcceleratorSpec) -> OpRegions:
    rule = plan.schedule.workload.rule
    name, word = op.name, plan.word
    weight, state, operands = FP32.size(op.elements), FP32.size(op.elements * len(rule.state)), word.size(op.elements)
    master = plan.master_of(name, weight)
    moments = plan.kept((name, "state"), f"{name} optimizer state", state)
    gradient = plan.kept((name, "gradient"), f"{name} gradient", operands)
    reads, writes = [(master, weight), (moments, state), (gradient, operands)], [(master, weight), (moments, state)]
    dense = dense_bytes(op, spec)
    if dense:
        writes.append((plan.copy_of(name, dense), dense))
    if op.looks:
        reads.append((plan.copy_of(name, operands), operands * op.looks))
    compact = 0
    for copy in copies_made(op, spec):
        size = copy_bytes(copy, word)
        match copy:
            case CompactCopy():
                writes.append((plan.copy_made(name, compact, size), size))
                compact += 1
            case PackedCopy():
                writes.append((plan.copy_packed(name, copy), size))
            case _:
                assert_never(copy)
    if op.scales:
        writes.append((plan.scales_of(op), FP32.size(op.scales)))
    return OpRegions(reads=tuple(reads), writes=tuple(writes))


def _place(regions: Sequence[Region], end: int) -> None:
    """First fit: each region at the lowest address that no other has while it is needed."""
    whole = [r for r in regions if (r.first, r.last) == (0, end)]
    others = sorted((r for r in regions if (r.first, r.last) != (0, end)), key=lambda r: r.first)
    top = 0
    for region in whole:
        region.address, top = top, top + _pages(region.size)
    live: list[tuple[int, int, int]] = []
    for region in others:
        live = [held for held in live if held[2] >= region.first]
        place, size = top, _pages(region.size)
        for begin, behind, _ in live:
            if begin - place >= size:
                break
            place = max(place, behind)
        region.address = place
        insort(live, (place, place + size, region.last))


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE
