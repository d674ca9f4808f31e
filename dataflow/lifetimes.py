"""What of a traced step is in DRAM when, besides the model: from the op that makes it to the last that reads it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..workloads.step import Workload
from ..workloads.tensors import StepTensor
from .beside import machine_bytes
from .fusion.facts import Facts
from .fusion.fuse import Account, as_fused
from .fusion.groups import Groups
from .integers import whole_bytes
from .operand import OperandFormat

__all__ = ["Live", "lives", "originals"]


class Live(NamedTuple):
    """``size`` bytes that are in DRAM while ops ``first`` to ``last`` run; ``made``: whose result they are, -1 of what
    was there before, the batch and statistics that are kept running."""

    size: int
    first: int
    last: int
    made: int


def lives(
    workload: Workload, weights: Counter[int], operand: OperandFormat, on_chip: Collection[int] = ()
) -> list[Live]:
    """Of every storage the time in which any tensor of it is wanted, in order; ops one after the other.

    ``weights``: by elements, how many tensors of the model the step does not write, which are left out, as are caches
    and those ``on_chip``, by their places in ``Workload.tensors``. Of a group that is fused all is read and written
    where its head is; only what leaves it is there at all.
    """
    facts, groups = as_fused(workload)
    stored, heads = _stored(facts, groups), {i: group.head for group in groups.groups for i in group.ops}
    first_of, left_out = originals(workload.tensors), _of_model(workload, weights)
    read = _readers(workload.tensors, groups)
    found: dict[int, Live] = {}
    for number, tensor in enumerate(workload.tensors):
        storage = first_of[number]
        if number not in stored or number in on_chip or storage in left_out:
            continue
        at = [max(tensor.made, 0), *read[number]]
        if heads:
            at = [heads.get(i, i) for i in at]
        bits = number in groups.bits
        size = whole_bytes(tensor.elements) if bits else machine_bytes(tensor.dtype, tensor.bytes, operand)
        one = Live(size=size, first=min(at), last=max(at), made=tensor.made)
        before = found.get(storage)
        if before is not None:
            # Written in place: it is one piece of memory, and stays where it is beyond the step if it was there before.
            last = len(workload.ops) - 1 if before.made < 0 else max(before.last, one.last)
            first, most = min(before.first, one.first), max(before.size, size)
            one = before._replace(size=most, first=first, last=last)
        found[storage] = one
    return [one for one in found.values() if one.size]


def originals(tensors: tuple[StepTensor, ...]) -> list[int]:
    """By tensor, the first that its storage held."""
    found = list[int]()
    for number, tensor in enumerate(tensors):
        found.append(number if tensor.replaces is None else found[tensor.replaces])
    return found


def _stored(facts: Facts, groups: Groups) -> set[int]:
    """What is in memory at any time."""
    account, joined = Account(facts, groups), {i for group in groups.groups for i in group.ops}
    left = {tensor for group in groups.groups for tensor in account.wanted(group)}
    own = {number for number, tensor in enumerate(facts.tensors) if tensor.made not in joined}
    return (own | left) - groups.constants - groups.same.keys()


def _readers(tensors: tuple[StepTensor, ...], groups: Groups) -> Mapping[int, Sequence[int]]:
    """By tensor that is stored, the ops that read it, or a cast of it that is the same; the casts do nothing."""
    if not groups.same:
        return {number: tensor.read for number, tensor in enumerate(tensors)}
    casts = {tensors[cast].made for cast in groups.same}
    found: dict[int, list[int]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        found[groups.same.get(number, number)] += [i for i in tensor.read if i not in casts]
    return found


def _of_model(workload: Workload, weights: Counter[int]) -> set[int]:
    """The tensors that were there before the step and are counted as the model's, as far as sizes tell: weights, rather
    of a floating format than of integers, and caches, which the step writes."""
    written = {tensor.replaces for tensor in workload.tensors}
    there = [number for number, tensor in enumerate(workload.tensors) if tensor.made < 0 and tensor.replaces is None]
    there.sort(key=lambda number: "float" not in workload.tensors[number].dtype)
    left = {False: Counter(weights), True: Counter(held.elements for held in workload.phase.cached)}
    found = set[int]()
    for number in there:
        size, of = workload.tensors[number].elements, left[number in written]
        if of[size] > 0:
            of[size] -= 1
            found.add(number)
    return found
