"""Fusion: vector work joined to the op that makes its tensor, decided before any machine is looked at.

Of a group (`groups.py`) only what somebody else wants is written, and what it reads of others it reads once. The rules,
op by op, and what is left out, are in docs/fusion.md. Products keep their place and what they move: the one result that
a product writes is then the largest that its group makes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, get_args

from ...workloads.errors import InputError, require_choice
from ...workloads.joined import Fusion, Joined
from ...workloads.step import MatrixOp, Op, VectorOp, Workload
from ..accelerator import AcceleratorSpec
from ..integers import ceil_div
from ..operand import FP32
from .facts import Facts
from .groups import Group, Grouper, Groups
from .rules import ROWS, STORED

__all__ = ["FUSIONS", "Account", "Touched", "as_fused", "fuse", "grouped", "groups_of", "require_rows"]

FUSIONS = get_args(Fusion)
"""What fusion may be."""


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
            f"fusion {fusion}: workload {workload.model!r} does not say which tensors its ops share: trace it again, "
            "with attention full, and fuse before a scheme of few values; or use fusion none"
        )
    facts = Facts(workload.ops, workload.tensors)
    account = Account(facts, grouped(facts, fusion))
    ops: list[Op] = list(workload.ops)
    for group in account.groups.groups:
        for i, op in account.accounted(group):
            ops[i] = op
    return replace(workload, ops=tuple(ops), fusion="full" if fusion == "full" else "elementwise")


def groups_of(workload: Workload, fusion: Fusion | str) -> Groups:
    """The groups that `fuse` makes of a step that is not fused."""
    require_choice("fusion", fusion, FUSIONS)
    return grouped(Facts(workload.ops, workload.tensors), fusion)


def as_fused(workload: Workload) -> tuple[Facts, Groups]:
    """A step as it was before it was fused, and the groups that its fusion made."""
    facts = Facts([_alone(op) for op in workload.ops], workload.tensors)
    return facts, grouped(facts, workload.fusion)


def _alone(op: Op) -> Op:
    """An op as it was before it was joined."""
    if not isinstance(op, VectorOp) or op.joined is None:
        return op
    read = op.read_bytes + op.wide_read + op.joined.read
    write = op.write_bytes + op.wide_write + op.joined.write
    return replace(op, read_bytes=read, write_bytes=write, wide_read=0, wide_write=0, joined=None)


def grouped(facts: Facts, fusion: Fusion | str) -> Groups:
    """The groups of ops that are not joined yet."""
    if fusion == "none":
        return Groups((), frozenset(), frozenset(), {})
    return Grouper(facts, full=fusion == "full").groups()


def require_rows(workload: Workload, spec: AcceleratorSpec) -> None:
    """Refuse a step fused row by row on a machine that cannot hold its rows: in half its output buffer, assumed."""
    half = spec.buffers.output_bytes // 2
    for op in workload.ops:
        row = op.joined.row if isinstance(op, VectorOp) and op.joined is not None else 0
        if row > half:
            raise InputError(
                f"fusion {workload.fusion} of {workload.model!r} holds rows of {row:,} bytes on chip ({op.name}), but "
                f"half the output buffer of {spec.name!r} is {half:,}: use fusion elementwise, or buffers.output_bytes "
                f"of at least {2 * row:,}"
            )


class Touched(NamedTuple):
    """What vector work that is joined moves: tensors of others by what is stored and as what it is read, None where it
    reads parts; those that it writes; all that its trip has met so far."""

    op: int
    work: VectorOp
    read: dict[int, int] | None
    written: tuple[int, ...]
    met: set[int]


class Account:
    """What the groups of a step move."""

    def __init__(self, facts: Facts, groups: Groups) -> None:
        self._facts, self.groups = facts, groups
        self._casts = defaultdict[int, list[int]](list)
        for cast, stored in groups.same.items():
            self._casts[stored].append(cast)

    def accounted(self, group: Group) -> Iterator[tuple[int, VectorOp]]:
        """The ops of a group as they are once fused: what leaves it is written, what comes in is read once."""
        for i, op, given, left, met in self.touched(group):
            reads, bits_in = (op.read_bytes, 0) if given is None else self._sizes(given.items())
            made = self._facts.made.get(i, ())
            writes, bits_out = self._sizes((t, t) for t in left)
            same = (reads, writes, bits_in, bits_out) == (op.read_bytes, op.write_bytes, 0, 0)
            if same and len(group.ops) == 1:
                continue
            nothing = i != group.head and self._facts.names[i] in STORED
            head = self._facts.ops[group.head]
            assert isinstance(head, MatrixOp | VectorOp), "no update is joined"
            joined = Joined(
                name=head.name,
                op=head.op,
                pass_=head.pass_,
                read=op.read_bytes - reads - bits_in,
                write=op.write_bytes - writes - bits_out,
                lanes=0 if nothing or self.groups.constants.intersection(made) else op.elements,
                row=self._row(i, met) if self._facts.names[i] in ROWS and len(group.ops) > 1 else 0,
            )
            yield (
                i,
                replace(
                    op, read_bytes=reads, write_bytes=writes, wide_read=bits_in, wide_write=bits_out, joined=joined
                ),
            )

    def touched(self, group: Group) -> Iterator[Touched]:
        """The vector work of a group, op by op, and what it moves."""
        made = self._made(group)
        wanted, read = self._wanted(group, made), set[int]()
        instead = self._written_by_product(group, wanted)
        for i in group.ops:
            op = self._facts.ops[i]
            if isinstance(op, VectorOp):
                given = self._reads(i, made, read)
                left = tuple(t for t in self._facts.made.get(i, ()) if t in wanted and t != instead)
                yield Touched(i, op, given, left, made | read)

    def wanted(self, group: Group) -> set[int]:
        """The tensors that a group leaves in memory, masks of a bit and constants among them."""
        return self._wanted(group, self._made(group))

    def written_by_head(self, group: Group) -> int | None:
        """The tensor that the product of a group writes; None where nobody wants what it does."""
        own, wanted = self._facts.made[group.head][0], self.wanted(group)
        return own if own in wanted else self._written_by_product(group, wanted)

    def _made(self, group: Group) -> set[int]:
        return {t for i in group.ops for t in self._facts.made.get(i, ())}

    def _reads(self, i: int, on_chip: set[int], read: set[int]) -> dict[int, int] | None:
        """Tensors that op ``i`` reads of others, which it notes in ``read``. A cast that is the same tensor does
        nothing: whoever reads it reads that."""
        if any(t in self.groups.same for t in self._facts.made.get(i, ())):
            return {}
        if not self._facts.reads_whole[i]:
            return None
        given = {self.groups.same.get(t, t): t for t in self._facts.read.get(i, ())}
        new = {stored: t for stored, t in given.items() if stored not in on_chip and stored not in read}
        read.update(new)
        return new

    def _sizes(self, tensors: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """Bytes of tensors and of masks, of which each is stored as the first and read as the second."""
        whole = bits = 0
        for stored, tensor in tensors:
            if stored in self.groups.constants:
                continue
            if stored in self.groups.bits:
                bits += ceil_div(self._facts.elements[stored], 8)
            else:
                whole += self._facts.bytes[tensor]
        return whole, bits

    def _row(self, i: int, touched: set[int]) -> int:
        """Bytes of a row of work that goes row by row, in FP32, of every tensor that its trip touches."""
        moved = (*self._facts.made[i], *self._facts.read[i])
        most = max(moved, key=lambda t: self._facts.elements[t])
        size = self._facts.elements[most]
        small = [self._facts.elements[t] for t in self._facts.made[i] if 0 < self._facts.elements[t] < size]
        row = max(self._facts.tensors[most].shape, default=1)
        if small and "norm" in self._facts.names[i]:
            # What a norm makes beside its result is a number a row, its backward's a number a column.
            row = small[0] if "backward" in self._facts.names[i] else size // small[0]
        return FP32.size(row) * sum(self._facts.elements[t] == size for t in touched)

    def _wanted(self, group: Group, made: set[int]) -> set[int]:
        """What of the tensors of a group somebody else reads, or nobody at all."""
        own = set(group.ops)
        wanted = {t for t in made if not self._facts.tensors[t].read or not own.issuperset(self._facts.tensors[t].read)}
        for stored in made:
            casts = self._casts.get(stored, ())
            if any(
                not own.issuperset(self._facts.tensors[cast].read) or not self._facts.tensors[cast].read
                for cast in casts
            ):
                wanted.add(stored)
        return {self.groups.same.get(t, t) for t in wanted}

    def _written_by_product(self, group: Group, wanted: set[int]) -> int | None:
        """The tensor that a product writes in place of its own result, None where that is wanted or nothing is."""
        if not group.product or self._facts.made[group.head][0] in wanted:
            return None
        size = self._facts.elements[self._facts.made[group.head][0]]
        last = None
        for i in group.ops[1:]:
            for tensor in self._facts.made.get(i, ()):
                fits = self._facts.elements[tensor] == size and tensor in wanted and tensor not in self.groups.bits
                if fits and (last is None or self._facts.bytes[tensor] >= self._facts.bytes[last]):
                    last = tensor
        return last
