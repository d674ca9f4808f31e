"""Accuracy against the time of a step, and against the time to the target: a row of two panels a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..explore.front import pareto
from ..study import Study
from ..study_rows import StudyRow, by_table
from ..theme import Theme, theme_of
from ..words import time_unit
from .drawing import Picture, head, legend
from .labels import place_labels

__all__ = ["study_figure"]

_WIDTH, _PANEL, _GAP, _TOP, _BOTTOM, _MARGIN = 12.4, 4.1, 0.95, 1.2, 0.6, 0.75
"""Inches: figure, height of a panel, space between rows, above and below all rows, left of a panel."""
_COLOURS = ("dram_stall", "compute", "wuve", "sore", "interleave_stall", "fill_drain")
"""Colours of the theme for patterns, in order."""
_LABEL = 7.5
_NAMED = 40
"""Points of a panel that all have names; of more only those that none beats, and dense."""
_FAR_TIME, _FAR_BELOW = 2.0, 0.06
"""Over dense time, below dense accuracy: points beyond are counted, not drawn."""
_CORNERS = ((1, 1), (-1, -1))
Time = Callable[[StudyRow], float | None]


def study_figure(study: Study, theme: str = "light") -> Figure:
    """Mean validation accuracy over the seeds against simulated time; bars are a standard deviation.

    The points that nothing beats are chosen by it, and the target is one of it; the test accuracy is in the tables.
    """
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        return _draw(study, look)


def _draw(study: Study, theme: Theme) -> Figure:
    tables = by_table(study.rows)
    models = list(tables)
    height = _TOP + len(models) * _PANEL + (len(models) - 1) * _GAP + _BOTTOM
    figure = Picture(figsize=(_WIDTH, height))
    colours = _colours(study, theme)
    width = (_WIDTH - 2 * _MARGIN - 0.3) / 2
    for i, model in enumerate(models):
        rows = tables[model]
        bottom = _BOTTOM + (len(models) - 1 - i) * (_PANEL + _GAP)
        for j, (time, spread, what) in enumerate(_PANELS):
            left = _MARGIN + j * (width + _MARGIN)
            box = (left / _WIDTH, bottom / height, width / _WIDTH, _PANEL / height)
            _panel(figure, figure.add_axes(box), rows, (time, spread, f"{model}: {what}"), colours, theme)
    head(figure, _title(study), _subtitle(study), theme)
    _legend(figure, study, colours, theme)
    return figure


_PANELS: tuple[tuple[Time, Time, str], ...] = (
    (lambda row: row.seconds, lambda row: None, "time of a step"),
    (lambda row: row.seconds_to_target, lambda row: row.seconds_to_target_sd, "time to the target"),
)


def _panel(
    figure: Figure,
    ax: Axes,
    rows: Sequence[StudyRow],
    what: tuple[Time, Time, str],
    colours: dict[str | None, str],
    theme: Theme,
) -> None:
    time, deviation, title = what
    shown = [(row, t, row.validation) for row in rows if (t := time(row)) is not None and row.validation is not None]
    ax.set_title(title, loc="left", fontweight="bold")
    missing = [row for row in rows if row.trained and time(row) is None]
    near = _near(shown)
    missed, shown = len(shown) - len(near), near
    ax.set_title(_left_out(missing, missed), loc="right", fontsize=8, color=theme.muted)
    ax.grid(linewidth=0.8)
    ax.tick_params(length=0)
    ax.set_ylabel("validation accuracy, %", fontsize=9)
    if not shown:
        ax.set_xticks([])
        ax.text(0.5, 0.5, "no scheme came here", transform=ax.transAxes, ha="center", color=theme.muted)
        return
    length, unit = time_unit(max(t for _, t, _ in shown))
    points = [(t / length, 100 * accuracy) for _, t, accuracy in shown]
    front = set(pareto(points, ("min", "max"), ties=True).tolist())
    bars = [((deviation(row) or 0.0) / length, 100 * (row.validation_sd or 0.0)) for row, _, _ in shown]
    for i, (row, _, _) in enumerate(shown):
        _point(ax, points[i], bars[i], colours[row.pattern], i in front, theme)
    line = sorted(points[i] for i in front)
    ax.plot([x for x, _ in line], [y for _, y in line], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _limits(ax, points, bars)
    lines = list(pairwise(line))
    dense = {i for i, (row, _, _) in enumerate(shown) if row.reference}
    target = shown[0][0].target
    if target is not None:
        lines.append(((ax.get_xlim()[0], 100 * target), (ax.get_xlim()[1], 100 * target)))
        ax.axhline(100 * target, color=theme.muted, linewidth=0.8, linestyle=":", zorder=1)
    ax.set_xlabel(f"{unit} of simulated time", fontsize=9)
    order = sorted(range(len(points)), key=lambda i: (i not in front and i not in dense, points[i]))
    names = [_named(shown[i][0]) for i in order]
    if len(names) > _NAMED:
        names = names[: len(front | dense)]
    place_labels(
        figure, ax, [points[i] for i in order], [bars[i] for i in order], names, theme, size=_LABEL, lines=lines
    )


def _named(row: StudyRow) -> str:
    """Without the pattern, which is the colour."""
    return f"{row.model} {row.scheme}" if row.table else row.scheme


def _near(shown: list[tuple[StudyRow, float, float]]) -> list[tuple[StudyRow, float, float]]:
    """Without the few that would press all others into a corner: far slower or far worse than dense."""
    dense = next(((t, a) for row, t, a in shown if row.reference), None)
    if dense is None:
        return shown
    return [(row, t, a) for row, t, a in shown if t <= _FAR_TIME * dense[0] and a >= dense[1] - _FAR_BELOW]


def _left_out(missing: Sequence[StudyRow], far: int) -> str:
    """What is not in a panel, and why."""
    unplaced = sum(bool(row.unplaced) for row in missing)
    parts = [(len(missing) - unplaced, "missed it"), (unplaced, "not for this machine"), (far, "far outside")]
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def _point(
    ax: Axes, at: tuple[float, float], bar: tuple[float, float], colour: str, on_front: bool, theme: Theme
) -> None:
    ax.errorbar(
        *at,
        xerr=bar[0] or None,
        yerr=bar[1] or None,
        fmt="o",
        markersize=5.5 if on_front else 4.5,
        color=colour,
        markerfacecolor=colour if on_front else theme.background,
        markeredgewidth=1.2,
        elinewidth=0.7,
        zorder=5 if on_front else 4,
        ecolor=(*mpl.colors.to_rgb(colour), 0.45),
    )


def _limits(ax: Axes, points: Sequence[tuple[float, float]], bars: Sequence[tuple[float, float]]) -> None:
    """Room for the bars, and for names at the right."""
    ends = [(x + sx * dx, y + sy * dy) for (x, y), (dx, dy) in zip(points, bars, strict=True) for sx, sy in _CORNERS]
    (left, low), (right, high) = map(min, zip(*ends, strict=True)), map(max, zip(*ends, strict=True))
    wide, tall = (right - left) or right or 1.0, (high - low) or 1.0
    ax.set_xlim(left - 0.06 * wide, right + 0.16 * wide)
    ax.set_ylim(low - 0.06 * tall, high + 0.06 * tall)


def _colours(study: Study, theme: Theme) -> dict[str | None, str]:
    made: dict[str | None, str] = {None: theme.text}
    for i, pattern in enumerate(study.spec.patterns):
        made[str(pattern)] = theme.causes[_COLOURS[i % len(_COLOURS)]]
    return made


def _legend(figure: Figure, study: Study, colours: dict[str | None, str], theme: Theme) -> None:
    def dot(colour: str, label: str, filled: bool = True) -> Line2D:
        face = colour if filled else theme.background
        return Line2D([], [], marker="o", linestyle="", color=colour, markerfacecolor=face, label=label, markersize=5)

    used = {row.pattern for row in study.rows}
    alone = all(row.reference for row in study.rows if row.pattern is None)
    plain = "dense" if alone else "no pattern"
    handles = [dot(colour, name or plain) for name, colour in colours.items() if name in used]
    handles += [
        dot(theme.muted, "not beaten in both"),
        dot(theme.muted, "beaten", filled=False),
        Line2D([], [], color=theme.muted, linestyle=":", label="target"),
    ]
    legend(figure, handles, below=0.72, handle=1.2)


def _title(study: Study) -> str:
    sparse = [row for row in study.rows if not row.reference and row.trained]
    sooner = [row for row in sparse if row.time_speedup is not None and row.time_speedup > 1.0]
    points = f"{100 * study.spec.below:g} points below dense"
    if not sooner:
        return f"None of {len(sparse)} schemes and patterns comes to {points} sooner than dense training"
    return f"{len(sooner)} of {len(sparse)} schemes and patterns come to {points} sooner than dense training"


def _subtitle(study: Study) -> str:
    spec = study.spec
    seeds = f"mean of {spec.seeds} seeds, bars one standard deviation" if spec.seeds > 1 else "one seed"
    return f"{spec.data}, {seeds}; the trained models themselves, simulated op after op on {spec.machine.name}"
