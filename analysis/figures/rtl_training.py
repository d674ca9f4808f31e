"""A training on the RTL beside the model's: both losses, one line, and cycles a step predicted and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..theme import Theme, theme_of
from .drawing import Picture, head, legend

if TYPE_CHECKING:
    from ..verify.rtl_train import RtlStep

__all__ = ["rtl_training_figure"]

_BELOW: dict[str, Any] = {"linewidth": 5.0, "alpha": 0.45}
_ABOVE: dict[str, Any] = {"linewidth": 1.2}
"""How the two lines of a panel are drawn: what lies on the other still shows what lies below."""


def rtl_training_figure(steps: Sequence[RtlStep], title: str, subtitle: str, theme: str = "light") -> Figure:
    """Loss and cycles of ``steps``, one or more, each as the RTL has it over what the model says."""
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        figure = Picture(figsize=(8.6, 5.6))
        loss = figure.add_axes((0.105, 0.4, 0.865, 0.4))
        cycles = figure.add_axes((0.105, 0.1, 0.865, 0.22), sharex=loss)
        colours = look.causes["interleave_stall"], look.causes["compute"]
        _lines(loss, [step.model_loss for step in steps], [step.loss for step in steps], colours, look)
        _lines(cycles, [step.predicted for step in steps], [step.cycles for step in steps], colours, look)
        loss.set_ylabel("loss")
        loss.tick_params(labelbottom=False)
        cycles.set_ylabel("cycles a step")
        cycles.set_ylim(0, 1.25 * max(max(step.cycles, step.predicted) for step in steps))
        cycles.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        cycles.yaxis.set_major_locator(MaxNLocator(3))
        cycles.xaxis.set_major_locator(MaxNLocator(integer=True))
        cycles.set_xlabel("step")
        handles = [
            Line2D([], [], color=colours[0], label="model: loss, predicted cycles", **_BELOW),
            Line2D([], [], color=colours[1], label="RTL: loss, counted cycles", **_ABOVE),
        ]
        legend(figure, handles, handle=2.0)
        head(figure, title, subtitle, look)
        return figure


def _lines(ax: Axes, model: Sequence[float], rtl: Sequence[float], colours: tuple[str, str], theme: Theme) -> None:
    """The RTL's line on the model's; a single step is a mark."""
    mark = "o" if len(rtl) == 1 else None
    at = range(1, len(rtl) + 1)
    ax.plot(at, model, color=colours[0], marker=mark, markersize=10, solid_capstyle="round", **_BELOW)
    ax.plot(at, rtl, color=colours[1], marker=mark, markersize=4, **_ABOVE)
    ax.grid(axis="y", linewidth=0.8)
    ax.tick_params(length=0)
    ax.set_xlim(0.5, len(rtl) + 0.5)
    ax.spines["left"].set_visible(False)
    ax.yaxis.label.set_color(theme.muted)
