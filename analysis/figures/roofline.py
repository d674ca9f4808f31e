"""Every matrix op under the array's peak and the memory's slope."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import inf, log10
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...workloads.errors import InputError
from ...workloads.gemm import GEMM_PASSES, Pass
from ..layer_groups import short_labels
from ..level import AnyResult, step_of
from ..roofline import Roofline, RooflinePoint, roofline
from ..theme import Theme, theme_of
from ..words import percent
from .drawing import Picture, head, subtitle

__all__ = ["roofline_figure"]

_MARKERS = {Pass.FF: ("o", "FF forward"), Pass.BP: ("s", "BP input gradient"), Pass.WU: ("^", "WU weight gradient")}
_LARGEST_AREA, _SMALLEST_AREA = 600, 14
"""Areas of markers in square points."""
_NEAR = 0.9
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def roofline_figure(result: AnyResult, theme: str = "light") -> Figure:
    """Every matrix op under the array's peak and the memory's slope; the area of a marker is its time."""
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
    _draw_points(ax, roofs, theme)
    _name_worst(ax, roofs, theme)
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


def _draw_points(ax: Axes, roofs: Roofline, theme: Theme) -> None:
    """One marker for all ops of a pass that the eye would not tell apart, the large ones behind the small."""
    places: dict[tuple[Pass, int, int], list[RooflinePoint]] = defaultdict(list)
    for p in roofs.points:
        if p.intensity < inf:
            places[p.pass_, _step(p.intensity), _step(p.gmacs)].append(p)
    times = {place: sum(p.cycles for p in points) for place, points in places.items()}
    for place in sorted(places, key=lambda place: -times[place]):
        points, share = places[place], times[place] / max(times.values())
        x = sum(p.intensity * p.cycles for p in points) / times[place]
        y = sum(p.gmacs * p.cycles for p in points) / times[place]
        ax.scatter(
            x,
            y,
            s=max(_LARGEST_AREA * share, _SMALLEST_AREA),
            marker=_MARKERS[place[0]][0],
            alpha=0.8,
            zorder=3,
            linewidth=0.7,
            color=theme.passes[place[0]],
            edgecolor=theme.background,
        )


def _step(value: float) -> int:
    """Number of the step of 5 % that ``value`` falls on."""
    return round(log10(value) * 50)


def _name_worst(ax: Axes, roofs: Roofline, theme: Theme) -> None:
    """Name the op that loses most time below its own roof."""
    worst = max(roofs.points, key=lambda p: p.cycles * (1 - p.gmacs / p.roof_gmacs))
    if worst.gmacs >= _NEAR * worst.roof_gmacs or worst.intensity == inf:
        return
    low, high = ax.get_xlim()
    leftward = log10(worst.intensity / low) > 0.62 * log10(high / low)
    names = list(dict.fromkeys(p.name for p in roofs.points))
    name = short_labels(names)[names.index(worst.name)]
    text = f"{name}, {worst.pass_}:\n{percent(worst.gmacs / worst.roof_gmacs)} of its roof"
    ax.annotate(
        text,
        (worst.intensity, worst.gmacs),
        xytext=(-14 if leftward else 14, 0),
        va="center",
        ha="right" if leftward else "left",
        color=theme.text,
        **_SMALL,
    )


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
        title="area: time",
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
