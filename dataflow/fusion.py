"""Fusion: vector work joined to the op that makes its tensor, decided before any machine is looked at.

A *group* is what is done in one trip: its head, a product or vector work, and the vector work that is done with the
head's results as they leave. So of a group only what somebody else wants is written, and what it reads of others it
reads once. The rules, op by op, and what is left out, are in docs/fusion.md. Products keep their place and what they
move: the one result that a product writes is then the last that its group makes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

from ..workloads.errors import InputError, require_choice
from ..workloads.gemm import Pass
from ..workloads.joined import Fusion, Joined
from ..workloads.step import MatrixOp, Op, VectorOp, Workload
from ..workloads.tensors import StepTensor
from .accelerator import AcceleratorSpec
from .fusion_rules import BITS_OF, CASTS, HEADS, MAPS, RANDOM, ROWS, STORED, SUMS
from .integers import ceil_div
from .operand import FP32

__all__ = ["FUSIONS", "Group", "Groups", "fuse", "groups_of", "require_rows"]

FUSIONS: Final[tuple[Fusion, ...]] = get_args(Fusion)

_BITS_FROM = 64
"""Elements of a mask: of a smaller one whole bytes of bits may be more than the machine counts of its format."""


@dataclass(slots=True)
class Group:
    """One trip: its ops, the head first. ``rows``: it goes row by row, all of which must be on chip at once."""

    ops: list[int]
    product: bool
    rows: bool = False

    @property
    def head(self) -> int:
        """The op at whose place in the step all of them are done."""
        return self.ops[0]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a step, and of its tensors those kept in one bit an element, and those that are another one.

    Tensors go by their place in ``Workload.tensors``. ``same``: of a cast between floating formats what it casts, which
    on the machine has the same format already.
    """

    groups: tuple[Group, ...]
    bits: frozenset[int]
    same: Mapping[int, int]


def fuse(workload: Workload, fusion: Fusion | str) -> Workload:
    """``workload`` with its vector work joined: ``none`` of it, ``elementwise``, or all that a rule covers, ``full``.

    Before a scheme: `annotate` takes what comes out. Refused without the tensors of a trace.
    """
    require_choice("fusion", fusion, FUSIONS)
    if fusion == workload.fusion:
        return workload
    if workload.fusion != "none":
        raise InputError(
            f"workload {workload.model!r} is fused already ({workload.fusion}): trace it again, or leave --fusion out"
        )
    if not workload.tensors:
        raise InputError(
            f"fusion {fusion}: workload {workload.model!r} does not say which tensors its ops share: trace it again and "
            "fuse before a scheme of few values, with attention full; or use fusion none"
        )
    return _Fuser(workload, full=fusion == "full").fused()


def groups_of(workload: Workload, fusion: Fusion | str) -> Groups:
    """The groups that `fuse` makes of a step that is not fused."""
    require_choice("fusion", fusion, FUSIONS)
    if fusion == "none":
        return Groups((), frozenset(), {})
    return _Fuser(workload, full=fusion == "full").groups()


def require_rows(workload: Workload, spec: AcceleratorSpec) -> None:
    """Refuse a step fused row by row on a machine that cannot hold its rows: in half its output buffer, assumed."""
    half = spec.buffers.output_bytes // 2
    for op in workload.ops:
        if isinstance(op, VectorOp) and op.joined is not None and op.joined.row > half:
            raise InputError(
                f"fusion {workload.fusion} of {workload.model!r} has {op.op} of {op.name!r} hold rows of {op.joined.row:,} "
                f"bytes on chip, but half the output buffer of {spec.name!r} is {half:,}: use fusion elementwise, or "
                f"buffers.output_bytes of at least {2 * op.joined.row:,}"
            )


