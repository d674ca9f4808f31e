"""Few enough layers for one picture: repeated blocks folded into one, the small rest as 'other'."""

from __future__ import annotations

from collections import defaultdict

from ..simulator.result import OpResult, SimResult
from ..workloads.errors import printable
from .records import layer_of

__all__ = ["OTHER", "bar_labels", "group_layers", "ops_of_bars", "short_labels"]

OTHER = "other"
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


def ops_of_bars(result: SimResult) -> dict[str, list[OpResult]]:
    """Ops behind each bar of `group_layers`, in the order of the layers, 'other' last."""
    cycles: dict[str, int] = defaultdict(int)
    for r in result.ops:
        cycles[layer_of(r)] += r.cycles.total
    bar_of = group_layers(cycles)
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
            if part.isdigit():
                blocks[".".join(parts[:i])].add(part)
    repeated = sorted(path for path in blocks if len(blocks[path]) > 1)
    return max(repeated, key=lambda path: (path.count("."), len(blocks[path])), default=None)


def _folded(bar: str, path: str) -> str:
    parts, depth = bar.split("."), len(path.split(".")) if path else 0
    if len(parts) > depth and parts[depth].isdigit() and ".".join(parts[:depth]) == path:
        parts[depth] = "*"
    return ".".join(parts)


def bar_labels(layers: dict[str, int]) -> list[str]:
    """Short names of bars, with the number of layers behind one of several."""
    several = [f" ×{n}" if n > 1 else "" for n in layers.values()]
    return [name + times for name, times in zip(short_labels(list(layers)), several, strict=True)]


def short_labels(names: list[str], longest: int = 40) -> list[str]:
    """Names without the words that most of them start with, cut from the left where they are still too long."""
    prefix = _common_head(names)
    short = [printable(name.removeprefix(prefix) or name) for name in names]
    return [name if len(name) <= longest else "…" + name[1 - longest :] for name in short]


def _common_head(names: list[str]) -> str:
    """Longest dotted head that at least two thirds of the names share and that no number follows."""
    heads: dict[str, int] = defaultdict(int)
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if not (parts[i].isdigit() or parts[i] == "*"):
                heads[".".join(parts[:i]) + "."] += 1
    shared = [head for head, n in heads.items() if 3 * n >= 2 * len(names)]
    return max(shared, key=len, default="")
