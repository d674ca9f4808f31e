"""The environment: a design an episode, what it has is what the point has."""

from __future__ import annotations

import math

import numpy as np
import pytest

from weft.analysis.explore.environment import Environment
from weft.analysis.explore.plan import plan_of
from weft.analysis.explore.saved import read_explored
from weft.analysis.explore.sweep import sweep
from weft.workloads.errors import InputError

from .spaces import space


def test_a_design_has_what_its_point_has(tmp_path):
    given = space(tmp_path, objectives=["cycles", "samples_per_second"])
    sweep(given, tmp_path / "out")
    frame, environment = read_explored(tmp_path / "out").frame(), Environment(plan_of(given))
    assert np.isnan(environment.reset(seed=1)[0]).all()
    assert int(np.prod(environment.choices)) == len(frame)

    for point in (0, 57, 143):
        action = np.unravel_index(point, environment.choices)
        seen, reward, ended, cut, info = environment.step(action)

        row = frame.iloc[point]
        if row["status"] == "runs":
            assert seen.tolist() == [row["cycles"], row["samples_per_second"]]
            assert reward == -row["cycles"]
        else:
            assert reward == -math.inf
        assert (ended, cut) == (True, False)
        assert info["status"] == row["status"]
        assert all(info[axis] == row[axis] for axis in environment.axes)


def test_what_is_refused(tmp_path):
    environment = Environment(plan_of(space(tmp_path)))

    with pytest.raises(InputError, match="an action has 7 choices, one an axis, not 1"):
        environment.step([0])
    with pytest.raises(InputError, match=r"choice of .* must be an integer from 0 to"):
        environment.step([9] * 7)
