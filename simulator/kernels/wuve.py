"""WUVE stepped cycle by cycle: each operation runs on the beat that has reached its pipeline stage.

A beat is one parameter in every lane. FP32 throughout, no contraction, in the order written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def run_sgd(
    master: Any, gradient: Any, velocity: Any, constants: Any, ages: Any, depth: int, lanes: int, left: Any
) -> int:
    """SGD with momentum in place; cycles.

    ``master``, ``gradient``, ``velocity`` float32 [n]; ``constants`` float32: inverse scale, weight decay, momentum,
    rate; ``ages`` int64: how many cycles after its entry a beat is unscaled, decayed, given momentum, stepped.
    Written: ``left`` int64 [n], the cycle in which each parameter leaves.
    """
    inverse_scale, decay, momentum, rate = constants
    n = len(master)
    ring = depth + 1
    g = np.empty((ring, lanes), np.float32)
    w = np.empty((ring, lanes), np.float32)
    v = np.empty((ring, lanes), np.float32)
    t, retired = 0, 0
    while retired < n:
        for stage in range(5):
            age = depth if stage == 4 else ages[stage]
            first = (t - age) * lanes
            beat = (t - age) % ring
            if t < age or first >= n:
                continue
            for lane in range(min(lanes, n - first)):
                if stage == 0:
                    w[beat, lane] = master[first + lane]
                    v[beat, lane] = velocity[first + lane]
                    g[beat, lane] = gradient[first + lane] * inverse_scale
                elif stage == 1:
                    g[beat, lane] = g[beat, lane] + decay * w[beat, lane]
                elif stage == 2:
                    v[beat, lane] = momentum * v[beat, lane] + g[beat, lane]
                elif stage == 3:
                    w[beat, lane] = w[beat, lane] - rate * v[beat, lane]
                else:
                    master[first + lane] = w[beat, lane]
                    left[first + lane] = t
                    velocity[first + lane] = v[beat, lane]
            if stage == 4:
                retired = first + lanes
        t += 1
    return t


@njit(cache=True, nogil=True, error_model="numpy")
def run_adam(
    master: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    constants: Any,
    ages: Any,
    depth: int,
    lanes: int,
    left: Any,
) -> int:
    """Adam in place; cycles.

    ``master``, ``gradient``, ``mean``, ``square`` float32 [n]; ``constants`` float32: inverse scale, beta1, 1 - beta1,
    beta2, 1 - beta2, rate_t, epsilon_t; ``ages`` int64: how many cycles after its entry a beat is unscaled, averaged,
    rooted, divided, stepped. Written: ``left`` int64 [n], the cycle in which each parameter leaves.
    """
    inverse_scale, beta1, rest1, beta2, rest2, rate, epsilon = constants
    n = len(master)
    ring = depth + 1
    w = np.empty((ring, lanes), np.float32)
    g = np.empty((ring, lanes), np.float32)
    m = np.empty((ring, lanes), np.float32)
    v = np.empty((ring, lanes), np.float32)
    x = np.empty((ring, lanes), np.float32)
    t, retired = 0, 0
    while retired < n:
        for stage in range(6):
            age = depth if stage == 5 else ages[stage]
            first = (t - age) * lanes
            beat = (t - age) % ring
            if t < age or first >= n:
                continue
            for lane in range(min(lanes, n - first)):
                if stage == 0:
                    w[beat, lane] = master[first + lane]
                    m[beat, lane] = mean[first + lane]
                    v[beat, lane] = square[first + lane]
                    g[beat, lane] = gradient[first + lane] * inverse_scale
                elif stage == 1:
                    m[beat, lane] = beta1 * m[beat, lane] + rest1 * g[beat, lane]
                    v[beat, lane] = beta2 * v[beat, lane] + rest2 * (g[beat, lane] * g[beat, lane])
                elif stage == 2:
                    x[beat, lane] = np.sqrt(v[beat, lane]) + epsilon
                elif stage == 3:
                    x[beat, lane] = rate * m[beat, lane] / x[beat, lane]
                elif stage == 4:
                    w[beat, lane] = w[beat, lane] - x[beat, lane]
                else:
                    master[first + lane] = w[beat, lane]
                    left[first + lane] = t
                    mean[first + lane] = m[beat, lane]
                    square[first + lane] = v[beat, lane]
            if stage == 5:
                retired = first + lanes
        t += 1
    return t
