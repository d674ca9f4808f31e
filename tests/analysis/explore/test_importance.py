"""Shares of variance against sums over all combinations, known functions, and another implementation."""

from __future__ import annotations

from itertools import combinations, product
from statistics import fmean

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor

from weft.analysis.explore import importance as module
from weft.analysis.explore.importance import forest_anova, grid_anova, importance, is_grid, one_at_a_time
from weft.workloads.errors import InputError

AXES = ("rows", "cols", "scheme")
VALUES = ((8, 16, 32), (4, 8), ("dense", "bdwp", "srste"))


def sweep(values, y, names=AXES):
    """A grid in some order, every point with its objective."""
    frame = pd.DataFrame(list(product(*values)), columns=list(names))
    frame = frame.assign(point=np.arange(len(frame)), status="runs", reason="", seconds=np.asarray(y, float))
    return frame.sample(frac=1, random_state=1, ignore_index=True)


def shares_of(result):
    return {effect.axes: effect.share for effect in result.effects}


def by_definition(table, count):
    """Sobol's shares as Python's sums: of each axis and pair, from a dict of all combinations."""
    mean = fmean(table.values())
    variance = fmean((y - mean) ** 2 for y in table.values())

    def at(axes, point):
        return fmean(y for other, y in table.items() if all(other[i] == point[i] for i in axes)) - mean

    if max(table.values()) == min(table.values()):
        variance = float("inf")
    found = {(i,): fmean(at((i,), p) ** 2 for p in table) / variance for i in range(count)}
    for i, j in combinations(range(count), 2):
        found[i, j] = fmean((at((i, j), p) - at((i,), p) - at((j,), p)) ** 2 for p in table) / variance
    return found


@given(st.lists(st.integers(1, 50), min_size=18, max_size=18), st.booleans(), st.integers(1, 2))
def test_shares_on_a_grid_are_those_of_the_definition(y, log, times):
    frame = pd.concat([sweep(VALUES, y)] * times, ignore_index=True)
    result = grid_anova(frame, AXES, "seconds", log=log)
    table = dict(zip(product(*VALUES), np.log(y) if log else y, strict=True))
    expected = by_definition({point: float(v) for point, v in table.items()}, 3)
    names = list(AXES)

    found = {tuple(sorted(names.index(a) for a in axes)): share for axes, share in shares_of(result).items()}
    assert found == pytest.approx(expected, abs=1e-12)
    assert result.rest == pytest.approx(1 - sum(expected.values()) if len(set(y)) > 1 else 0.0, abs=1e-12)
    assert result.rows == 18 * times
    for effect in result.effects[:3]:
        for value, mean in effect.curve:
            there = [v for point, v in table.items() if point[names.index(effect.axes[0])] == value]
            assert mean == pytest.approx(np.exp(fmean(there)) if log else fmean(there))


def test_what_multiplies_adds_up_in_the_logarithm():
    y = [a * b for a, b, _ in product((1, 2, 4), (1, 3), (1, 1, 1))]
    result = grid_anova(sweep(VALUES, y), AXES, "seconds")

    a, b = np.var(np.log([1, 2, 4])), np.var(np.log([1, 3]))
    assert [(e.axes, e.share) for e in result.effects[:3]] == [
        (("rows",), pytest.approx(a / (a + b))),
        (("cols",), pytest.approx(b / (a + b))),
        (("scheme",), 0.0),
    ]
    assert result.rest == pytest.approx(0, abs=1e-12)
    words = result.words()
    assert words[0] == "functional ANOVA of the complete grid of the logarithm of seconds on 18 rows."
    assert words[2] == f"cols: {100 * b / (a + b):.0f} % of the variance; seconds from 2 at 4 to 6 at 8."
    assert len(words) == 3
    assert result.frame()["axes"].tolist()[:2] == ["rows", "cols"]
    plain = grid_anova(sweep(VALUES, y), AXES, "seconds", log=False)
    assert shares_of(plain)["rows", "cols"] > 0.01


