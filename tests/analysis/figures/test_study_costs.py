"""The picture of accuracy against costs: a mark where the row says, the same for a scheme in all panels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes

from weft.analysis.figures import cost_figure
from weft.analysis.study import Study
from weft.analysis.study_rows import StudyRow

from ..test_study import spec
from .test_figures import assert_readable, words

BASE = StudyRow(
    model="mlp", scheme="dense", pattern=None, seeds=2, trained=2, failed={}, accuracy=0.98, accuracy_sd=0.004
)


def study(count: int) -> Study:
    """Dense and others; one does not reach the target, LUTs of one are not known."""
    rows = [
        replace(
            BASE,
            scheme="dense" if not i else f"scheme-{i}",
            accuracy=0.98 - 0.01 * i,
            cycles=4e5 - 2e4 * i,
            joules=1e-4 + 1e-6 * i,
            luts=None if i == 1 else 20_000 + 3_000 * i,
            seconds_to_target=None if i == 2 else 1.5 + 0.1 * i,
            seconds_to_target_sd=0.05,
        )
        for i in range(count)
    ]
    beside = replace(rows[0], model="snn", scheme="spike", table="mlp", accuracy=0.9)
    other = [replace(row, model="resnet9") for row in rows]
    failed = replace(BASE, scheme="failed", accuracy=None, accuracy_sd=None)
    return Study(spec=spec(models=("mlp", "resnet9")), rows=(*rows, beside, failed, *other), trainings=(), steps={})


def marks(ax: Axes) -> list[tuple[float, float]]:
    return sorted((round(float(line.get_xdata()[0]), 6), round(float(line.get_ydata()[0]), 6)) for line in points(ax))


def points(ax: Axes) -> list:
    return [c.lines[0] for c in ax.containers]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("count", [3, 30])
def test_it_is_readable(count, theme):
    assert_readable(cost_figure(study(count), theme))


def test_marks_stand_where_the_rows_say():
    asked = study(3)
    figure = cost_figure(asked)
    rows = [row for row in asked.rows if row.accuracy is not None and (row.table or row.model) == "mlp"]

    assert len(figure.axes) == 8
    for ax, (name, scale) in zip(
        figure.axes, (("cycles", 1e-3), ("joules", 1e6), ("luts", 1e-3), ("seconds_to_target", 1.0)), strict=False
    ):
        found = [(scale * getattr(row, name), 100 * row.accuracy) for row in rows if getattr(row, name) is not None]
        assert marks(ax) == sorted((round(x, 6), round(y, 6)) for x, y in found)
    assert [ax.get_title(loc="right") for ax in figure.axes[:4]] == ["", "", "1 without", "1 without"]


def test_a_scheme_has_one_mark_and_no_other_has_it():
    figure = cost_figure(study(30))
    (legend,) = figure.legends
    styles = [(line.get_marker(), line.get_color()) for line in legend.legend_handles]

    assert len(set(styles)) == len(styles) == 31
    assert "snn spike" in [t.get_text() for t in words(figure)]
