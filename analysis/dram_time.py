"""DRAM over the time of a step, by pass: with ops overlapped as it was served, op after op spread over each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..simulator.channels import channels, engine_names
from ..simulator.result import SimResult
from ..simulator.system_result import SystemResult
from ..workloads.gemm import Pass
from .bins import BINS, bin_amounts
from .level import AnyResult

__all__ = ["DramData", "dram_over_time"]

_KINDS = {"matrix": "products", "vector": "vector work", "update": "updates"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DramData:
    """Bytes in `BINS` equal parts of a step of ``length`` 1/``rate`` cycles, by pass, and by pass and who asks."""

    length: int
    rate: int
    moved: dict[Pass, list[int]]
    asked: dict[str, dict[Pass, int]]


def dram_over_time(result: AnyResult) -> DramData | None:
    """With ops overlapped every transfer, as it was served; op after op the bytes of each, spread over its time. None
    of a step of more phases than are kept."""
    if isinstance(result, SimResult):
        return _op_after_op(result)
    happened, length = result.record(), int(result.end.max())
    if happened is None:
        return None
    dram, ops = happened.timeline["DRAM"], result.step.ops
    passes = [Pass(ops[op].op.pass_) for op in dram.op.tolist()]
    asked = {}
    for name, numbers in _askers(result):
        mine = dict.fromkeys(Pass, 0)
        for p, channel, n in zip(passes, dram.channel.tolist(), dram.moved.tolist(), strict=True):
            mine[p] += n if channel in numbers else 0
        asked[name] = mine
    moved = _binned(dram.start.tolist(), dram.end.tolist(), dram.moved.tolist(), passes, length)
    return DramData(length=length, rate=result.rate, moved=moved, asked=asked)


def _op_after_op(result: SimResult) -> DramData:
    ends = list(accumulate(r.cycles.total for r in result.ops))
    starts = [end - r.cycles.total for end, r in zip(ends, result.ops, strict=True)]
    amounts, passes = [r.counts.dram_bytes for r in result.ops], [Pass(r.op.pass_) for r in result.ops]
    asked = {
        word: {p: sum(r.counts.dram_bytes for r in result.select(p) if r.op.kind == kind) for p in Pass}
        for kind, word in _KINDS.items()
    }
    length = max(result.cycles.total, 1)
    return DramData(length=length, rate=1, moved=_binned(starts, ends, amounts, passes, length), asked=asked)


def _askers(result: SystemResult) -> Iterator[tuple[str, list[int]]]:
    """Who moves bytes, and by which channels; the only engine for products is "array"."""
    names = engine_names(result.step.spec)
    alone, every = len(names.products) == 1, list(enumerate(channels(len(names.products))))
    for engine in dict.fromkeys(channel.engine for _, channel in every):
        numbers = [number for number, channel in every if channel.engine == engine]
        yield ("array" if alone and engine == 0 else names.engines[engine]), numbers


def _binned(
    starts: Sequence[int], ends: Sequence[int], amounts: Sequence[int], passes: Sequence[Pass], length: int
) -> dict[Pass, list[int]]:
    made = {}
    for p in Pass:
        mine = [i for i, one in enumerate(passes) if one is p and amounts[i]]
        if mine:
            start, end, amount = ([column[i] for i in mine] for column in (starts, ends, amounts))
            made[p] = bin_amounts(start, end, amount, length, BINS)
    return made
