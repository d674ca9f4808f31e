"""Tensors that may stay on chip between ops, and what every op that uses one then moves of DRAM no more.

Weights and optimizer state may stay across steps, gradients of weights from product to update, activations and their
gradients from the op that makes them to the last that reads them, unless anybody reads or writes a part of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from ..workloads.gemm import Pass
from ..workloads.operand import Gathered, Operand, Role
from ..workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from ..workloads.tensors import StepTensor
from ..workloads.update_rule import Updated
from .accelerator import AcceleratorSpec
from .beside import copy_bytes, machine_bytes, update_bytes
from .engines import placed_on
from .fusion.crossings import Crossing, crossings
from .integers import whole_bytes
from .mapping import Side
from .operand_bytes import OperandBytes, operand_bytes
from .placement import Placement

__all__ = ["UPDATED", "Kept", "Kind", "Use", "candidates"]

Kind = Literal["weight", "gradient", "optimizer state", "activation", "activation gradient"]
Part = Side | Updated | Literal["beside"]
UPDATED: tuple[Updated, ...] = get_args(Updated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """DRAM bytes that op number ``op`` moves of a tensor that is not held: as operand ``part`` of a product, or as that
    tensor of an update; ``beside``: in vector work."""

    op: int
    part: Part
    read: int = 0
    write: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A tensor of ``size`` bytes, held from op ``first`` to op ``last``, and who uses it.

    ``name``: the parameter, or the op that makes a result of the step, which is ``tensor`` of ``Workload.tensors``.
    """

    name: str
    kind: Kind
    size: int
    first: int
    last: int
    uses: tuple[Use, ...]
    tensor: int | None = None

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


