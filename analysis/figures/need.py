"""Time of a step against how much of a resource its machine has: the curve, what is enough, the knee, the machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from math import log2

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ..grown import Point
from ..need import Line, Need
from ..need_words import setting_words, share_words, step_on
from ..resources import Resource
from ..theme import Theme, theme_of
from ..words import seconds, time_unit
from .drawing import Picture, head, legend
from .labels import place_labels

__all__ = ["need_figure"]

_COLOURS = ("compute", "interleave_stall")
"""Colours of the theme for the lines, in order."""
_LABEL = 9
_TICKS, _DECIMAL = 8, 500
"""Ticks of a binary axis, about; range of a decimal one that has ticks at 2 and 5 too."""
_AXES = {Resource.DRAM: "peak DRAM bandwidth", Resource.BUFFERS: "all buffers together", Resource.ARRAY: "PEs"}


def need_figure(found: Need, theme: str = "light") -> Figure:
    """The lines of a need on log-log axes; the band is what is near enough."""
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(found, look)


def _draw(found: Need, theme: Theme) -> Figure:
    figure = Picture(figsize=(8.6, 5.2))
    ax = figure.add_axes((0.105, 0.115, 0.865, 0.66))
    colours = [theme.causes[name] for name in _COLOURS]
    _scale(ax, found)
    _draw_band(ax, found, theme)
    for line, colour in reversed(list(zip(found.lines, colours, strict=False))):
        _draw_line(ax, found, line, colour)
    _draw_points(figure, ax, found, colours, theme)
    _legend(figure, found, colours, theme)
    head(figure, _title(found), step_on(found), theme)
    return figure


def _seconds(found: Need, point: Point) -> float:
    length = found.seconds(point)
    assert length is not None, "points of lines run"
    return length


def _path(found: Need, line: Line) -> list[tuple[float, float]]:
    """What is drawn of a line, as far as the machine where that is on it; in steps where only some sizes were tried,
    which holds from above: more than a point has is never slower, or is tried itself."""
    ends = [found.own] if found.exact and line is found.lines[0] and found.own.size > line.points[-1].size else []
    places = [(float(point.size), _seconds(found, point)) for point in (*line.points, *ends)]
    if found.resource is Resource.DRAM:
        return places
    corners = [((x, y), (next_x, y)) for (x, y), (next_x, _) in pairwise(places)]
    return [*chain.from_iterable(corners), places[-1]]


def _scale(ax: Axes, found: Need) -> None:
    """All of the lines and the machine, with room for names."""
    every = [place for line in found.lines for place in _path(found, line)]
    every += [] if found.own.cycles is None else [(found.own.size, _seconds(found, found.own))]
    sizes, times = [size for size, _ in every], [time for _, time in every]
    ax.set_xscale("log")
    ax.set_yscale("log")
    margin = (max(sizes) / min(sizes)) ** 0.05 if max(sizes) > min(sizes) else 2.0
    ax.set_xlim(min(sizes) / margin, max(sizes) * margin)
    room = max(max(times) / min(times), 1.1)
    ax.set_ylim(min(times) / room**0.12, max(times) * room**0.08)
    length, unit = time_unit(max(times))
    ax.xaxis.set_major_locator(_sizes(found, *ax.get_xlim()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: found.resource.amount(round(size)).removesuffix(" PEs")))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / length:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(_AXES[found.resource])
    ax.set_ylabel(f"one training step, {unit}")
    ax.grid(which="major", linewidth=0.8)
    ax.tick_params(which="both", length=0)


def _sizes(found: Need, low: float, high: float) -> FixedLocator | LogLocator:
    """Ticks at powers of two, but of rates, which are decimal."""
    if found.resource is Resource.DRAM:
        return LogLocator(subs=(1, 2, 5) if high / low < _DECIMAL else (1,))
    every = max(1, round((log2(high) - log2(low)) / _TICKS))
    first = -(-int(log2(low) + 1) // every) * every
    return FixedLocator([2.0**n for n in range(first, int(log2(high)) + 1, every)])


def _draw_band(ax: Axes, found: Need, theme: Theme) -> None:
    fastest = _seconds(found, found.asymptote)
    ax.axhspan(fastest, found.bound / found.spec.clock_hz, color=theme.causes["wuve"], alpha=0.3, linewidth=0, zorder=1)
    ax.axhline(fastest, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _draw_line(ax: Axes, found: Need, line: Line, colour: str) -> None:
    path = _path(found, line)
    width = 1.6 if line is found.lines[0] else 1.1
    ax.plot([x for x, _ in path], [y for _, y in path], color=colour, linewidth=width, zorder=3)


def _draw_points(figure: Figure, ax: Axes, found: Need, colours: Sequence[str], theme: Theme) -> None:
    """What is said in words, with names that keep clear of the lines."""
    main, shown = found.lines[0], list[tuple[Point, str, str, str]]()
    for line, colour in zip(found.lines, colours, strict=False):
        shown.append((line.least, "o", colour, _name(found, line.least, "")))
    if main.knee is not None:
        shown.append((main.knee, "D", theme.text, _name(found, main.knee, "knee, ")))
    if found.own.cycles is not None:
        shown.append((found.own, "s", theme.causes["dram_stall"], _name(found, found.own, f"{found.spec.name}, ")))
    places = [(float(point.size), _seconds(found, point)) for point, *_ in shown]
    for at, (_, marker, colour, _) in zip(places, shown, strict=True):
        ax.plot(*at, marker=marker, color=colour, markersize=7, markeredgecolor=theme.background, zorder=5)
    fastest = _seconds(found, found.asymptote)
    lines = [pair for line in found.lines for pair in pairwise(_path(found, line))]
    lines.append(((ax.get_xlim()[0], fastest), (ax.get_xlim()[1], fastest)))
    names = [name for *_, name in shown]
    place_labels(figure, ax, places, [(0.0, 0.0)] * len(places), names, theme, size=_LABEL, lines=lines)


def _name(found: Need, point: Point, before: str) -> str:
    fields = f", {setting_words(found.resource, point)}" if found.resource is Resource.ARRAY else ""
    return f"{before}{found.resource.amount(point.size)}{fields}"


def _legend(figure: Figure, found: Need, colours: Sequence[str], theme: Theme) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, label=line.name) for line, colour in zip(found.lines, colours, strict=False)
    ]
    handles += [
        Line2D([], [], marker="o", linestyle="", color=colours[0], label="least that is enough"),
        Line2D([], [], marker="D", linestyle="", color=theme.text, label="knee"),
        Line2D([], [], marker="s", linestyle="", color=theme.causes["dram_stall"], label="the machine"),
        Patch(color=theme.causes["wuve"], alpha=0.3, label=f"within {share_words(found.within)}"),
    ]
    legend(figure, handles, handle=1.2)


def _title(found: Need) -> str:
    needed, fields = found.resource.amount(found.least.size), setting_words(found.resource, found.least)
    what = f", {fields}" if found.resource is Resource.ARRAY else f" of {found.resource.words}"
    fastest = seconds(_seconds(found, found.asymptote))
    return f"Within {share_words(found.within)} of {fastest}: {needed}{what}"
