"""From the dense step to the promise of a scheme, and from there to what was measured, loss by loss."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...workloads.errors import InputError
from ..compare import Comparison
from ..promise import Promise, Stage, promise_words, promises, stage_words, stages
from ..theme import Theme, theme_of
from ..words import model_name, one_step, time_unit
from .drawing import BOTTOM, CHARACTER, LEFT, TOP, Picture, bare, head

__all__ = ["promise_figure"]

_WIDTH, _RIGHT, _ROW, _TITLE, _GAP = 9.2, 1.5, 0.27, 0.36, 0.2
"""Inches: the figure, room for the words behind the bars, a row, the title of a panel, the gap between panels."""


def promise_figure(comparison: Comparison, theme: str = "light") -> Figure:
    """A waterfall a scheme that promises anything, all on one scale of time.

    Raises: `InputError` where none does.
    """
    found = promises(comparison)
    if not found:
        raise InputError("no scheme of the comparison promises a speed-up over a dense run on the same array")
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(comparison, found, look)


def _draw(comparison: Comparison, found: Mapping[str, Promise], theme: Theme) -> Figure:
    rows = {name: stages(one) for name, one in found.items()}
    inches = {name: _ROW * len(some) for name, some in rows.items()}
    top, under = TOP - 0.35, BOTTOM
    height = top + sum(inches.values()) + (_TITLE + _GAP) * len(rows) + under
    figure = Picture(figsize=(_WIDTH, height))
    left = LEFT + CHARACTER * max(len(stage.label) for some in rows.values() for stage in some) + 0.1
    clock = comparison.baseline.spec.clock_hz
    length, unit = time_unit(max(float(stage.end) for some in rows.values() for stage in some) / clock)
    at = height - top
    for name, some in rows.items():
        at -= _TITLE + inches[name]
        box = (left / _WIDTH, at / height, 1 - (left + _RIGHT) / _WIDTH, inches[name] / height)
        ax = figure.add_axes(box)
        _panel(ax, some, found[name], clock, length, theme)
        figure.text(LEFT / _WIDTH, (at + inches[name] + 0.09) / height, name, fontweight="bold", fontsize=10)
        at -= _GAP
    ax.set_xlabel(f"{unit} of {one_step(comparison.baseline.workload)}, op after op", fontsize=9)
    head(figure, _title(found), _subtitle(comparison), theme)
    return figure


def _panel(ax: Axes, rows: tuple[Stage, ...], found: Promise, clock: int, length: float, theme: Theme) -> None:
    tick, colours = clock * length, {**theme.colours([s.cause for s in rows if s.cause in theme.causes])}
    for y, stage in enumerate(rows):
        low, high = sorted((float(stage.start) / tick, float(stage.end) / tick))
        colour = theme.text if stage.whole else colours.get(stage.cause, theme.muted)
        ax.barh(y, high - low, left=low, height=0.7, color=colour, linewidth=0)
        if y + 1 < len(rows):
            ax.plot([float(stage.end) / tick] * 2, [y, y + 1], color=theme.muted, linewidth=0.7, zorder=1)
        words = stage_words(stage, found, clock)
        ax.annotate(
            words, (high, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, annotation_clip=False
        )
    bare(ax)
    ax.set_xlim(0, float(found.dense) / tick)
    ax.set_yticks(range(len(rows)), [stage.label for stage in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)


def _title(found: Mapping[str, Promise]) -> str:
    name, best = max(found.items(), key=lambda pair: pair[1].speedup)
    return f"{name} {promise_words(best, most=1)}"


def _subtitle(comparison: Comparison) -> str:
    machines = ", ".join(dict.fromkeys(row.machine for row in comparison.rows))
    work = comparison.baseline.workload
    run = f"{one_step(work)} of {model_name(work)}, batch {work.batch}, on {machines}"
    return f"{run}; a loss is what an item takes beyond its share of the promise"