def test_rows_without_the_objective_are_counted_and_end_the_grid():
    frame = sweep(VALUES, np.arange(1, 19))
    frame.loc[3, ["status", "seconds"]] = ["left out", float("nan")]
    frame.loc[4, ["status", "seconds"]] = ["refused", float("nan")]
    frame["bound_cycles"] = np.where(frame["status"] == "refused", 0, 7)

    assert not is_grid(frame, AXES, "seconds")
    with pytest.raises(InputError, match="16 rows with 'seconds' have 16 of the 18 combinations"):
        grid_anova(frame, AXES, "seconds")
    with pytest.raises(InputError, match="over 3 axes takes at least 30 rows with 'seconds', not 16"):
        importance(frame, AXES, "seconds")
    around = one_at_a_time(frame, AXES, "seconds", int(frame.loc[0, "point"]))
    assert around.unused == {"left out": 1, "refused": 1}
    assert "Rows without seconds, of which it says nothing: 1 left out, 1 refused." in around.words()
    # A bound is known of what was left out too.
    assert one_at_a_time(frame, AXES, "bound_cycles", int(frame.loc[0, "point"])).unused == {"refused": 1}
    # Without the value that never runs what is left is a grid.
    frame["status"] = np.where(frame["rows"] == 8, "refused", "runs")
    frame["seconds"] = 1.0 + frame["point"]
    assert importance(frame, AXES, "seconds").rows == 12


def test_what_has_no_importance():
    frame = sweep(VALUES, np.arange(18))
    with pytest.raises(InputError, match="seconds' is 0 somewhere, which has no logarithm: ask with log=False"):
        grid_anova(frame, AXES, "seconds")
    with pytest.raises(InputError, match="did you mean 'cols'"):
        grid_anova(frame, ("col",), "seconds", log=False)
    with pytest.raises(InputError, match="none is named"):
        grid_anova(frame, (), "seconds", log=False)
    with pytest.raises(InputError, match="nothing ran"):
        grid_anova(frame.assign(status="refused"), AXES, "seconds")
    with pytest.raises(InputError, match="no finite number for point"):
        grid_anova(frame.assign(seconds=float("inf")), AXES, "seconds")
    with pytest.raises(InputError, match="point 99 has no 'seconds'"):
        one_at_a_time(frame, AXES, "seconds", 99, log=False)
    with pytest.raises(InputError, match="point 3: it says nothing"):
        one_at_a_time(frame[frame["point"].isin([3, 17])], AXES, "seconds", 3, log=False)
    assert grid_anova(frame.assign(seconds=0.1), AXES, "seconds").words()[-1] == "No axis moves seconds."


