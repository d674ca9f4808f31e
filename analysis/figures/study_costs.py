"""Test accuracy against what a scheme costs: cycles and joules of a step, LUTs, time to the target. A row a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..study import Study
from ..study_rows import StudyRow, by_table, row_name
from ..theme import Theme, theme_of
from .drawing import LEFT, Picture, head, legend

__all__ = ["cost_figure"]

_WIDTH, _PANEL, _GAP, _BOTTOM, _MARGIN, _BETWEEN = 12.4, 2.7, 0.85, 0.6, 0.65, 0.48
"""Inches: figure, height of a panel, space between rows, below all rows, left of the first panel, between panels."""
_HEAD, _LEGEND_LINE, _UNDER_LEGEND = 0.74, 0.22, 0.42
_COLUMNS = 7
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
_COLOURS = ("compute", "dram_stall", "wuve", "sore", "interleave_stall", "fill_drain", "vector", "port_stall")
_ROOM = 0.08
Cost = Callable[[StudyRow], float | None]
_COUNTS = ((1e6, "million "), (1e3, "thousand "), (1.0, ""))
_AMOUNTS = ((1.0, ""), (1e-3, "m"), (1e-6, "u"))
_Units = tuple[tuple[float, str], ...]
_PANELS: tuple[tuple[str, Cost, Cost, _Units], ...] = (
    ("cycles a step", lambda row: row.cycles, lambda row: None, _COUNTS),
    ("J a step", lambda row: row.joules, lambda row: None, _AMOUNTS),
    ("LUT sites in use", lambda row: row.luts, lambda row: None, _COUNTS),
    ("s to the target", lambda row: row.seconds_to_target, lambda row: row.seconds_to_target_sd, _AMOUNTS),
)


def cost_figure(study: Study, theme: str = "light") -> Figure:
    """Means over the seeds, bars of a standard deviation; a mark a scheme, the same in all panels.

    A row that has no such cost, for whatever reason, is counted above the panel.
    """
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(study, look)


def _draw(study: Study, theme: Theme) -> Figure:
    tables = by_table([row for row in study.rows if row.accuracy is not None])
    names = list(dict.fromkeys(row_name(row) for rows in tables.values() for row in rows))
    styles = {name: (_MARKS[i % len(_MARKS)], _colour(i, theme)) for i, name in enumerate(names)}
    top = _HEAD + _LEGEND_LINE * -(-len(names) // _COLUMNS) + _UNDER_LEGEND
    height = top + len(tables) * (_PANEL + _GAP) - _GAP + _BOTTOM
    figure = Picture(figsize=(_WIDTH, height))
    width = (_WIDTH - _MARGIN - LEFT - (len(_PANELS) - 1) * _BETWEEN) / len(_PANELS)
    for i, (model, rows) in enumerate(tables.items()):
        bottom = height - top - _PANEL - i * (_PANEL + _GAP)
        for j, panel in enumerate(_PANELS):
            left = _MARGIN + j * (width + _BETWEEN)
            ax = figure.add_axes((left / _WIDTH, bottom / height, width / _WIDTH, _PANEL / height))
            _panel(ax, rows, panel, styles, theme)
            if not j:
                ax.set_title(model, loc="left", fontweight="bold")
                ax.set_ylabel("test accuracy, %", fontsize=9)
    head(figure, "Accuracy against what a scheme costs", _subtitle(study), theme)
    _legend(figure, styles)
    return figure


def _panel(
    ax: Axes,
    rows: Sequence[StudyRow],
    panel: tuple[str, Cost, Cost, _Units],
    styles: dict[str, tuple[str, str]],
    theme: Theme,
) -> None:
    what, cost, deviation, units = panel
    unit, prefix = _unit([value for row in rows if (value := cost(row)) is not None], units)
    ax.grid(linewidth=0.8)
    ax.tick_params(length=0)
    ax.set_xlabel(prefix + what, fontsize=9)
    missing = sum(cost(row) is None for row in rows)
    if missing:
        ax.set_title(f"{missing} without", loc="right", fontsize=8, color=theme.muted)
    ax.set_ylim(*_limits(rows))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    for row in rows:
        value = cost(row)
        if value is not None:
            mark, colour = styles[row_name(row)]
            ax.errorbar(
                value / unit,
                100 * (row.accuracy or 0.0),
                xerr=(deviation(row) or 0.0) / unit or None,
                yerr=100 * (row.accuracy_sd or 0.0) or None,
                fmt=mark,
                markersize=6.5,
                color=colour,
                markeredgecolor=theme.background,
                markeredgewidth=0.6,
                elinewidth=0.7,
                ecolor=(*mpl.colors.to_rgb(colour), 0.5),
                zorder=4,
            )
    if missing == len(rows):
        ax.set_xticks([])
        ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", color=theme.muted)
        return
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))


def _unit(values: Sequence[float], units: _Units) -> tuple[float, str]:
    """The largest of ``units`` in which the largest value is one at least."""
    most = max(values, default=0.0)
    return next((one for one in units if most >= one[0]), units[-1])


def _limits(rows: Sequence[StudyRow]) -> tuple[float, float]:
    """Of the accuracy, the same in all panels of a model."""
    ends = [100 * ((row.accuracy or 0.0) + sign * (row.accuracy_sd or 0.0)) for row in rows for sign in (-1, 1)]
    room = _ROOM * (max(ends) - min(ends) or 1.0)
    return min(ends) - room, max(ends) + room


def _colour(index: int, theme: Theme) -> str:
    """Another for each mark of a round, and another order in each round."""
    return theme.text if not index else theme.causes[_COLOURS[(index - 1 + index // len(_MARKS)) % len(_COLOURS)]]


def _legend(figure: Figure, styles: dict[str, tuple[str, str]]) -> None:
    handles = [
        Line2D([], [], marker=mark, linestyle="", color=colour, label=name, markersize=6)
        for name, (mark, colour) in styles.items()
    ]
    legend(figure, handles, columns=_COLUMNS, below=_HEAD, handle=1.2)


def _subtitle(study: Study) -> str:
    spec = study.spec
    seeds = f"mean of {spec.seeds} seeds, bars one standard deviation" if spec.seeds > 1 else "one seed"
    return f"{spec.data}, {seeds}; the trained models themselves, simulated op after op on {spec.machine.name}"
