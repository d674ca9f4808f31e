"""The figures of a results folder as files for papers."""

from __future__ import annotations

from functools import partial

from ...pictures import LIGHT, PAPER, pictures
from .cuts import Cuts
from .folder import Results

__all__ = ["explored_pictures"]


def explored_pictures(results: Results, cuts: Cuts, stem: str) -> dict[str, bytes]:
    """PNG and PDF by file name, each name beginning with ``stem``: the first objective against every other one, all
    axes, importances; without those that the folder has nothing for."""
    from ...figures.explore import axes_figure, front_figure, importances_figure

    front, summary = results.front, results.summary
    objectives = [one.name for one in cuts.seen.objectives]
    drawn = {
        f"{stem}-front-{objectives[0]}-{other}": partial(front_figure, cuts, front, summary, objectives[0], other)
        for other in objectives[1:]
    }
    if len(cuts.columns) > 1:
        drawn[f"{stem}-axes"] = partial(axes_figure, cuts, front, summary)
    if summary.importances:
        drawn[f"{stem}-importances"] = partial(importances_figure, summary)
    made: dict[str, bytes] = {}
    for name, draw in drawn.items():
        made |= pictures(name, draw, LIGHT, PAPER)
    return made
