"""Who is done with whom: the groups of a step.

A *group* is what is done in one trip: its head, a product or vector work, and the vector work that is done with the
head's results as they leave. All of it is done where the head stands in the step, so what a group reads of others must
be there by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...workloads.gemm import Pass
from ...workloads.step import MatrixOp, VectorOp
from .facts import Facts, when
from .rules import BITS_OF, CASTS, HEADS, RANDOM, ROWS, SUMS

__all__ = ["Group", "Grouper", "Groups"]

_BITS_FROM = 64
"""Elements of a mask: of a smaller one whole bytes of bits may be more than the machine counts of its format."""


@dataclass(slots=True)
class Group:
    """One trip: its ops, the head first."""

    ops: list[int]
    product: bool

    @property
    def head(self) -> int:
        """The op at whose place in the step all of them are done."""
        return self.ops[0]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a step, and of its tensors those kept in one bit an element, those that are one number everywhere,
    and those that are another one.

    Tensors go by their place in ``Workload.tensors``. ``same``: of a cast between floating formats what it casts, which
    on the machine has the same format already.
    """

    groups: tuple[Group, ...]
    bits: frozenset[int]
    constants: frozenset[int]
    same: Mapping[int, int]


class Grouper:
    """Joins the vector work of a step: element-wise work, or all that a rule covers."""

    def __init__(self, facts: Facts, *, full: bool) -> None:
        self._facts, self._full = facts, full
        self._group: dict[int, Group] = {}
        """By op."""
        self._late: set[int] = set()
        """Tensors that are whole only when the trip of their group has ended."""
        self._same: dict[int, int] = {}
        self._casts = defaultdict[int, list[int]](list)
        """By tensor, its casts that are the same."""
        self._latest: dict[tuple[str, str, Pass], int] = {}

    def groups(self) -> Groups:
        """Ops in order, each into the latest group that can take it."""
        found: list[Group] = []
        for i, op in enumerate(self._facts.ops):
            if isinstance(op, MatrixOp):
                self._latest[op.name, op.op, op.pass_] = i
                if self._facts.gives_whole(i, op):
                    self._group[i] = Group([i], product=True)
                    found.append(self._group[i])
            elif isinstance(op, VectorOp):
                group = self._joinable(i, op)
                if group is not None:
                    group.ops.append(i)
                elif self._heads(i):
                    group = Group([i], product=False)
                    found.append(group)
                if group is not None:
                    self._group[i] = group
                    self._note(i)
        found = [group for group in found if group.ops]
        bits = frozenset(self._bits()) if self._full else frozenset[int]()
        return Groups(tuple(found), bits - self._facts.constants, self._facts.constants, self._same)

    def _heads(self, i: int) -> bool:
        facts, name = self._facts, self._facts.names[i]
        if not facts.writes_whole[i]:
            return False
        if facts.made[i][0] in facts.constants or facts.maps[i] or name in RANDOM:
            return True
        return self._full and name in HEADS

    def _done_at(self, tensor: int) -> int:
        """The place in the step at which a tensor is made; -1 before it."""
        tensor = self._same.get(tensor, tensor)
        made = self._facts.tensors[tensor].made
        return self._group[made].head if made in self._group else made

    def _home(self, tensor: int) -> Group | None:
        """The group that makes a tensor."""
        return self._group.get(self._facts.tensors[self._same.get(tensor, tensor)].made)

    def _joinable(self, i: int, op: VectorOp) -> Group | None:
        """The group that op ``i`` is done with: of those that make an operand of its size and have all others, or can
        take in what makes them, a product's, and the latest."""
        kind = self._facts.names[i]
        by_map = self._facts.maps[i]
        sums = self._full and kind in SUMS and self._facts.reads_whole[i] and self._facts.writes_whole[i]
        rows = self._full and kind in ROWS and self._facts.reads_whole[i] and self._facts.writes_whole[i]
        if not (by_map or sums or rows):
            return None
        read = self._facts.read.get(i, ())
        size = op.elements if by_map else max((self._facts.elements[t] for t in read), default=0)
        large = (t for t in read if self._facts.elements[t] == size and t not in self._facts.constants)
        homes = {id(home): home for home in map(self._home, large) if home is not None}
        for group in sorted(homes.values(), key=lambda g: (not g.product, -g.head)):
            alone = group.product and (rows or not self._known_behind(group.head))
            if alone or when(op) != when(self._facts.ops[group.head]):
                continue
            needed = self._needs(group, read)
            if needed is not None:
                self._take_in(group, needed)
                return group
        return None

    def _known_behind(self, product: int) -> bool:
        """Whether the op is the latest of its name: by that joined work finds it."""
        op = self._facts.ops[product]
        return isinstance(op, MatrixOp) and self._latest[op.name, op.op, op.pass_] == product

    def _needs(self, group: Group, read: Sequence[int]) -> list[Group] | None:
        """The groups that must go into ``group`` for it to have these tensors as well; None where that cannot be."""
        needed: list[Group] = []
        for tensor in read:
            stored = self._same.get(tensor, tensor)
            home = self._home(stored)
            if stored in self._facts.constants or (home is not group and self._done_at(stored) < group.head):
                continue
            if stored in self._late or home is None:
                return None
            if home is not group and home not in needed:
                if not self._goes_into(home, group):
                    return None
                needed.append(home)
        return needed

    def _goes_into(self, other: Group, group: Group) -> bool:
        """Whether ``other`` is element-wise work, all of whose operands are there when ``group`` is done."""
        facts = self._facts
        maps = all(facts.maps[i] for i in other.ops)
        if other.product or not maps or when(facts.ops[other.head]) != when(facts.ops[group.head]):
            return False
        for tensor in {self._same.get(t, t) for i in other.ops for t in facts.read.get(i, ())} - facts.constants:
            home = self._home(tensor)
            if home is group and tensor in self._late:
                return False
            if home is not group and home is not other and self._done_at(tensor) >= group.head:
                return False
        return True

    def _take_in(self, group: Group, needed: Sequence[Group]) -> None:
        for other in needed:
            group.ops = sorted((*group.ops, *other.ops))
            self._group.update(dict.fromkeys(other.ops, group))
            other.ops = []

    def _note(self, i: int) -> None:
        """What an op that is in a group now makes."""
        made, kind = self._facts.made[i], self._facts.names[i]
        if kind in SUMS:
            self._late.update(made)
            return
        largest = max(self._facts.elements[t] for t in made)
        self._late.update(t for t in made if self._facts.elements[t] < largest)
        if kind in CASTS and self._is_cast(i, made[0]):
            (source,) = self._facts.read[i]
            stored = self._same[made[0]] = self._same.get(source, source)
            self._casts[stored].append(made[0])

    def _is_cast(self, i: int, made: int) -> bool:
        """Between floating formats, of a tensor of which nothing writes a part in place."""
        read = self._facts.read[i]
        if len(read) != 1 or not self._facts.floats(read[0]) or not self._facts.floats(made):
            return False
        readers = (*self._facts.tensors[read[0]].read, *self._facts.tensors[made].read)
        in_parts = any(isinstance(self._facts.ops[k], VectorOp) and not self._facts.writes_whole[k] for k in readers)
        return self._facts.elements[read[0]] == self._facts.elements[made] and not in_parts

    def _bits(self) -> Iterator[int]:
        """Masks: truth values, random ones, and those times a constant, where all that touch them are joined work."""
        found: set[int] = set()
        for number, tensor in enumerate(self._facts.tensors):
            op = self._facts.ops[tensor.made] if tensor.made in self._group else None
            if not isinstance(op, VectorOp) or not self._facts.writes_whole[tensor.made] or number in self._same:
                continue
            read = self._facts.read.get(tensor.made, ())
            scaled = self._facts.names[tensor.made] in BITS_OF and len(read) == 1 and read[0] in found
            readers = [i for one in (number, *self._casts.get(number, ())) for i in self._facts.tensors[one].read]
            mask = tensor.dtype == "bool" or self._facts.names[tensor.made] in RANDOM or scaled
            if mask and self._facts.elements[number] >= _BITS_FROM and all(map(self._reads_bits, readers)):
                found.add(number)
                yield number

    def _reads_bits(self, i: int) -> bool:
        op = self._facts.ops[i]
        return isinstance(op, VectorOp) and i in self._group and self._facts.maps[i]
