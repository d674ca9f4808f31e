"""The picture of regrets: readable in both themes, and its words say who misses least."""

from __future__ import annotations

import pandas as pd
import pytest

from weft.analysis.figures import regret_figure
from weft.workloads.errors import InputError

from .test_figures import assert_readable, words


def rows(spaces: list[str], optimisers: list[str]) -> pd.DataFrame:
    made = [
        (space, one, asked, 0.8 * regret, regret, 1.3 * regret)
        for space in spaces
        for i, one in enumerate(optimisers)
        for asked in (16, 128, 512)
        for regret in [4 / asked / (1 + i)]
    ]
    return pd.DataFrame(made, columns=["space", "optimiser", "asked", "low", "median", "high"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("spaces", [["one"], ["front-resnet50", "front-vit"]])
def test_words_stay_apart(theme, spaces):
    assert_readable(regret_figure(rows(spaces, ["random", "nsga2", "tpe"]), theme))


def test_the_title_names_who_misses_least_after_most_points():
    title = words(regret_figure(rows(["one"], ["random", "tpe"])))

    assert any(t.get_text() == "Least missing after 512 points: 0.39 % (tpe, one)" for t in title)


def test_lines_are_the_medians_in_percent():
    given = rows(["one"], ["random", "tpe"])
    (panel,) = regret_figure(given).axes

    for line, one in zip(panel.lines, ("random", "tpe"), strict=True):
        own = given[given["optimiser"] == one]
        assert line.get_xdata().tolist() == own["asked"].tolist()
        assert line.get_ydata().tolist() == pytest.approx((100 * own["median"]).tolist())


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="'median'"):
        regret_figure(rows(["one"], ["tpe"]).drop(columns="median"))
    with pytest.raises(InputError, match="no row"):
        regret_figure(rows([], []))