class _Fuser:
    def __init__(self, workload: Workload, *, full: bool) -> None:
        self._workload, self._ops, self._full = workload, workload.ops, full
        self._tensors: Sequence[StepTensor] = workload.tensors
        self._elements, self._bytes = [t.elements for t in self._tensors], [t.bytes for t in self._tensors]
        self._names = [op.op.removeprefix("aten.").removesuffix("_") if isinstance(op, VectorOp) else "" for op in self._ops]
        self._read, self._made = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
        for number, tensor in enumerate(workload.tensors):
            for i in tensor.read:
                self._read[i].append(number)
            if tensor.made >= 0:
                self._made[tensor.made].append(number)
        self._group: dict[int, Group] = {}
        """By op."""
        self._late: set[int] = set()
        """Tensors that are whole only when the trip of their group has ended."""
        self._same: dict[int, int] = {}
        self._casts = defaultdict[int, list[int]](list)
        """By tensor, its casts that are the same."""
        self._reads_all: list[bool] = [isinstance(op, VectorOp) and self._whole(i, op) for i, op in enumerate(self._ops)]
        self._latest: dict[tuple[str, str, Pass], int] = {}

    def fused(self) -> Workload:
        """The workload of the groups."""
        found = self.groups()
        ops: list[Op] = list(self._ops)
        for group in found.groups:
            for i, op in self._accounted(group, found):
                ops[i] = op
        return replace(self._workload, ops=tuple(ops), fusion="full" if self._full else "elementwise")

    def groups(self) -> Groups:
        """Ops in order, each into the latest group that can take it."""
        found: list[Group] = []
        for i, op in enumerate(self._ops):
            if isinstance(op, MatrixOp):
                self._latest[op.name, op.op, op.pass_] = i
                if self._heads_product(i, op):
                    self._group[i] = Group([i], product=True)
                    found.append(self._group[i])
            elif isinstance(op, VectorOp):
                group = self._joinable(i, op)
                if group is not None:
                    group.ops.append(i)
                    group.rows |= self._names[i] in ROWS
                elif self._heads(i, op):
                    group = Group([i], product=False, rows=self._names[i] in ROWS)
                    found.append(group)
                if group is not None:
                    self._group[i] = group
                    self._note(i, op)
        return Groups(tuple(found), frozenset(self._bits()) if self._full else frozenset(), self._same)

    def _heads_product(self, i: int, op: MatrixOp) -> bool:
        """Whether a product gives every result once and whole: a gradient of a convolution with windows is added up in
        memory where the mapping cuts them, and gradients of shared weights are added up where they lie."""
        made, g = self._made.get(i, ()), op.gemm
        whole = op.c.elements == g.groups * g.m * g.n
        return whole and op.pass_ is not Pass.WU and len(made) == 1 and self._bytes[made[0]] == op.c.bytes

    def _whole(self, i: int, op: VectorOp) -> bool:
        """Whether op ``i`` reads all of every tensor that it reads."""
        return not op.wide_read and sum(self._bytes[t] for t in self._read.get(i, ())) == op.read_bytes

    def _writes_whole(self, i: int, op: VectorOp) -> bool:
        made = self._made.get(i, ())
        return bool(made) and sum(self._bytes[t] for t in made) == op.write_bytes and not op.wide_write

    def _maps(self, i: int, op: VectorOp) -> bool:
        """Whether op ``i`` makes one tensor, element by element."""
        made = self._made.get(i, ())
        if self._names[i] not in MAPS or len(made) != 1 or not self._reads_all[i] or not self._writes_whole(i, op):
            return False
        size = self._elements[made[0]]
        return size == op.elements and all(self._elements[t] <= size for t in self._read.get(i, ()))

    def _heads(self, i: int, op: VectorOp) -> bool:
        if not self._writes_whole(i, op):
            return False
        return self._maps(i, op) or self._names[i] in RANDOM or (self._full and self._names[i] in HEADS)

    def _done_at(self, tensor: int) -> int:
        """The place in the step at which a tensor is made; -1 before it."""
        tensor = self._same.get(tensor, tensor)
        made = self._tensors[tensor].made
        return self._group[made].head if made in self._group else made

    def _home(self, tensor: int) -> Group | None:
        """The group that makes a tensor."""
        return self._group.get(self._tensors[self._same.get(tensor, tensor)].made)

    def _joinable(self, i: int, op: VectorOp) -> Group | None:
        """The group that op ``i`` is done with: the latest that makes an operand of its size and has all others."""
        kind = self._names[i]
        by_map = self._maps(i, op)
        sums = self._full and kind in SUMS and self._reads_all[i] and self._writes_whole(i, op)
        rows = self._full and kind in ROWS and self._reads_all[i] and self._writes_whole(i, op)
        if not (by_map or sums or rows):
            return None
        read = self._read.get(i, ())
        size = max((self._elements[t] for t in read), default=0)
        if by_map:
            size = op.elements
        homes = [self._home(t) for t in read if self._elements[t] == size]
        for group in sorted((g for g in homes if g is not None), key=lambda g: -g.head):
            alone = group.product and (rows or not self._known_behind(group.head))
            if not alone and _when(op) == _when(self._ops[group.head]) and self._has(group, read):
                return group
        return None

    def _known_behind(self, product: int) -> bool:
        """Whether the op is the latest of its name: by that joined work finds it."""
        op = self._ops[product]
        return isinstance(op, MatrixOp) and self._latest[op.name, op.op, op.pass_] == product

    def _has(self, group: Group, read: Sequence[int]) -> bool:
        for tensor in read:
            stored = self._same.get(tensor, tensor)
            if self._home(stored) is group:
                if stored in self._late:
                    return False
            elif self._done_at(stored) >= group.head:
                return False
        return True

    def _note(self, i: int, op: VectorOp) -> None:
        """What an op that is in a group now makes."""
        made, kind = self._made.get(i, ()), self._names[i]
        if kind in SUMS:
            self._late.update(made)
            return
        largest = max(self._elements[t] for t in made)
        self._late.update(t for t in made if self._elements[t] < largest)
        if kind in CASTS and self._is_cast(i, made[0]):
            (source,) = self._read[i]
            stored = self._same[made[0]] = self._same.get(source, source)
            self._casts[stored].append(made[0])

    def _is_cast(self, i: int, made: int) -> bool:
        """Between floating formats, of a tensor of which nothing writes a part in place."""
        read = self._read.get(i, ())
        if len(read) != 1 or not self._floats(read[0]) or not self._floats(made):
            return False
        readers = (self._ops[k] for k in (*self._tensors[read[0]].read, *self._tensors[made].read))
        return self._elements[read[0]] == self._elements[made] and all(
            not isinstance(op, VectorOp) or self._writes_whole(k, op)
            for k, op in zip((*self._tensors[read[0]].read, *self._tensors[made].read), readers, strict=True)
        )

    def _floats(self, tensor: int) -> bool:
        return "float" in self._tensors[tensor].dtype

    def _bits(self) -> Iterator[int]:
        """Masks: truth values, random ones, and those times a constant, where all that touch them are joined work."""
        found: set[int] = set()
        for number, tensor in enumerate(self._tensors):
            op = self._ops[tensor.made] if tensor.made in self._group else None
            if not isinstance(op, VectorOp) or not self._writes_whole(tensor.made, op) or number in self._same:
                continue
            read = self._read.get(tensor.made, ())
            scaled = self._names[tensor.made] in BITS_OF and len(read) == 1 and read[0] in found
            readers = [i for one in (number, *self._casts.get(number, ())) for i in self._tensors[one].read]
            if tensor.elements >= _BITS_FROM and (tensor.dtype == "bool" or self._names[tensor.made] in RANDOM or scaled) and all(map(self._reads_bits, readers)):
                found.add(number)
                yield number

    def _reads_bits(self, i: int) -> bool:
        op = self._ops[i]
        return isinstance(op, VectorOp) and i in self._group and self._maps(i, op)

    def _accounted(self, group: Group, found: Groups) -> Iterator[tuple[int, VectorOp]]:
        """The ops of a group as they are once fused: what leaves it is written, what comes in is read once."""
        on_chip, read = {t for i in group.ops for t in self._made.get(i, ())}, set[int]()
        wanted = self._wanted(group, on_chip)
        instead = self._written_by_product(group, wanted, found)
        head = self._ops[group.head]
        for i in group.ops:
            op = self._ops[i]
            if not isinstance(op, VectorOp):
                continue
            reads = writes = bits_in = bits_out = 0
            if any(t in self._same for t in self._made.get(i, ())):
                pass
            elif self._reads_all[i]:
                for tensor in dict.fromkeys(self._same.get(t, t) for t in self._read.get(i, ())):
                    if tensor in on_chip or tensor in read:
                        continue
                    read.add(tensor)
                    if tensor in found.bits:
                        bits_in += ceil_div(self._elements[tensor], 8)
                    else:
                        reads += self._as_read(i, tensor)
            else:
                reads = op.read_bytes
            for tensor in self._made.get(i, ()):
                if tensor in self._same or tensor not in wanted or tensor == instead:
                    continue
                if tensor in found.bits:
                    bits_out += ceil_div(self._elements[tensor], 8)
                else:
                    writes += self._bytes[tensor]
            same = (reads, writes, bits_in, bits_out) == (op.read_bytes, op.write_bytes, 0, 0)
            if same and i == group.head and not (group.rows and len(group.ops) > 1):
                continue
            saved = op.read_bytes - reads - bits_in, op.write_bytes - writes - bits_out
            lanes = 0 if i != group.head and self._names[i] in STORED else op.elements
            row = self._row(i, group, on_chip | read) if self._names[i] in ROWS and len(group.ops) > 1 else 0
            joined = Joined(
                name=head.name, op=_op(head), pass_=head.pass_, read=saved[0], write=saved[1], lanes=lanes, row=row
            )
            yield i, replace(
                op, read_bytes=reads, write_bytes=writes, wide_read=bits_in, wide_write=bits_out, joined=joined
            )

    def _row(self, i: int, group: Group, touched: set[int]) -> int:
        """Bytes of a row of work that goes row by row, in FP32, of every tensor that its trip touches."""
        moved = (*self._made[i], *self._read[i])
        most = max(moved, key=lambda t: self._elements[t])
        size = self._elements[most]
        small = [self._elements[t] for t in self._made[i] if 0 < self._elements[t] < size]
        row = max(self._tensors[most].shape, default=1)
        if small and "norm" in self._names[i]:
            # What a norm makes beside its result is a number a row, its backward's a number a column.
            row = small[0] if "backward" in self._names[i] else size // small[0]
        return FP32.size(row) * sum(self._elements[t] == size for t in touched)

    def _as_read(self, i: int, stored: int) -> int:
        """Bytes of a tensor as op ``i`` counts them: of a cast one in the format that it was cast to."""
        return max(self._bytes[t] for t in self._read[i] if self._same.get(t, t) == stored)

    def _wanted(self, group: Group, made: set[int]) -> set[int]:
        """What of the tensors of a group somebody else reads, or nobody at all."""
        own = set(group.ops)
        wanted = {t for t in made if not self._tensors[t].read or not own.issuperset(self._tensors[t].read)}
        for stored in made:
            casts = self._casts.get(stored, ())
            if any(not own.issuperset(self._tensors[cast].read) or not self._tensors[cast].read for cast in casts):
                wanted.add(stored)
        return {self._same.get(t, t) for t in wanted}

    def _written_by_product(self, group: Group, wanted: set[int], found: Groups) -> int | None:
        """The tensor that a product writes in place of its own result, None where that is wanted or nothing is."""
        if not group.product or self._made[group.head][0] in wanted:
            return None
        size = self._elements[self._made[group.head][0]]
        last = None
        for i in group.ops[1:]:
            for tensor in self._made.get(i, ()):
                fits = self._elements[tensor] == size and tensor in wanted and tensor not in found.bits
                if fits and (last is None or self._bytes[tensor] >= self._bytes[last]):
                    last = tensor
        return last


def _when(op: Op) -> tuple[bool, bool]:
    """Forward or backward, and whether it is done again: what one needs the other must not keep."""
    return op.pass_ is Pass.FF, isinstance(op, MatrixOp | VectorOp) and op.recompute


def _op(op: Op) -> str:
    return op.op if isinstance(op, MatrixOp | VectorOp) else ""
