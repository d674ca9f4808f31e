"""Every matrix op under the array's peak and the memory's slope."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...simulator.result import SimResult
from ...workloads.errors import InputError
from ...workloads.gemm import GEMM_PASSES, Pass
from ..layer_groups import bar_labels
from ..level import AnyResult, step_of
from ..op_groups import op_groups
from ..roofline import Roofline, RooflinePoint, farthest_below, group_point, roofline
from ..theme import Theme, theme_of
from ..words import percent
from .drawing import Picture, head, subtitle
from .labels import place_labels

__all__ = ["roofline_figure"]

_MARKERS = {Pass.FF: ("o", "FF forward"), Pass.BP: ("s", "BP input gradient"), Pass.WU: ("^", "WU weight gradient")}
_LARGEST_AREA, _SMALLEST_AREA = 600, 14
"""Areas of markers in square points."""
_NEAR, _NAMED = 0.9, 4
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def roofline_figure(result: AnyResult, theme: str = "light") -> Figure:
    """Matrix ops under the array's peak and the memory's slope, those that are alike as one; the area of a marker is
    its time."""
    look, step = theme_of(theme), step_of(result)
    roofs = roofline(step)
    if not roofs.points:
        raise InputError(f"workload {step.workload.model!r} has no matrix op to draw a roofline of")
    with mpl.rc_context(look.rc):
        return _draw(result, roofs, look)


def _draw(result: AnyResult, roofs: Roofline, theme: Theme) -> Figure:
    figure = Picture(figsize=(8.6, 5.6))
    ax = figure.add_axes((0.09, 0.11, 0.88, 0.75))
    _scale(ax, roofs)
    _draw_roofs(ax, roofs, theme)
    _draw_points(figure, ax, step_of(result), roofs, theme)
    _legend(ax, roofs, theme)
    head(figure, _title(roofs), subtitle(result), theme)
    return figure


def _scale(ax: Axes, roofs: Roofline) -> None:
    """All ops and the ridge in sight, with room to read."""
    ridge = roofs.peak_gmacs / roofs.gbytes_per_s
    found = [ridge, *(p.intensity for p in roofs.points if p.intensity < inf)]
    low, high = min(found) / 3, max(found) * 5
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(min(*(p.gmacs for p in roofs.points), roofs.roof(low)) / 1.8, roofs.sparse_gmacs * 1.5)
    ax.set_xlabel("MAC of the dense product per DRAM byte moved")
    ax.set_ylabel("GMAC/s of the dense product, each op by itself")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    ax.grid(which="major", linewidth=0.8)
    ax.tick_params(which="both", length=0)


def _draw_roofs(ax: Axes, roofs: Roofline, theme: Theme) -> None:
    low, high = ax.get_xlim()
    ridge = roofs.peak_gmacs / roofs.gbytes_per_s
    best = roofs.sparse_gmacs / roofs.peak_gmacs
    ax.plot([low, ridge, high], [roofs.roof(low), roofs.peak_gmacs, roofs.peak_gmacs], color=theme.text, linewidth=1.4)
    ax.annotate(
        f"dense peak {roofs.peak_gmacs:,.4g} GMAC/s",
        (high, roofs.peak_gmacs),
        xytext=(-2, 3),
        ha="right",
        va="bottom",
        **_SMALL,
    )
    ax.annotate(
        f"DRAM {roofs.gbytes_per_s:,.3g} GB/s", (low, roofs.roof(low)), xytext=(14, 0), ha="left", va="center", **_SMALL
    )
    for name, peak in roofs.others:
        ax.plot([peak / roofs.gbytes_per_s, high], [peak, peak], color=theme.text, linewidth=1.0)
        ax.annotate(
            f"peak of the {name} {peak:,.4g} GMAC/s",
            (peak / roofs.gbytes_per_s, peak),
            xytext=(14, 3),
            ha="left",
            va="bottom",
            **_SMALL,
        )
    if best > 1:
        ax.plot(
            [ridge, ridge * best, high],
            [roofs.peak_gmacs, roofs.sparse_gmacs, roofs.sparse_gmacs],
            color=theme.muted,
            linewidth=1.4,
            linestyle=(0, (4, 3)),
        )
        ax.annotate(
            f"sparse peak, {best:.3g}× fewer MACs",
            (high, roofs.sparse_gmacs),
            xytext=(-2, 4),
            ha="right",
            va="bottom",
            color=theme.muted,
            **_SMALL,
        )


def _draw_points(figure: Figure, ax: Axes, result: SimResult, roofs: Roofline, theme: Theme) -> None:
    """A marker for ops that are alike, large ones behind small ones, which shine through; names of the worst."""
    placed = [(group, point) for group in op_groups(result) if (point := group_point(result, group)) is not None]
    found = sorted(((g, p) for g, p in placed if p.intensity < inf), key=lambda pair: -pair[1].cycles)
    areas = {id(p): max(_LARGEST_AREA * p.cycles / found[0][1].cycles, _SMALLEST_AREA) for _, p in found}
    for _, p in found:
        colour = theme.passes[p.pass_]
        ax.scatter(
            p.intensity,
            p.gmacs,
            s=areas[id(p)],
            marker=_MARKERS[p.pass_][0],
            zorder=3,
            linewidth=1.2,
            color=(colour, 0.25),
            edgecolor=colour,
        )
    layers = {group.layer: group.layers for group, _ in found}
    short = dict(zip(layers, bar_labels(layers, longest=32), strict=True))
    names = {id(p): f"{short[g.layer]}, {p.pass_}: {percent(p.gmacs / p.roof_gmacs)} of its roof" for g, p in found}
    worst = farthest_below((p for _, p in found), _NAMED)
    points = [*worst, *(p for _, p in found if all(p is not other for other in worst))]
    place_labels(
        figure,
        ax,
        [(p.intensity, p.gmacs) for p in points],
        [(0.0, 0.0)] * len(points),
        [names[id(p)] for p in worst],
        theme,
        size=9,
        lines=[*_roof_lines(ax, roofs), *(edge for p in points for edge in _edges(ax, p, areas[id(p)] ** 0.5 / 2))],
    )


def _edges(ax: Axes, p: RooflinePoint, points: float) -> list[tuple[tuple[float, float], ...]]:
    """Edges and middle of what a marker of a radius of so many ``points`` covers, as pairs of ends."""
    pixels = points * ax.figure.dpi / 72
    x, y = ax.transData.transform((p.intensity, p.gmacs))
    back = ax.transData.inverted().transform
    columns = (back([(x + side * pixels, y - pixels), (x + side * pixels, y + pixels)]) for side in (-1, 0, 1))
    return [((float(a), float(b)), (float(c), float(d))) for (a, b), (c, d) in columns]


def _roof_lines(ax: Axes, roofs: Roofline) -> list[tuple[tuple[float, float], ...]]:
    """What is drawn of both roofs, as pairs of ends."""
    low, high = ax.get_xlim()
    start, slope = (low, roofs.roof(low)), roofs.gbytes_per_s
    tops = [((top / slope, top), (high, top)) for top in (roofs.peak_gmacs, roofs.sparse_gmacs)]
    return [(start, (roofs.sparse_gmacs / slope, roofs.sparse_gmacs)), *tops]


def _legend(ax: Axes, roofs: Roofline, theme: Theme) -> None:
    shown = [p for p in GEMM_PASSES if any(point.pass_ == p for point in roofs.points)]
    handles = [
        ax.scatter([], [], s=60, marker=_MARKERS[p][0], color=theme.passes[p], label=_MARKERS[p][1]) for p in shown
    ]
    ax.legend(
        handles=handles,
        loc="lower right",
        frameon=False,
        fontsize=9,
        title="area: time of all alike",
        title_fontsize=9,
        alignment="left",
    )


def _title(roofs: Roofline) -> str:
    def share(points: Iterable[RooflinePoint]) -> float:
        return sum(p.cycles for p in points) / sum(p.cycles for p in roofs.points)

    near = share(p for p in roofs.points if p.gmacs >= _NEAR * p.roof_gmacs)
    bound = share(p for p in roofs.points if p.memory_bound)
    memory = f"memory bounds {percent(bound)}" if bound else "memory bounds none"
    return f"{percent(near)} of the GEMM time is spent within 10 % of the roof; {memory}"
