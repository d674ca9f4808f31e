"""A panel for each machine and batch: speed-up of every scheme and pattern over the dense step there, and its time."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...workloads.errors import shorten
from ...workloads.words import named
from ..compare_sweep import BASELINE, Sweep, SweepRow
from ..theme import Theme, theme_of
from ..words import seconds
from .drawing import CHARACTER, LEFT, Picture, bare, head, legend

__all__ = ["sweep_figure"]

_WIDTH, _RIGHT, _BETWEEN, _BAR = 9.2, 0.15, 0.25, 0.27
"""Inches: the figure, its right margin, between panels, a row."""
_HEAD, _NAME, _AXIS = 1.05, 0.3, 0.5
"""Inches: above all panels, the name above a panel, below its axis."""
_OFFSET = 0.12
"""Inches between a bar and its words."""
_ACROSS, _MOST = 2, 24
"""Panels side by side, and in all: a picture of more is longer than anybody looks at."""
_TITLE, _PANEL_NAME, _RUN_NAME = 86, 44, 24
"""Characters."""
_COLOURS = ("compute", "interleave_stall", "wuve", "sore", "dram_stall", "fill_drain", "port_stall")


def sweep_figure(sweep: Sweep, theme: str = "light") -> Figure:
    """Speed-ups, with the time of a step beside each, and what the scheme promises; of the first machines and batches,
    where there are very many."""
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(sweep, look)


def _draw(sweep: Sweep, theme: Theme) -> Figure:
    groups = list(sweep.groups.items())[:_MOST]
    across = min(_ACROSS, len(groups))
    bars = max(len(rows) for _, rows in groups)
    panel, lines = _NAME + _BAR * bars + _AXIS, -(-len(groups) // across)
    height = _HEAD + lines * panel
    figure = Picture(figsize=(_WIDTH, height))
    shown = [row for _, rows in groups for row in rows]
    labels = LEFT + CHARACTER * max(len(_run(row)) for row in shown) + 0.1
    behind = _OFFSET + CHARACTER * max(len(_words(row)) for row in shown)
    wide = (_WIDTH - _RIGHT - (across - 1) * _BETWEEN) / across - labels
    most = max(max(row.speedup or 0.0, row.ideal_speedup or 0.0) for row in shown) or 1.0
    colours = _colours(sweep, theme)
    for i, ((machine, batch), rows) in enumerate(groups):
        left, top = labels + (i % across) * (labels + wide + _BETWEEN), height - _HEAD - (i // across) * panel - _NAME
        tall = _BAR * len(rows)
        ax = figure.add_axes((left / _WIDTH, (top - tall) / height, wide / _WIDTH, tall / height))
        name = shorten(f"{named(machine)}, batch {batch}", _PANEL_NAME)
        figure.text((left - labels + LEFT) / _WIDTH, (top + 0.08) / height, name, fontsize=10, fontweight="bold")
        _panel(ax, rows, colours, theme)
        ax.set_xlim(0, most * wide / (wide - behind))
    head(figure, shorten(_title(sweep), _TITLE), _subtitle(sweep, len(groups)), theme)
    _legend(figure, sweep, theme)
    return figure


def _panel(ax: Axes, rows: Sequence[SweepRow], colours: dict[str | None, str], theme: Theme) -> None:
    bare(ax)
    ax.set_yticks(range(len(rows)), [_run(row) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("times as fast as dense", fontsize=9)
    for y, row in enumerate(rows):
        length = row.speedup or 0.0
        ax.barh(y, length, height=0.74, color=theme.muted if row.scheme == BASELINE else colours[row.pattern])
        if row.ideal_speedup is not None and row.ideal_speedup > 1 and row.speedup is not None:
            x = row.ideal_speedup
            ax.plot([x, x], [y - 0.46, y + 0.46], color=theme.text, linewidth=1.8, solid_capstyle="butt", zorder=4)
            length = max(length, x)
        colour = theme.muted if row.reason else theme.text
        ax.annotate(
            _words(row), (length, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=colour
        )


def _words(row: SweepRow) -> str:
    if row.seconds is None:
        return "cannot run"
    took = seconds(row.seconds)
    return f"{took}, no dense step" if row.speedup is None else f"{row.speedup:.2f}×  {took}"


def _run(row: SweepRow) -> str:
    return shorten(named(row.run), _RUN_NAME)


def _colours(sweep: Sweep, theme: Theme) -> dict[str | None, str]:
    """A colour for each pattern; what has none takes the first."""
    patterns = dict.fromkeys(row.pattern for row in sweep.rows if row.scheme != BASELINE)
    return {pattern: theme.causes[_COLOURS[i % len(_COLOURS)]] for i, pattern in enumerate(patterns)}


def _legend(figure: Figure, sweep: Sweep, theme: Theme) -> None:
    if not any((row.ideal_speedup or 0.0) > 1 for row in sweep.rows):
        return
    line = Line2D([], [], color=theme.text, linewidth=1.8, label="if every layer kept the scheme's promise")
    legend(figure, [line], below=0.76)


def _title(sweep: Sweep) -> str:
    placed = [row for row in sweep.rows if row.samples_per_s is not None]
    if not placed:
        return f"None of {len(sweep.rows)} combinations runs {named(sweep.model)}"
    best = max(placed, key=lambda row: row.samples_per_s or 0.0)
    return (
        f"{named(sweep.model)} trains fastest with {best.run} on {named(best.machine)} at batch {best.batch}: "
        f"{best.samples_per_s:,.4g} samples/s"
    )


def _subtitle(sweep: Sweep, shown: int) -> str:
    every = len(sweep.groups)
    some = f"; the first {shown} of {every} machines and batches" if shown < every else ""
    return f"one training step, op after op, beside dense on the same machine at the same batch{some}"
