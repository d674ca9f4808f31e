"""Figures of explored machines: readable, and their lines go where the points are."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from weft.analysis.explore.page.cuts import Cuts, cut
from weft.analysis.explore.page.points import FramePoints
from weft.analysis.figures.explore import axes_figure, front_figure, importances_figure
from weft.analysis.pictures import PAPER, pictures
from weft.workloads.errors import InputError

from ..explore.explored import large, small, summary_of
from .test_figures import assert_readable

FOUND = {"small": small, "large": lambda: large(5000)}


@pytest.fixture(scope="module", params=list(FOUND))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cuts(name: str) -> Cuts:
    found = FOUND[name]()
    return cut(FramePoints(found[0]), summary_of(found))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_they_are_readable(name: str, cuts: Cuts, theme: str) -> None:
    found = FOUND[name]()
    summary = summary_of(found)

    assert_readable(axes_figure(cuts, found[1], summary, theme))
    assert_readable(importances_figure(summary, theme))
    for up in ("pes", "samples_per_second"):
        assert_readable(front_figure(cuts, found[1], summary, "cycles", up, theme))


def steps(figure: Figure) -> np.ndarray:
    (line,) = figure.axes[0].lines
    return np.asarray(line.get_xydata())


def test_the_line_of_a_front_passes_below_no_machine_and_through_the_best(name: str, cuts: Cuts) -> None:
    found = FOUND[name]()
    ran = found[0][found[0]["status"] == "runs"]
    line = steps(front_figure(cuts, found[1], summary_of(found), "pes", "cycles"))
    corners = line[1::2]

    assert {tuple(c) for c in corners} <= set(zip(ran["pes"], ran["cycles"], strict=True))
    for pes, group in ran.groupby("pes"):
        reached = corners[corners[:, 0] <= pes][:, 1]
        assert len(reached) and reached.min() <= group["cycles"].min()
    # Less is better in one, more in the other: the line runs to the other side.
    rising = steps(front_figure(cuts, found[1], summary_of(found), "pes", "samples_per_second"))[1::2]
    assert (np.diff(rising, axis=0) > 0).all() and rising[-1, 1] == ran["samples_per_second"].max()


def test_papers_get_the_same_bytes_twice_and_text_in_a_pdf() -> None:
    summary = summary_of(small())
    once, again = (pictures("i", lambda theme: importances_figure(summary, theme), ("light",), PAPER) for _ in "ab")

    assert once == again and set(once) == {"i.png", "i.pdf"}
    assert b"/Type3" not in once["i.pdf"] and b"/FontFile2" in once["i.pdf"]


def test_what_cannot_be_drawn_is_refused(cuts: Cuts, name: str) -> None:
    summary = summary_of(FOUND[name]())
    with pytest.raises(InputError, match="did you mean 'cycles'"):
        front_figure(cuts, None, summary, "cylces", "pes")
    with pytest.raises(InputError, match="two objectives"):
        front_figure(cuts, None, summary, "pes", "pes")
    with pytest.raises(InputError, match="no importances"):
        importances_figure(summary_of((small()[0], None, {})))
    with pytest.raises(InputError, match="unknown"):
        axes_figure(cuts, None, summary, "drak")