@settings(max_examples=4)
@given(st.integers(0, 99), st.lists(st.integers(1, 40), min_size=18, max_size=18))
def test_a_forest_is_taken_apart_exactly(seed, y):
    """Each tree asked for every combination, and shares of that grid by the definition."""
    values = ((0, 1, 2), (0, 1), (0, 1, 2))
    frame = sweep(values, y)
    frame = pd.concat([frame, frame.sample(12, random_state=seed)], ignore_index=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TREES", 24)
        result = forest_anova(frame, AXES, "seconds", log=False, seed=seed)
    x = frame[list(AXES)].to_numpy()
    forest = RandomForestRegressor(24, random_state=seed).fit(x, frame["seconds"])
    grid = np.array(list(product(*values)))
    tables = [dict(zip(map(tuple, grid.tolist()), tree.predict(grid), strict=True)) for tree in forest.estimators_]
    each = [by_definition(table, 3) for table in tables if len(set(table.values())) > 1]
    mean = {tuple(AXES[i] for i in key): fmean(one[key] for one in each) for key in each[0]} if each else {}

    assert shares_of(result) == pytest.approx(mean or dict.fromkeys(shares_of(result), 0.0), abs=1e-9)
    for effect in result.effects[:3]:
        axis = AXES.index(effect.axes[0])
        for value, height in effect.curve:
            assert height == pytest.approx(forest.predict(grid[grid[:, axis] == value]).mean())


SLOW = {"z": 1.0, "y": 1.6, "x": 1.3}


def sample(rows, seed=0):
    """Points at random of a machine with a wall of compute and one of memory, and an axis that does nothing."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "rows": draw.choice([8, 16, 32, 64], rows),
            "dram": draw.choice([1, 2, 4, 8, 16], rows),
            "scheme": draw.choice(["z", "y", "x"], rows),
            "idle": draw.choice([1, 2], rows),
        }
    )
    seconds = frame["scheme"].map(SLOW) * np.maximum(64 / frame["rows"], 8 / frame["dram"])
    return frame.assign(point=np.arange(rows), status="runs", reason="", seconds=seconds)


NAMES = ("rows", "dram", "scheme", "idle")


def test_a_forest_finds_what_the_whole_grid_says():
    whole = sample(4000)
    whole = whole.drop_duplicates(list(NAMES))
    exact = importance(whole, NAMES, "seconds")
    found = importance(sample(90, seed=5), NAMES, "seconds")

    assert exact.method.startswith("functional ANOVA")
    assert exact.rows == 4 * 5 * 3 * 2
    assert found.method.startswith("fANOVA of a random forest")
    assert found.r2 > 0.8
    assert [e.axes for e in found.effects[:4]] == [e.axes for e in exact.effects[:4]]
    assert shares_of(found) == pytest.approx(shares_of(exact), abs=0.12)
    assert found == importance(sample(90, seed=5), NAMES, "seconds")


def test_optuna_finds_nearly_the_same():
    """Main effects alone; its boxes are as wide as ours wherever a tree cuts between neighbours."""
    frame = sample(300, seed=2)
    frame["seconds"] /= frame["scheme"].map(SLOW)
    names = ["rows", "dram", "idle"]
    places = {name: sorted(frame[name].unique()) for name in names}
    study = optuna.create_study()
    space = {name: optuna.distributions.FloatDistribution(-0.5, len(at) - 0.5) for name, at in places.items()}
    for row in frame.to_dict("records"):
        params = {name: float(places[name].index(row[name])) for name in names}
        trial = optuna.trial.create_trial(params=params, distributions=space, value=float(np.log(row["seconds"])))
        study.add_trial(trial)
    theirs = optuna.importance.FanovaImportanceEvaluator(n_trees=64, seed=0).evaluate(study)

    ours = {e.axes[0]: e.share for e in forest_anova(frame, names, "seconds").effects[:3]}

    assert ours == pytest.approx(theirs, abs=1e-9)


def test_noise_makes_a_weak_forest_and_says_so():
    frame = sample(60)
    frame["seconds"] = np.random.default_rng(0).uniform(1, 2, 60)
    result = forest_anova(frame, NAMES, "seconds")

    assert result.r2 < 0.5
    assert any("a weak forest" in words for words in result.words())


def test_of_very_many_rows_a_forest_learns_a_sample(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 200)
    result = forest_anova(sample(500), NAMES, "seconds")

    assert result.rows == 200
    assert "by a sample of 200 of 500 rows" in result.method
    assert result.effects[0].axes in (("rows",), ("dram",))


@given(st.lists(st.integers(1, 50), min_size=18, max_size=18), st.sets(st.integers(0, 17)), st.integers(0, 17))
def test_one_at_a_time_reads_rows_in_line_with_the_point(y, gone, point):
    frame = sweep(VALUES, y)
    frame = frame[~frame["point"].isin(gone - {point})]
    grid = list(product(*VALUES))
    lines = [
        {grid[p][i]: y[p] for p in frame["point"] if all(grid[p][j] == grid[point][j] for j in range(3) if j != i)}
        for i in range(3)
    ]
    if sum(map(len, lines)) == 3:
        with pytest.raises(InputError, match="says nothing one at a time"):
            one_at_a_time(frame, AXES, "seconds", point)
        return

    result = one_at_a_time(frame, AXES, "seconds", point, log=False)

    variances = [np.var(list(line.values())) for line in lines]
    assert result.rows == sum(map(len, lines)) - 2
    for effect in result.effects:
        i = AXES.index(effect.axes[0])
        assert dict(effect.curve) == pytest.approx(lines[i])
        assert effect.share == pytest.approx(variances[i] / sum(variances) if sum(variances) else 0.0)
