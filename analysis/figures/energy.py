"""Energy of a step: a bar a pass, of the tensors that DRAM moves and of the parts of the machine."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ...workloads.words import joules_unit
from ..bands import band_words
from ..energy import ZJ_PER_J, EnergyReport, energy
from ..level import AnyResult, step_of
from ..tensor_energy import energy_by_tensor, part_words, sums_of_parts
from ..theme import Theme, theme_of
from ..words import percents, percents_of
from .drawing import BOTTOM, LEFT, Picture, bare, head, legend, subtitle

__all__ = ["energy_figure"]

_WIDTH, _RIGHT, _ROW, _COLUMNS, _LINE = 9.2, 2.05, 0.42, 3, 0.19
"""Inches: the figure, room for the words behind the bars, a row; columns of the legend, inches of a line of it."""
_NAMES = {Pass.FF: "FF forward", Pass.BP: "BP input gradient", Pass.WU: "WU weight gradient", Pass.OPT: "OPT update"}
_NAMED = 0.0005


def energy_figure(result: AnyResult, theme: str = "light") -> Figure:
    """A bar a pass, split by tensor and part, and the band of each pass."""
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
    _bars(ax, bars, report, theme)
    bare(ax)
    ax.set_yticks(range(len(bars)), [_NAMES[p] for p in bars])
    ax.set_ylim(len(bars) - 0.35, -0.6)
    legend(figure, handles, columns=_COLUMNS)
    head(figure, _title(sums, report), subtitle(result), theme)
    return figure


def _bars(ax: Axes, bars: dict[Pass, dict[str, int]], report: EnergyReport, theme: Theme) -> None:
    """What is likely by part, and a line from the least to the most of a pass."""
    bands = report.pass_bands
    most = max(bands[p].high for p in bars)
    each, unit = joules_unit(most)
    shares = percents(sum(parts.values()) for parts in bars.values())
    for y, ((p, parts), text) in enumerate(zip(bars.items(), shares, strict=True)):
        at = 0.0
        for part, spent in parts.items():
            ax.barh(y, spent / ZJ_PER_J / each, left=at, height=0.74, color=theme.part(part), linewidth=0)
            at += spent / ZJ_PER_J / each
        low, high = bands[p].low / each, bands[p].high / each
        # Below the bar, whose dark parts would hide it.
        ax.plot([low, high], [y + 0.43] * 2, color=theme.text, linewidth=1.2, marker="|", markersize=6)
        words, place = f"{band_words(bands[p])}; {text} %", (max(at, high), y + 0.2)
        ax.annotate(words, place, xytext=(8, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_xlim(0, 1.02 * most / each)
    ax.set_xlabel(f"{unit} of one step; lines: the bands of table {report.table.name}", fontsize=9)


def _title(sums: dict[str, int], report: EnergyReport) -> str:
    most = max(sums, key=lambda part: sums[part])
    share = 100 * sums[most] / report.zeptojoules
    return f"A step takes {band_words(report.band)}; {share:.1f} % of it for {part_words(most)}"
