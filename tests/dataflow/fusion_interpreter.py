"""A step under fusion, played op by op with two memories: who finds what it reads, and what that takes. The pass says
who is done with whom; all else is found anew, from what PyTorch dispatches and what words in docs/fusion.md say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weft.dataflow.fusion.fuse import Groups
from weft.workloads.operand import DTYPE_BYTES
from weft.workloads.step import MatrixOp, VectorOp, Workload

Moved = tuple[int, int]
"""Bytes read and written by the vector work of one group."""


def size(workload: Workload, tensor: int) -> int:
    one = workload.tensors[tensor]
    count = 1
    for extent in one.shape:
        count *= extent
    return count * DTYPE_BYTES[one.dtype]


Trips = dict[int, tuple[int, set[int]]]
"""By tensor, the group that leaves it in DRAM and those that fetch it, each by its head."""


def play(step: Workload, groups: Groups, trips: Trips | None = None) -> dict[int, Moved]:
    """What the vector work of each group moves, by its head; AssertionError where an op does not find what it reads.

    A tensor is in DRAM from the end of the group that makes it on, if anybody outside reads it; on chip until then.
    ``trips`` is filled.
    """
    own = {i: group.ops for group in groups.groups for i in group.ops}
    original = lambda t: groups.same.get(t, t)  # noqa: E731
    reads = {i: [t for t, one in enumerate(step.tensors) if i in one.read] for i in range(len(step.ops))}
    makes = {i: [t for t, one in enumerate(step.tensors) if one.made == i] for i in range(len(step.ops))}
    readers: dict[int, set[int]] = {}
    for t, one in enumerate(step.tensors):
        readers.setdefault(original(t), set()).update(one.read if one.read else {-1})
    in_dram = {t for t, one in enumerate(step.tensors) if one.made < 0 or t in groups.constants}
    for t in groups.constants:
        assert all(len(makes[i]) == 1 and size(step, t) and _elementwise(step, i) for i in step.tensors[t].read)
    done: set[int] = set()
    found: dict[int, Moved] = {}
    for i in range(len(step.ops)):
        if i in done:
            continue
        together = own.get(i, [i])
        assert together[0] == i, "a group is done where its head is"
        on_chip: set[int] = set()
        whole_later: set[int] = set()
        fetched: dict[int, int] = {}
        for j in together:
            op = step.ops[j]
            only_renames = bool(makes[j]) and all(t in groups.same for t in makes[j])
            for t in map(original, reads[j]):
                assert t not in whole_later, f"op {j} reads a sum before it is one"
                if t in on_chip:
                    continue
                assert t in in_dram, f"op {j}, {op.name}, reads tensor {t}, which nobody wrote"
                if trips is not None and t in trips and not only_renames:
                    trips[t][1].add(i)
                if isinstance(op, VectorOp) and not only_renames:
                    fetched.setdefault(t, _bytes(step, groups, t, j, reads[j], original))
            on_chip.update(makes[j])
            largest = max((size(step, t) for t in makes[j]), default=0)
            if isinstance(op, VectorOp):
                reduces = op.op.removeprefix("aten.") in ("sum", "mean")
                whole_later.update(t for t in makes[j] if reduces or _count(step, t) < _count_of(step, makes[j]))
            assert largest >= 0
            done.add(j)
        on_chip -= groups.constants
        left = {t for t in on_chip if t not in groups.same and readers[t] - set(together)}
        written = {t: _stored(step, groups, t) for t in left}
        if isinstance(step.ops[i], MatrixOp):
            results = makes[i]
            if any(t in left for t in results):
                for t in results:
                    written.pop(t, None)
            elif written and len(results) == 1:
                alike = [t for t in left - groups.bits if _count(step, t) == _count(step, results[0])]
                if alike:
                    written.pop(max(alike, key=lambda t: size(step, t)))
        in_dram |= left
        if trips is not None:
            trips |= {t: (i, set()) for t in left}
        found[i] = sum(fetched.values()), sum(written.values())
    return found


def _count(step: Workload, tensor: int) -> int:
    return size(step, tensor) // DTYPE_BYTES[step.tensors[tensor].dtype]


def _count_of(step: Workload, tensors: Sequence[int]) -> int:
    return max(_count(step, t) for t in tensors)


def _elementwise(step: Workload, i: int) -> bool:
    op = step.ops[i]
    (made,) = (t for t, one in enumerate(step.tensors) if one.made == i)
    return isinstance(op, VectorOp) and op.elements == _count(step, made)


def _stored(step: Workload, groups: Groups, tensor: int) -> int:
    if tensor in groups.constants:
        return 0
    return -(-_count(step, tensor) // 8) if tensor in groups.bits else size(step, tensor)


def _bytes(
    step: Workload, groups: Groups, tensor: int, reader: int, read: Sequence[int], original: Callable[[int], int]
) -> int:
    if tensor in groups.bits or tensor in groups.constants:
        return _stored(step, groups, tensor)
    return max(size(step, t) for t in read if original(t) == tensor)


@dataclass
class _Storage:
    made: str
    bytes: int
    read: list[str] = field(default_factory=list)


class Watched(TorchDispatchMode):
    """Every tensor of what runs inside, on real tensors: who makes what a storage holds, and who reads it."""

    def __init__(self) -> None:
        super().__init__()
        self._now: dict[int, _Storage] = {}
        self._alive: list[Any] = []
        self.found: list[_Storage] = []

    def _of(self, tensor: Tensor) -> _Storage:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._now:
            self._new(storage, "")
        return self._now[storage._cdata]

    def _new(self, storage: torch.UntypedStorage, made: str) -> None:
        self._alive.append(storage)
        self._now[storage._cdata] = _Storage(made, storage.nbytes())
        self.found.append(self._now[storage._cdata])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        before = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        name = func._schema.name.replace("::", ".")
        changed = [
            x
            for argument, x in zip(func._schema.arguments, args, strict=False)
            if isinstance(x, Tensor) and argument.alias_info is not None and argument.alias_info.is_write
        ]
        fresh = [x for x in made if x.untyped_storage()._cdata not in before]
        if fresh or changed:
            for storage in {id(self._of(x)): self._of(x) for x in given}.values():
                storage.read.append(name)
        for x in (*fresh, *changed):
            self._new(x.untyped_storage(), name)
        self._alive.extend(made)
        return out


def watched(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> list[_Storage]:
    """The tensors of a step of a model on real numbers."""
    watch = Watched()
    with watch:
        loss(model(x)).backward()
    return watch.found


def kept_by_autograd(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Counter[int]:
    """Bytes of the storages that autograd saves for backward, each once, but for parameters and the input."""
    saved: dict[int, int] = {}
    alive: list[Tensor] = []
    outside = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers(), x)}

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model(x)).backward()
    return Counter(n for storage, n in saved.items() if storage not in outside)
