"""Explored machines, from the same counts as their page: a front, all axes side by side, which axis decides what."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from ...workloads.errors import InputError, nearest
from ..explore.page.cuts import Cuts, Pair
from ..explore.page.drawn import importance_rows, ticks
from ..explore.page.front_rows import shown_rows, value_of
from ..explore.page.scales import Bins, short_label
from ..explore.page.staircase import Staircase
from ..explore.page.summary import Objective, Summary
from ..theme import Theme, theme_of
from .drawing import BOTTOM, CHARACTER, LEFT, Picture, bare, head, legend

__all__ = ["axes_figure", "front_figure", "importances_figure"]

_WIDTH, _HEAD, _MARGIN, _RIGHT = 9.2, 1.2, 0.85, 0.35
"""Inches: the figure, what stands above the panel, left and right of it."""
_PANEL, _AXIS, _BAR = 4.4, 0.98, 0.16
"""Inches: height of a panel, from one vertical axis to the next, thickness of a bar."""
_SHARE_COLOURS = ("compute", "interleave_stall", "wuve", "sore", "fill_drain", "port_stall")


def front_figure(
    cuts: Cuts, front: pd.DataFrame | None, summary: Summary, across: str, up: str, theme: str = "light"
) -> Figure:
    """Two objectives against each other: where the machines lie, their front, and what the bound rules out."""
    look, pair = theme_of(theme), _pair(cuts, across, up)
    turned = pair.x.name != across
    x, y = (pair.y, pair.x) if turned else (pair.x, pair.y)
    with mpl.rc_context({**look.rc, "hatch.linewidth": 0.5}):
        height = _HEAD + _PANEL + BOTTOM
        figure = Picture(figsize=(_WIDTH, height))
        box = (_MARGIN / _WIDTH, BOTTOM / height, 1 - (_MARGIN + _RIGHT) / _WIDTH, _PANEL / height)
        ax = figure.add_axes(box)
        bins = cuts.seen.objectives
        _objective_axes(ax, x, y, bins[x], bins[y])
        if pair.bound is not None:
            _ruled_out(ax, _corners(pair, pair.bound, turned), x, y, look)
        _density(ax, pair.left_out, bins[x], bins[y], look.muted, look, turned=turned)
        _density(ax, pair.runs, bins[x], bins[y], look.causes["compute"], look, turned=turned)
        if len(pair.front.x):
            line = _stairs(ax, _corners(pair, pair.front, turned), x, y)
            ax.plot(line[:, 0], line[:, 1], color=look.causes["dram_stall"], linewidth=1.6, zorder=4)
        front = None if front is None else shown_rows(front, list(cuts.seen.objectives))
        if front is not None and {across, up} <= set(front.columns):
            ax.scatter(
                front[across],
                front[up],
                s=12,
                color=look.causes["dram_stall"],
                edgecolors=look.background,
                linewidths=0.6,
                zorder=5,
            )
        _front_legend(figure, pair, look)
        count = len(pair.front.x)
        found = f"{count:,} trade-off{'s' * (count != 1)} of {x.words} and {y.words} among {cuts.points:,} machines"
        head(figure, found if count else "No machine has both numbers", _of(summary), look)
    return figure


def _pair(cuts: Cuts, across: str, up: str) -> Pair:
    names = [one.name for one in cuts.seen.objectives]
    for name in (across, up):
        if name not in names:
            raise InputError(f"objective {name!r} has no number in these points: {nearest(name, names)}")
    for pair in cuts.pairs:
        if {pair.x.name, pair.y.name} == {across, up}:
            return pair
    raise InputError(f"a front needs two objectives, not {across!r} twice")


def _corners(pair: Pair, front: Staircase, turned: bool) -> NDArray[np.float64]:
    """The corners of a front, float64 [corners, 2], in the objectives' own signs and the picture's order."""
    found = np.stack((pair.x.sign * front.x, pair.y.sign * front.y), axis=1)
    return found[::-1, ::-1] if turned else found


def _objective_axes(ax: Axes, x: Objective, y: Objective, xs: Bins, ys: Bins) -> None:
    ax.grid(linewidth=0.8)
    ax.tick_params(length=0, which="both")
    for axis, one, bins, scale, limit in (
        (ax.xaxis, x, xs, ax.set_xscale, ax.set_xlim),
        (ax.yaxis, y, ys, ax.set_yscale, ax.set_ylim),
    ):
        low, high = bins.edges[[0, -1]]
        if bins.log:
            scale("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
            axis.set_minor_formatter(NullFormatter())
            room = (high / low) ** 0.03
            limit(low / room, high * room)
        else:
            limit(low - 0.03 * (high - low), high + 0.03 * (high - low))
        axis.set_major_formatter(FuncFormatter(lambda v, _: short_label(float(v))))
        axis.set_label_text(one.label, fontsize=9)


def _edges(ax: Axes, one: Objective, axis: str) -> tuple[float, float]:
    """The worst and the best value that is in the picture."""
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    return (high, low) if one.sign > 0 else (low, high)


def _stairs(ax: Axes, corners: NDArray[np.float64], x: Objective, y: Objective) -> NDArray[np.float64]:
    """From corner to corner, float64 [places, 2]: what is as good in one and worse in the other is behind the front."""
    line = [(corners[0, 0], _edges(ax, y, "y")[0])]
    for i, (across, up) in enumerate(corners):
        line += [(across, up), (corners[i + 1, 0] if i + 1 < len(corners) else _edges(ax, x, "x")[0], up)]
    return np.array(line)


def _ruled_out(ax: Axes, corners: NDArray[np.float64], x: Objective, y: Objective, theme: Theme) -> None:
    (worst_x, best_x), (worst_y, best_y) = _edges(ax, x, "x"), _edges(ax, y, "y")
    shape = [*_stairs(ax, corners, x, y), (worst_x, best_y), (best_x, best_y), (best_x, worst_y)]
    across, up = np.array(shape).T
    colour = (*to_rgb(theme.muted), 0.55)
    ax.fill(across, up, facecolor=(*to_rgb(theme.muted), 0.06), edgecolor=colour, hatch="////", linewidth=0, zorder=1)


def _density(
    ax: Axes, counts: NDArray[np.int64], xs: Bins, ys: Bins, colour: str, theme: Theme, *, turned: bool
) -> None:
    """How many machines are in each bin, by the logarithm."""
    if not counts.any():
        return
    shown = counts if turned else counts.T
    light = tuple(0.8 * b + 0.2 * c for b, c in zip(to_rgb(theme.background), to_rgb(colour), strict=True))
    colours = LinearSegmentedColormap.from_list("density", [light, to_rgb(colour)])
    logs = np.ma.masked_less(np.log10(np.maximum(shown, 0.1)), 0.0)
    ax.pcolormesh(xs.edges, ys.edges, logs, cmap=colours, vmin=0, vmax=max(1.0, float(logs.max())), zorder=3)


def _front_legend(figure: Figure, pair: Pair, theme: Theme) -> None:
    orange = theme.causes["dram_stall"]
    handles: list[Patch | Line2D] = [Patch(color=theme.causes["compute"], label="scheduled (darker: more)")]
    if pair.left_out.any():
        handles.append(Patch(color=theme.muted, label="left out, by bound"))
    handles.append(Line2D([], [], color=orange, label="front of both"))
    handles.append(Line2D([], [], color=orange, marker="o", linestyle="", markersize=4, label="front of all"))
    if pair.bound is not None:
        hatched = Patch(facecolor="none", edgecolor=theme.muted, hatch="////", linewidth=0.5, label="none, by bound")
        handles.append(hatched)
    legend(figure, handles, handle=1.1)


def axes_figure(cuts: Cuts, front: pd.DataFrame | None, summary: Summary, theme: str = "light") -> Figure:
    """Parallel coordinates: how many machines take which way from axis to axis, and the ways of the front."""
    look = theme_of(theme)
    if len(cuts.columns) < 2:
        raise InputError("fewer than two axes and objectives of these points take more than one value")
    names = [column.label.replace(".", ".\n").replace("_", "_\n").replace(" ", "\n") for column in cuts.columns]
    lines = max(name.count("\n") for name in names) + 1
    with mpl.rc_context(look.rc):
        width = max(_WIDTH, 2 * _MARGIN + _AXIS * (len(names) - 1))
        above = _HEAD + 0.15 * lines
        height = above + _PANEL + 0.3
        figure = Picture(figsize=(width, height))
        ax = figure.add_axes((0.5 / width, 0.3 / height, 1 - 1.3 / width, _PANEL / height))
        _links(ax, cuts, look)
        some = None if front is None else shown_rows(front, list(cuts.seen.objectives))
        ways = [] if some is None else _ways(cuts, some)
        colour = (*to_rgb(look.causes["dram_stall"]), 0.3 if len(ways) > 60 else 0.55 if len(ways) > 15 else 0.85)
        ax.add_collection(LineCollection(ways, colors=[colour], linewidths=1.1, zorder=3))
        for i, (column, name) in enumerate(zip(cuts.columns, names, strict=True)):
            ax.plot([i, i], [0, 1], color=look.muted, linewidth=1, zorder=4)
            weight = "normal" if column.objective is None else "bold"
            ax.text(i, 1.03, name, ha="center", va="bottom", fontsize=9, fontweight=weight)
            for at, text in ticks(column):
                note = {"facecolor": look.background, "alpha": 0.75, "linewidth": 0, "pad": 0.6}
                ax.text(i + 0.04, at, text, ha="left", va="center", fontsize=9, bbox=note, zorder=5)
        ax.set_xlim(0, len(names) - 1)
        ax.set_ylim(-0.01, 1.01)
        ax.axis("off")
        legend(
            figure,
            [
                Patch(color=look.causes["compute"], label="scheduled (darker: more)"),
                Line2D([], [], color=look.causes["dram_stall"], label="the front"),
            ],
        )
        ran = int(cuts.links[0].sum())
        head(figure, f"{len(ways):,} machines of the front among {ran:,} that run", _of(summary), look)
    return figure


def _links(ax: Axes, cuts: Cuts, theme: Theme) -> None:
    base = to_rgb(theme.causes["compute"])
    for gap, counts in enumerate(cuts.links):
        left, right = np.nonzero(counts)
        if not len(left):
            continue
        strength = np.sqrt(counts[left, right] / counts.max())
        ends = [
            ((gap, cuts.columns[gap].scale.middles[i]), (gap + 1, cuts.columns[gap + 1].scale.middles[j]))
            for i, j in zip(left.tolist(), right.tolist(), strict=True)
        ]
        colours = [(*base, 0.06 + 0.6 * s**1.5) for s in strength.tolist()]
        ax.add_collection(LineCollection(ends, colors=colours, linewidths=0.6 + 1.6 * strength, zorder=2))


def _ways(cuts: Cuts, front: pd.DataFrame) -> list[list[tuple[float, float]]]:
    """Of every point the places on the axes, as far as it has them."""
    known = [(i, column) for i, column in enumerate(cuts.columns) if column.name in front.columns]
    ways = []
    for row in range(len(front)):
        places = [(float(i), column.scale.place(value_of(front, row, column.name))) for i, column in known]
        ways.append([(i, at) for i, at in places if at is not None])
    return ways


def importances_figure(summary: Summary, theme: str = "light") -> Figure:
    """Share of every objective's variance that an axis explains."""
    look, found = theme_of(theme), importance_rows(summary)
    if found is None:
        raise InputError("the summary has no importances")
    names, rows = found["objectives"], found["rows"]
    with mpl.rc_context(look.rc):
        tall = (_BAR * len(names) + 0.14) * len(rows)
        height, width = 1.15 + tall + BOTTOM, _WIDTH
        figure = Picture(figsize=(width, height))
        left = LEFT + CHARACTER * max(len(row["label"]) for row in rows) + 0.1
        ax = figure.add_axes((left / width, BOTTOM / height, 1 - (left + _RIGHT) / width, tall / height))
        thick = 0.84 / len(names)
        handles: list[Patch | Line2D] = []
        for i, name in enumerate(names):
            colour = look.causes[_SHARE_COLOURS[i % len(_SHARE_COLOURS)]]
            places = [n - 0.42 + thick * (i + 0.5) for n in range(len(rows))]
            ax.barh(places, [100 * row["shares"][i] for row in rows], height=thick, color=colour, linewidth=0)
            handles.append(Patch(color=colour, label=name))
        bare(ax)
        ax.set_yticks(range(len(rows)), [row["label"] for row in rows])
        ax.set_ylim(len(rows) - 0.45, -0.55)
        ax.set_xlabel("% of the variance of each objective", fontsize=9)
        legend(figure, handles, handle=1.1)
        top = max(rows, key=lambda row: row["shares"][0])
        head(figure, f"{top['label']} decides most of {names[0]}: {100 * top['shares'][0]:.0f} %", _of(summary), look)
    return figure


def _of(summary: Summary) -> str:
    parts = [summary.model, f"variants of {summary.machine}" if summary.machine else None]
    return ", ".join(part for part in parts if part) or "explored machines"
