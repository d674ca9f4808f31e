"""What all figures share: the head, the legend of causes, the stacked bar."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..level import AnyResult, level_words, seconds_of, step_of
from ..theme import Theme
from ..words import model_name, one_step, percents_of, run_name, seconds

__all__ = [
    "BOTTOM",
    "CHARACTER",
    "LEFT",
    "TOP",
    "Picture",
    "bare",
    "cause_legend",
    "head",
    "legend",
    "stack",
    "subtitle",
]

LEFT, TOP, BOTTOM = 0.25, 1.15, 0.6
"""Margins in inches."""
CHARACTER = 0.074
"""Inches of a character of a tick label."""
_LEGEND_COLUMNS = 5
_NAMED_SHARE = 0.0005


class Picture(Figure):
    """A figure that a notebook shows, whether pyplot has been set up there or not."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def head(figure: Figure, title: str, subtitle: str, theme: Theme) -> None:
    """The finding, and under it what was run, each on a line: smaller where it would pass the right margin."""
    height = figure.get_figheight()
    x = LEFT / figure.get_figwidth()
    lines = {
        12.5: figure.text(x, 1 - 0.22 / height, title, fontweight="bold", va="top", ha="left"),
        9.5: figure.text(x, 1 - 0.5 / height, subtitle, color=theme.muted, va="top", ha="left"),
    }
    room = figure.bbox.width * (1 - 2 * x)
    for size, line in lines.items():
        line.set_fontsize(size)
        # glyphs are as wide as whole dots, so a size that should fit may not
        while (width := line.get_window_extent().width) > room:
            size *= min(0.98, room / width)
            line.set_fontsize(size)


def cause_legend(
    figure: Figure,
    sums: dict[str, float],
    names: dict[str, str],
    theme: Theme,
    *,
    shares: bool,
    extra: tuple[Line2D, ...] = (),
) -> None:
    """Causes that can be seen by their ``names``, with or without their share of the sums."""
    colours = theme.colours(names)
    every, share = sum(sums.values()) or 1, percents_of(sums)
    seen = [c for c in names if sums[c] / every >= _NAMED_SHARE]
    labels = [names[c] + (f" {share[c]} %" if shares else "") for c in seen]
    patches = [Patch(color=colours[c], label=label) for c, label in zip(seen, labels, strict=True)]
    legend(figure, [*patches, *extra], columns=_LEGEND_COLUMNS)


def legend(
    figure: Figure, handles: Sequence[Artist], *, columns: int | None = None, below: float = 0.78, handle: float = 0.9
) -> None:
    """A legend under the title, ``below`` inches from the top, in one row unless ``columns`` are given; ``handle``: the
    length of its marks."""
    figure.legend(
        handles=list(handles),
        ncols=columns or len(handles),
        loc="upper left",
        frameon=False,
        fontsize=9,
        handlelength=handle,
        handletextpad=0.4,
        columnspacing=1.2,
        labelspacing=0.3,
        borderpad=0,
        borderaxespad=0,
        bbox_to_anchor=(LEFT / figure.get_figwidth(), 1 - below / figure.get_figheight()),
    )


def stack(ax: Axes, y: float, causes: dict[str, float], theme: Theme) -> None:
    """One horizontal bar at ``y``, stacked by cause."""
    left, colours = 0.0, theme.colours(causes)
    for cause in causes:
        if causes[cause]:
            ax.barh(y, causes[cause], left=left, height=0.74, color=colours[cause], linewidth=0)
            left += causes[cause]


def bare(ax: Axes) -> None:
    """Only what a bar needs: a faint vertical grid."""
    ax.grid(axis="x", linewidth=0.8)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def subtitle(result: AnyResult) -> str:
    """What was run, and how long a step takes at its level."""
    step = step_of(result)
    work, took = step.workload, f"{seconds(seconds_of(result))} {level_words(result)}"
    return f"{model_name(work)}, batch {work.batch}, {run_name(work)} on {step.spec.name}: {one_step(work)}, {took}"
