"""DRAM over the time of a step: what every pass moves, one upon the other, under the peak of the memory."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...simulator.system import MOST_LOGGED
from ...workloads.errors import InputError
from ..bins import BINS
from ..dram_time import DramData, dram_over_time
from ..level import AnyResult, seconds_of, step_of
from ..theme import Theme, theme_of
from ..words import percents_of, seconds, time_unit
from .drawing import BOTTOM, LEFT, Picture, head, legend, subtitle

__all__ = ["dram_figure"]

_WIDTH, _HEIGHT, _TOP, _RIGHT = 9.2, 3.9, 1.15, 0.25
"""Inches."""


def dram_figure(result: AnyResult, theme: str = "light") -> Figure:
    """Gigabytes a second by pass; refused of a step of more phases than are kept."""
    look, dram = theme_of(theme), dram_over_time(result)
    if dram is None:
        raise InputError(f"DRAM over time is kept of steps of up to {MOST_LOGGED:,} phases; use a smaller batch")
    with mpl.rc_context(look.rc):
        return _draw(result, dram, look)


def _draw(result: AnyResult, dram: DramData, theme: Theme) -> Figure:
    figure = Picture(figsize=(_WIDTH, _HEIGHT))
    left = LEFT + 0.5
    ax = figure.add_axes(
        (left / _WIDTH, BOTTOM / _HEIGHT, 1 - (left + _RIGHT) / _WIDTH, (_HEIGHT - _TOP - BOTTOM) / _HEIGHT)
    )
    sums = {p: sum(bins) for p, bins in dram.moved.items()}
    peak, took = step_of(result).spec.dram.bytes_per_second / 1e9, seconds_of(result)
    _areas(ax, dram, took, peak, theme)
    share = percents_of(sums)
    handles = [Patch(color=theme.passes[p], label=f"{p} {share[p]} %") for p in sums]
    limit = Line2D([], [], color=theme.text, linewidth=1.2, linestyle="--", label=f"peak, {peak:.3g} GB/s")
    legend(figure, [*handles, limit])
    moved = sum(sums.values())
    rate = moved / took / 1e9 if moved else 0.0
    title = f"{moved / 1e9:.3g} GB in {seconds(took)}: {rate:.3g} of {peak:.3g} GB/s on average"
    head(figure, title, subtitle(result), theme)
    return figure


def _areas(ax: Axes, dram: DramData, took: float, peak: float, theme: Theme) -> None:
    """A step a bin, with its mean rate."""
    each, unit = time_unit(took)
    edges = np.linspace(0, took / each, BINS + 1)
    below = np.zeros(BINS)
    for p, bins in dram.moved.items():
        above = below + np.array(bins, np.float64) * BINS / took / 1e9
        ax.fill_between(
            edges, [*below, below[-1]], [*above, above[-1]], step="post", color=theme.passes[p], linewidth=0
        )
        below = above
    ax.axhline(peak, color=theme.text, linewidth=1.2, linestyle="--")
    ax.set_xlim(0, took / each)
    ax.set_ylim(0, 1.08 * max(peak, float(below.max())))
    ax.set_xlabel(unit, fontsize=9)
    ax.set_ylabel("GB/s", fontsize=9)
    ax.grid(axis="y", linewidth=0.8)
    ax.tick_params(length=0)
