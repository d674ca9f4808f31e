"""Cycles by layer, pass and cause."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...dataflow.account import items
from ...simulator.result import SimResult
from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ..compare import losses
from ..declared import cycles_kind, figure_words
from ..layer_groups import bar_labels, ops_of_bars
from ..level import AnyResult, level_of, step_of
from ..records import layer_of
from ..theme import Theme, theme_of
from ..words import count, percents, percents_of
from .drawing import BOTTOM, CHARACTER, LEFT, TOP, Picture, bare, cause_legend, head, stack, subtitle

__all__ = ["layers_figure"]

_WIDTH, _RIGHT, _ROW, _TITLES, _GAP = 10.5, 0.75, 0.27, 0.42, 0.12
"""Inches: the figure, its right margin, a row, the titles of the panels, the gap between panels."""
_TICK = 0.62
"""Inches between ticks at least, so that their labels stay apart."""
_PANELS = {
    Pass.FF: ("FF", "forward", 0.7),
    Pass.BP: ("BP", "input gradient", 1.1),
    Pass.WU: ("WU", "weight gradient", 1.15),
    Pass.OPT: ("OPT", "update", 0.7),
}
"""Title, subtitle, and the inches that they need."""


@dataclass(slots=True)
class _Bar:
    """One row: cycles by pass and cause of the layers behind it."""

    layers: set[str]
    cycles: dict[Pass, dict[str, float]]

    def of(self, p: Pass) -> float:
        return sum(self.cycles[p].values())

    @property
    def total(self) -> float:
        return sum(self.of(p) for p in Pass)


def layers_figure(result: AnyResult, theme: str = "light") -> Figure:
    """Cycles by layer, pass and cause; small layers are 'other', repeated blocks are folded."""
    look = theme_of(theme)
    step = step_of(result)
    if not step.cycles.total:
        raise InputError(f"workload {step.workload.model!r} has no work to draw")
    with mpl.rc_context(look.rc):
        return _draw(result, _bars(step), look)


def _bars(result: SimResult) -> dict[str, _Bar]:
    """Rows in the order of the layers, 'other' last."""
    bars: dict[str, _Bar] = {}
    causes = figure_words(cycles_kind(result.ops))
    for name, ops in ops_of_bars(result).items():
        bar = bars[name] = _Bar(set(), {p: dict.fromkeys(causes, 0.0) for p in Pass})
        for r in ops:
            bar.layers.add(layer_of(r))
            for cause, n in items(r.cycles).items():
                bar.cycles[Pass(r.op.pass_)][cause] += n
    return bars


def _draw(result: AnyResult, bars: dict[str, _Bar], theme: Theme) -> Figure:
    labels = bar_labels({name: len(bar.layers) for name, bar in bars.items()})
    height = TOP + _TITLES + _ROW * len(bars) + BOTTOM
    figure = Picture(figsize=(_WIDTH, height))
    left = LEFT + CHARACTER * max(map(len, labels)) + 0.1
    axes = _panels(figure, bars, left, theme)
    axes[0].set_yticks(range(len(bars)), labels)
    _shares(axes[-1], bars, theme)
    figure.text(
        left / _WIDTH,
        0.16 / height,
        "clock cycles of each op by itself, one scale in all panels",
        fontsize=9,
        color=theme.muted,
    )
    names = figure_words(cycles_kind(step_of(result).ops))
    sums = {c: sum(bar.cycles[p][c] for bar in bars.values() for p in Pass) for c in names}
    cause_legend(figure, sums, names, theme, shares=True)
    head(figure, _title(sums, level_of(result), step_of(result)), subtitle(result), theme)
    return figure


def _panels(figure: Figure, bars: dict[str, _Bar], left: float, theme: Theme) -> list[Axes]:
    """One panel a pass, all on one scale, as wide as its longest bar or its title."""
    widest = {p: max(bar.of(p) for bar in bars.values()) for p in Pass}
    passes = [p for p in Pass if widest[p]]
    inches = _WIDTH - left - _RIGHT - _GAP * (len(passes) - 1)
    scale = _cycles_per_inch([(1.04 * widest[p], _PANELS[p][2]) for p in passes], inches)
    height = figure.get_figheight()
    axes: list[Axes] = []
    for p in passes:
        width = max(1.04 * widest[p] / scale, _PANELS[p][2])
        box = (left / _WIDTH, BOTTOM / height, width / _WIDTH, _ROW * len(bars) / height)
        ax = figure.add_axes(box, sharey=axes[0] if axes else None)
        _panel(ax, p, bars, width * scale, scale * _TICK, theme)
        ax.tick_params(labelleft=not axes)
        axes.append(ax)
        left += width + _GAP
    axes[0].set_ylim(len(bars) - 0.4, -0.6)
    return axes


def _cycles_per_inch(panels: list[tuple[float, float]], inches: float) -> float:
    """Scale at which panels of (cycles, least inches) fill ``inches`` together."""
    fixed: set[int] = set()
    while True:
        room = inches - sum(least for i, (_, least) in enumerate(panels) if i in fixed)
        scale = sum(cycles for i, (cycles, _) in enumerate(panels) if i not in fixed) / room
        narrow = {i for i, (cycles, least) in enumerate(panels) if i not in fixed and cycles / scale < least}
        if not narrow:
            return scale
        fixed |= narrow


def _panel(ax: Axes, p: Pass, bars: dict[str, _Bar], right: float, least_step: float, theme: Theme) -> None:
    for y, bar in enumerate(bars.values()):
        stack(ax, y, bar.cycles[p], theme)
    bare(ax)
    ax.set_xlim(0, right)
    step = _round_up(least_step)
    ticks = [i * step for i in range(int(right / step) + 1) if i == 0 or i * step <= right - least_step / 3]
    ax.set_xticks(ticks, [count(tick) for tick in ticks])
    title, words, _ = _PANELS[p]
    ax.set_title(f"{title}\n{words}", loc="left", fontsize=9.5, pad=6)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ..."""
    power: float = 10.0 ** floor(log10(value))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= value)


def _shares(ax: Axes, bars: dict[str, _Bar], theme: Theme) -> None:
    """Share of the step behind every row."""
    shares = percents(bar.total for bar in bars.values())
    words = [(-1.0, "share")] + [(float(y), f"{share} %") for y, share in enumerate(shares)]
    for y, text in words:
        ax.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=theme.muted,
            annotation_clip=False,
        )


def _title(causes: dict[str, float], level: str, step: SimResult) -> str:
    """Colours show where the simulator books a wait; the title says what would end the largest."""
    shares, every = percents_of(causes), count(sum(causes.values()))
    lost = losses(step)
    worst = max(lost, key=lambda item: lost[item])
    computes = {
        "step": f"The array computes in {shares['compute']} % of {every} cycles",
        "system": f"Each op alone: {shares['compute']} % of {every} cycles compute",
    }
    return f"{computes[level]}; the largest loss is {worst}, {100 * lost[worst] / step.cycles.total:.1f} %"
