"""Energy of a step: a bar a pass, of the tensors that DRAM moves and of the parts of the machine."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ..energy import EnergyReport, energy
from ..level import AnyResult, step_of
from ..tensor_energy import energy_by_tensor, part_words, sums_of_parts
from ..theme import Theme, theme_of
from ..words import joules, percents, percents_of
from .drawing import BOTTOM, LEFT, Picture, bare, head, legend, subtitle

__all__ = ["energy_figure"]

_WIDTH, _RIGHT, _ROW, _COLUMNS, _LINE = 9.2, 1.3, 0.42, 3, 0.19
"""Inches: the figure, room for the words behind the bars, a row; columns of the legend, inches of a line of it."""
_NAMES = {Pass.FF: "FF forward", Pass.BP: "BP input gradient", Pass.WU: "WU weight gradient", Pass.OPT: "OPT update"}
_NAMED = 0.0005


def energy_figure(result: AnyResult, theme: str = "light") -> Figure:
    """A bar a pass, split by tensor and part."""
    look, report = theme_of(theme), energy(result)
    if not report.zeptojoules:
        raise InputError(f"workload {step_of(result).workload.model!r} spends no energy to draw")
    with mpl.rc_context(look.rc):
        return _draw(result, report, look)


def _draw(result: AnyResult, report: EnergyReport, theme: Theme) -> Figure:
    bars = {p: parts for p, parts in energy_by_tensor(result, report).items() if parts}
    sums = sums_of_parts(bars.values())
    share = percents_of(sums)
    seen = [part for part in sums if sums[part] >= _NAMED * report.zeptojoules]
    handles = [Patch(color=theme.part(part), label=f"{part_words(part)} {share[part]} %") for part in seen]
    top = 0.9 + _LINE * -(-len(handles) // _COLUMNS)
    height = top + _ROW * len(bars) + BOTTOM
    figure, left = Picture(figsize=(_WIDTH, height)), LEFT + 1.35
    ax = figure.add_axes((left / _WIDTH, BOTTOM / height, 1 - (left + _RIGHT) / _WIDTH, _ROW * len(bars) / height))
    longest = max(sum(parts.values()) for parts in bars.values())
    each = 1e18 if longest >= 1e18 else 1e15
    for y, (parts, text) in enumerate(
        zip(bars.values(), percents(sum(b.values()) for b in bars.values()), strict=True)
    ):
        at = 0.0
        for part, spent in parts.items():
            ax.barh(y, spent / each, left=at, height=0.74, color=theme.part(part), linewidth=0)
            at += spent / each
        words = f"{joules(sum(parts.values()) / 1e21)}, {text} %"
        ax.annotate(words, (at, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9.5)
    bare(ax)
    ax.set_xlim(0, 1.02 * longest / each)
    ax.set_yticks(range(len(bars)), [_NAMES[p] for p in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlabel(f"{'mJ' if each == 1e18 else 'µJ'} of one training step by table {report.table.name}", fontsize=9)
    legend(figure, handles, columns=_COLUMNS)
    head(figure, _title(sums, report), subtitle(result), theme)
    return figure


def _title(sums: dict[str, int], report: EnergyReport) -> str:
    most = max(sums, key=lambda part: sums[part])
    share = 100 * sums[most] / report.zeptojoules
    return f"A step takes {joules(report.joules)}, {share:.1f} % of it for {part_words(most)}"