def candidates(workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> tuple[Kept, ...]:
    """Those that ``buffers.resident_bytes`` of ``spec`` have room for, of a step as it was placed."""
    moves = _Moves(placements, spec)
    loads = _loads(workload, moves)
    return (*_trained(workload, moves, loads), *_frozen(workload, moves, loads), *_Results(workload, moves).kept())


@dataclass(frozen=True, slots=True)
class _Loads:
    """The products that read weights, by parameter; ``unknown``: of which nobody knows what some product reads."""

    uses: dict[str, list[Use]]
    sizes: dict[str, dict[object, int]]
    """Bytes of every form that is read."""
    unknown: set[str]


def _loads(workload: Workload, moves: _Moves) -> _Loads:
    loads, spec = _Loads(defaultdict(list), defaultdict(dict), set()), moves.spec
    for i, op in enumerate(workload.ops):
        if not isinstance(op, MatrixOp) or op.parameter is None or op.pass_ is Pass.WU:
            continue
        side = next((side for side, x in _sides(op) if x.role is Role.WEIGHT), None)
        if side is None:
            continue
        read = moves.of(i, op, side)
        if read is None or op.rows is not None:
            # Other rows are read in every step.
            loads.unknown.add(op.parameter)
            continue
        loads.uses[op.parameter].append(Use(op=i, part=side, read=read[0]))
        form, size = _form(op, dict(_sides(op))[side], spec)
        loads.sizes[op.parameter][form] = size
    return loads


def _form(op: MatrixOp, weight: Operand, spec: AcceleratorSpec) -> tuple[object, int]:
    """The form in which a product reads its weight, and the bytes of that."""
    if isinstance(op.sparse, Gathered) and not op.sparse.online:
        return op.sparse, op.sparse.bytes(op.gemm, spec.pe.operand.bits)
    copy = op.copy if spec.wuve.pregenerate else None
    return copy, spec.pe.operand.size(weight.elements) if copy is None else copy_bytes(copy, spec.pe.operand)


def _sides(op: MatrixOp) -> Sequence[tuple[Literal["a", "b"], Operand]]:
    return (("a", op.a), ("b", op.b))


def _trained(workload: Workload, moves: _Moves, loads: _Loads) -> list[Kept]:
    """Weights with their copies and optimizer state, across steps; gradients from product to update."""
    end, spec, found = len(workload.ops) - 1, moves.spec, list[Kept]()
    read_by_update = {(t.made, i) for t in workload.tensors for i in t.read}
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
        # Several products add up where a gradient lies, and others work on it first: such a one is not held.
        if len(made[op.name]) == 1 and (not workload.tensors or (made[op.name][0], i) in read_by_update):
            found += _gradient(workload, moves, made[op.name][0], i)
    return [one for one in found if 0 < one.size <= spec.buffers.resident_bytes]


def _gradient(workload: Workload, moves: _Moves, made: int, update: int) -> list[Kept]:
    """The gradient of a weight that one product makes whole."""
    op, product = workload.ops[update], workload.ops[made]
    assert isinstance(op, UpdateOp), "it is asked of an update"
    assert isinstance(product, MatrixOp), "and of the product that makes its gradient"
    moved, size = moves.of(made, product, "c"), update_bytes(op, moves.spec, workload.rule).gradient
    if moved is None or product.c.elements != op.elements:
        return []
    uses = (Use(op=made, part="c", read=moved[0], write=moved[1]), Use(op=update, part="gradient", read=size))
    return [Kept(name=op.name, kind="gradient", size=size, first=made, last=update, uses=uses)]


def _frozen(workload: Workload, moves: _Moves, loads: _Loads) -> list[Kept]:
    """Weights that the step reads and does not train, in every form that products read: across steps."""
    end, room = len(workload.ops) - 1, moves.spec.buffers.resident_bytes
    others = {op.name for op in workload.ops if isinstance(op, UpdateOp)} | loads.unknown
    sizes = {name: sum(loads.sizes[name].values()) for name in loads.uses if name not in others}
    return [
        Kept(name=name, kind="weight", size=size, first=0, last=end, uses=tuple(loads.uses[name]))
        for name, size in sizes.items()
        # One that is made of several (``a+b``) is a result of the step.
        if size <= room and "+" not in name
    ]


class _Results:
    """What the step makes and reads: activations and their gradients."""

    def __init__(self, workload: Workload, moves: _Moves) -> None:
        self._workload, self._moves, self._word = workload, moves, moves.spec.pe.operand
        self._read = defaultdict[int, list[int]](list)
        """Tensors that an op reads."""
        for number, tensor in enumerate(workload.tensors):
            for i in tensor.read:
                self._read[i].append(number)

    def kept(self) -> list[Kept]:
        """Those whose every use is known."""
        found, room = list[Kept](), self._moves.spec.buffers.resident_bytes
        for one in crossings(self._workload):
            tensor, maker = self._workload.tensors[one.tensor], self._workload.ops[one.made]
            size = self._size(one, tensor, tensor.dtype)
            if not 0 < size <= room:
                continue
            uses = [self._made(one), *(use for i, as_ in one.read for use in self._uses(one, i, as_))]
            known = [use for use in uses if use is not None]
            if len(known) < len(uses):
                continue
            found.append(
                Kept(
                    name=maker.name,
                    kind="activation" if maker.pass_ is Pass.FF else "activation gradient",
                    size=size,
                    first=one.first,
                    last=max(i for i, _ in one.read),
                    uses=tuple(known),
                    tensor=one.tensor,
                )
            )
        return found

    def _made(self, one: Crossing) -> Use | None:
        maker = self._workload.ops[one.made]
        match maker:
            case MatrixOp():
                moved = self._moves.of(one.made, maker, "c")
                if (
                    moved is None
                    or maker.pass_ is Pass.WU
                    or maker.c.elements != self._workload.tensors[one.tensor].elements
                ):
                    return None
                return Use(op=one.made, part="c", read=moved[0], write=moved[1])
            case VectorOp():
                return Use(op=one.made, part="beside", write=self._beside(one, maker, one.tensor))
            case UpdateOp():
                return None
            case _:
                assert_never(maker)

    def _uses(self, one: Crossing, i: int, as_: int) -> list[Use | None]:
        op = self._workload.ops[i]
        match op:
            case MatrixOp():
                loads = [(side, self._moves.of(i, op, side)) for side in self._sides_of(i, op, one)]
                return [None if load is None else Use(op=i, part=side, read=load[0]) for side, load in loads] or [None]
            case VectorOp():
                return [Use(op=i, part="beside", read=self._beside(one, op, as_))]
            case UpdateOp():
                return [None]
            case _:
                assert_never(op)

    def _beside(self, one: Crossing, op: VectorOp, as_: int) -> int:
        """Bytes of a tensor in vector work, which moves it once."""
        return self._size(one, self._workload.tensors[as_], op.dtype)

    def _size(self, one: Crossing, tensor: StepTensor, dtype: str) -> int:
        """Bytes of a tensor that is taken for one of ``dtype``, where it is not a mask."""
        return whole_bytes(tensor.elements) if one.bits else machine_bytes(dtype, tensor.bytes, self._word)

    def _sides_of(self, i: int, op: MatrixOp, one: Crossing) -> list[Literal["a", "b"]]:
        """The operands of a product that a tensor is; none where another that it reads is as large."""
        elements = self._workload.tensors[one.tensor].elements
        alike = sum(self._workload.tensors[t].elements == elements for t in self._read[i])
        sides = [side for side, x in _sides(op) if x.role is not Role.WEIGHT and x.elements == elements]
        return sides if alike == 1 else []


class _Moves:
    """What operands of products move under their mappings."""

    def __init__(self, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> None:
        self._placements, self.spec = placements, spec
        self._known: dict[int, OperandBytes] = {}
        """By placement: products of equal shape share one."""

    def of(self, i: int, op: MatrixOp, side: Literal["a", "b", "c"]) -> tuple[int, int] | None:
        """Bytes of operand ``side`` that product ``i`` reads and writes; None on an engine of others.

        Of an operand whose compact form is kept in DRAM between its uses only the first load: the copies stay there.
        """
        placement = self._placements[i]
        assert placement is not None, "a schedule places every matrix op"
        mapping = placement.mapping
        if mapping.array.kind == "outside":
            return None
        b = self._known.get(id(placement))
        if b is None:
            product = placed_on(placement, self.spec).tiled(op, mapping)
            b = self._known[id(placement)] = operand_bytes(product, self.spec)
        if side == "c":
            return b.sum_read, b.results
        return b.north if side == mapping.n2s else b.west, 0
