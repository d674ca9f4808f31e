"""How much of an exact front optimisers miss, against the points that they ask for: a panel for each space."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...workloads.errors import InputError, shorten
from ..theme import Theme, theme_of
from .drawing import BOTTOM, Picture, head, legend

__all__ = ["regret_figure"]

_WIDTH, _PANEL, _HEAD, _MARGIN, _RIGHT = 9.2, 3.3, 1.35, 0.75, 0.2
"""Inches: the figure, height of a panel, above the panels, left of each, right of the last."""
_COLOURS = ("dram_stall", "compute", "wuve", "interleave_stall", "sore", "fill_drain")
"""Colours of the theme for optimisers, in order."""
_TITLE = 86
"""Characters."""
_COLUMNS = ("space", "optimiser", "asked", "low", "median", "high")


def regret_figure(regrets: pd.DataFrame, theme: str = "light") -> Figure:
    """Median and quartiles over seeds of the share of a front's hypervolume that is missing.

    ``regrets``: a row for each space, optimiser and number of points asked for, by the columns ``space``,
    ``optimiser``, ``asked``, ``low``, ``median``, ``high``.
    """
    missing = [name for name in _COLUMNS if name not in regrets.columns]
    if missing or not len(regrets):
        lacking = f"column {missing[0]!r}" if missing else "row"
        raise InputError(f"regrets need rows with the columns {', '.join(_COLUMNS)}; there is no {lacking}")
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(regrets, look)


def _draw(regrets: pd.DataFrame, theme: Theme) -> Figure:
    spaces, height = list(dict.fromkeys(regrets["space"])), _HEAD + _PANEL + BOTTOM
    figure = Picture(figsize=(_WIDTH, height))
    optimisers = list(dict.fromkeys(regrets["optimiser"]))
    colours = {one: theme.causes[_COLOURS[i % len(_COLOURS)]] for i, one in enumerate(optimisers)}
    wide = (_WIDTH - len(spaces) * _MARGIN - _RIGHT) / len(spaces)
    for i, space in enumerate(spaces):
        left = _MARGIN + i * (wide + _MARGIN)
        ax = figure.add_axes((left / _WIDTH, BOTTOM / height, wide / _WIDTH, _PANEL / height))
        _panel(ax, regrets[regrets["space"] == space], colours, theme)
        ax.set_title(space, loc="left", fontweight="bold")
    last = regrets[regrets["asked"] == regrets["asked"].max()]
    head(
        figure,
        shorten(_title(last), _TITLE),
        "median over seeds and the middle half of them; points asked for one batch at a time",
        theme,
    )
    handles = [Line2D([], [], color=colours[one], linewidth=2, label=one) for one in optimisers]
    legend(figure, handles, handle=1.4)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, colours: dict[str, str], theme: Theme) -> None:
    ax.set_yscale("log")
    ax.grid(linewidth=0.8)
    ax.tick_params(length=0, which="both")
    for one, colour in colours.items():
        own = rows[rows["optimiser"] == one].sort_values("asked")
        asked = own["asked"].to_numpy()
        ax.fill_between(asked, 100 * own["low"], 100 * own["high"], color=colour, alpha=0.22, linewidth=0)
        ax.plot(asked, 100 * own["median"].to_numpy(), color=colour, linewidth=1.8, solid_capstyle="round")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(0, rows["asked"].max())
    ax.set_xlabel("points asked for", fontsize=9)
    ax.set_ylabel("hypervolume missing, %", fontsize=9)


def _title(last: pd.DataFrame) -> str:
    """Who misses least at the end, of each space."""
    best = last.loc[last.groupby("space", sort=False)["median"].idxmin()]
    found = (f"{100 * row.median:.2g} % ({row.optimiser}, {row.space})" for row in best.itertuples(index=False))
    return f"Least missing after {last['asked'].iloc[0]:,} points: {', '.join(found)}"
