"""Schemes side by side: time by cause, speed-up, promise."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..compare import Comparison, ComparisonRow, run_labels
from ..declared import cycles_kind, figure_words
from ..theme import Theme, theme_of
from ..words import model_name, one_step, run_name, seconds, time_unit
from .drawing import BOTTOM, CHARACTER, LEFT, TOP, Picture, bare, cause_legend, head, stack

__all__ = ["comparison_figure"]

_WIDTH, _RIGHT, _BAR = 9.2, 0.3, 0.5
"""Inches: the figure, its right margin, a row."""


def comparison_figure(comparison: Comparison, theme: str = "light") -> Figure:
    """Time of every scheme by cause, its speed-up, and the time it would take if it kept its promise."""
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(comparison, look)


def _draw(comparison: Comparison, theme: Theme) -> Figure:
    labels = run_labels(comparison)
    height = TOP + 0.1 + _BAR * len(labels) + BOTTOM
    figure = Picture(figsize=(_WIDTH, height))
    left = LEFT + CHARACTER * max(map(len, labels)) + 0.1
    box = (left / _WIDTH, BOTTOM / height, 1 - (left + _RIGHT) / _WIDTH, _BAR * len(labels) / height)
    ax = figure.add_axes(box)
    length, unit = time_unit(max(row.seconds for row in comparison.rows))
    names = figure_words(cycles_kind(r for result in comparison.results for r in result.ops))
    sums = _bars(ax, comparison, list(names), length, theme)
    bare(ax)
    ax.set_xlim(0, 1.25 * max(row.seconds for row in comparison.rows) / length)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel(f"{unit} of {one_step(comparison.baseline.workload)}", fontsize=9)
    line = Line2D([], [], color=theme.text, linewidth=1.8, label="if every layer kept the scheme's promise")
    promised = any(row.ideal_speedup > 1 for row in comparison.rows)
    cause_legend(figure, sums, names, theme, shares=False, extra=(line,) if promised else ())
    head(figure, _title(comparison), _subtitle(comparison), theme)
    return figure


def _bars(ax: Axes, comparison: Comparison, names: list[str], length: float, theme: Theme) -> dict[str, float]:
    """Draw the rows in units of ``length`` seconds; the sums of all rows by cause."""
    base = comparison.baseline.cycles.total / comparison.baseline.spec.clock_hz
    sums = dict.fromkeys(names, 0.0)
    for y, (row, result) in enumerate(zip(comparison.rows, comparison.results, strict=True)):
        cycles = result.cycles
        causes = {c: getattr(cycles, c, 0) / result.spec.clock_hz / length for c in names}
        stack(ax, y, causes, theme)
        sums = {c: sums[c] + causes[c] for c in names}
        ax.annotate(
            f"{row.speedup:.2f}×   {seconds(row.seconds)}",
            (row.seconds / length, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )
        if row.ideal_speedup > 1:
            x = base / row.ideal_speedup / length
            ax.plot([x, x], [y - 0.46, y + 0.46], color=theme.text, linewidth=1.8, solid_capstyle="butt", zorder=4)
    return sums


def _title(comparison: Comparison) -> str:
    best = max(range(len(comparison.rows)), key=lambda i: comparison.rows[i].speedup)
    row: ComparisonRow = comparison.rows[best]
    work, base = comparison.results[best].workload, comparison.baseline.workload
    if row.speedup <= 1:
        return f"Nothing here trains {base.model} faster than {run_name(base)}"
    promise = f"; it promises {row.ideal_speedup:.2f}×" if row.ideal_speedup > 1 else ""
    return f"{run_name(work)} trains {base.model} {row.speedup:.2f}× as fast as {run_name(base)}{promise}"


def _subtitle(comparison: Comparison) -> str:
    machines = ", ".join(dict.fromkeys(row.machine for row in comparison.rows))
    work = comparison.baseline.workload
    return f"{one_step(work)} of {model_name(work)}, batch {work.batch}, on {machines}, op after op"
