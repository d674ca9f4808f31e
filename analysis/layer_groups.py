"""Few enough layers to read: those of equal shape as one, repeated blocks folded, the small rest as 'other'."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import pairwise

from ..simulator.result import OpResult, SimResult
from ..workloads.errors import printable
from ..workloads.step import MatrixOp
from .records import layer_of

__all__ = ["OTHER", "bar_labels", "equal_layers", "group_layers", "ops_of_bars", "short_labels"]

OTHER = "other"
_Parts = tuple[str | frozenset[int], ...]
"""A dotted name, what is a number in it as a set of them."""
_NUMBERS = re.compile(r"\d[\d,…-]*")
"""A part of a name that is a number, or several as `equal_layers` writes them."""
_MOST_RANGES = 3
_COVERED = 0.9
"""Share of the cycles that the layers named one by one should hold before blocks are folded."""
_SEEN = 0.001
"""Share of the cycles that a layer needs to be named at all."""


def group_layers(cycles: dict[str, int], limit: int = 24) -> dict[str, str]:
    """Bar of each layer: at most ``limit`` of them and ``other``.

    While the largest ``limit`` hold less than nine tenths of the cycles, a numbered list of blocks is folded, the
    innermost first: ``layers.0.mlp.fc`` and ``layers.1.mlp.fc`` become ``layers.*.mlp.fc``.
    """
    bars = {layer: layer for layer in cycles}
    while True:
        named = _largest(cycles, bars, limit)
        held = sum(n for layer, n in cycles.items() if bars[layer] in named)
        blocks = _innermost_list(set(bars.values()))
        if held >= _COVERED * sum(cycles.values()) or blocks is None:
            return {layer: bar if bar in named else OTHER for layer, bar in bars.items()}
        bars = {layer: _folded(bar, blocks) for layer, bar in bars.items()}


def equal_layers(result: SimResult) -> dict[str, str]:
    """Name of the group of each layer: layers of equal shape whose names differ in numbers only are one.

    Equal are those of the same matrix products under the same patterns, or, of layers without any, of the same work.
    ``layers.0.fc`` and ``layers.1.fc`` become ``layers.0-1.fc``; a group holds every name that its own stands for,
    but where ``…`` stands between its first number and its last.
    """
    work: dict[str, list[OpResult]] = defaultdict(list)
    for r in result.ops:
        work[layer_of(r)].append(r)
    alike: dict[Hashable, list[str]] = defaultdict(list)
    for layer, ops in work.items():
        alike[_shape(ops)].append(layer)
    return {layer: name for layers in alike.values() for layer, name in _merged(layers).items()}


def _shape(ops: Iterable[OpResult]) -> Hashable:
    products = tuple((r.op.pass_, r.op.op, r.op.gemm, r.op.sparse) for r in ops if isinstance(r.op, MatrixOp))
    others = (r.op for r in ops if not isinstance(r.op, MatrixOp))
    return products or tuple((op.pass_, getattr(op, "op", op.kind), op.elements) for op in others)


def _merged(layers: Iterable[str]) -> dict[str, str]:
    """Name of the group of each of ``layers``: number after number from the left, what differs in that one alone."""
    groups: dict[_Parts, list[str]] = {
        tuple(frozenset((int(part),)) if part.isdecimal() else part for part in layer.split(".")): [layer]
        for layer in layers
    }
    for place in range(max(map(len, groups))):
        sides: dict[tuple[_Parts, _Parts], list[_Parts]] = defaultdict(list)
        for parts in groups:
            if place < len(parts) and isinstance(parts[place], frozenset):
                sides[parts[:place], parts[place + 1 :]].append(parts)
        for (before, after), several in sides.items():
            if len(several) > 1:
                found = (one[place] for one in several)
                numbers = frozenset(n for part in found if not isinstance(part, str) for n in part)
                groups[(*before, numbers, *after)] = [layer for one in several for layer in groups.pop(one)]
    return {layer: ".".join(map(_written, parts)) for parts, inside in groups.items() for layer in inside}


def _written(part: str | frozenset[int]) -> str:
    if isinstance(part, str):
        return part
    numbers = sorted(part)
    starts = [numbers[0], *(late for early, late in pairwise(numbers) if late > early + 1)]
    if len(starts) > _MOST_RANGES:
        return f"{numbers[0]}…{numbers[-1]}"
    ends = [*(early for early, late in pairwise(numbers) if late > early + 1), numbers[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def ops_of_bars(result: SimResult) -> dict[str, list[OpResult]]:
    """Ops behind each bar of `group_layers`, those of equal shape as one layer, 'other' last."""
    cycles: dict[str, int] = defaultdict(int)
    equal = equal_layers(result)
    for r in result.ops:
        cycles[equal[layer_of(r)]] += r.cycles.total
    bar_of_group = group_layers(cycles)
    bar_of = {layer: bar_of_group[group] for layer, group in equal.items()}
    bars: dict[str, list[OpResult]] = {
        name: [] for name in sorted(dict.fromkeys(bar_of.values()), key=lambda name: name == OTHER)
    }
    for r in result.ops:
        bars[bar_of[layer_of(r)]].append(r)
    return bars


def _largest(cycles: dict[str, int], bars: dict[str, str], limit: int) -> set[str]:
    sums: dict[str, int] = defaultdict(int)
    for layer, n in cycles.items():
        sums[bars[layer]] += n
    seen = [bar for bar in sums if sums[bar] >= _SEEN * sum(sums.values())]
    return set(sorted(seen, key=lambda bar: -sums[bar])[:limit])


def _innermost_list(bars: set[str]) -> str | None:
    """Path that holds numbered blocks, the deepest and then the longest; a block has modules inside modules.

    Lists of plain layers, such as a ``Sequential``, are not repetitions and stay apart.
    """
    blocks: dict[str, set[str]] = defaultdict(set)
    for bar in bars:
        parts = bar.split(".")
        for i, part in enumerate(parts[:-2]):
            if _NUMBERS.fullmatch(part):
                blocks[".".join(parts[:i])].add(part)
    repeated = sorted(path for path in blocks if len(blocks[path]) > 1)
    return max(repeated, key=lambda path: (path.count("."), len(blocks[path])), default=None)


def _folded(bar: str, path: str) -> str:
    parts, depth = bar.split("."), len(path.split(".")) if path else 0
    if len(parts) > depth and _NUMBERS.fullmatch(parts[depth]) and ".".join(parts[:depth]) == path:
        parts[depth] = "*"
    return ".".join(parts)


def bar_labels(layers: dict[str, int], longest: int = 46) -> list[str]:
    """Short names of bars, with the number of layers behind one of several: ``longest`` characters together."""
    several = [f" ×{n}" if n > 1 else "" for n in layers.values()]
    return [_tail(name, longest - len(times)) + times for name, times in zip(_beheaded(layers), several, strict=True)]


def short_labels(names: list[str], longest: int = 40) -> list[str]:
    """Names without the words that most of them start with; of what is still too long the last words, whole ones
    where one fits."""
    return [_tail(name, longest) for name in _beheaded(names)]


def _beheaded(names: Iterable[str]) -> list[str]:
    given = list(names)
    prefix = _common_head(given)
    return [printable(name.removeprefix(prefix) or name) for name in given]


def _tail(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    end = name[1 - longest :]
    return "…" + (end if name[-longest] == "." else end.partition(".")[2] or end)


def _common_head(names: list[str]) -> str:
    """Longest dotted head that at least two thirds of the names share and that no number follows."""
    heads: dict[str, int] = defaultdict(int)
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if not (_NUMBERS.fullmatch(parts[i]) or parts[i] == "*"):
                heads[".".join(parts[:i]) + "."] += 1
    shared = [head for head, n in heads.items() if 3 * n >= 2 * len(names)]
    return max(shared, key=len, default="")
