"""A space as an environment of reinforcement learning, by the interface of Gymnasium (and so of ArchGym), without it.

An episode is one design: `reset`, then `step` with a choice of every axis ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.errors import InputError, require_int
from .chunk import evaluate_points
from .levels import RUNS
from .measures import sign
from .plan import Plan

__all__ = ["Environment"]


class Environment:
    """``choices``: int64 [axes], how many values each axis has, as Gymnasium's ``MultiDiscrete`` takes them.

    An observation is the objectives of the last design, float64 [objectives], NaN before the first and where a design
    does not run; the reward is the first objective, its sign turned where less is better, minus infinity where it does
    not run. What else there is of the design is in ``info``.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.axes = tuple(axis.name for axis in plan.axes.axes)
        self.choices = np.array([len(axis.values) for axis in plan.axes.axes], np.int64)
        self._last = np.full(len(plan.objectives), np.nan)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Begin a design; nothing here is random, so ``seed`` changes nothing."""
        return self._last.copy(), {}

    def step(self, action: Sequence[int]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Evaluate the design that has value number ``action[a]`` of axis a."""
        if len(action) != len(self.choices):
            raise InputError(f"an action has {len(self.choices)} choices, one an axis, not {len(action)}")
        for name, place, size in zip(self.axes, action, self.choices.tolist(), strict=True):
            require_int(f"choice of {name}", int(place), 0, size - 1)
        values = self._plan.axes.at([np.array([int(place)], np.int64) for place in action])
        row = {name: column[0] for name, column in evaluate_points(self._plan, values).items()}
        runs = row["status"] == RUNS
        found = [float(row[m.name]) if runs else np.nan for m in self._plan.objectives]
        self._last = np.array(found)
        reward = -sign(self._plan.objectives[0]) * found[0] if runs else -np.inf
        return self._last.copy(), reward, True, False, {**{k: v[0] for k, v in values.items()}, **row}
